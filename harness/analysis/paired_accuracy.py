"""Compare two recipes' accuracy or macro F1 on the same test examples; with one seed on a side, the trained models."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.analysis.accuracy import (
    Metric,
    assumed_seed_variance,
    difference_of,
    difference_variances,
    scores_of_seeds,
    seed_variance,
)
from harness.analysis.estimate import Estimate
from harness.analysis.log_ratio import sum_variances
from harness.analysis.significance import mcnemar
from harness.schema.cells import FineTuneConfig
from harness.schema.record import Record

Judged = Literal["recipes", "trained models"]

# The sides are paired by seed if models of one seed disagree less than this many times as often as models of different
# seeds. Among the reference records it is 0.00 to 0.01 where only precision, compilation or allocator differ, 0.42 with
# and without dropout, and 0.8 to 1.25 between most recipes. Renumbered seeds of one recipe reach 0.46, two a side.
_MAX_DISAGREEMENT = 0.5

_TestSet = tuple[str | None, tuple[int, ...]]


@dataclass(frozen=True)
class PairedScores:
    """Mean scores of two sides, A and B, on the same test examples.

    Attributes:
        a, b: Mean score over the compared seeds.
        num_seeds: Number of compared seeds of A and of B.
        num_examples: Number of test examples.
        variances: Variance and degrees of freedom of each independent part of b - a: first that over test examples, then,
            if both sides have several seeds, that between the seeds of A and of B, or of both if paired by seed.
        exact_p_value: McNemar's p-value, for one model a side; else None.
    """

    a: float
    b: float
    num_seeds: tuple[int, int]
    num_examples: int
    variances: tuple[tuple[float, float], ...]
    exact_p_value: float | None = None

    @property
    def judged(self) -> Judged:
        """What the interval is about: the recipes if it includes the variance between seeds, else these models."""
        return "recipes" if len(self.variances) > 1 else "trained models"

    @property
    def difference(self) -> Estimate:
        """B - A with its 95 % interval."""
        return difference_of(self.b - self.a, self.variances, self._basis)

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the hypothesis that the sides do not differ."""
        if self.exact_p_value is not None:
            return self.exact_p_value
        from scipy import special  # imported here, because scipy takes a second

        variance, degrees_of_freedom = sum_variances(self.variances)
        return 2 * float(special.stdtr(degrees_of_freedom, -abs(self.b - self.a) / math.sqrt(variance)))

    @property
    def variance_of_example(self) -> float:
        """Variance of one test example's difference; that of the mean difference is this over the number of examples."""
        return self.variances[0][0] * self.num_examples

    @property
    def variance_of_seed(self) -> float | None:
        """Variance of the difference between seeds, with one seed a side; None for trained models."""
        if self.judged == "trained models":
            return None
        return sum(variance * count for (variance, _), count in zip(self.variances[1:], self.num_seeds, strict=False))

    @property
    def _basis(self) -> str:
        examples = f"paired over {self.num_examples:,} test examples"
        if self.judged == "trained models":
            return f"{examples}: of these trained models"
        if len(self.variances) == 2:  # noqa: PLR2004 - examples, and both sides' seeds together
            return f"{examples} and {self.num_seeds[0]} seeds"
        return f"{examples}, between {self.num_seeds[0]} and {self.num_seeds[1]} seeds"


def pair_scores(
    records_a: Sequence[Record], records_b: Sequence[Record], metric: Metric = "accuracy"
) -> PairedScores | None:
    """Compare two sides' scores, repeats of a seed averaged; None without a common test set.

    The sides need not have the same seeds. If they do, and models of one seed agree far more than models of different
    seeds (one order of the data, nearly the same steps), the sides are paired by seed; other seeds are left out.
    """
    tests_a, tests_b = _by_test_set(records_a), _by_test_set(records_b)
    common = [test_set for test_set in tests_a if test_set in tests_b]
    if not common:
        return None
    test_set = max(common, key=lambda each: min(len(tests_a[each]), len(tests_b[each])))
    a, b = scores_of_seeds(tests_a[test_set], metric), scores_of_seeds(tests_b[test_set], metric)
    shared = sorted(a.keys() & b.keys())
    if len(shared) > 1:
        same_a, same_b = _stack(a, shared), _stack(b, shared)
        disagreement = relative_disagreement(same_a, same_b)
        if disagreement < _MAX_DISAGREEMENT:
            return _compare_by_seed(same_a, same_b, disagreement)
    return _compare_sides(_stack(a, a), _stack(b, b), are_answers=metric == "accuracy")


def relative_disagreement(a: np.ndarray, b: np.ndarray) -> float:
    """Return how much A's and B's models of one seed disagree, relative to models of different seeds.

    Near 1, a seed's number means nothing that both sides share. 0 if no models disagree at all.

    Args:
        a: A's scores, shape `(num_seeds, num_examples)`, at least two seeds.
        b: B's scores of the same seeds, in the same order.
    """
    num_seeds = len(a)
    squares = ((a[:, None] - b[None]) ** 2).mean(axis=2)  # (num_seeds, num_seeds)
    same = float(np.trace(squares)) / num_seeds
    different = (float(squares.sum()) - num_seeds * same) / (num_seeds * (num_seeds - 1))
    return same / different if different > 0 else 0.0


def _compare_sides(a: np.ndarray, b: np.ndarray, *, are_answers: bool) -> PairedScores:
    """Compare sides whose seeds are independent; the trained models if a side has one seed.

    Args:
        a: A's scores, shape `(num_seeds, num_examples)`.
        b: B's scores, shape `(num_seeds, num_examples)`; the number of seeds may differ.
        are_answers: Whether a score says that an answer is right, as accuracy's does.
    """
    if min(len(a), len(b)) > 1:
        return _paired(a, b, difference_variances(a, b))
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    exact = None
    # The mean of repeats that differ is no answer that McNemar's test could count.
    if are_answers and len(a) == len(b) == 1 and np.isin(np.concatenate([a, b]), (0.0, 1.0)).all():
        exact = mcnemar(int((mean_a > mean_b).sum()), int((mean_b > mean_a).sum()))
    return _paired(a, b, difference_variances(mean_a[None], mean_b[None]), exact)


def _compare_by_seed(a: np.ndarray, b: np.ndarray, disagreement: float) -> PairedScores:
    """Compare sides of which each seed's two models belong together.

    Args:
        a: A's scores, shape `(num_seeds, num_examples)`, at least two seeds.
        b: B's scores of the same seeds, in the same order.
        disagreement: Relative disagreement, by which the variance is reduced that the prior assumes for the difference.
    """
    assumed = sum(assumed_seed_variance(float(side.mean())).of_one for side in (a, b))
    seeds = seed_variance(b - a, prior=disagreement * assumed)
    assert seeds is not None  # noqa: S101 - there are at least two
    of_examples = difference_variances(a.mean(axis=0)[None], b.mean(axis=0)[None])
    return _paired(a, b, [*of_examples, (seeds.of_one / len(a), seeds.degrees_of_freedom)])


def _paired(
    a: np.ndarray, b: np.ndarray, variances: Iterable[tuple[float, float]], exact_p_value: float | None = None
) -> PairedScores:
    num_seeds = len(a), len(b)
    return PairedScores(float(a.mean()), float(b.mean()), num_seeds, a.shape[1], tuple(variances), exact_p_value)


def _stack(scores: Mapping[int, np.ndarray], seeds: Iterable[int]) -> np.ndarray:
    return np.stack([scores[seed] for seed in seeds])


def _by_test_set(records: Iterable[Record]) -> dict[_TestSet, list[Record]]:
    """Group fine-tuning runs by what identifies their test set: its hash and its labels."""
    groups: dict[_TestSet, list[Record]] = defaultdict(list)
    for record in records:
        if isinstance(record.config, FineTuneConfig) and record.training and (test := record.training.test):
            groups[record.data.test.sha256 if record.data else None, test.labels].append(record)
    return groups
