"""Detect memory that grows during a run, and warn about memory used by other processes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from harness.analysis.estimate import t_quantile
from harness.schema.host_record import MemoryCapFacts, MemoryUser
from harness.schema.record import Record

MIN_GROWTH_STEPS = 30
MAX_GROWTH_FRACTION = 0.05  # of the peak; runs without a leak stayed far below (measurements in docs/METHOD.md)
MAX_OTHERS_MEMORY_FRACTION = 0.1  # of the total memory, or of the available memory if that is less
_SETTLING_STEPS, _MIN_STEPS_TO_SETTLE = 3, 10
_NUM_BATCHES = 10
_CAP_METHODS = {"rlimit_data": "RLIMIT_DATA", "cuda_fraction": "a share of what torch's allocator may take"}
_GIB, _MIB = 2**30, 2**20


@dataclass(frozen=True)
class MemoryGrowth:
    """A run's memory growth.

    Attributes:
        value: Growth in bytes per step.
        low, high: 95 % interval of `value`.
        min_total_bytes: Lower bound of the growth over all fitted steps: `low` times their number.
    """

    value: float
    low: float
    high: float
    min_total_bytes: float


def fit_memory_growth(bytes_by_step: Sequence[int]) -> MemoryGrowth | None:
    """Fit the slope of a run's memory after warm-up; None with fewer than 30 steps.

    The first third is left out, because glibc's allocator takes tens of steps to settle (docs/METHOD.md). Memory is
    strongly autocorrelated, so the residuals of a regression line would give an interval that is too narrow. Instead,
    the steps are cut into 10 contiguous batches. The slope runs from the first batch's mean to the last batch's mean.
    Its variance is that of a ratio estimator over the 9 differences between neighbouring batches. A leak raises memory
    from every batch to the next. A settling allocator or one long text raises it in few batches, which widens the
    interval until it contains 0. Neighbouring differences share a batch with opposite signs, which makes the interval
    conservative.

    Source: method of batch means: Schmeiser, "Batch size effects in the analysis of simulation output", Operations
    Research 30 (1982) 556-568; variance of a ratio: Cochran, "Sampling techniques", 3rd ed., section 6.3.

    Args:
        bytes_by_step: Resident bytes after each step, shape `(num_steps,)`.
    """
    if len(bytes_by_step) < MIN_GROWTH_STEPS:
        return None
    bytes_by_step = bytes_by_step[len(bytes_by_step) // 3 :]
    num_steps = len(bytes_by_step)
    bounds = [num_steps * index // _NUM_BATCHES for index in range(_NUM_BATCHES + 1)]
    levels = [fmean(bytes_by_step[first:end]) for first, end in pairwise(bounds)]
    middles = [(first + end - 1) / 2 for first, end in pairwise(bounds)]
    steps = [after - before for before, after in pairwise(middles)]
    rises = [after - before for before, after in pairwise(levels)]
    slope = sum(rises) / sum(steps)
    count = len(rises)
    squared = sum((rise - slope * step) ** 2 for rise, step in zip(rises, steps, strict=True))
    error = math.sqrt(count / (count - 1) * squared) / sum(steps)
    half = t_quantile(count - 1) * error
    return MemoryGrowth(slope, slope - half, slope + half, (slope - half) * num_steps)


def settled_memory_bytes(record: Record) -> tuple[int, ...]:
    """Return the resident bytes of all ranks together after each step.

    With 10 steps or more, the first 3 are left out. Growth in steps with a new input shape is ignored: libraries cache
    data for each shape (oneDNN caches its primitives), while a leak also grows in the other steps. For a failed run,
    only rank 0's memory is known and shapes are unknown, so all growth counts. Only the last segment of a resumed
    training counts, because each segment is a new process.
    """
    ranks = record.training.held_bytes if record.training else (record.held_bytes,)
    total = tuple(map(sum, zip(*ranks, strict=True)))
    if record.training and total:
        first = record.training.pieces[-1].first_update if record.training.pieces else 0
        steps = record.training.steps
        shapes = list(zip(steps.num_samples, steps.num_padded_tokens, strict=True))
        total = _without_new_shapes(total[first:], shapes[first:])
    return total[_SETTLING_STEPS if len(total) >= _MIN_STEPS_TO_SETTLE else 0 :]


def _without_new_shapes(bytes_by_step: Sequence[int], shapes: Sequence[object]) -> tuple[int, ...]:
    """Drop every step with a new shape except the first, and subtract these steps' growth from later steps."""
    known, kept, growth = {shapes[0]}, [bytes_by_step[0]], 0
    for (before, after), shape in zip(pairwise(bytes_by_step), shapes[1:], strict=False):
        if shape in known:
            kept.append(after - growth)
        else:
            growth += after - before
        known.add(shape)
    return tuple(kept)


def largest_growth(runs: Sequence[Sequence[int]]) -> MemoryGrowth | None:
    """Return the growth of the run with the largest `min_total_bytes`; None if no run has enough steps.

    Args:
        runs: Each run's bytes by step, as from `settled_memory_bytes`.
    """
    growths = [growth for run in runs if (growth := fit_memory_growth(run)) is not None]
    return max(growths, key=lambda growth: growth.min_total_bytes, default=None)


def memory_warnings(records: Sequence[Record], runs: Sequence[Sequence[int]]) -> Iterator[str]:
    """Yield warnings about the memory of one cell's runs, one sentence each.

    Args:
        records: All runs, failed ones included.
        runs: Each run's bytes by step, as from `settled_memory_bytes`.
    """
    growth = largest_growth([run for run in runs if _leaks(run)])
    if growth is not None:
        value, low, high = map(_mib, (growth.value, growth.low, growth.high))
        yield (
            f"Memory grew by {value} MiB a step ({low} to {high}): a leak, or something that is kept from every step."
        )
    # Report only the run with the largest other process, so that one process is not reported for every run.
    by_run = map(find_large_memory_users, records)
    for share, user in max(by_run, key=lambda users: users[0][0] if users else 0, default=[]):
        where = "of main memory" if user.gpu is None else f"of GPU {user.gpu}"
        yield (
            f"Another process ({user.name}) held {user.num_bytes / _GIB:.1f} GiB {where} ({share:.0%}) when this "
            "cell began: end it, and run the cell with --force."
        )
    caps = [record.cap for record in records if record.cap and not record.cap.exact]
    yield from dict.fromkeys(_approximate_cap_warning(cap) for cap in caps)


def _mib(num_bytes: float) -> str:
    size = num_bytes / _MIB
    return f"{size:,.1f}" if size >= 1 else f"{size:.2g}"


def _approximate_cap_warning(cap: MemoryCapFacts) -> str:
    return (
        f"The memory cap of {cap.limit_bytes / _GIB:g} GiB is approximate ({_CAP_METHODS.get(cap.method, cap.method)}): "
        "near it, a machine of that size may answer otherwise."
    )


def _leaks(bytes_by_step: Sequence[int]) -> bool:
    growth = fit_memory_growth(bytes_by_step)
    return growth is not None and growth.min_total_bytes > MAX_GROWTH_FRACTION * max(bytes_by_step)


def find_large_memory_users(record: Record) -> list[tuple[float, MemoryUser]]:
    """Return (share of memory, process) of each other process above `MAX_OTHERS_MEMORY_FRACTION`, largest first."""
    load = record.load
    users = []
    for user in (load.holders or ()) if load is not None else ():
        capacity = _memory_capacity(record, user.gpu)
        available = load.available_memory_bytes if load is not None and user.gpu is None else capacity
        if capacity and user.num_bytes > MAX_OTHERS_MEMORY_FRACTION * min(capacity, available or capacity):
            users.append((user.num_bytes / capacity, user))
    return sorted(users, key=lambda pair: pair[0], reverse=True)


def _memory_capacity(record: Record, gpu: int | None) -> int | None:
    """Return the bytes of GPU number `gpu`, or of main memory if `gpu` is None; None if unknown."""
    machine = record.machine
    if gpu is None:
        return machine.memory_limit_bytes or machine.memory_bytes
    return machine.gpus[gpu].memory_bytes if gpu < len(machine.gpus) else None
