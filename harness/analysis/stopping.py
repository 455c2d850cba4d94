"""When the speed of a run is known well enough to end it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.analysis.log_ratio import LogRatio
from harness.analysis.steady_state import warmup_steps
from harness.analysis.throughput import log_speed, slowest_rank, slowest_rank_by_step

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


def within_run_rate(seconds: Sequence[Sequence[float]], num_padded_tokens: Sequence[int]) -> LogRatio | None:
    """Return the speed of a run relative to the line of its seconds over tokens, warm-up left out; None without two steps.

    Its variance says how well these steps tell the speed of this run; other runs of the cell differ by more.

    Args:
        seconds: Step times of each rank, `(num_ranks, num_steps)`.
        num_padded_tokens: Padded tokens of each step over all ranks, `(num_steps,)`.
    """
    if not num_padded_tokens:
        return None
    ranks = [tuple(rank) for rank in seconds]
    num_warmup = warmup_steps([(slowest_rank_by_step(ranks), num_padded_tokens)])
    return log_speed(slowest_rank(ranks, num_warmup), num_padded_tokens[num_warmup:])


def is_known_within(rate: LogRatio | None, until: float) -> bool:
    """Return whether the 95 % interval of a speed reaches at most the share `until` to either side."""
    return rate is not None and rate.variance is not None and math.expm1(rate.half_width) <= until
