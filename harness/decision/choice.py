"""Which configuration to choose, and which can't be told apart (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.estimate import Estimate, value_of
from harness.analysis.summary import most_common_test_set
from harness.pricing import cost
from harness.pricing.cost import Priced


@dataclass(frozen=True)
class Choice:
    """What the measured cells allow to be said.

    Attributes:
        pick: The cheapest cell whose accuracy interval overlaps the best's; without any accuracy, the cheapest
            per sample. None when nothing was measured.
        best: The highest measured accuracy; None where no accuracy was measured.
        level: Other cells that overlap the best's accuracy and whose cost can't be told from the pick's.
        rivals: Every cell that overlaps the best's accuracy, pick and best included.
        compared: The fine-tuning cells that ended, on the test set that most of them share.
        num_elsewhere: Cells left out because they were judged on another test set.
        majority: The majority class's accuracy on that test set.
        tfidf: The TF-IDF baseline on that test set; of several that of the most training rows.
        baselines: All that were judged on that test set.
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


def overlap(one: Estimate | None, other: Estimate | None) -> bool:
    """Whether two figures can't be ranked: their intervals share a point (a missing interval counts as a point)."""
    if one is None or other is None:
        return False
    low = max(bound(one, "low"), bound(other, "low"))
    return low <= min(bound(one, "high"), bound(other, "high"))


def bound(estimate: Estimate, side: str) -> float:
    """One end of the interval, or the value where there is none."""
    end: float | None = getattr(estimate, side)
    return estimate.value if end is None else end


def run_seconds(cell: Priced) -> float | None:
    """Seconds of a whole run: set-up, training and evaluation; None unless training was measured."""
    return value_of(cost.run_seconds(cell.summary))


def measured(cells: Sequence[Priced]) -> list[Priced]:
    """Fine-tuning cells with at least one run that ended well."""
    return [cell for cell in cells if cell.summary.kind == "fine_tune" and cell.summary.num_ok > 0]


def failed(cells: Sequence[Priced]) -> list[Priced]:
    """Cells of either kind of which a run did not end well."""
    return [cell for cell in cells if cell.summary.outcome != "ok"]


def choose(cells: Sequence[Priced]) -> Choice:
    """Find the best, the cheapest that can't be told from it, and the baselines they are held against."""
    candidates = measured(cells)
    test_set = most_common_test_set(cell.summary for cell in candidates)
    compared = [cell for cell in candidates if cell.summary.test_sha256 == test_set]
    judged = [cell for cell in compared if cell.summary.accuracy is not None]
    best = max(judged, key=_accuracy, default=None)
    if best is None:
        rivals = [cell for cell in compared if _rank(cell) is not None]
    else:
        rivals = [cell for cell in judged if overlap(cell.summary.accuracy, best.summary.accuracy)]
    # Dollars and seconds don't rank against each other: a cell without a price yields to those that have one.
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
        # Of several, that of the most training rows: what little data does to it is no model's merit.
        tfidf=max(
            (cell for cell in baselines if _is_tfidf(cell) and cell.summary.accuracy is not None),
            key=lambda cell: cost.num_train(cell.summary) or 0,
            default=None,
        ),
        baselines=tuple(baselines),
    )


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats in both cost (first, low) and accuracy (second, high), by cost."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def fastest(cells: Sequence[Priced]) -> Priced | None:
    """The cell with the most samples a second."""
    rated = [cell for cell in measured(cells) if cell.summary.samples_per_s is not None]
    return max(
        rated,
        key=lambda cell: cell.summary.samples_per_s.value if cell.summary.samples_per_s else 0,
        default=None,
    )


def cheapest_per_sample(cells: Sequence[Priced]) -> Priced | None:
    """The cell with the fewest dollars a sample."""
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
    """What cheapest means: dollars a run, else seconds a run; without accuracy, of a sample instead of a run."""
    if (dollars := _dollars(cell)) is not None:
        return dollars
    if cell.summary.accuracy is not None:
        return run_seconds(cell)
    rate = cell.summary.samples_per_s
    return 1 / rate.value if rate is not None and rate.value > 0 else None


def _same_cost(one: Priced, other: Priced) -> bool:
    if one.usd_per_run is not None and one.summary.accuracy is not None:
        return overlap(one.usd_per_run, other.usd_per_run)
    if one.usd_per_1000_samples is not None:
        return overlap(one.usd_per_1000_samples, other.usd_per_1000_samples)
    return overlap(one.summary.samples_per_s, other.summary.samples_per_s)


def _is_tfidf(cell: Priced) -> bool:
    return cell.summary.classifier == "tfidf"
