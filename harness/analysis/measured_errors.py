"""Test errors over training set sizes, with their covariance: the input of a learning curve's fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.analysis.estimate import Estimate, t_quantile


@dataclass(frozen=True)
class MeasuredErrors:
    """Test errors measured on one test set, sorted by training set size, ascending.

    Attributes:
        num_train: Training set sizes, shape `(num_sizes,)`.
        error: Fraction of the test set misclassified, mean over seeds, shape `(num_sizes,)`.
        covariance: Covariance of `error` over test examples and seeds, shape `(num_sizes, num_sizes)`.
        run_variance: Variance of a single run's error around the mean over seeds, at the largest size.
        degrees_of_freedom: Degrees of freedom of the variance between seeds; 0 if every size has a single run.
    """

    num_train: np.ndarray
    error: np.ndarray
    covariance: np.ndarray
    run_variance: float
    degrees_of_freedom: int = 0

    def gain(self, start: int, end: int) -> Estimate:
        """Return the accuracy gain from size index `start` to size index `end`, with its 95 % interval."""
        value, quantile = (
            float(self.error[start] - self.error[end]),
            t_quantile(self.degrees_of_freedom or math.inf),
        )
        half = quantile * _difference_variance(self.covariance, start, end) ** 0.5
        return Estimate(value, value - half, value + half, "over test examples and seeds")


def measure_errors(correct: Mapping[int, np.ndarray]) -> MeasuredErrors:
    """Compute mean errors and their covariance from per-example correctness.

    All sizes share one test set, so their errors are correlated: a hard test set raises all errors, and this common
    part cancels in the gain between two sizes. With few seeds a single size's variance between seeds is unreliable, so
    it is averaged with the mean variance of all sizes. If every size has a single run, the run variance is estimated as
    half the variance of the mean change between the two largest sizes.

    Args:
        correct: Maps training set size to an array of shape `(num_seeds, num_examples)`: 1 where a seed's run
            classified the example correctly, else 0.
    """
    sizes = sorted(correct)
    by_example = np.stack([correct[size].mean(axis=0) for size in sizes])
    num_examples = by_example.shape[1]
    covariance = np.atleast_2d(np.cov(by_example)) / num_examples
    seed_variances = {size: float(correct[size].mean(axis=1).var(ddof=1)) for size in sizes if len(correct[size]) > 1}
    if seed_variances:
        mean_variance = sum(seed_variances.values()) / len(seed_variances)
        variance = np.array([(seed_variances.get(size, mean_variance) + mean_variance) / 2 for size in sizes])
        covariance = covariance + np.diag(variance / [len(correct[size]) for size in sizes])
        run_variance = float(variance[-1])
    else:
        run_variance = float(np.var(by_example[-1] - by_example[-2])) / num_examples / 2 if len(sizes) > 1 else 0.0
    degrees_of_freedom = sum(len(correct[size]) - 1 for size in seed_variances)
    return MeasuredErrors(np.array(sizes), 1 - by_example.mean(axis=1), covariance, run_variance, degrees_of_freedom)


def _difference_variance(covariance: np.ndarray, i: int, j: int) -> float:
    """Return Var(x_i - x_j)."""
    return max(0.0, float(covariance[i, i] + covariance[j, j] - 2 * covariance[i, j]))
