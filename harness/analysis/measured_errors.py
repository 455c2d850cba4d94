"""Test errors over training set sizes, with their covariance: the input of a learning curve's fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from harness.analysis.accuracy import assumed_seed_variance, score_noise
from harness.analysis.estimate import Estimate, t_quantile


@dataclass(frozen=True)
class BaselineError:
    """Test error of a baseline, trained once, on the curve's test set.

    Attributes:
        variance: Variance of `error` over test examples.
        covariance: Covariance with the error at each training set size, shape `(num_sizes,)`.
    """

    error: float
    variance: float
    covariance: np.ndarray


@dataclass(frozen=True)
class MeasuredErrors:
    """Test errors measured on one test set, sorted by training set size, ascending.

    Attributes:
        num_train: Training set sizes, shape `(num_sizes,)`.
        error: Fraction of the test set misclassified, mean over seeds, shape `(num_sizes,)`.
        covariance: Covariance of `error` over test examples and seeds, shape `(num_sizes, num_sizes)`.
        seed_variance: The part of the covariance's diagonal that comes from seeds, shape `(num_sizes,)`; zeros if every
            size has a single run.
        num_seeds: Number of runs at each size, shape `(num_sizes,)`.
        num_examples: Size of the test set.
        degrees_of_freedom: Degrees of freedom of the variance between seeds, those of its prior included; 0 if every size
            has a single run.
        baseline: A baseline to compare with; None without one.
    """

    num_train: np.ndarray
    error: np.ndarray
    covariance: np.ndarray
    seed_variance: np.ndarray
    num_seeds: np.ndarray
    num_examples: int
    degrees_of_freedom: float = 0
    baseline: BaselineError | None = None

    def select(self, sizes: np.ndarray) -> MeasuredErrors:
        """Keep only the sizes with the given indices, shape `(num_kept,)`."""
        baseline = self.baseline
        return replace(
            self,
            num_train=self.num_train[sizes],
            error=self.error[sizes],
            covariance=self.covariance[np.ix_(sizes, sizes)],
            seed_variance=self.seed_variance[sizes],
            num_seeds=self.num_seeds[sizes],
            baseline=None if baseline is None else replace(baseline, covariance=baseline.covariance[sizes]),
        )

    def gain(self, start: int, end: int) -> Estimate:
        """Return the accuracy gain from size index `start` to size index `end`, with its 95 % interval."""
        covariance, seeds = self.covariance, self.seed_variance
        variance = float(covariance[start, start] + covariance[end, end] - 2 * covariance[start, end])
        return self._estimate(float(self.error[start] - self.error[end]), variance, float(seeds[start] + seeds[end]))

    def lead(self) -> Estimate | None:
        """Return accuracy at the largest size minus the baseline's, with its 95 % interval; None without a baseline."""
        baseline = self.baseline
        if baseline is None:
            return None
        variance = float(baseline.variance + self.covariance[-1, -1] - 2 * baseline.covariance[-1])
        return self._estimate(float(baseline.error - self.error[-1]), variance, float(self.seed_variance[-1]))

    def degrees_of_freedom_of(self, variance: float, of_seeds: float) -> float:
        """Return the degrees of freedom of a variance, of which seeds add `of_seeds` (Welch-Satterthwaite)."""
        return self.degrees_of_freedom * (variance / of_seeds) ** 2 if of_seeds > 0 else math.inf

    def _estimate(self, value: float, variance: float, of_seeds: float) -> Estimate:
        variance = max(0.0, variance) + self.num_examples**-2.0
        half = t_quantile(self.degrees_of_freedom_of(variance, of_seeds)) * variance**0.5
        basis = "over test examples" + (" and seeds" if self.degrees_of_freedom else "")
        return Estimate(value, value - half, value + half, basis)


def measure_errors(correct: Mapping[int, np.ndarray], baseline: np.ndarray | None = None) -> MeasuredErrors:
    """Compute mean errors and their covariance from per-example correctness.

    All sizes share one test set, so their errors are correlated: a hard test set raises all errors, and this common
    part cancels in the gain between two sizes.

    Args:
        correct: Maps training set size to an array of shape `(num_seeds, num_examples)`: 1 where a seed's run
            classified the example correctly, else 0.
        baseline: The same for one run of a baseline, shape `(num_examples,)`.
    """
    sizes = sorted(correct)
    scores = [correct[size] for size in sizes]
    others = [] if baseline is None else [baseline[None]]
    noise = score_noise([*scores, *others], [True] * len(sizes) + [False] * len(others))
    num_sizes, covariance = len(sizes), noise.covariance
    freedom = sum(len(score) - 1 for score in scores)
    return MeasuredErrors(
        num_train=np.array(sizes),
        error=1 - noise.values[:num_sizes],
        covariance=covariance[:num_sizes, :num_sizes],
        seed_variance=noise.of_seeds[:num_sizes],
        num_seeds=np.array([len(score) for score in scores]),
        num_examples=scores[0].shape[1],
        degrees_of_freedom=freedom + assumed_seed_variance(float(noise.values[0])).degrees_of_freedom if freedom else 0,
        baseline=None
        if baseline is None
        else BaselineError(1 - float(noise.values[-1]), float(covariance[-1, -1]), covariance[-1, :num_sizes]),
    )
