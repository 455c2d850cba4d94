"""The figures that charts draw of each cell, and the word for a cell that has none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from harness.analysis.estimate import Estimate, map_increasing
from harness.pricing.cost import Priced
from harness.report.charts.base import chart_text
from harness.report.charts.money import basis_text
from harness.report.formatting import MoneyFormat, interval, memory, number

Item = TypeVar("Item")

_FAILURES = {"oom": "out of memory", "timeout": "out of time"}


@dataclass(frozen=True)
class ChartMetric(Generic[Item]):
    """A figure that a chart draws of each item.

    Attributes:
        read: Returns an item's figure; amounts of money are in USD.
        show: Formats a value for people.
        unit: Format of intervals; ignored for amounts of money.
        money: Format of an amount of money; None for other figures.
    """

    key: str
    title: str
    read: Callable[[Item], Estimate | None]
    show: Callable[[float], str]
    unit: Literal["number", "percent"] = "number"
    money: MoneyFormat | None = None

    def heading(self, cells: Sequence[Priced]) -> str:
        """Return the chart's title; a chart of money also names the basis of its prices, such as `assumed price`."""
        return self.title + (f", {basis_text(cells)}" if self.money else "")

    def drawn(self, item: Item) -> Estimate | None:
        """Return an item's figure as the chart draws it: amounts are in the report's currency."""
        estimate = self.read(item)
        return map_increasing(estimate, self.money.convert) if estimate is not None and self.money else estimate

    def interval(self, estimate: Estimate) -> str:
        """Format an interval without its value; empty if there is none."""
        return self.money.interval(estimate) if self.money else interval(estimate, self.unit)


def _peak_memory(cell: Priced) -> Estimate | None:
    value = cell.summary.peak_memory_bytes
    return None if value is None else Estimate(float(value), None, None, "largest of the runs")


SPEED: ChartMetric[Priced] = ChartMetric(
    "speed", "Training speed, samples/s", lambda cell: cell.summary.samples_per_s, number
)
PEAK_MEMORY: ChartMetric[Priced] = ChartMetric("memory", "Peak memory", _peak_memory, memory)


def usd_per_1000(money: MoneyFormat) -> ChartMetric[Priced]:
    """Return the metric of the cost per 1,000 samples."""
    title = f"{money.code} per 1,000 samples"
    return ChartMetric("usd", title, lambda cell: cell.usd_per_1000_samples, money.amount, money=money)


def cell_metrics(money: MoneyFormat) -> tuple[ChartMetric[Priced], ...]:
    """Return the metrics that are drawn of each cell."""
    return SPEED, PEAK_MEMORY, usd_per_1000(money)


def metric_text(cell: Priced, metric: ChartMetric[Priced]) -> str:
    """Return a cell's figure as escaped text, or how the cell ended if it has none."""
    estimate = metric.read(cell)
    return outcome_text(cell) if estimate is None else chart_text(metric.show(estimate.value))


def outcome_text(cell: Priced) -> str:
    """Return how a cell without a figure ended, in a few words."""
    outcome = cell.summary.outcome
    return "no figure" if outcome == "ok" else _FAILURES.get(outcome, outcome)
