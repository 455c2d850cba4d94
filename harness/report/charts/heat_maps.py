"""The report's heat maps of speed, memory and dollars."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from harness.analysis.estimate import Estimate
from harness.analysis.summary import CellKey
from harness.pricing.cost import Priced
from harness.report.charts.base import INK, Chart, chart_text, colour, layout, mark_money_axis, recompute_meta
from harness.report.charts.cost_accuracy import basis_words
from harness.report.formatting import MoneyFormat, clean, memory, number, plural
from harness.report.labels import common_values, config_fields, group_word, machine_labels
from harness.schema.cells import FineTuneConfig

_ROW_HEIGHT = 44


_PLACE = ("batch_size", "seq_len")


_FRAME_HEIGHT = 110


PER_SAMPLE = "usd_per_1000_samples"  # the figure of money that is drawn by configuration


_FAILURES = {"oom": "out of memory", "timeout": "out of time"}


@dataclass(frozen=True)
class HeatMapFigure:
    """One figure that is drawn for a cell: how to read it, and how to show it; `{money}` is the currency."""

    key: str
    title: str
    read: Callable[[Priced], Estimate | None]
    show: Callable[[float], str] = number
    dollars: bool = False
    scale: tuple[str, str] = ("#edf4fa", "#6fb1de")

    def head(self, money: MoneyFormat) -> str:
        """Return the title in the report's currency."""
        return self.title.format(money=money.code)

    def drawn(self, value: float, money: MoneyFormat) -> float:
        """Return a value as the chart draws it."""
        return money.convert(value) if self.dollars else value

    def text(self, value: float, money: MoneyFormat) -> str:
        """Format a value as the reader sees it."""
        return money.amount(value) if self.dollars else self.show(value)


def _memory(cell: Priced) -> Estimate | None:
    value = cell.summary.peak_memory_bytes
    return None if value is None else Estimate(float(value), None, None, "largest of the runs")


FIGURES = (
    HeatMapFigure("speed", "Training speed, samples/s", lambda c: c.summary.samples_per_s, number),
    HeatMapFigure("memory", "Peak memory", _memory, memory, scale=("#f8f2e4", "#dfae54")),
    HeatMapFigure(
        "usd",
        "{money} per 1,000 samples",
        lambda c: c.usd_per_1000_samples,
        dollars=True,
        scale=("#fcefe8", "#e8946a"),
    ),
)


def heat_maps(cells: Sequence[Priced], money: MoneyFormat) -> list[Chart]:
    """Speed, memory and dollars over batch size and sequence length, a group for each combination of the rest.

    A combination with a single cell has no map. Failed cells keep their place and say how they ended.
    """
    charts: list[Chart] = []
    places = {cell.key: index for index, cell in enumerate(cells)}
    machines = machine_labels(cells)
    usual = common_values(cells)
    varied = [key for key in usual if key not in _PLACE]
    groups: dict[tuple[object, ...], list[Priced]] = {}
    for cell in cells:
        if cell.summary.kind == "fine_tune":
            fields = config_fields(cell)
            key = (cell.summary.machine_id, *(str(fields[name]) for name in varied))
            groups.setdefault(key, []).append(cell)
    grids = [members for members in groups.values() if _spans(members)]
    for index, members in enumerate(grids):
        group = _group_name(members[0], usual, machines if len(machines) > 1 else {})
        for figure in FIGURES:
            if any(figure.read(cell) is not None for cell in members):
                charts.append(_heat_map(f"chart-heat-{index}-{figure.key}", group, members, figure, places, money))
    return charts


def _spans(members: Sequence[Priced]) -> bool:
    places = {_place(cell) for cell in members}
    return len(places) > 1


def _place(cell: Priced) -> tuple[int, int]:
    config = cell.summary.config
    return (config.seq_len, config.named_batch_size) if isinstance(config, FineTuneConfig) else (0, 0)


def _group_name(cell: Priced, usual: Mapping[str, str], machines: dict[str, str]) -> str:
    fields = config_fields(cell)
    odd = [key for key in usual if key not in _PLACE and str(fields[key]) != usual[key]]
    keys = dict.fromkeys(["precision", "device", "padding", "trainable", *odd])
    parts = [group_word(key, fields[key]) for key in keys if fields[key] is not None]
    return ", ".join([*parts, *([machines[cell.summary.machine_id]] if machines else [])])


def _heat_map(
    key: str,
    group: str,
    members: Sequence[Priced],
    figure: HeatMapFigure,
    places: Mapping[CellKey, int],
    money: MoneyFormat,
) -> Chart:
    columns = sorted({_place(cell)[0] for cell in members})
    rows = sorted({_place(cell)[1] for cell in members})
    by_place: dict[tuple[int, int], Priced] = {}
    for cell in members:  # of several studies' cells at one place, the measured one is shown
        if _place(cell) not in by_place or figure.read(cell) is not None:
            by_place[_place(cell)] = cell
    grid = [[by_place.get((column, row)) for column in columns] for row in rows]
    values = [[_value(cell, figure, money) for cell in line] for line in grid]
    words = [[_square(cell, figure, money) for cell in line] for line in grid]
    basis = f", {basis_words(members)}" if figure.dollars else ""
    x, y = [f"{column}" for column in columns], [f"{row}" for row in rows]
    meta = recompute_meta("z", PER_SAMPLE, [[None if c is None else places[c.key] for c in line] for line in grid])
    drawn = go.Figure(
        go.Heatmap(
            x=x,
            y=y,
            z=values,
            zmin=0,  # figures that are nearly equal look so
            zmax=max(value for line in values for value in line if value is not None),
            text=[
                [word if value is not None else "" for word, value in zip(*both, strict=True)]
                for both in zip(words, values, strict=True)
            ],
            texttemplate="%{text}",
            textfont={"size": 13, "color": "#10161d"},  # on every shade of the scales
            colorscale=list(figure.scale),
            showscale=False,
            xgap=3,
            ygap=3,
            hoverinfo="text",
            hovertext=[[_heat_hover(cell, figure, basis, money) for cell in line] for line in grid],
            meta=meta if figure.dollars else None,
        )
    )
    # A square without a value draws no text of its own.
    lost = [(i, j) for i, line in enumerate(grid) for j, cell in enumerate(line) if cell and values[i][j] is None]
    drawn.add_trace(
        go.Scatter(
            x=[x[j] for _, j in lost],
            y=[y[i] for i, _ in lost],
            mode="text",
            text=[words[i][j].replace("out of ", "out of<br>") for i, j in lost],
            textfont={"size": 12},
            meta=colour(INK),
            showlegend=False,
            hoverinfo="text",
            hovertext=[_heat_hover(grid[i][j], figure, "", money) for i, j in lost],
        )
    )
    layout(
        drawn,
        x="tokens (sequence length)",
        y="batch size",
        height=_FRAME_HEIGHT + _ROW_HEIGHT * max(2, len(rows)),
    )
    drawn.update_xaxes(type="category", categoryorder="array", categoryarray=x, showgrid=False)
    drawn.update_yaxes(type="category", categoryorder="array", categoryarray=y, showgrid=False)
    if figure.dollars:
        mark_money_axis(drawn, basis_words(members))
    title = figure.head(money) + basis
    return Chart(
        key,
        title,
        f"Heat map for {group}: {title} over {plural(len(rows), 'batch size')} and {plural(len(columns), 'length')}.",
        drawn,
        group,
    )


def _value(cell: Priced | None, figure: HeatMapFigure, money: MoneyFormat) -> float | None:
    found = None if cell is None else figure.read(cell)
    return None if found is None else figure.drawn(found.value, money)


def _square(cell: Priced | None, figure: HeatMapFigure, money: MoneyFormat) -> str:
    if cell is None:
        return ""
    found = figure.read(cell)
    return ended(cell) if found is None else chart_text(figure.text(found.value, money))


def ended(cell: Priced) -> str:
    """How a cell without a figure ended, in a word or three."""
    outcome = cell.summary.outcome
    return "no figure" if outcome == "ok" else _FAILURES.get(outcome, outcome)


def _heat_hover(cell: Priced | None, figure: HeatMapFigure, basis: str, money: MoneyFormat) -> str:
    if cell is None:
        return "not in the study"
    seq_len, batch_size = _place(cell)
    found = figure.read(cell)
    shown = (
        figure.text(found.value, money) + basis
        if found
        else f"{ended(cell)}: {cell.summary.reason or 'no reason recorded'}"
    )
    return f"batch {batch_size}, {seq_len} tokens<br>{chart_text(clean(shown, 160))}"
