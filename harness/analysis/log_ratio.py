"""The logarithm of a ratio with its variance, and the log-ratio of two sums over autocorrelated steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.analysis.estimate import Estimate, t_quantile

FloatArray = NDArray[np.float64]

MAX_BATCHES = 10
_MAX_AUTOCORRELATION = 0.97  # cap of the lag-1 autocorrelation: near 1, the effective sample size would approach 0
_ROUNDING_ERROR = 1e-12  # relative to a sum; smaller residuals are rounding errors


@dataclass(frozen=True)
class LogRatio:
    """The natural logarithm of a ratio B / A of positive quantities.

    Logarithms treat both sides alike, since log(A / B) = -log(B / A), and the logarithms of factors add up.

    Attributes:
        variance: Variance of `value`; None if unknown.
        degrees_of_freedom: Degrees of freedom of `variance`, for Student's t.
        basis: What the variance covers, as a phrase.
        inconclusive_reason: Reason the comparison is inconclusive; None if conclusive.
    """

    value: float
    variance: float | None
    degrees_of_freedom: float
    basis: str
    inconclusive_reason: str | None = None

    @property
    def half_width(self) -> float:
        """Half-width of the logarithm's 95 % interval; 0 without a variance."""
        return t_quantile(self.degrees_of_freedom) * math.sqrt(self.variance or 0.0)

    def estimate(self) -> Estimate:
        """Return B / A with its 95 % interval, not adjusted for multiple comparisons."""
        if self.variance is None:
            return Estimate(math.exp(self.value), None, None, self.basis)
        half = self.half_width
        return Estimate(math.exp(self.value), math.exp(self.value - half), math.exp(self.value + half), self.basis)

    def p_value(self, at: float = 0.0) -> float | None:
        """Return the two-sided p-value of the hypothesis that the true logarithm is `at`; None if inconclusive."""
        if self.variance is None or self.inconclusive_reason is not None:
            return None
        distance = abs(self.value - at)
        if self.variance <= 0:  # possible for memory, whose byte count may be identical in all runs
            return 1.0 if distance == 0 else 0.0
        from scipy import special

        return 2 * float(special.stdtr(self.degrees_of_freedom, -distance / math.sqrt(self.variance)))

    def inverted(self, shift: float = 0.0) -> LogRatio:
        """Return the log-ratio of `exp(shift)` divided by this ratio.

        For example, a ratio of speeds and the `shift` log(price B / price A) give the ratio of dollars per sample.
        """
        return LogRatio(
            shift - self.value, self.variance, self.degrees_of_freedom, self.basis, self.inconclusive_reason
        )


def ratio_of_sums(
    denominators: Sequence[float] | FloatArray, numerators: Sequence[float] | FloatArray
) -> LogRatio | None:
    """Return log R, where R = sum(numerators) / sum(denominators) over a run's steps.

    Step times are autocorrelated; treating them as independent gives intervals that are too narrow. Two methods allow
    for autocorrelation, and the wider of their intervals is used. With residuals e = numerator - R * denominator:

    - Batch means over k = 10 contiguous batches: Var(log R) = k / (k - 1) * sum(e_batch^2) / sum(numerators)^2.
    - Effective sample size n' = n (1 - r) / (1 + r) for lag-1 autocorrelation r, because in short runs even the batches
      are correlated: Var(log R) = n^2 / (n' (n - 1)) * sum(e^2) / sum(numerators)^2.

    Source: B. Schmeiser, "Batch size effects in the analysis of simulation output", Operations Research 30 (1982),
    556-568; H. J. Thiebaux and F. W. Zwiers, "The interpretation and estimation of effective sample size", Journal of
    Climate and Applied Meteorology 23 (1984), 800-811.

    Args:
        denominators: One value per step, shape `(num_steps,)`.
        numerators: One value per step, shape `(num_steps,)`.

    Returns:
        The log-ratio; None with fewer than two steps. Its variance is None if the effective sample size is below 2.
    """
    num_steps = len(denominators)
    if num_steps < 2:  # noqa: PLR2004 - a variance needs two
        return None
    below, above = np.asarray(denominators, dtype=float), np.asarray(numerators, dtype=float)
    total = float(above.sum())
    ratio = total / float(below.sum())
    residuals = above - ratio * below
    value, num_batches = math.log(ratio), min(MAX_BATCHES, num_steps)
    batches = np.add.reduceat(residuals, num_steps * np.arange(num_batches) // num_batches)
    variance = num_batches / (num_batches - 1) * float(batches @ batches) / total**2
    by_batches = LogRatio(value, variance, num_batches - 1, f"{num_batches} batches of steps")
    sum_of_squares = float(residuals @ residuals)
    if sum_of_squares <= (_ROUNDING_ERROR * total) ** 2:
        return by_batches
    autocorrelation = float(residuals[:-1] @ residuals[1:]) / sum_of_squares
    # Correct the bias of short series, about -(1 + 3 r) / n (Marriott and Pope, Biometrika 41 (1954), 390-402).
    autocorrelation = min(_MAX_AUTOCORRELATION, max(0.0, autocorrelation + (1 + 3 * autocorrelation) / num_steps))
    num_effective = num_steps * (1 - autocorrelation) / (1 + autocorrelation)
    if num_effective < 2:  # noqa: PLR2004 - a variance needs two
        return LogRatio(value, None, math.inf, "steps that all hang together")
    variance = sum_of_squares / total**2 * num_steps**2 / (num_effective * max(num_steps - 1, 1))
    basis = f"{num_steps} steps, {num_effective:.0f} of them independent"
    by_steps = LogRatio(value, variance, max(1.0, num_effective - 1), basis)
    return max(by_batches, by_steps, key=lambda log_ratio: log_ratio.half_width)


def sum_variances(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Add the variances of independent parts, with the Welch-Satterthwaite degrees of freedom.

    nu = (sum v_i)^2 / sum(v_i^2 / nu_i).

    Source: F. E. Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics Bulletin
    2 (1946), 110-114.

    Args:
        parts: Variance and degrees of freedom of each part.

    Returns:
        The sum of the variances and its degrees of freedom.
    """
    total = sum(variance for variance, _ in parts)
    denominator = sum(variance**2 / degrees_of_freedom for variance, degrees_of_freedom in parts)
    return total, (total**2 / denominator if denominator > 0 else math.inf)
