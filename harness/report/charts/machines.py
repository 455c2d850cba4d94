"""Bars of the same cells on several machines: speed, and dollars per 1,000 samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.analysis.summary import CellKey
from harness.decision.side_by_side import ComparedCell, SideBySide
from harness.pricing.cost import Priced
from harness.report.charts.base import SERIES, Chart, chart_lines, chart_text
from harness.report.charts.horizontal_bars import Bar, BarSeries, bar_figure, stack_blocks
from harness.report.charts.metrics import SPEED, ChartMetric, metric_text, usd_per_1000
from harness.report.formatting import MoneyFormat, plural

MAX_LINES = 8
_ROW_HEIGHT = 22  # pixels
_GAP = 0.7  # empty rows between two cells


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
        _chart(shown, names[: len(SERIES)], metric, indices)
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
    by_type = [[(label, line.squares[index]) for line, label in shown] for index in range(len(names))]
    blocks = stack_blocks(
        [[index for index in range(len(names)) if line.squares[index] is not None] for line, _ in shown], _GAP
    )
    series = [
        BarSeries(
            chart_text(name),
            SERIES[index],
            tuple(
                Bar(rows[index], metric.drawn(cell), _text(cell, metric), chart_lines(name, label), indices[cell.key])
                for (label, cell), rows in zip(by_type[index], blocks.rows, strict=True)
                if cell is not None
            ),
        )
        for index, name in enumerate(names)
    ]
    cells = [cell for line, _ in shown for cell in line.measured]
    ticks = [chart_text(label).replace(" ", "<br>", 1) for _, label in shown]
    figure = bar_figure(metric, series, cells, blocks, ticks, row_height=_ROW_HEIGHT, legend_lines=len(names))
    title = metric.heading(cells)
    label = f"Bar chart: {title} of {plural(len(shown), 'cell')} on {plural(len(names), 'machine')}, side by side."
    return Chart(f"chart-machines-{metric.key}", title, label, figure)


def _text(cell: Priced, metric: ChartMetric[Priced]) -> str:
    return metric_text(cell, metric) if metric.read(cell) is not None or cell.summary.num_ok == 0 else "no figure"
