"""Recommendation of measured configurations for a target accuracy, a deadline and a budget (pure)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from harness.analysis.estimate import Estimate, intervals_disjoint, value_of
from harness.analysis.summary import most_common_test_set
from harness.decision.requirements import Candidate, Requirement, Requirements, candidate_of, parse_requirements
from harness.pricing.cost import Priced
from harness.schema.assumptions import Assumptions


@dataclass(frozen=True)
class UnmetRequirement:
    """A requirement, and the cells that miss it.

    Attributes:
        demand: The requirement, as text.
        num_cells: Number of cells that miss the requirement; a cell may miss several requirements.
        nearest: The cell that misses the requirement by the least, preferably a cell that misses no other requirement.
        nearest_value: The value of `nearest` in `unit`; None if unknown.
        unit: `accuracy`, `s`, `usd` or `bytes`.
    """

    demand: str
    num_cells: int
    nearest: Candidate | None
    nearest_value: float | None
    unit: str


@dataclass(frozen=True)
class Recommended:
    """One recommended cell.

    Attributes:
        role: `cheapest`, `fastest` or `balanced`.
        level: Other qualifying cells whose cost (for the fastest cell: time) does not differ significantly.
    """

    role: str
    candidate: Candidate
    level: tuple[Candidate, ...]


@dataclass(frozen=True)
class Recommendation:
    """The recommended cells, and why others were ruled out.

    Attributes:
        choices: The cheapest, fastest and balanced cell; empty if no cell meets all requirements.
        num_measured: Number of successful fine-tuning cells on the most common test set.
        num_elsewhere: Number of cells skipped because they were evaluated on a different test set.
        not_measured: Number of failed cells by outcome.
        baselines: Baselines that meet all requirements, so that fine-tuning is not needed.
    """

    asked: Requirements
    choices: tuple[Recommended, ...]
    num_qualifying: int
    num_measured: int
    ruled_out: tuple[UnmetRequirement, ...]
    num_elsewhere: int
    not_measured: dict[str, int]
    baselines: tuple[Candidate, ...]


def recommend(cells: Sequence[Priced], requirements: Requirements, assumed: Assumptions) -> Recommendation:
    """Recommend the cheapest, the fastest and a balanced cell among the cells whose values meet every requirement.

    The balanced cell is nearest to the point (lowest cost, shortest time). The distance is between logarithms, so that
    a factor in cost counts as much as the same factor in time.
    """
    measured = [cell for cell in cells if cell.summary.kind == "fine_tune" and cell.summary.num_ok]
    test_set = most_common_test_set(cell.summary for cell in measured)
    candidates = [candidate_of(cell, assumed) for cell in measured if cell.summary.test_sha256 == test_set]
    baselines = [
        candidate_of(cell, assumed)
        for cell in cells
        if cell.summary.kind == "baseline" and cell.summary.num_ok and cell.summary.test_sha256 == test_set
    ]
    demands = parse_requirements(requirements)
    qualifying = [
        _with_doubts(candidate, demands)
        for candidate in candidates
        if all(demand.fulfilled(candidate) for demand in demands)
    ]
    return Recommendation(
        asked=requirements,
        choices=tuple(_choices(qualifying)),
        num_qualifying=len(qualifying),
        num_measured=len(candidates),
        ruled_out=tuple(_ruled_out(demand, demands, candidates) for demand in demands),
        num_elsewhere=len(measured) - len(candidates),
        not_measured=dict(
            Counter(
                cell.summary.outcome for cell in cells if cell.summary.kind == "fine_tune" and not cell.summary.num_ok
            )
        ),
        baselines=tuple(
            baseline for baseline in baselines if demands and all(demand.fulfilled(baseline) for demand in demands)
        ),
    )


def _with_doubts(candidate: Candidate, demands: Sequence[Requirement]) -> Candidate:
    """Return the candidate with `unsure` set to the requirements that its intervals leave uncertain."""
    unsure = tuple(doubt for demand in demands if (doubt := demand.unsure(candidate)) is not None)
    return replace(candidate, unsure=unsure)


def _ruled_out(
    demand: Requirement, demands: Sequence[Requirement], candidates: Sequence[Candidate]
) -> UnmetRequirement:
    failing = [candidate for candidate in candidates if not demand.fulfilled(candidate)]
    others = [other for other in demands if other is not demand]
    alone = [candidate for candidate in failing if all(other.fulfilled(candidate) for other in others)]
    known = [candidate for candidate in alone or failing if demand.missed_by(candidate) is not None]
    nearest = min(known, key=lambda candidate: demand.missed_by(candidate) or 0.0, default=None)
    value = None if nearest is None else value_of(demand.read(nearest))
    return UnmetRequirement(demand.words, len(failing), nearest, value, demand.unit)


def _choices(qualifying: Sequence[Candidate]) -> list[Recommended]:
    """Choose for each role; cheapest and balanced need a price, fastest and balanced a time."""
    choices = []
    for role, read in (("cheapest", _usd), ("fastest", _waited)):
        known = [candidate for candidate in qualifying if read(candidate) is not None]
        first = min(known, key=lambda candidate: value_of(read(candidate)) or 0.0, default=None)
        if first is not None:
            choices.append(Recommended(role, first, _level(first, known, read)))
    both = [candidate for candidate in qualifying if candidate.usd is not None and candidate.waited_s is not None]
    if both:
        middle = balanced([(value_of(candidate.usd) or 0.0, value_of(candidate.waited_s) or 0.0) for candidate in both])
        choices.append(Recommended("balanced", both[middle], ()))
    return choices


def balanced(points: Sequence[tuple[float, float]]) -> int:
    """Return the index of the (cost, time) point nearest to (lowest cost, shortest time), by distance of logarithms.

    Of equally near points, the cheapest is chosen. The chosen point is Pareto-optimal: a point with lower cost and time
    would be nearer.
    """
    least_usd, least_s = min(usd for usd, _ in points), min(seconds for _, seconds in points)

    def distance(point: tuple[float, float]) -> float:
        return math.hypot(_log_ratio(point[0], least_usd), _log_ratio(point[1], least_s))

    return min(range(len(points)), key=lambda index: (distance(points[index]), points[index][0]))


def _log_ratio(value: float, least: float) -> float:
    return math.log(value / least) if least > 0 else 0.0 if value <= 0 else math.inf


def _level(
    first: Candidate, known: Sequence[Candidate], read: Callable[[Candidate], Estimate | None]
) -> tuple[Candidate, ...]:
    """Return the other candidates that do not differ significantly from the first."""
    best = read(first)
    others = [(candidate, read(candidate)) for candidate in known if candidate is not first]
    return tuple(
        candidate
        for candidate, estimate in others
        if best is not None and estimate is not None and not intervals_disjoint(best, estimate)
    )


def _usd(candidate: Candidate) -> Estimate | None:
    return candidate.usd


def _waited(candidate: Candidate) -> Estimate | None:
    return candidate.waited_s
