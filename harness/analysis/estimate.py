"""A figure with its 95 % interval, and how intervals come about and combine (pure)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

MIN_RUNS = 3  # from here on the spread between runs is known well enough to be the interval


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; low and high are None where one run gives no spread.

    Attributes:
        basis: What the interval covers, in words: "between 3 runs", "Wilson, 1,000 examples", ...
    """

    value: float
    low: float | None
    high: float | None
    basis: str


def value_of(estimate: Estimate | None) -> float | None:
    """The figure alone; None where there is none."""
    return None if estimate is None else estimate.value


def map_increasing(estimate: Estimate, value: Callable[[float], float]) -> Estimate:
    """An estimate through a function that grows with it."""
    low, high = (None if end is None else value(end) for end in (estimate.low, estimate.high))
    return Estimate(value(estimate.value), low, high, estimate.basis)


def map_estimate(estimate: Estimate | None, value: Callable[[float], float | None]) -> Estimate | None:
    """An estimate through a monotonic function, value and both ends in their order; None where the value has none."""
    if estimate is None or (middle := value(estimate.value)) is None:
        return None
    low, high = (None if end is None else value(end) for end in (estimate.low, estimate.high))
    if (low is not None and low > middle) or (high is not None and high < middle):
        low, high = high, low
    return Estimate(middle, low, high, estimate.basis)


def t_interval(values: Sequence[float], basis: str, *, most: float = math.inf) -> Estimate:
    """Mean of two values or more and its 95 % interval by Student's t, cut off at 0 and at `most`."""
    value = fmean(values)
    half = t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Estimate(value, max(0.0, value - half), min(most, value + half), basis)


@functools.cache
def wilson_interval(share: float, num_examples: int) -> Estimate:
    """95 % Wilson interval of a share of examples that were right.

    Written out, since scipy.stats alone takes longer to import than most reports to be made; a test holds it to scipy's.

    Source: E. B. Wilson, Journal of the American Statistical Association 22 (1927), 209-212.
    """
    squared = t_quantile(math.inf) ** 2
    middle = (share + squared / (2 * num_examples)) / (1 + squared / num_examples)
    half = math.sqrt(squared * (share * (1 - share) + squared / (4 * num_examples)) / num_examples)
    half /= 1 + squared / num_examples
    low, high = (0.0 if share == 0 else middle - half), (1.0 if share == 1 else middle + half)
    return Estimate(share, low, high, f"Wilson, {num_examples:,} examples")


def ratio_estimate(one: Estimate, other: Estimate) -> Estimate:
    """`one` / `other` with a 95 % interval by first-order propagation, the two taken as independent.

    For q = a / b, Var(q) / q^2 = Var(a) / a^2 + Var(b) / b^2: relative half-widths add as squares. Low, a's low side
    meets b's high one; high, the other two. Without both intervals it has none, and none reaches below 0.
    """
    quotient, basis = one.value / other.value, "ratio of two figures taken as independent"
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return Estimate(quotient, None, None, "ratio of two figures, one of them without an interval")
    below = math.hypot((one.value - one.low) / one.value, (other.high - other.value) / other.value)
    above = math.hypot((one.high - one.value) / one.value, (other.value - other.low) / other.value)
    return Estimate(quotient, quotient * max(0.0, 1 - below), quotient * (1 + above), basis)


def intervals_disjoint(one: Estimate, other: Estimate) -> bool:
    """Whether two figures can be ranked: both have an interval, and these share no point."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.high < other.low or other.high < one.low


@functools.cache
def t_quantile(freedom: float) -> float:
    """97.5 % quantile of Student's t: half the width of a 95 % interval, in standard errors; of infinite freedom the normal one."""
    from scipy import special  # here, so that what asks for no interval runs where scipy is not installed

    return float(special.stdtrit(freedom, 0.975))
