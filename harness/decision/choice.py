"""The choice among all measured ways to label texts: the cheapest to have that loses at most a tolerated accuracy (pure).

This is the only rule that chooses: the page, summary.md, `harness recommend` and the charts' star use it, and
report/assets/ranking.js repeats its last step for the reader's prices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from harness.analysis.accuracy import Metric
from harness.analysis.estimate import Estimate, map_estimate
from harness.analysis.expected_loss import DEFAULT_TOLERANCE, Loss, admitted, expected_losses
from harness.analysis.ranking import rank
from harness.decision.cells import cheapest_per_sample, fastest, has_example_price, measured
from harness.decision.cost_to_have import Use, stated_use
from harness.decision.verdict import Verdict, gain_over, judge
from harness.decision.ways import Kind, Way, compared_test_set, find_ways, hosted_way, noise_of
from harness.pricing import durations, formulas
from harness.pricing.cost import Priced
from harness.schema.assumptions import Assumptions


@dataclass(frozen=True)
class Goal:
    """What the user wants of a way.

    Attributes:
        metric: What counts: accuracy, or macro F1 where classes are rare.
        tolerance: Loss against the best that the user accepts, as a fraction.
        target: Score to reach, instead of comparing with the best; None without one.
    """

    metric: Metric = "accuracy"
    tolerance: float = DEFAULT_TOLERANCE
    target: float | None = None


@dataclass(frozen=True)
class Upgrade:
    """What more money buys: the way with the least loss among those that cost more than the chosen way.

    Attributes:
        gain: Its score minus the chosen way's, on the same test examples.
        usd: Its additional cost; None without prices.
        usd_per_point: Additional cost per percentage point gained; the high end is None if the gain may be 0 or less.
    """

    way: Way
    gain: Estimate
    usd: float | None
    usd_per_point: Estimate | None


@dataclass(frozen=True)
class Choice:
    """The chosen way, what it was chosen from, and how sure that is.

    Attributes:
        way: The cheapest admitted way; None if no way was evaluated or none qualifies.
        pick: The cell of `way`; if it has none, the cell of the best model, so that a report has figures to show. If no
            accuracy was measured, the cell with the lowest cost per sample, else the fastest.
        best: The way with the highest measured score; None without one.
        runner_up: The next cheapest admitted way that has other answers; None without one.
        admitted: The ways among which the cheapest is chosen, `way` included, cheapest first.
        level: The cells of other admitted ways whose cost does not differ significantly from that of `way`.
        in_dollars: Whether costs decided; else seconds did, because prices are unknown, or examples for several machines.
        ways: Every way that was compared, with its loss.
        compared: The cells of the fine-tuned ways in `ways`; without accuracies, every measured cell.
        measured: The fine-tuned cells on the test set, whether or not they meet the other requirements.
        num_elsewhere: Number of measured cells left out because they were evaluated on a different test set.
        majority: Score of the majority class on the test set.
        tfidf, features: The baselines on the test set; those with the most training rows if there are several.
        baselines: All baselines that ran on the test set.
    """

    goal: Goal
    use: Use
    way: Way | None
    pick: Priced | None
    best: Way | None
    runner_up: Way | None
    upgrade: Upgrade | None
    admitted: tuple[Way, ...]
    level: tuple[Priced, ...]
    in_dollars: bool
    ways: tuple[Way, ...]
    compared: tuple[Priced, ...]
    measured: tuple[Priced, ...]
    num_elsewhere: int
    majority: float | None
    tfidf: Priced | None
    features: Priced | None
    baselines: tuple[Priced, ...]
    verdict: Verdict

    def best_of(self, kind: Kind) -> Way | None:
        """Return the way of a kind with the highest score; None if there is none."""
        return max((way for way in self.ways if way.kind == kind), key=lambda way: way.score.value, default=None)

    def difference(self, other: Way | None) -> Estimate | None:
        """Return the score of `way` minus another way's on the same test examples; None if either is not measured."""
        return None if self.way is None or other is None else gain_over(other, self.way)


def choose(
    cells: Sequence[Priced],
    assumed: Assumptions | None = None,
    goal: Goal | None = None,
    qualifies: Callable[[Priced], bool] | None = None,
) -> Choice:
    """Choose the cheapest way whose loss is tolerated, or that reaches the target.

    Args:
        cells: Every cell.
        assumed: The assumptions that priced the cells; only what the user stated changes the choice.
        goal: What the user wants; by default the best accuracy less one point.
        qualifies: Whether a cell meets the user's other requirements, such as a deadline; by default every cell does.
    """
    assumed, goal = assumed or Assumptions(), goal or Goal()
    use = stated_use(assumed)
    every_way = find_ways(cells, use, goal.metric)
    ways = [way for way in every_way if way.cell is None or qualifies is None or qualifies(way.cell)]
    if all(way.kind == "majority" for way in ways) or all(way.kind != "fine_tune" for way in every_way):
        ways = []  # nothing was trained that meets the requirements
    ways = compare_ways(ways, hosted_way(assumed, use), goal.tolerance)
    in_dollars = _has_prices(ways) and not _ranks_machines_by_examples(ways)
    choices = _cheapest_first(_admit(ways, goal), in_dollars=in_dollars)
    way = choices[0] if choices else None
    best = max((each for each in ways if each.scores is not None), key=lambda each: each.score.value, default=None)
    test_set = compared_test_set(cells)
    here = [cell for cell in cells if cell.summary.test_sha256 == test_set]
    models, baselines = measured(here), [cell for cell in here if cell.summary.kind == "baseline"]
    compared = [each.cell for each in ways if each.kind == "fine_tune" and each.cell is not None]
    if not every_way:
        compared = models
    return Choice(
        goal=goal,
        use=use,
        way=way,
        pick=_shown(way, best, ways, compared),
        best=best,
        runner_up=_runner_up(choices),
        upgrade=None if way is None else _upgrade(way, ways),
        admitted=tuple(choices),
        level=tuple(_level(choices)) if in_dollars else (),
        in_dollars=in_dollars,
        ways=tuple(ways),
        compared=tuple(compared),
        measured=tuple(models),
        num_elsewhere=len(measured(cells)) - len(models),
        majority=next((each.score.value for each in every_way if each.kind == "majority"), None),
        tfidf=_largest(baselines, "tfidf"),
        features=_largest(baselines, "features"),
        baselines=tuple(baselines),
        verdict=judge(way, best, ways, every_way, goal.tolerance, goal.target, assumed),
    )


def compare_ways(ways: Sequence[Way], hosted: Way | None = None, tolerance: float = DEFAULT_TOLERANCE) -> list[Way]:
    """Return the ways with their losses; a hosted model, whose score is taken as exact, comes last."""
    if not ways:
        return []
    losses = expected_losses(noise_of(ways), tolerance)
    highest = max(way.score.value for way in ways)
    above = max(0.0, hosted.score.value - highest) if hosted is not None else 0.0
    judged = [
        replace(way, loss=Loss(loss.mean + above, loss.largest + above)) for way, loss in zip(ways, losses, strict=True)
    ]
    if hosted is not None:
        below = max(0.0, highest - hosted.score.value)
        judged.append(replace(hosted, loss=Loss(below, below)))
    return judged


def _admit(ways: Sequence[Way], goal: Goal) -> list[Way]:
    """Return the ways that are good enough.

    With a target these are the ways whose interval lies at or above it; if there are none, those whose score does.
    """
    if goal.target is None:
        losses = [way.loss for way in ways if way.loss is not None]
        return [ways[index] for index in admitted(losses, goal.tolerance)]
    target = goal.target
    may_reach = [way for way in ways if way.score.value >= target]
    reach = [way for way in may_reach if way.score.low is None or way.score.low >= target]
    return reach or may_reach


def _has_prices(ways: Sequence[Way]) -> bool:
    """Return whether any trained model has a price; a majority class or hosted model always has dollars."""
    return any(way.usd is not None for way in ways if way.cell is not None and way.kind != "majority")


def _ranks_machines_by_examples(ways: Sequence[Way]) -> bool:
    """Return whether costs of several machines would be compared of which one has only an example price."""
    cells = [way.cell for way in ways if way.cell is not None and way.cell.price is not None]
    return len({cell.summary.machine_id for cell in cells}) > 1 and any(map(has_example_price, cells))


def _cheapest_first(ways: Sequence[Way], *, in_dollars: bool) -> list[Way]:
    """Sort by dollars or by seconds, which can't be compared; ways without the figure are left out."""
    if in_dollars:
        priced = [(way.usd.value, way) for way in ways if way.usd is not None]
    else:
        priced = [(way.seconds, way) for way in ways if way.seconds is not None]
    # Of equal costs, the higher score comes first.
    return [way for _, way in sorted(priced, key=lambda pair: (pair[0], -pair[1].score.value))]


def _shown(way: Way | None, best: Way | None, ways: Sequence[Way], compared: Sequence[Priced]) -> Priced | None:
    if ways:
        models = [each for each in ways if each.kind == "fine_tune"]
        model = max(models, key=lambda each: each.score.value, default=None)
        return next((each.cell for each in (way, best, model) if each is not None and each.cell is not None), None)
    return cheapest_per_sample(compared) or fastest(compared)


def _runner_up(choices: Sequence[Way]) -> Way | None:
    """Return the next cheapest admitted way whose answers differ: a recipe on another machine is no alternative."""
    first = choices[0] if choices else None
    return next((way for way in choices[1:] if first is not None and not _same_answers(first, way)), None)


def _same_answers(a: Way, b: Way) -> bool:
    return a.scores is not None and b.scores is not None and (a.scores.mean(axis=0) == b.scores.mean(axis=0)).all()


def _upgrade(way: Way, ways: Sequence[Way]) -> Upgrade | None:
    better = [each for each in ways if each.scores is not None and each.score.value > way.score.value]
    more_expensive = [each for each in better if (_cost(each) or 0.0) > (_cost(way) or 0.0)]
    up = min(more_expensive, key=lambda each: (each.loss.mean if each.loss else 0.0, _cost(each) or 0.0), default=None)
    gain = None if up is None else gain_over(way, up)
    if up is None or gain is None:
        return None
    if up.usd is None or way.usd is None:
        return Upgrade(up, gain, None, None)
    usd = up.usd.value - way.usd.value
    return Upgrade(up, gain, usd, map_estimate(gain, lambda points: formulas.usd_per_accuracy_point(usd, points, 0.0)))


def _cost(way: Way) -> float | None:
    return way.seconds if way.usd is None else way.usd.value


def _level(choices: Sequence[Way]) -> list[Priced]:
    ranking = rank([way.usd for way in choices])
    return [cell for index in ranking.level if (cell := choices[index].cell) is not None]


def _largest(baselines: Sequence[Priced], classifier: str) -> Priced | None:
    """Return the baseline with the most training rows, since one with fewer would flatter the models."""
    return max(
        (cell for cell in baselines if cell.summary.classifier == classifier and cell.summary.accuracy is not None),
        key=lambda cell: durations.num_train(cell.summary) or 0,
        default=None,
    )


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the Pareto-optimal (cost, accuracy) points, sorted by cost."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front
