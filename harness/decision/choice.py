"""The choice of a configuration, and the configurations that do not differ significantly from it (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.estimate import Estimate, value_of
from harness.analysis.summary import most_common_test_set
from harness.pricing import durations
from harness.pricing.cost import Priced


@dataclass(frozen=True)
class Choice:
    """The chosen cell, its competitors and the baselines.

    Attributes:
        pick: The cheapest cell whose accuracy interval overlaps that of `best`; the cheapest per sample if there are
            no accuracies; None if nothing was measured.
        best: The cell with the highest accuracy; None if no accuracy was measured.
        level: The cells of `rivals`, except `pick`, whose cost interval overlaps that of `pick`.
        rivals: All cells whose accuracy interval overlaps that of `best`, `pick` and `best` included.
        compared: The successful fine-tuning cells on the most common test set.
        num_elsewhere: Number of cells skipped because they were evaluated on a different test set.
        majority: Accuracy of the majority class on the test set.
        tfidf: The TF-IDF baseline on the test set; the one with the most training rows if there are several.
        baselines: All baselines on the test set.
    """

    pick: Priced | None
    best: Priced | None
    level: tuple[Priced, ...]
    rivals: tuple[Priced, ...]
    compared: tuple[Priced, ...]
    num_elsewhere: int
    majority: float | None
    tfidf: Priced | None
    baselines: tuple[Priced, ...] = ()


def overlap(first: Estimate | None, second: Estimate | None) -> bool:
    """Return True if both estimates' intervals share a point; a value without an interval counts as a point."""
    if first is None or second is None:
        return False
    low = max(bound(first, "low"), bound(second, "low"))
    return low <= min(bound(first, "high"), bound(second, "high"))


def bound(estimate: Estimate, side: str) -> float:
    """Return the `low` or `high` end of an estimate's interval; the value if there is no interval."""
    end: float | None = getattr(estimate, side)
    return estimate.value if end is None else end


def run_seconds(cell: Priced) -> float | None:
    """Return the seconds of a whole run with set-up and evaluation; None without training."""
    return value_of(durations.run_seconds(cell.summary))


def measured(cells: Sequence[Priced]) -> list[Priced]:
    """Return the fine-tuning cells with at least one successful run."""
    return [cell for cell in cells if cell.summary.kind == "fine_tune" and cell.summary.num_ok > 0]


def failed(cells: Sequence[Priced]) -> list[Priced]:
    """Return the cells with at least one failed run, baselines included."""
    return [cell for cell in cells if cell.summary.outcome != "ok"]


def choose(cells: Sequence[Priced]) -> Choice:
    """Find the most accurate cell, the cheapest cell of similar accuracy, and the baselines to compare with."""
    candidates = measured(cells)
    test_set = most_common_test_set(cell.summary for cell in candidates)
    compared = [cell for cell in candidates if cell.summary.test_sha256 == test_set]
    judged = [cell for cell in compared if cell.summary.accuracy is not None]
    best = max(judged, key=_accuracy, default=None)
    if best is None:
        rivals = [cell for cell in compared if _rank(cell) is not None]
    else:
        rivals = [cell for cell in judged if overlap(cell.summary.accuracy, best.summary.accuracy)]
    # Dollars can't be compared with seconds: if any cell has a price, cells without one are not candidates.
    ranked = [cell for cell in rivals if _dollars(cell) is not None] or rivals
    pick = min((cell for cell in ranked if _rank(cell) is not None), key=lambda c: _rank(c) or 0.0, default=best)
    level = [cell for cell in rivals if pick is not None and cell is not pick and _same_cost(cell, pick)]
    baselines = [cell for cell in cells if cell.summary.kind == "baseline" and cell.summary.test_sha256 == test_set]
    return Choice(
        pick=pick,
        best=best,
        level=tuple(level),
        rivals=tuple(rivals),
        compared=tuple(compared),
        num_elsewhere=len(candidates) - len(compared),
        majority=next((c.summary.majority_accuracy for c in compared if c.summary.majority_accuracy is not None), None),
        # Take the baseline with the most training rows, since one with fewer would flatter the models.
        tfidf=max(
            (cell for cell in baselines if _is_tfidf(cell) and cell.summary.accuracy is not None),
            key=lambda cell: durations.num_train(cell.summary) or 0,
            default=None,
        ),
        baselines=tuple(baselines),
    )


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the Pareto-optimal (cost, accuracy) points, sorted by cost."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def fastest(cells: Sequence[Priced]) -> Priced | None:
    """Return the cell with the highest throughput."""
    rated = [cell for cell in measured(cells) if cell.summary.samples_per_s is not None]
    return max(
        rated,
        key=lambda cell: cell.summary.samples_per_s.value if cell.summary.samples_per_s else 0,
        default=None,
    )


def cheapest_per_sample(cells: Sequence[Priced]) -> Priced | None:
    """Return the cell with the lowest cost per sample."""
    rated = [cell for cell in measured(cells) if cell.usd_per_1000_samples is not None]
    return min(
        rated,
        key=lambda cell: cell.usd_per_1000_samples.value if cell.usd_per_1000_samples else 0,
        default=None,
    )


def _accuracy(cell: Priced) -> float:
    return cell.summary.accuracy.value if cell.summary.accuracy is not None else -1.0


def _dollars(cell: Priced) -> float | None:
    if cell.summary.accuracy is not None:
        return value_of(cell.usd_per_run)
    return value_of(cell.usd_per_1000_samples)


def _rank(cell: Priced) -> float | None:
    """Return the cost to minimise: USD, else seconds; per run for a cell with an accuracy, else per sample."""
    if (dollars := _dollars(cell)) is not None:
        return dollars
    if cell.summary.accuracy is not None:
        return run_seconds(cell)
    rate = cell.summary.samples_per_s
    return 1 / rate.value if rate is not None and rate.value > 0 else None


def _same_cost(cell: Priced, pick: Priced) -> bool:
    if cell.usd_per_run is not None and cell.summary.accuracy is not None:
        return overlap(cell.usd_per_run, pick.usd_per_run)
    if cell.usd_per_1000_samples is not None:
        return overlap(cell.usd_per_1000_samples, pick.usd_per_1000_samples)
    return overlap(cell.summary.samples_per_s, pick.summary.samples_per_s)


def _is_tfidf(cell: Priced) -> bool:
    return cell.summary.classifier == "tfidf"
