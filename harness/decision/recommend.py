"""Which measured configuration to rent for a target, a deadline and a budget (pure)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.analysis.estimate import Estimate, intervals_disjoint, value_of
from harness.analysis.summary import most_common_test_set
from harness.decision.requirements import Candidate, Requirement, Requirements, candidate_of, parse_requirements
from harness.pricing.cost import Priced
from harness.schema.assumptions import Assumptions


@dataclass(frozen=True)
class UnmetRequirement:
    """What one demand ruled out.

    Attributes:
        demand: In words.
        num_cells: That fail it; a cell may fail several.
        nearest: The one that misses it by least, of those that miss nothing else where there are any.
        nearest_value: Its figure, in the demand's unit; None where it has none.
        unit: `accuracy`, `s`, `usd` or `bytes`.
    """

    demand: str
    num_cells: int
    nearest: Candidate | None
    nearest_value: float | None
    unit: str


@dataclass(frozen=True)
class Recommended:
    """One recommendation.

    Attributes:
        level: Others that fulfil all and can't be told from it in what it was chosen for.
    """

    role: str
    candidate: Candidate
    level: tuple[Candidate, ...]


@dataclass(frozen=True)
class Recommendation:
    """The answer.

    Attributes:
        choices: Cheapest, fastest and balanced; empty where nothing measured fulfils all demands.
        num_measured: Fine-tuning cells that ended well, on the test set that most of them share.
        num_elsewhere: Left out because they were judged on another test set.
        not_measured: How often cells ended otherwise, by outcome.
        baselines: Cells that need no fine-tuning and fulfil the demands too.
    """

    asked: Requirements
    choices: tuple[Recommended, ...]
    num_qualifying: int
    num_measured: int
    ruled_out: tuple[UnmetRequirement, ...]
    num_elsewhere: int
    not_measured: dict[str, int]
    baselines: tuple[Candidate, ...]


def recommend(cells: Sequence[Priced], asked: Requirements, assumed: Assumptions) -> Recommendation:
    """The cheapest, the fastest and a balanced choice of the cells that fulfil every demand by their value.

    Balanced is, of those that no other beats in both cost and time, the one nearest to the ideal of the least cost and
    the least time, by the distance of the logarithms: a factor in money counts as much as the same factor in time.
    """
    measured = [cell for cell in cells if cell.summary.kind == "fine_tune" and cell.summary.num_ok]
    test_set = most_common_test_set(cell.summary for cell in measured)
    candidates = [candidate_of(cell, assumed) for cell in measured if cell.summary.test_sha256 == test_set]
    baselines = [
        candidate_of(cell, assumed)
        for cell in cells
        if cell.summary.kind == "baseline" and cell.summary.num_ok and cell.summary.test_sha256 == test_set
    ]
    demands = parse_requirements(asked)
    good = [_judged(one, demands) for one in candidates if all(demand.fulfilled(one) for demand in demands)]
    return Recommendation(
        asked=asked,
        choices=tuple(_choices(good)),
        num_qualifying=len(good),
        num_measured=len(candidates),
        ruled_out=tuple(_ruled_out(demand, demands, candidates) for demand in demands),
        num_elsewhere=len(measured) - len(candidates),
        not_measured=dict(
            Counter(
                cell.summary.outcome for cell in cells if cell.summary.kind == "fine_tune" and not cell.summary.num_ok
            )
        ),
        baselines=tuple(one for one in baselines if demands and all(demand.fulfilled(one) for demand in demands)),
    )


def _judged(one: Candidate, demands: Sequence[Requirement]) -> Candidate:
    unsure = tuple(words for demand in demands if (words := demand.unsure(one)) is not None)
    return Candidate(one.cell, one.usd, one.waited_s, one.gpu_peak_bytes, unsure)


def _ruled_out(
    demand: Requirement, demands: Sequence[Requirement], candidates: Sequence[Candidate]
) -> UnmetRequirement:
    failing = [one for one in candidates if not demand.fulfilled(one)]
    others = [other for other in demands if other is not demand]
    alone = [one for one in failing if all(other.fulfilled(one) for other in others)]
    known = [one for one in alone or failing if demand.missed_by(one) is not None]
    nearest = min(known, key=lambda one: demand.missed_by(one) or 0.0, default=None)
    value = None if nearest is None else value_of(demand.read(nearest))
    return UnmetRequirement(demand.words, len(failing), nearest, value, demand.unit)


def _choices(good: Sequence[Candidate]) -> list[Recommended]:
    """Without dollars there is no cheapest and no balance; without seconds no fastest."""
    found = []
    for role, read in (("cheapest", _usd), ("fastest", _waited)):
        known = [one for one in good if read(one) is not None]
        first = min(known, key=lambda one: value_of(read(one)) or 0.0, default=None)
        if first is not None:
            found.append(Recommended(role, first, _level(first, known, read)))
    both = [one for one in good if one.usd is not None and one.waited_s is not None]
    if both:
        middle = balanced([(value_of(one.usd) or 0.0, value_of(one.waited_s) or 0.0) for one in both])
        found.append(Recommended("balanced", both[middle], ()))
    return found


def balanced(points: Sequence[tuple[float, float]]) -> int:
    """Index of the point nearest to (least cost, least time) by logarithms; of two as near, the cheaper.

    Such a point is always on the front: one that beats it in both would be nearer.
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
    mine = read(first)
    others = [(one, read(one)) for one in known if one is not first]
    return tuple(
        one for one, found in others if mine is not None and found is not None and not intervals_disjoint(mine, found)
    )


def _usd(one: Candidate) -> Estimate | None:
    return one.usd


def _waited(one: Candidate) -> Estimate | None:
    return one.waited_s
