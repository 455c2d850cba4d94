"""Which of a run's first steps are warm-up, and whether the others were steady (pure)."""

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
MIN_RELATIVE_NOISE = 0.05
MIN_DRIFT = 0.05
MIN_MODE_GAP = 0.1
_FARTHEST = 3.0  # robust standard deviations: beyond them a step counts as this far off, and no farther
_MAD_TO_SD = 1.4826  # of a normal distribution
_QUIETEST = 1e-3  # of a step: what lies closer together than this is taken as equal
_ROUNDS = 3
_CLEARLY_APART = 4.0  # Ashman's D: 2 by its authors where groups are given; a normal distribution cut in two has 2.6
_LEAST_SHARE = 0.1
_SURE_WIDTHS = 2.0

Series = tuple[Sequence[float], Sequence[int]]  # seconds and padded tokens, by step


@dataclass(frozen=True, order=True)
class Bimodality:
    """Two kinds of step: by how much of the shorter one's time they lie apart, and the share of the longer ones."""

    gap: float
    slow_fraction: float


def warmup_steps(runs: Sequence[Series]) -> int:
    """Count the steps to leave out at the beginning of all runs of a cell; 0 where one has fewer than 10, at most half of it.

    Meanwhile caches fill, kernels are chosen and the allocator grows. Each run tells by its own steps where to cut; of
    several runs the (upper) median counts for all, so that they compare over the same batches.

    Args:
        runs: Of each its seconds and its padded tokens, by step.
    """
    if not runs or min(len(seconds) for seconds, _ in runs) < MIN_STEPS_FOR_WARMUP:
        return 0
    fewest = min(len(seconds) for seconds, _ in runs)
    return min(fewest // 2, median_high(_truncate(tuple(seconds), tuple(sizes)) for seconds, sizes in runs))


@functools.lru_cache(maxsize=2**14)  # asked of a run for its cell, for its share of the peak, and for charts
def _truncate(seconds: tuple[float, ...], num_tokens: tuple[int, ...]) -> int:
    """Cut where the standard error of the mean of what is left would be least, were its steps independent (MSER).

    That is sum((y - mean)^2) / n^2, y being by how much each step was longer than its tokens let expect, drawn in to 3
    robust standard deviations, so that a step in which another program woke up is no warm-up. A twentieth of a step is
    added to their noise, since what is smaller is no warm-up either: of quiet steps MSER would cut off a first few that
    differ by next to nothing. What is cut must be slower than what is left; a run that slows down drifts (see `find_drift`).

    Source: K. P. White, "An effective truncation heuristic for bias reduction in simulation output", Simulation 69
    (1997), 323-334; K. P. White, M. J. Cobb and S. C. Spratt, "A comparison of five steady-state truncation heuristics
    for simulation", Winter Simulation Conference 2000, 755-760.
    """
    offs = _winsorized_residuals(seconds, num_tokens)
    num_steps = len(offs)
    num_left = num_steps - np.arange(num_steps)
    totals, squares = _sums_from(offs), _sums_from(offs**2)
    errors = (squares - totals**2 / num_left + num_left * MIN_RELATIVE_NOISE**2) / num_left**2
    num_cut = np.arange(1, num_steps // 2 + 1)
    is_slower = (totals[0] - totals[num_cut]) / num_cut > totals[num_cut] / num_left[num_cut]
    may_be = np.concatenate(([0], num_cut[is_slower]))
    return int(may_be[np.argmin(errors[may_be])])


def _sums_from(values: FloatArray) -> FloatArray:
    """Of each place, the sum from there to the end."""
    return np.cumsum(values[::-1])[::-1]


def expected_seconds(seconds: Sequence[float], num_tokens: Sequence[int]) -> FloatArray:
    """What each step's padded tokens let expect it to take, by all the steps (see `_expect`)."""
    sizes = np.asarray(num_tokens, dtype=float)
    start, slope, _ = _fit_time_vs_tokens(np.asarray(seconds, dtype=float), sizes)
    return start + slope * sizes


def find_modes(seconds: Sequence[float], expected: Sequence[float] | FloatArray) -> Bimodality | None:
    """Two clearly separate kinds of step among the measured ones; None where there is one kind, or fewer than 30 steps.

    The steps, by their time relative to what their tokens let expect, are cut in two where the groups' own variances are
    least (Otsu). They are apart if Ashman's D = sqrt(2) |m1 - m2| / sqrt(v1 + v2) is above 4, their means differ by
    10 % or more, and each holds a tenth of the steps.

    Source: N. Otsu, IEEE Transactions on Systems, Man, and Cybernetics 9 (1979), 62-66; K. M. Ashman, C. M. Bird and
    S. E. Zepf, "Detecting bimodality in astronomical datasets", The Astronomical Journal 108 (1994), 2348-2361.
    """
    if len(seconds) < MIN_STEPS:
        return None
    found = np.sort(np.asarray(seconds) / expected)
    num_steps, fewest = len(found), math.ceil(_LEAST_SHARE * len(found))
    low = np.arange(fewest, num_steps - fewest + 1)
    high = num_steps - low
    sums, squares = np.cumsum(found), np.cumsum(found**2)
    fast, slow = sums[low - 1] / low, (sums[-1] - sums[low - 1]) / high
    fast_spread, slow_spread = squares[low - 1] / low - fast**2, (squares[-1] - squares[low - 1]) / high - slow**2
    cut = int(np.argmin(low * fast_spread + high * slow_spread))
    apart = float(slow[cut] - fast[cut])
    distance = math.sqrt(2) * apart / math.sqrt(max(float(fast_spread[cut] + slow_spread[cut]), _QUIETEST**2))
    modes = Bimodality(apart / float(fast[cut]), float(high[cut]) / num_steps)
    return modes if distance > _CLEARLY_APART and modes.gap >= MIN_MODE_GAP else None


def find_drift(seconds: Sequence[float], expected: Sequence[float] | FloatArray) -> float | None:
    """By how much the last third of the measured steps took longer than the first, relative; None where that is not sure.

    Each third's time is held against what its tokens let expect. It is told where it is 5 % or more, and twice
    half its 95 % interval, neighbours' likeness counted (see `ratio_of_sums`); and of 30 steps or more.
    """
    if len(seconds) < MIN_STEPS:
        return None
    third = len(seconds) // 3
    begin, end = ratio_of_sums(expected[:third], seconds[:third]), ratio_of_sums(expected[-third:], seconds[-third:])
    if begin is None or end is None or begin.variance is None or end.variance is None:
        return None
    rose = end.value - begin.value
    if abs(rose) <= max(math.log1p(MIN_DRIFT), _SURE_WIDTHS * math.hypot(begin.half_width, end.half_width)):
        return None
    return math.expm1(rose)


def _winsorized_residuals(seconds: Sequence[float], num_tokens: Sequence[int]) -> FloatArray:
    """How far each step is off, its scale told by the second half, which no warm-up touches."""
    took, sizes, half = np.asarray(seconds, dtype=float), np.asarray(num_tokens, dtype=float), len(seconds) // 2
    start, slope, limit = _fit_time_vs_tokens(took[half:], sizes[half:])
    return (took / (start + slope * sizes) - 1).clip(-limit, limit)


def _fit_time_vs_tokens(seconds: FloatArray, sizes: FloatArray) -> tuple[float, float, float]:
    """Start and slope of the line through padded tokens and seconds, and how far off its steps may lie, relative.

    Batches grouped by length differ in size, so that seconds themselves are never steady. What lies far off is drawn in.

    Source: P. J. Huber, "Robust statistics" (1981), section 7.8 (modified residuals), scale by the median deviation.
    """
    drawn_in, start, slope, limit = seconds, 0.0, 0.0, 0.0
    for _ in range(_ROUNDS):
        start, slope = _line(sizes, drawn_in)
        expected = start + slope * sizes
        offs = seconds / expected - 1
        limit = _FARTHEST * max(MIN_RELATIVE_NOISE, _MAD_TO_SD * _median(np.abs(offs)))
        drawn_in = expected * (1 + offs.clip(-limit, limit))
    return start, slope, limit


def _median(values: FloatArray) -> float:
    """As np.median, which takes five times as long for a hundred values."""
    ordered, half = np.sort(values), len(values) // 2
    return float(ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2)


def _line(sizes: FloatArray, seconds: FloatArray) -> tuple[float, float]:
    """Start and slope of the line of least squares that has neither below 0."""
    size, took = float(sizes.mean()), float(seconds.mean())
    from_middle = sizes - size
    across = float(from_middle @ from_middle)
    slope = float(from_middle @ seconds) / across if across else 0.0
    if slope <= 0:
        return took, 0.0
    if took <= slope * size:
        return 0.0, float(sizes @ seconds) / float(sizes @ sizes)
    return took - slope * size, slope
