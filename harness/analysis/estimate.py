"""A value with its 95 % confidence interval, and functions that make, transform and compare such estimates."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

MIN_RUNS = 3  # with at least this many runs, an interval comes from the spread between them


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; both ends are None if the spread is unknown.

    Attributes:
        basis: What the interval covers, as a phrase: "between 3 runs", "Wilson, 1,000 examples", ...
    """

    value: float
    low: float | None
    high: float | None
    basis: str


def value_of(estimate: Estimate | None) -> float | None:
    """Return the value without its interval; None for None."""
    return None if estimate is None else estimate.value


def map_increasing(estimate: Estimate, function: Callable[[float], float]) -> Estimate:
    """Apply an increasing function to an estimate's value and ends."""
    low, high = (None if end is None else function(end) for end in (estimate.low, estimate.high))
    return Estimate(function(estimate.value), low, high, estimate.basis)


def map_estimate(estimate: Estimate | None, function: Callable[[float], float | None]) -> Estimate | None:
    """Apply a monotonic function to an estimate's value and ends; None without an estimate or a function value."""
    if estimate is None or (mapped := function(estimate.value)) is None:
        return None
    low, high = (None if end is None else function(end) for end in (estimate.low, estimate.high))
    if (low is not None and low > mapped) or (high is not None and high < mapped):
        low, high = high, low
    return Estimate(mapped, low, high, estimate.basis)


def t_interval(values: Sequence[float], basis: str, *, upper_bound: float = math.inf) -> Estimate:
    """Return the mean of two or more values with its interval by Student's t: mean +- t * s / sqrt(n).

    The interval is clipped to [0, `upper_bound`].

    Source: Student (W. S. Gosset), "The probable error of a mean", Biometrika 6 (1908), 1-25.
    """
    mean = fmean(values)
    half = t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Estimate(mean, max(0.0, mean - half), min(upper_bound, mean + half), basis)


@functools.cache
def wilson_interval(share: float, num_examples: int) -> Estimate:
    """Return a binomial proportion with its Wilson score interval.

    Implemented here because importing scipy.stats takes longer than making most reports; a test compares with scipy.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the
    American Statistical Association 22 (1927), 209-212.

    Args:
        share: Fraction of the examples that were classified correctly.
        num_examples: Number of examples.
    """
    low, high = wilson_ends(share, num_examples, t_quantile(math.inf))
    return Estimate(share, low, high, f"Wilson, {num_examples:,} examples")


def wilson_ends(share: float, num_examples: float, quantile: float) -> tuple[float, float]:
    """Return the ends of Wilson's interval for an effective number of examples and a quantile of any distribution."""
    z_squared = quantile**2
    centre = (share + z_squared / (2 * num_examples)) / (1 + z_squared / num_examples)
    half = math.sqrt(z_squared * (share * (1 - share) + z_squared / (4 * num_examples)) / num_examples)
    half /= 1 + z_squared / num_examples
    return (0.0 if share <= 0 else centre - half), (1.0 if share >= 1 else centre + half)


def ratio_estimate(numerator: Estimate, denominator: Estimate) -> Estimate:
    """Divide two independent positive estimates, with first-order error propagation.

    For q = a / b, Var(q) / q^2 = Var(a) / a^2 + Var(b) / b^2, so relative half-widths add in quadrature: the low end
    combines a's lower with b's upper half-width, and vice versa. The low end is at least 0. If a or b has no interval,
    the ratio has none either.

    Source: JCGM 100:2008 (GUM), section 5.1.
    """
    quotient, basis = numerator.value / denominator.value, "ratio of two figures taken as independent"
    if numerator.low is None or numerator.high is None or denominator.low is None or denominator.high is None:
        return Estimate(quotient, None, None, "ratio of two figures, one of them without an interval")
    below = math.hypot(
        (numerator.value - numerator.low) / numerator.value,
        (denominator.high - denominator.value) / denominator.value,
    )
    above = math.hypot(
        (numerator.high - numerator.value) / numerator.value,
        (denominator.value - denominator.low) / denominator.value,
    )
    return Estimate(quotient, quotient * max(0.0, 1 - below), quotient * (1 + above), basis)


def overlap(first: Estimate | None, second: Estimate | None) -> bool:
    """Return True if both estimates' intervals share a point; a value without an interval counts as a point."""
    if first is None or second is None:
        return False
    return max(bound(first, "low"), bound(second, "low")) <= min(bound(first, "high"), bound(second, "high"))


def bound(estimate: Estimate, side: str) -> float:
    """Return the `low` or `high` end of an estimate's interval; the value if there is no interval."""
    end: float | None = getattr(estimate, side)
    return estimate.value if end is None else end


def intervals_disjoint(a: Estimate, b: Estimate) -> bool:
    """Return True if both intervals are known and don't overlap."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return a.high < b.low or b.high < a.low


@functools.cache
def t_quantile(degrees_of_freedom: float) -> float:
    """Return the 97.5 % quantile of Student's t: the half-width of a 95 % interval in standard errors.

    Args:
        degrees_of_freedom: Degrees of freedom; `math.inf` gives the normal distribution's quantile.
    """
    from scipy import special  # imported here, so that commands that need no interval run without scipy

    return float(special.stdtrit(degrees_of_freedom, 0.975))
