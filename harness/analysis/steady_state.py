"""Find the warm-up of a run's steps, and whether the remaining steps are steady."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_high

import numpy as np

from harness.analysis.log_ratio import FloatArray, ratio_of_sums

MIN_STEPS_FOR_WARMUP = 10
MIN_STEPS = 30
MIN_RELATIVE_NOISE = 0.05  # smaller deviations than this share of a step's time don't count as warm-up
MIN_DRIFT = 0.05
MIN_MODE_GAP = 0.1
_MAX_DEVIATIONS = 3.0  # in robust standard deviations: larger residuals are clipped to this
_MAD_TO_SD = 1.4826  # standard deviation over median absolute deviation, for a normal distribution
_MIN_RELATIVE_SD = 1e-3  # floor of the modes' joint standard deviation, so that Ashman's D stays finite
_HUBER_ITERATIONS = 3
# Modes with a larger Ashman's D are separate. Ashman et al. use 2 for groups that are given. Here the best cut is
# searched for, and even a single normal distribution, cut in two, has D = 2.6.
_MIN_ASHMAN_D = 4.0
_MIN_MODE_SHARE = 0.1
_MIN_DRIFT_HALF_WIDTHS = 2.0

Series = tuple[Sequence[float], Sequence[int]]  # seconds and padded tokens by step


@dataclass(frozen=True, order=True)
class Bimodality:
    """Two separate modes of step time.

    Attributes:
        gap: Difference of the modes' means over the fast mode's mean.
        slow_fraction: Share of the steps in the slow mode.
    """

    gap: float
    slow_fraction: float


def warmup_steps(runs: Sequence[Series]) -> int:
    """Return the number of warm-up steps to discard from every run of a cell.

    During warm-up, caches fill, kernels are selected and the allocator grows. Each run's own steps determine a number of
    warm-up steps (MSER). The upper median of these numbers applies to all runs, so that they are compared over the same
    batches.

    Args:
        runs: Seconds and padded tokens of each run, by step.

    Returns:
        The count, at most half of the shortest run; 0 if a run has fewer than 10 steps.
    """
    if not runs or min(len(seconds) for seconds, _ in runs) < MIN_STEPS_FOR_WARMUP:
        return 0
    shortest = min(len(seconds) for seconds, _ in runs)
    return min(shortest // 2, median_high(_mser_truncation(tuple(seconds), tuple(sizes)) for seconds, sizes in runs))


@functools.lru_cache(maxsize=2**14)  # a report calls this several times per run: for the cell, its MFU and the charts
def _mser_truncation(seconds: tuple[float, ...], num_tokens: tuple[int, ...]) -> int:
    """Find the truncation point by the marginal standard error rule (MSER).

    MSER discards the first d steps, where d minimises sum((y - mean)^2) / n^2 over the remaining n steps. Here y is a
    step's residual relative to the time predicted from its tokens. It is clipped at 3 robust standard deviations, so
    that one disturbed step is not mistaken for warm-up. A constant variance of 0.05^2 per step is added, so that steady
    runs are not truncated because of negligible differences. The discarded steps must be slower on average than the
    rest; a run that slows down has drift instead (see `find_drift`).

    Source: K. P. White, "An effective truncation heuristic for bias reduction in simulation output", Simulation 69
    (1997), 323-334; K. P. White, M. J. Cobb and S. C. Spratt, "A comparison of five steady-state truncation heuristics
    for simulation", Winter Simulation Conference 2000, 755-760.
    """
    residuals = _winsorized_residuals(seconds, num_tokens)
    num_steps = len(residuals)
    num_left = num_steps - np.arange(num_steps)
    sums, squares = _suffix_sums(residuals), _suffix_sums(residuals**2)
    errors = (squares - sums**2 / num_left + num_left * MIN_RELATIVE_NOISE**2) / num_left**2
    num_cut = np.arange(1, num_steps // 2 + 1)
    is_slower = (sums[0] - sums[num_cut]) / num_cut > sums[num_cut] / num_left[num_cut]
    candidates = np.concatenate(([0], num_cut[is_slower]))
    return int(candidates[np.argmin(errors[candidates])])


def _suffix_sums(values: FloatArray) -> FloatArray:
    """Return, for each index, the sum of the values from this index to the end."""
    return np.cumsum(values[::-1])[::-1]


def expected_seconds(seconds: Sequence[float], num_tokens: Sequence[int]) -> FloatArray:
    """Predict each step's seconds from its padded tokens, by a robust line through all steps; shape `(num_steps,)`."""
    return seconds_by_tokens(seconds, num_tokens, num_tokens)


def seconds_by_tokens(seconds: Sequence[float], num_tokens: Sequence[int], at: Sequence[float]) -> FloatArray:
    """Predict the seconds of steps of `at` padded tokens, by a robust line through all steps.

    Args:
        seconds: Measured step times, shape `(num_steps,)`.
        num_tokens: Padded tokens, shape `(num_steps,)`.
        at: Padded tokens of the predicted steps.
    """
    sizes = np.asarray(num_tokens, dtype=float)
    intercept, slope, _ = _fit_time_vs_tokens(np.asarray(seconds, dtype=float), sizes)
    return intercept + slope * np.asarray(at, dtype=float)


def find_modes(seconds: Sequence[float], expected: Sequence[float] | FloatArray) -> Bimodality | None:
    """Detect two separate modes of step time; None for a single mode or fewer than 30 steps.

    Step times, relative to their predictions, are cut into two groups where the variance within the groups is least
    (Otsu). The groups are separate modes if Ashman's D = sqrt(2) |m1 - m2| / sqrt(v1 + v2) exceeds 4, the means differ
    by 10 % or more, and each group has at least a tenth of the steps.

    Source: N. Otsu, "A threshold selection method from gray-level histograms", IEEE Transactions on Systems, Man, and
    Cybernetics 9 (1979), 62-66; K. M. Ashman, C. M. Bird and S. E. Zepf, "Detecting bimodality in astronomical
    datasets", The Astronomical Journal 108 (1994), 2348-2361.

    Args:
        seconds: Measured step times, shape `(num_steps,)`.
        expected: Predicted step times, shape `(num_steps,)`.
    """
    if len(seconds) < MIN_STEPS:
        return None
    relative = np.sort(np.asarray(seconds) / expected)
    num_steps, min_group = len(relative), math.ceil(_MIN_MODE_SHARE * len(relative))
    num_fast = np.arange(min_group, num_steps - min_group + 1)  # every possible cut
    num_slow = num_steps - num_fast
    sums, squares = np.cumsum(relative), np.cumsum(relative**2)
    fast, slow = sums[num_fast - 1] / num_fast, (sums[-1] - sums[num_fast - 1]) / num_slow
    fast_variance = squares[num_fast - 1] / num_fast - fast**2
    slow_variance = (squares[-1] - squares[num_fast - 1]) / num_slow - slow**2
    cut = int(np.argmin(num_fast * fast_variance + num_slow * slow_variance))
    gap = float(slow[cut] - fast[cut])
    joint_variance = max(float(fast_variance[cut] + slow_variance[cut]), _MIN_RELATIVE_SD**2)
    ashman_d = math.sqrt(2) * gap / math.sqrt(joint_variance)
    modes = Bimodality(gap / float(fast[cut]), float(num_slow[cut]) / num_steps)
    return modes if ashman_d > _MIN_ASHMAN_D and modes.gap >= MIN_MODE_GAP else None


def find_drift(seconds: Sequence[float], expected: Sequence[float] | FloatArray) -> float | None:
    """Return how much slower the last third of the steps is than the first, relative to the predicted times.

    Drift is reported if it is 5 % or more, and at least twice the half-width of its 95 % interval (`ratio_of_sums`
    allows for autocorrelation). An even trend within the thirds is taken out first: it would count as noise, so that
    a large drift of a steady machine would be missed.

    Args:
        seconds: Measured step times, shape `(num_steps,)`.
        expected: Predicted step times, shape `(num_steps,)`.

    Returns:
        The relative change; None if it is small, uncertain, or from fewer than 30 steps.
    """
    if len(seconds) < MIN_STEPS:
        return None
    third = len(seconds) // 3
    level = _without_trend(np.asarray(seconds, dtype=float), np.asarray(expected, dtype=float), third)
    begin, end = ratio_of_sums(expected[:third], level[:third]), ratio_of_sums(expected[-third:], level[-third:])
    if begin is None or end is None or begin.variance is None or end.variance is None:
        return None
    change = end.value - begin.value
    uncertainty = _MIN_DRIFT_HALF_WIDTHS * math.hypot(begin.half_width, end.half_width)
    if abs(change) <= max(math.log1p(MIN_DRIFT), uncertainty):
        return None
    return math.expm1(change)


def _without_trend(seconds: FloatArray, expected: FloatArray, third: int) -> FloatArray:
    """Take the even trend over all steps out of the first and the last third, and keep the totals of both.

    Args:
        seconds: Measured step times, shape `(num_steps,)`.
        expected: Predicted step times, shape `(num_steps,)`.
        third: Number of steps in each of the two thirds.
    """
    places = np.arange(len(seconds), dtype=float)
    relative = seconds / expected
    centred = places - places.mean()
    slope = float(centred @ (relative - relative.mean())) / float(centred @ centred)
    level = seconds.copy()
    for part in (slice(0, third), slice(len(seconds) - third, len(seconds))):
        weights = expected[part] / expected[part].sum()
        level[part] -= slope * (places[part] - float(places[part] @ weights)) * expected[part]
    return level


def _winsorized_residuals(seconds: Sequence[float], num_tokens: Sequence[int]) -> FloatArray:
    """Return clipped relative residuals from a line fitted to the second half of the steps, which has no warm-up."""
    measured, sizes, half = np.asarray(seconds, dtype=float), np.asarray(num_tokens, dtype=float), len(seconds) // 2
    intercept, slope, limit = _fit_time_vs_tokens(measured[half:], sizes[half:])
    return (measured / (intercept + slope * sizes) - 1).clip(-limit, limit)


def _fit_time_vs_tokens(seconds: FloatArray, sizes: FloatArray) -> tuple[float, float, float]:
    """Fit seconds = intercept + slope * tokens robustly.

    Steps differ in tokens, and so in seconds, if batches are grouped by length. Outliers are pulled towards the line
    before each refit (Huber's modified residuals). The residuals' scale is their median absolute deviation.

    Source: P. J. Huber, "Robust statistics" (1981), section 7.8.

    Args:
        seconds: Shape `(num_steps,)`.
        sizes: Padded tokens, shape `(num_steps,)`.

    Returns:
        Intercept in seconds, slope in seconds per token, and the largest relative residual that is not clipped.
    """
    winsorized, intercept, slope, limit = seconds, 0.0, 0.0, 0.0
    for _ in range(_HUBER_ITERATIONS):
        intercept, slope = _fit_non_negative_line(sizes, winsorized)
        expected = intercept + slope * sizes
        residuals = seconds / expected - 1
        limit = _MAX_DEVIATIONS * max(MIN_RELATIVE_NOISE, _MAD_TO_SD * _median(np.abs(residuals)))
        winsorized = expected * (1 + residuals.clip(-limit, limit))
    return intercept, slope, limit


def _median(values: FloatArray) -> float:
    """Return the median; five times as fast as np.median for a hundred values."""
    ordered, half = np.sort(values), len(values) // 2
    return float(ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2)


def _fit_non_negative_line(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """Return intercept and slope of the least-squares line with both at least 0."""
    mean_x, mean_y = float(x.mean()), float(y.mean())
    centred = x - mean_x
    sum_of_squares = float(centred @ centred)
    slope = float(centred @ y) / sum_of_squares if sum_of_squares else 0.0
    if slope <= 0:
        return mean_y, 0.0
    if mean_y <= slope * mean_x:
        return 0.0, float(x @ y) / float(x @ x)
    return mean_y - slope * mean_x, slope
