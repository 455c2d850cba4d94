"""Bars of speed, memory and dollars by precision, device and machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap

from harness.analysis.estimate import bound
from harness.analysis.summary import CellKey
from harness.pricing.cost import Priced
from harness.report.charts.axes import set_memory_ticks
from harness.report.charts.base import SERIES, Chart, chart_lines, chart_text, text_labels
from harness.report.charts.horizontal_bars import MAX_TICKS, Bar, BarSeries, bar_figure, stack_blocks
from harness.report.charts.metrics import PEAK_MEMORY, ChartMetric, cell_metrics, metric_text, outcome_text
from harness.report.formatting import MoneyFormat, plural
from harness.report.labels import axis_word, common_values, config_fields, machine_labels
from harness.schema.cells import FineTuneConfig

_MAX_GROUPS = len(SERIES)
_ROW_HEIGHT = 20  # pixels
_GAP = 0.9  # empty rows between two places; a place is a precision, device and machine
_LEGEND_WIDTH = 40  # characters


@dataclass(frozen=True)
class BarGroup:
    """Cells that differ only in precision, device and machine.

    Attributes:
        parts: The settings that the cells share, as text.
        cells: The cells by place: precision, device and machine as text.
    """

    parts: tuple[str, ...]
    cells: dict[str, Priced]


def bars(cells: Sequence[Priced], money: MoneyFormat) -> tuple[list[Chart], int]:
    """Draw a chart for each metric; also return the number of groups that only the table shows.

    Groups of one cell have nothing to compare and are left out.
    """
    groups = sorted((group for group in _groups(cells) if len(group.cells) > 1), key=lambda group: -len(group.cells))
    shown = groups[:_MAX_GROUPS]
    members = [cell for group in shown for cell in group.cells.values()]
    indices = {cell.key: index for index, cell in enumerate(cells)}
    charts = [
        _chart(shown, metric, indices)
        for metric in cell_metrics(money)
        if any(metric.read(cell) is not None for cell in members)
    ]
    return charts, len(groups) - len(shown)


def _groups(cells: Sequence[Priced]) -> list[BarGroup]:
    machines = machine_labels(cells)
    varied = [key for key in common_values(cells) if key not in ("precision", "device")]
    groups: dict[tuple[str, ...], BarGroup] = {}
    for cell in cells:
        config = cell.summary.config
        if isinstance(config, FineTuneConfig):
            fields = config_fields(cell)
            parts = tuple(axis_word(key, fields[key]) for key in varied if fields[key] is not None)
            place = f"{config.precision}, {config.device}"
            if len(machines) > 1:
                place += f", {machines[cell.summary.machine_id]}"
            group = groups.setdefault(parts, BarGroup(parts, {}))
            if place not in group.cells or cell.summary.num_ok:
                group.cells[place] = cell
    return list(groups.values())


def _chart(groups: Sequence[BarGroup], metric: ChartMetric[Priced], indices: Mapping[CellKey, int]) -> Chart:
    cells = [cell for group in groups for cell in group.cells.values()]
    places = list(dict.fromkeys(place for group in groups for place in group.cells))
    members = {place: [index for index, group in enumerate(groups) if place in group.cells] for place in places}
    # If no cell of a place (a precision, device and machine) has a value, the chart gives the place a single row,
    # with the outcome of its first cell.
    missing = [
        place for place in places if all(metric.read(groups[index].cells[place]) is None for index in members[place])
    ]
    blocks = stack_blocks([members[place][:1] if place in missing else members[place] for place in places], _GAP)
    rows = dict(zip(places, blocks.rows, strict=True))
    labels = _labels(groups)
    series = [
        BarSeries(
            _legend_name(label),
            SERIES[index],
            tuple(
                Bar(
                    rows[place][index],
                    metric.drawn(cell),
                    metric_text(cell, metric),
                    chart_lines(label, place),
                    indices[cell.key],
                )
                for place, cell in group.cells.items()
                if place not in missing
            ),
        )
        for index, (group, label) in enumerate(zip(groups, labels, strict=True))
    ]
    legend_lines = sum(each.name.count("<br>") + 1 for each in series) if len(groups) > 1 else 0
    ticks = [_tick(place) for place in places]
    figure = bar_figure(metric, series, cells, blocks, ticks, row_height=_ROW_HEIGHT, legend_lines=legend_lines)
    middles = dict(zip(places, blocks.middles, strict=True))
    words = [f" {outcome_text(groups[members[place][0]].cells[place])}" for place in missing]
    figure.add_trace(text_labels([0] * len(missing), [middles[place] for place in missing], words))
    if metric is PEAK_MEMORY:
        highest = max(bound(e, "high") for cell in cells if (e := metric.drawn(cell)) is not None)
        set_memory_ticks(figure, highest, max_ticks=MAX_TICKS)
    title = metric.heading(cells)
    label = f"Bar chart: {title} for {plural(len(places), 'combination')} of precision and device."
    return Chart(f"chart-bars-{metric.key}", title, label, figure)


def _labels(groups: Sequence[BarGroup]) -> list[str]:
    """Name each group by its settings, without those that all groups share."""
    shared = set.intersection(*(set(group.parts) for group in groups))
    return [", ".join(part for part in group.parts if part not in shared) or "all" for group in groups]


def _legend_name(label: str) -> str:
    """Wrap a label to at most two lines of the legend; the tooltip shows the full label."""
    return chart_lines(*wrap(label, _LEGEND_WIDTH, max_lines=2, placeholder=" …"))


def _tick(place: str) -> str:
    precision, device, *machine = chart_text(place).split(", ", 2)
    return "<br>".join([f"{precision}, {device}", *machine])
