"""One variance for every accuracy and difference of accuracies: test examples and seeds together.

A score of an example is its contribution to a metric, so that the mean over a test set's examples is the metric. For
accuracy the score is 1 for a correct label, else 0. For macro F1 it is the metric plus the example's influence on it
(first order), so that both metrics share all code that follows.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.analysis.estimate import Estimate, t_quantile, wilson_ends
from harness.analysis.log_ratio import sum_variances
from harness.schema.record import Record
from harness.schema.training_record import TestEvaluation

Metric = Literal["accuracy", "macro_f1"]

# Prior of the variance between seeds, 0.001 sqrt(p (1 - p)) with the weight of 2 degrees of freedom: a standard deviation
# of 2 points at an accuracy of 0.8, and of 1.5 at 0.95. Seeds of fine-tuning differ that much on small data sets:
# J. Dodge et al., "Fine-tuning pretrained language models: weight initializations, data orders, and early stopping",
# arXiv:2002.06305 (2020).
_PRIOR_VARIANCE, _PRIOR_DF = 0.001, 2


@dataclass(frozen=True)
class SeedVariance:
    """Variance of one seed's true score around the mean over seeds.

    Attributes:
        of_one: The variance of one seed; the variance of a mean over S seeds is `of_one / S`.
        degrees_of_freedom: Degrees of freedom, those of the prior included.
    """

    of_one: float
    degrees_of_freedom: float


def example_scores(test: TestEvaluation, metric: Metric = "accuracy") -> np.ndarray:
    """Return each test example's score, shape `(num_examples,)`; the mean is the metric.

    For macro F1, F1_c = 2 TP_c / n / d_c of class c, where d_c is the share of examples with label c plus the share
    with prediction c. The influence of example i on F1_c is (2 [TP of c] - F1_c ([label c] + [prediction c])) / d_c.
    """
    labels, predictions = np.asarray(test.labels), np.asarray(test.predictions)
    correct: np.ndarray = (labels == predictions).astype(float)
    if metric == "accuracy":
        return correct
    classes = np.unique(np.concatenate([labels, predictions]))
    is_label, is_predicted = labels == classes[:, None], predictions == classes[:, None]  # (num_classes, num_examples)
    occurs = is_label.astype(float) + is_predicted
    share = occurs.mean(axis=1, keepdims=True)
    f1 = 2 * (is_label & is_predicted).mean(axis=1, keepdims=True) / share
    scores: np.ndarray = (f1 + (2.0 * (is_label & is_predicted) - f1 * occurs) / share).mean(axis=0)
    return scores


def scores_by_seed(records: Iterable[Record], metric: Metric = "accuracy") -> np.ndarray | None:
    """Return the scores of each seed, repeats averaged, shape `(num_seeds, num_examples)`; None without a test.

    Runs on other test examples than the newest run's are left out.
    """
    scores = scores_of_seeds(records, metric)
    return np.stack(list(scores.values())) if scores else None


def scores_of_seeds(records: Iterable[Record], metric: Metric = "accuracy") -> dict[int, np.ndarray]:
    """Map each seed to its scores as `scores_by_seed` has them, shape `(num_examples,)`."""
    tests = [(record.seed, record.test) for record in records if record.test is not None]
    by_seed: dict[int, list[np.ndarray]] = defaultdict(list)
    for seed, test in tests:
        if test.labels == tests[-1][1].labels:
            by_seed[seed].append(example_scores(test, metric))
    return {seed: np.mean(repeats, axis=0) for seed, repeats in by_seed.items()}


def estimate_score(scores: np.ndarray) -> Estimate:
    """Return the mean score with its 95 % interval over test examples and seeds.

    With V the variance over examples of the mean over seeds / n, plus the variance between seeds / S, the interval is
    Wilson's with the effective number of examples p (1 - p) / V and Student's quantile (Welch-Satterthwaite), which
    stays within 0 and 1. One seed has no variance between seeds: the interval is that of this trained model.

    Args:
        scores: Shape `(num_seeds, num_examples)`.
    """
    num_seeds, num_examples = scores.shape
    value = float(scores.mean())
    basis = f"over {num_examples:,} test examples and {num_seeds} seeds"
    if num_seeds == 1:
        basis = f"over {num_examples:,} test examples, one seed: of this trained model"
    parts = [(float(scores.mean(axis=0).var()) / num_examples, float(max(1, num_examples - 1)))]
    if (seeds := seed_variance(scores)) is not None:
        parts.append((seeds.of_one / num_seeds, seeds.degrees_of_freedom))
    variance, degrees_of_freedom = sum_variances(parts)
    spread = value * (1 - value)
    if spread <= 0 or variance <= 0:
        return Estimate(value, *wilson_ends(value, num_examples, t_quantile(math.inf)), basis)
    # Of one seed, Wilson's interval as it stands.
    quantile = t_quantile(math.inf if seeds is None else degrees_of_freedom)
    return Estimate(value, *wilson_ends(value, spread / variance, quantile), basis)


def seed_variance(scores: np.ndarray, prior: float | None = None, prior_df: float = _PRIOR_DF) -> SeedVariance | None:
    """Estimate the variance between seeds; None with one seed, which says nothing about it.

    The measured variance is moderated by a prior with few degrees of freedom: that of 2 to 5 seeds is unreliable. A
    measured variance above the prior's lowers the prior's weight by (prior / measured)^2: some recipes fail with some
    seeds, so that accuracies differ by 5 points and more, and the prior would hide that.

    Source: G. K. Smyth, "Linear models and empirical Bayes methods for assessing differential expression in microarray
    experiments", Statistical Applications in Genetics and Molecular Biology 3 (2004), article 3, equation for s-tilde.

    Args:
        scores: Shape `(num_seeds, num_examples)`.
        prior: Variance of one seed that the prior assumes; by default that of one recipe's scores.
        prior_df: Degrees of freedom of the prior.
    """
    if len(scores) == 1:
        return None
    measured = _measured_variance(scores)
    prior = _prior_variance(float(scores.mean())) if prior is None else prior
    if measured > prior:
        prior_df *= (prior / measured) ** 2
    return _moderated(measured, len(scores) - 1, prior, prior_df)


def assumed_seed_variance(value: float) -> SeedVariance:
    """Return the prior's variance between seeds at a score, for plans of what to measure next."""
    return SeedVariance(_prior_variance(value), _PRIOR_DF)


def _measured_variance(scores: np.ndarray) -> float:
    """Return the variance of the seeds' means, less what single answers add to it: their residual mean square / n."""
    num_seeds, num_examples = scores.shape
    means: np.ndarray = scores.mean(axis=1)
    residual = scores - scores.mean(axis=0) - means[:, None] + scores.mean()
    mean_square = float((residual**2).sum()) / ((num_seeds - 1) * max(1, num_examples - 1))
    measured: float = float(means.var(ddof=1)) - mean_square / num_examples
    return max(0.0, measured)


def _prior_variance(value: float) -> float:
    return _PRIOR_VARIANCE * math.sqrt(max(0.0, value * (1 - value)))


def _moderated(measured: float, degrees_of_freedom: int, prior: float, prior_df: float = _PRIOR_DF) -> SeedVariance:
    total = degrees_of_freedom + prior_df
    return SeedVariance((degrees_of_freedom * measured + prior_df * prior) / total, total)


@dataclass(frozen=True)
class ScoreNoise:
    """Mean scores of several ways on one test set, and the noise in them.

    Attributes:
        values: Mean score of each way, shape `(num_ways,)`.
        of_examples: Covariance of the values over test examples, which all ways share, shape `(num_ways, num_ways)`.
        of_seeds: Variance of each value over seeds, shape `(num_ways,)`; 0 for a way that no seed changes.
        has_seed: Whether another seed could change the way, shape `(num_ways,)`; if not, it is a baseline.
        is_of_recipes: Whether the variance between seeds is known from some way; if not, all that is estimated is about
            these trained models.
    """

    values: np.ndarray
    of_examples: np.ndarray
    of_seeds: np.ndarray
    has_seed: np.ndarray
    is_of_recipes: bool

    @property
    def covariance(self) -> np.ndarray:
        """The covariance of the values over test examples and seeds, shape `(num_ways, num_ways)`."""
        total: np.ndarray = self.of_examples + np.diag(self.of_seeds)
        return total


def score_noise(scores: Sequence[np.ndarray], has_seed: Sequence[bool]) -> ScoreNoise:
    """Return the ways' mean scores and their noise.

    The variance between seeds of each way is moderated by the typical one of all ways that have several seeds; a way with
    one seed gets the typical one, since it would look more certain than ways that were measured better.

    Args:
        scores: For each way, scores of shape `(num_seeds, num_examples)`.
        has_seed: For each way, whether another seed could change it; TF-IDF and the majority class have none.
    """
    by_example = np.stack([way.mean(axis=0) for way in scores])
    centred = by_example - by_example.mean(axis=1, keepdims=True)
    repeated = [way for way, seeded in zip(scores, has_seed, strict=True) if seeded and len(way) > 1]
    typical = _typical_seed_variance(repeated) if repeated else 0.0
    of_seeds = []
    for way, seeded in zip(scores, has_seed, strict=True):
        of_one = typical if seeded else 0.0
        if seeded and len(way) > 1:
            of_one = _moderated(_measured_variance(way), len(way) - 1, typical).of_one
        of_seeds.append(of_one / len(way))
    return ScoreNoise(
        values=by_example.mean(axis=1),
        of_examples=centred @ centred.T / by_example.shape[1] ** 2,
        of_seeds=np.array(of_seeds),
        has_seed=np.array(has_seed, dtype=bool),
        is_of_recipes=bool(repeated),
    )


def _typical_seed_variance(repeated: Sequence[np.ndarray]) -> float:
    """Return the median variance between seeds, so that one unstable way does not raise it, moderated by the prior.

    A variance with d degrees of freedom has a median of (1 - 2 / (9 d))^3 times its mean (E. B. Wilson and M. M. Hilferty,
    Proceedings of the National Academy of Sciences 17 (1931), 684-688).
    """
    freedom = [len(way) - 1 for way in repeated]
    measured = [_measured_variance(way) / (1 - 2 / (9 * df)) ** 3 for way, df in zip(repeated, freedom, strict=True)]
    prior = _prior_variance(float(np.mean([way.mean() for way in repeated])))
    return _moderated(float(np.median(measured)), sum(freedom), prior).of_one


def estimate_difference(a: np.ndarray, b: np.ndarray) -> Estimate:
    """Return the mean score of B minus that of A on the same test examples, with its 95 % interval.

    Args:
        a: A's scores, shape `(num_seeds, num_examples)`.
        b: B's scores, shape `(num_seeds, num_examples)`; seeds need not be the same.
    """
    whose = "recipes" if min(len(a), len(b)) > 1 else "these trained models"
    basis = f"paired over {a.shape[1]:,} test examples, {len(a)} and {len(b)} seeds: of {whose}"
    return difference_of(float(b.mean() - a.mean()), difference_variances(a, b), basis)


def difference_of(value: float, variances: Sequence[tuple[float, float]], basis: str) -> Estimate:
    """Return a difference of scores with its 95 % interval, within -1 and 1.

    Args:
        value: The difference.
        variances: Variance and degrees of freedom of each independent part.
        basis: What the interval covers.
    """
    variance, degrees_of_freedom = sum_variances(variances)
    half = t_quantile(degrees_of_freedom) * math.sqrt(variance)
    return Estimate(value, max(-1.0, value - half), min(1.0, value + half), basis)


def difference_variances(a: np.ndarray, b: np.ndarray) -> list[tuple[float, float]]:
    """Return variance and degrees of freedom of each independent part of the difference of mean scores.

    The first part is that of the test examples, which both sides share. The others are those of each side's seeds, if
    the side has several. Both sides share the prior's degrees of freedom: one assumption must not count twice.

    Args:
        a: A's scores, shape `(num_seeds, num_examples)`.
        b: B's scores, shape `(num_seeds, num_examples)`.
    """
    per_example = b.mean(axis=0) - a.mean(axis=0)
    num_examples = len(per_example)
    # With few disagreements the normal interval is too narrow: half an example more for each kind of disagreement
    # (Agresti and Min, Statistics in Medicine 24 (2005), 729-740) keeps it from collapsing to a point.
    squares = float(((per_example - per_example.mean()) ** 2).sum())
    parts = [((squares + 1.0) / num_examples**2, float(max(1, num_examples - 1)))]
    prior_df = _PRIOR_DF / 2 if min(len(a), len(b)) > 1 else _PRIOR_DF
    for side in (a, b):
        if (seeds := seed_variance(side, prior_df=prior_df)) is not None:
            parts.append((seeds.of_one / len(side), seeds.degrees_of_freedom))
    return parts
