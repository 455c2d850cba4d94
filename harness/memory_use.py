"""Whether a run's memory grew, and by how much a step (pure)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from scipy import stats

FEWEST_STEPS = 30
_NUM_BATCHES = 10


@dataclass(frozen=True)
class Growth:
    """Bytes a step, with a 95 % interval; `rose_bytes` is the interval's lower end over all the steps looked at."""

    bytes_per_step: float
    low: float
    high: float
    rose_bytes: float


def measure_growth(held_bytes: Sequence[int]) -> Growth | None:
    """Fit a slope to what was held after every step, warm-up left out; None with fewer than 30 steps.

    Steps in a row are alike, and what an allocator has taken it mostly keeps, so that single steps, or the residuals
    of a line through them, promise too much. The steps are cut into 10 contiguous batches. The slope is that from the
    first batch's mean to the last one's; its variance is that of a ratio, from the 9 differences between neighbouring
    batches. A leak raises every batch. An allocator that settles, or one long text, raises few, which makes the
    interval wide enough to hold 0. Neighbouring differences share a batch's noise with opposite signs, so that the
    interval is rather too wide.

    Source: method of batch means: Schmeiser, "Batch size effects in the analysis of simulation output", Operations
    Research 30 (1982) 556-568; variance of a ratio: Cochran, "Sampling techniques", 3rd ed., section 6.3.
    """
    num_steps = len(held_bytes)
    if num_steps < FEWEST_STEPS:
        return None
    bounds = [num_steps * index // _NUM_BATCHES for index in range(_NUM_BATCHES + 1)]
    levels = [fmean(held_bytes[first:end]) for first, end in pairwise(bounds)]
    middles = [(first + end - 1) / 2 for first, end in pairwise(bounds)]
    steps = [after - before for before, after in pairwise(middles)]
    rises = [after - before for before, after in pairwise(levels)]
    slope = sum(rises) / sum(steps)
    count = len(rises)
    squared = sum((rise - slope * step) ** 2 for rise, step in zip(rises, steps, strict=True))
    error = math.sqrt(count / (count - 1) * squared) / sum(steps)
    half = float(stats.t.ppf(0.975, count - 1)) * error
    return Growth(slope, slope - half, slope + half, (slope - half) * num_steps)
