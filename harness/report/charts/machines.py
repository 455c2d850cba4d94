"""Bars of the same cells on several machines: speed, and dollars per 1,000 samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.analysis.summary import CellKey
from harness.decision.side_by_side import ComparedCell, SideBySide
from harness.pricing.cost import Priced
from harness.report.charts.base import MACHINES, Chart
from harness.report.charts.findings import best_title, mark_best
from harness.report.charts.horizontal_bars import Bar, bar_figure
from harness.report.charts.metrics import SPEED, ChartMetric, metric_text, usd_per_1000
from harness.report.charts.money import basis_text
from harness.report.formatting import MoneyFormat, plural

MAX_LINES = 8


def machine_charts(
    compared: SideBySide, names: Sequence[str], labels: Sequence[str], cells: Sequence[Priced], money: MoneyFormat
) -> tuple[list[Chart], int]:
    """Draw a chart for each metric that any shared cell has; also return the number of cells that only the table shows.

    Args:
        compared: The machines and the cells they share.
        names: Names of `compared.types`.
        labels: Labels of `compared.shared`.
        cells: Every cell of the report.
        money: Format of amounts.
    """
    shown = list(zip(compared.shared, labels, strict=True))[:MAX_LINES]
    members = [cell for line, _ in shown for cell in line.measured]
    indices = {cell.key: index for index, cell in enumerate(cells)}
    # Each machine needs its own colour; machines beyond the last colour appear only in the table.
    charts = [
        _chart(shown, names[: len(MACHINES)], metric, indices)
        for metric in (SPEED, usd_per_1000(money))
        if any(metric.read(cell) is not None for cell in members)
    ]
    return charts, max(0, len(compared.shared) - MAX_LINES)


def _chart(
    shown: Sequence[tuple[ComparedCell, str]],
    names: Sequence[str],
    metric: ChartMetric[Priced],
    indices: Mapping[CellKey, int],
) -> Chart:
    placed = [
        (f"{label}, {name}", cell, MACHINES[index])
        for line, label in shown
        for index, name in enumerate(names)
        if (cell := line.squares[index]) is not None
    ]
    bars = [Bar(name, metric.drawn(cell), _text(cell, metric), role, indices[cell.key]) for name, cell, role in placed]
    named = [(name, cell) for name, cell, _ in placed]
    cells = [cell for _, cell in named]
    figure = bar_figure(bars, money=metric.money, basis=basis_text(cells))
    if metric.money:
        mark_best(figure, {indices[cell.key]: name for name, cell in named})
    label = f"Bar chart: {metric.heading(cells)} of {plural(len(shown), 'cell')} on {plural(len(names), 'machine')}."
    return Chart(f"chart-machines-{metric.key}", best_title(metric, named), label, figure)


def _text(cell: Priced, metric: ChartMetric[Priced]) -> str:
    return metric_text(cell, metric) if metric.read(cell) is not None or cell.summary.num_ok == 0 else "no figure"
