"""Heat maps of speed, memory and dollars over batch size and sequence length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from harness.analysis.summary import CellKey
from harness.pricing.cost import Priced
from harness.report.charts.base import INK, Chart, chart_text, colour, layout
from harness.report.charts.findings import best_title, mark_best
from harness.report.charts.metrics import ChartMetric, cell_metrics, metric_text, outcome_text
from harness.report.charts.money import (
    PER_SAMPLE,
    TooltipRow,
    amount_tooltips,
    basis_text,
    mark_money,
    recompute_meta,
    text_tooltips,
    tooltip_row,
)
from harness.report.formatting import MoneyFormat, clean, plural
from harness.report.labels import common_values, config_fields, group_word, machine_labels
from harness.schema.cells import FineTuneConfig

_AXES = ("batch_size", "seq_len")
_ROW_HEIGHT = 44  # pixels
_FRAME_HEIGHT = 110  # pixels
_MAX_TOOLTIP = 160  # characters
_COLOUR_SCALE = ["#eef1f5", "#9db4c9"]  # grey-blue: its shades stand for figures, not for things
_DARK_INK = "#10161d"  # legible on every shade of the scales

Grid = list[list[Priced | None]]


def heat_maps(cells: Sequence[Priced], money: MoneyFormat) -> list[Chart]:
    """Draw a group of maps for each combination of the settings other than batch size and sequence length.

    A combination with a single cell has no map. A failed cell keeps its square, which says how the cell ended.
    """
    indices = {cell.key: index for index, cell in enumerate(cells)}
    machines = machine_labels(cells)
    common = common_values(cells)
    varied = [key for key in common if key not in _AXES]
    groups: dict[tuple[object, ...], list[Priced]] = {}
    for cell in cells:
        if cell.summary.kind == "fine_tune":
            fields = config_fields(cell)
            key = (cell.summary.machine_id, *(str(fields[name]) for name in varied))
            groups.setdefault(key, []).append(cell)
    maps = [members for members in groups.values() if len({_position(cell) for cell in members}) > 1]
    return [
        _heat_map(f"chart-heat-{index}-{metric.key}", group, members, metric, indices)
        for index, members in enumerate(maps)
        for group in [_group_name(members[0], common, machines if len(machines) > 1 else {})]
        for metric in cell_metrics(money)
        if any(metric.read(cell) is not None for cell in members)
    ]


def _position(cell: Priced) -> tuple[int, int]:
    """Return a cell's column (tokens) and row (batch size)."""
    config = cell.summary.config
    return (config.seq_len, config.named_batch_size) if isinstance(config, FineTuneConfig) else (0, 0)


def _group_name(cell: Priced, common: Mapping[str, str], machines: Mapping[str, str]) -> str:
    fields = config_fields(cell)
    unusual = [key for key in common if key not in _AXES and str(fields[key]) != common[key]]
    keys = dict.fromkeys(["precision", "device", "padding", "trainable", *unusual])
    parts = [group_word(key, fields[key]) for key in keys if fields[key] is not None]
    return ", ".join([*parts, *([machines[cell.summary.machine_id]] if machines else [])])


def _heat_map(
    key: str, group: str, members: Sequence[Priced], metric: ChartMetric[Priced], indices: Mapping[CellKey, int]
) -> Chart:
    columns = sorted({_position(cell)[0] for cell in members})
    rows = sorted({_position(cell)[1] for cell in members})
    by_position: dict[tuple[int, int], Priced] = {}
    for cell in members:  # cells of several studies can share a square, which then shows a measured cell
        if _position(cell) not in by_position or metric.read(cell) is not None:
            by_position[_position(cell)] = cell
    grid: Grid = [[by_position.get((column, row)) for column in columns] for row in rows]
    x, y = [f"{column}" for column in columns], [f"{row}" for row in rows]
    figure = go.Figure(_squares(x, y, grid, metric, indices, basis_text(members)))
    figure.add_trace(_missing_squares(x, y, grid, metric))
    height = _FRAME_HEIGHT + _ROW_HEIGHT * max(2, len(rows))
    layout(figure, x="tokens (sequence length)", y="batch size", height=height)
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=x, showgrid=False)
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=y, showgrid=False)
    if metric.money:
        mark_money(figure, basis_text(members))
    size = f"{plural(len(rows), 'batch size')} and {plural(len(columns), 'length')}"
    named = [(f"Batch {_position(cell)[1]}, {_position(cell)[0]} tokens", cell) for cell in by_position.values()]
    if metric.money:
        mark_best(figure, {indices[cell.key]: name for name, cell in named})
    label = f"Heat map for {group}: {metric.heading(members)} over {size}."
    return Chart(key, best_title(metric, named), label, figure, group)


def _squares(
    x: Sequence[str],
    y: Sequence[str],
    grid: Grid,
    metric: ChartMetric[Priced],
    indices: Mapping[CellKey, int],
    basis: str,
) -> go.Heatmap:
    drawn = [[None if cell is None else metric.drawn(cell) for cell in line] for line in grid]
    values = [[None if estimate is None else estimate.value for estimate in line] for line in drawn]
    tooltips = [[_tooltip(cell, metric, basis) for cell in line] for line in grid]
    places = [[None if cell is None else indices[cell.key] for cell in line] for line in grid]
    return go.Heatmap(
        x=x,
        y=y,
        z=values,
        zmin=0,  # so that nearly equal values have nearly equal colours
        zmax=max(value for line in values for value in line if value is not None),
        text=[
            ["" if cell is None or metric.read(cell) is None else metric_text(cell, metric) for cell in line]
            for line in grid
        ],
        texttemplate="%{text}",
        textfont={"size": 13, "color": _DARK_INK},
        colorscale=_COLOUR_SCALE,
        showscale=False,
        xgap=3,
        ygap=3,
        meta=recompute_meta("z", PER_SAMPLE, places, style="with_basis") if metric.money else None,
        **(
            amount_tooltips(tooltips)
            if metric.money
            else text_tooltips([[_joined(row) for row in line] for line in tooltips])
        ),
    )


def _missing_squares(x: Sequence[str], y: Sequence[str], grid: Grid, metric: ChartMetric[Priced]) -> go.Scatter:
    """Write how cells without a figure ended, in a separate trace: a heat map shows no text where it has no value."""
    missing = [
        (column, row, cell)
        for row, line in zip(y, grid, strict=True)
        for column, cell in zip(x, line, strict=True)
        if cell is not None and metric.read(cell) is None
    ]
    return go.Scatter(
        x=[column for column, _, _ in missing],
        y=[row for _, row, _ in missing],
        mode="text",
        text=[outcome_text(cell).replace("out of ", "out of<br>") for _, _, cell in missing],
        textfont={"size": 12},
        meta=colour(INK),
        showlegend=False,
        **text_tooltips([_joined(_tooltip(cell, metric, "")) for _, _, cell in missing]),
    )


def _tooltip(cell: Priced | None, metric: ChartMetric[Priced], basis: str) -> TooltipRow:
    if cell is None:
        return tooltip_row("not in the study")
    seq_len, batch_size = _position(cell)
    estimate = metric.read(cell)
    if estimate is None:
        text = f"{outcome_text(cell)}: {cell.summary.reason or 'no reason recorded'}"
    else:
        text = metric.show(estimate.value) + (f", {basis}" if metric.money else "")
    return tooltip_row(chart_text(clean(text, _MAX_TOOLTIP)), before=f"batch {batch_size}, {seq_len} tokens<br>")


def _joined(row: TooltipRow) -> str:
    amount, before, after = row
    return before + amount + after
