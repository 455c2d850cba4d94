"""A value with its 95 % confidence interval, and functions that make, transform and compare such estimates."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

Z_95_ONE_SIDED = 1.6449  # one-sided 95 % quantile of the normal distribution
MIN_RUNS = 3  # with at least this many runs, an interval comes from the spread between them


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; both ends are None if the spread is unknown.

    Attributes:
        basis: What the interval covers, as a phrase: "between 3 runs", "Wilson, 1,000 examples", ...
        degrees_of_freedom: Of Student's t behind the interval; infinite if it is none. Rankings need it, because they
            ask for more than 95 %.
    """

    value: float
    low: float | None
    high: float | None
    basis: str
    degrees_of_freedom: float = math.inf


def value_of(estimate: Estimate | None) -> float | None:
    """Return the value without its interval; None for None."""
    return None if estimate is None else estimate.value


def map_increasing(estimate: Estimate, function: Callable[[float], float]) -> Estimate:
    """Apply an increasing function to an estimate's value and ends."""
    low, high = (None if end is None else function(end) for end in (estimate.low, estimate.high))
    return replace(estimate, value=function(estimate.value), low=low, high=high)


def map_estimate(estimate: Estimate | None, function: Callable[[float], float | None]) -> Estimate | None:
    """Apply a monotonic function to an estimate's value and ends; None without an estimate or a function value."""
    if estimate is None or (mapped := function(estimate.value)) is None:
        return None
    low, high = (None if end is None else function(end) for end in (estimate.low, estimate.high))
    if (low is not None and low > mapped) or (high is not None and high < mapped):
        low, high = high, low
    return replace(estimate, value=mapped, low=low, high=high)


def t_interval(values: Sequence[float], basis: str, *, upper_bound: float = math.inf) -> Estimate:
    """Return the mean of two or more values with its interval by Student's t: mean +- t * s / sqrt(n).

    The interval is clipped to [0, `upper_bound`].

    Source: Student (W. S. Gosset), "The probable error of a mean", Biometrika 6 (1908), 1-25.
    """
    mean, degrees_of_freedom = fmean(values), len(values) - 1
    half = t_quantile(degrees_of_freedom) * stdev(values) / math.sqrt(len(values))
    return Estimate(mean, max(0.0, mean - half), min(upper_bound, mean + half), basis, degrees_of_freedom)


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
    """Divide two independent positive estimates; the interval comes from both intervals' distances in logarithms.

    For q = a / b, the log of the low end is log q - sqrt(log(a / a_low)^2 + log(b_high / b)^2), and the high end
    likewise. If a or b has no interval, the ratio has none either.

    Source: G. Y. Zou and A. Donner, "Construction of confidence limits about effect measures: a general approach",
    Statistics in Medicine 27 (2008), 1693-1702.
    """
    quotient, basis = numerator.value / denominator.value, "ratio of two figures taken as independent"
    if numerator.low is None or numerator.high is None or denominator.low is None or denominator.high is None:
        return Estimate(quotient, None, None, "ratio of two figures, one of them without an interval")
    below = math.hypot(log_distance(numerator.low, numerator.value), log_distance(denominator.value, denominator.high))
    above = math.hypot(log_distance(numerator.value, numerator.high), log_distance(denominator.low, denominator.value))
    degrees_of_freedom = min(numerator.degrees_of_freedom, denominator.degrees_of_freedom)
    high = None if math.isinf(above) else quotient * math.exp(above)
    return Estimate(quotient, quotient * math.exp(-below), high, basis, degrees_of_freedom)


def log_distance(low: float, high: float) -> float:
    """Return log(high / low) of two values of which the first may be 0."""
    return math.log(high / low) if low > 0 else math.inf


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
