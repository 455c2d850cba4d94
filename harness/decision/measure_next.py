"""What to measure next: which cells, how many seeds and test examples, what that takes and costs (pure)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from harness.analysis.accuracy import assumed_seed_variance, seed_variance
from harness.analysis.estimate import Z_95_ONE_SIDED, t_quantile, value_of
from harness.decision.ways import Way

MIN_SEEDS, MAX_SEEDS = 3, 10
_MAX_TEST_EXAMPLES = 1_000_000


@dataclass(frozen=True)
class Measurement:
    """One thing to measure.

    Attributes:
        kind: `baselines`: run these cheap baselines; `seeds`: train the cells with this many seeds; `test_examples`: train
            them with this many seeds and a larger test set; `accuracy`: nothing measured so far can answer, so measure
            another kind of cell: pretrained weights, more training rows, a larger model.
        cells: Names of the cells, or of the baselines.
        num_seeds: Seeds a cell, those measured already included; None if the number does not matter.
        num_test: Test examples needed; None if the present ones are enough.
        seconds, usd: Measured seconds and bill of all that; None if unknown.
    """

    kind: Literal["baselines", "seeds", "test_examples", "accuracy"]
    cells: tuple[str, ...] = ()
    num_seeds: int | None = None
    num_test: int | None = None
    seconds: float | None = None
    usd: float | None = None

    @property
    def settings(self) -> tuple[str, ...]:
        """The study's keys that ask for it, as `--set` understands them."""
        seeds = None if self.num_seeds is None else f"training.seeds={list(range(self.num_seeds))}"
        num_test = None if self.num_test is None else f"data.num_test={self.num_test}"
        return tuple(filter(None, (seeds, num_test)))


def measure_baselines(missing: tuple[str, ...], like: Way) -> Measurement:
    """Run the missing baselines, which takes no longer than one run of a fine-tuned model, and mostly far less."""
    usd = None if like.cell is None else value_of(like.cell.usd_billed)
    return Measurement("baselines", missing, seconds=like.seconds, usd=usd)


def more_accuracy() -> Measurement:
    """Measure something else: no seed or test example makes these cells good enough."""
    return Measurement("accuracy")


def repeat(way: Way) -> Measurement:
    """Train the way anew with more seeds."""
    num_seeds = min(MAX_SEEDS, max(MIN_SEEDS, way.num_seeds + 1))
    return _cost(Measurement("seeds", (way.name,), num_seeds), (way,))


def narrow_loss(way: Way, rival: Way, margin: float) -> Iterator[Measurement]:
    """Yield what makes the difference between two ways certain to within a margin (one-sided 95 %).

    The variance of the difference is that of an example's difference / n plus that between seeds / S of each side. The
    fewest seeds are taken that suffice with the present test examples; if none do, three seeds, and as many examples as
    are needed.

    Args:
        way: The chosen way.
        rival: The way that may be better; `way` itself to narrow its own score.
        margin: Half-width to reach; without a positive one nothing can be planned.
    """
    if margin <= 0 or way.scores is None or rival.scores is None:
        return
    needed = (margin / Z_95_ONE_SIDED) ** 2
    sides = (way,) if rival is way else (way, rival)
    per_example = way.scores.mean(axis=0) - (0.0 if rival is way else rival.scores.mean(axis=0))
    of_example, num_examples = float(per_example.var()), len(per_example)
    seeded = [side for side in sides if side.has_seed]
    cells = tuple(side.name for side in seeded)
    # A variance between seeds that was not seen yet counts as 0: three seeds show it first.
    is_seen = all(side.num_seeds > 1 for side in seeded)
    of_seeds = sum(_seed_variance(side) for side in seeded) if is_seen else 0.0
    if seeded:
        most = max(side.num_seeds for side in seeded)
        num_seeds, num_test = fewest_that_suffice(needed, of_example, num_examples, of_seeds, most)
    else:
        num_seeds, num_test = 1, _num_test(needed, of_example, num_examples)
    kind: Literal["seeds", "test_examples"] = "seeds" if num_test is None else "test_examples"
    yield _cost(Measurement(kind, cells or (way.name,), num_seeds, num_test), sides)


def fewest_that_suffice(
    needed: float, of_example: float, num_examples: int, of_seeds: float, num_seeds: int
) -> tuple[int, int | None]:
    """Return the seeds a side, and the test examples if more are needed, that reduce a variance as far as needed.

    The fewest seeds are taken that suffice with the present test examples. If none do, half of the variance may be the
    seeds', if enough can be trained, and as many test examples as are needed for the rest.

    Args:
        needed: Variance to reach.
        of_example: Variance of one test example's difference.
        num_examples: Present number of test examples.
        of_seeds: Variance between seeds, with one seed a side.
        num_seeds: Present number of seeds a side.
    """
    for more in range(max(MIN_SEEDS, num_seeds + 1), MAX_SEEDS + 1):
        if of_example / num_examples + of_seeds / more <= needed:
            return more, None
    num_seeds = min(MAX_SEEDS, max(MIN_SEEDS, math.ceil(of_seeds / (needed / 2))))
    return num_seeds, _num_test(max(needed - of_seeds / num_seeds, needed / 4), of_example, num_examples)


def _num_test(needed: float, of_example: float, num_examples: int) -> int:
    """Return the test examples that reduce the variance over examples as far as needed."""
    return min(_MAX_TEST_EXAMPLES, _rounded(max(num_examples + 1, of_example / needed)))


def beat_majority(way: Way, majority: Way, gain: float) -> Measurement:
    """Return the test examples that would show the measured gain over the majority class, if it is true.

    Args:
        way: The way to judge.
        majority: The majority class.
        gain: Measured score above the majority class.
    """
    if gain <= 0 or way.scores is None or majority.scores is None:
        return more_accuracy()
    per_example = way.scores.mean(axis=0) - majority.scores.mean(axis=0)
    num_seeds = max(MIN_SEEDS, way.num_seeds) if way.has_seed else way.num_seeds
    of_seeds = _seed_variance(way) / num_seeds if way.has_seed else 0.0
    left = (gain / t_quantile(math.inf)) ** 2 - of_seeds
    if left <= 0:
        return more_accuracy()
    num_test = _num_test(left, float(per_example.var()), len(per_example))
    return _cost(Measurement("test_examples", (way.name,), num_seeds, num_test), (way,))


def _seed_variance(way: Way) -> float:
    assert way.scores is not None  # noqa: S101 - callers leave out hosted models
    seeds = seed_variance(way.scores) or assumed_seed_variance(way.score.value)
    return seeds.of_one


def _rounded(num_test: float) -> int:
    """Round up to two significant digits, since the variances are estimates."""
    unit = 10 ** max(0, math.floor(math.log10(num_test)) - 1)
    return int(math.ceil(num_test / unit) * unit)


def _cost(plan: Measurement, ways: tuple[Way, ...]) -> Measurement:
    """Add the seconds and the bill: a new test set means to train every seed anew, more seeds only those that lack."""
    seconds, usd = 0.0, 0.0
    for way in ways:
        if not way.has_seed or plan.num_seeds is None:
            continue
        num_runs = plan.num_seeds if plan.kind == "test_examples" else max(0, plan.num_seeds - way.num_seeds)
        bill = None if way.cell is None else value_of(way.cell.usd_billed)
        seconds += num_runs * (way.seconds if way.seconds is not None else math.nan)
        usd += num_runs * (bill if bill is not None else math.nan)
    return replace(plan, seconds=_if_known(seconds), usd=_if_known(usd))


def _if_known(figure: float) -> float | None:
    return None if math.isnan(figure) else figure
