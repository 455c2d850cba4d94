"""Bars of speed, memory and dollars by precision, device and machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from harness.analysis.estimate import bound
from harness.pricing.cost import Priced
from harness.report.charts.axes import set_memory_ticks
from harness.report.charts.base import MEASURE, PICK, Chart
from harness.report.charts.findings import best_title, mark_best
from harness.report.charts.horizontal_bars import MAX_TICKS, Bar, bar_figure
from harness.report.charts.metrics import PEAK_MEMORY, ChartMetric, cell_metrics, metric_text
from harness.report.charts.money import basis_text
from harness.report.formatting import MoneyFormat, plural
from harness.report.labels import axis_word, cell_indices, common_values, config_fields, machine_labels
from harness.schema.cells import FineTuneConfig

_MAX_BARS = 16


@dataclass(frozen=True)
class BarGroup:
    """Cells that differ only in precision, device and machine.

    Attributes:
        parts: The settings that the cells share, as text.
        cells: The cells by place: precision, device and machine as text.
    """

    parts: tuple[str, ...]
    cells: dict[str, Priced]


def bars(cells: Sequence[Priced], money: MoneyFormat, pick: Priced | None = None) -> tuple[list[Chart], int]:
    """Draw a chart for each metric; also return the number of groups that only the table shows.

    Groups of one cell have nothing to compare and are left out.
    """
    groups = sorted((group for group in _groups(cells) if len(group.cells) > 1), key=lambda group: -len(group.cells))
    totals = list(accumulate(len(group.cells) for group in groups))
    shown = groups[: max(1, sum(total <= _MAX_BARS for total in totals))]
    named = _named(shown)
    charts = [
        _chart(named, metric, cells, pick)
        for metric in cell_metrics(money)
        if any(metric.read(cell) is not None for _, cell in named)
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


def _named(groups: Sequence[BarGroup]) -> list[tuple[str, Priced]]:
    """Name each cell by its place, and by the settings that not all groups share."""
    shared = set.intersection(*(set(group.parts) for group in groups)) if groups else set()
    return [
        (", ".join([*(part for part in group.parts if part not in shared), place]), cell)
        for group in groups
        for place, cell in group.cells.items()
    ]


def _chart(
    named: Sequence[tuple[str, Priced]], metric: ChartMetric[Priced], cells: Sequence[Priced], pick: Priced | None
) -> Chart:
    indices, drawn = cell_indices(cells), [cell for _, cell in named]
    rows = [
        Bar(
            name,
            metric.drawn(cell),
            metric_text(cell, metric),
            PICK if cell is pick else MEASURE,
            indices[cell.key],
        )
        for name, cell in named
    ]
    figure = bar_figure(rows, money=metric.money, basis=basis_text(drawn))
    if metric.money:
        mark_best(figure, {indices[cell.key]: name for name, cell in named})
    if metric is PEAK_MEMORY:
        highest = max(bound(estimate, "high") for cell in drawn if (estimate := metric.drawn(cell)) is not None)
        set_memory_ticks(figure, highest, max_ticks=MAX_TICKS)
    label = f"Bar chart: {metric.heading(drawn)} of {plural(len(named), 'cell')}."
    return Chart(f"chart-bars-{metric.key}", best_title(metric, named), label, figure)
