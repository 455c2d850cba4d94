"""When the speed of a run is known well enough to end it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.analysis.log_ratio import LogRatio, ratio_of_sums
from harness.analysis.steady_state import warmup_steps
from harness.analysis.throughput import slowest_rank_by_step

# Each look is a chance to stop on steps that are alike by accident, so there are few: bench/bench_stopping.py shows how often
# the interval then holds the true speed.
FIRST_LOOK = 16
GROWTH = 1.3


def is_look(num_steps: int) -> bool:
    """Return whether the interval is looked at after this many steps: 16, and then whenever there are 1.3 times as many."""
    look = FIRST_LOOK
    while look < num_steps:
        look = math.ceil(look * GROWTH)
    return look == num_steps


def within_run_rate(
    seconds: Sequence[Sequence[float]], num_samples: Sequence[int], num_padded_tokens: Sequence[int]
) -> LogRatio | None:
    """Return log(samples/s) of a run with its variance within the run, warm-up left out; None with fewer than two steps.

    It says how well these steps tell the speed of this run; other runs of the cell differ by more.

    Args:
        seconds: Step times of each rank, `(num_ranks, num_steps)`.
        num_samples: Rows of each step over all ranks, `(num_steps,)`.
        num_padded_tokens: The same of padded tokens.
    """
    num_warmup = warmup_steps([(slowest_rank_by_step([tuple(rank) for rank in seconds]), num_padded_tokens)])
    slowest = max((rank[num_warmup:] for rank in seconds), key=sum)
    return ratio_of_sums(slowest, num_samples[num_warmup:])


def is_known_within(rate: LogRatio | None, until: float) -> bool:
    """Return whether the 95 % interval of a speed reaches at most the share `until` to either side."""
    return rate is not None and rate.variance is not None and math.expm1(rate.half_width) <= until
