"""Selections of priced cells that several sections show (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.analysis.estimate import value_of
from harness.pricing import durations
from harness.pricing.cost import Priced


def run_seconds(cell: Priced) -> float | None:
    """Return the seconds of a whole run with set-up and evaluation; None without training."""
    return value_of(durations.run_seconds(cell.summary))


def has_example_price(cell: Priced) -> bool:
    """Return whether a stand-in prices the cell's machine: it prices that machine's cells, and ranks no machines."""
    return cell.price is not None and cell.price.stands_in


def comparable_in_dollars(cells: Iterable[Priced]) -> bool:
    """Return whether costs of the cells may be ranked: on one machine always, on several if no price is an example."""
    cells = list(cells)
    return len({cell.summary.machine_id for cell in cells}) < 2 or not any(map(has_example_price, cells))  # noqa: PLR2004


def measured(cells: Iterable[Priced]) -> list[Priced]:
    """Return the fine-tuning cells with at least one successful run."""
    return [cell for cell in cells if cell.summary.kind == "fine_tune" and cell.summary.num_ok > 0]


def failed(cells: Sequence[Priced]) -> list[Priced]:
    """Return the cells with at least one failed run, baselines included."""
    return [cell for cell in cells if cell.summary.outcome != "ok"]


def fastest(cells: Sequence[Priced]) -> Priced | None:
    """Return the cell with the highest throughput."""
    rated = [cell for cell in measured(cells) if cell.summary.samples_per_s is not None]
    return max(rated, key=lambda cell: value_of(cell.summary.samples_per_s) or 0.0, default=None)


def cheapest_per_sample(cells: Sequence[Priced]) -> Priced | None:
    """Return the cell with the lowest cost per sample."""
    rated = [cell for cell in measured(cells) if cell.usd_per_1000_samples is not None]
    return min(rated, key=lambda cell: value_of(cell.usd_per_1000_samples) or 0.0, default=None)
