"""Which of a run's first steps are warm-up (pure)."""

from __future__ import annotations

from collections.abc import Sequence

WARMUP_STEPS = 3
FEWEST_STEPS_WITH_WARMUP = 10
FEWEST_STEPS = 30


def warmup_steps(seconds: Sequence[float]) -> int:
    """Count the steps to leave out at a run's beginning: 3, but none of fewer than 10.

    Meanwhile caches fill, kernels are chosen and the allocator grows.

    Args:
        seconds: By step, the slowest rank's of each.
    """
    return WARMUP_STEPS if len(seconds) >= FEWEST_STEPS_WITH_WARMUP else 0
