"""Whether a run's memory grew and who else held some: the warnings about memory (pure)."""

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
# Of what was held at most: no ordinary run came near (docs/METHOD.md has the figures).
MAX_GROWTH_FRACTION = 0.05
# Of the memory there is, or of what was left of it.
MAX_OTHERS_MEMORY_FRACTION = 0.1
_SETTLING_STEPS, _FEWEST_TO_SETTLE = 3, 10
_NUM_BATCHES = 10
_APPROXIMATE = {"rlimit_data": "RLIMIT_DATA", "cuda_fraction": "a share of what torch's allocator may take"}
_GIB, _MIB = 2**30, 2**20


@dataclass(frozen=True)
class MemoryGrowth:
    """`value` bytes a step, with a 95 % interval; `rose_bytes` is the interval's lower end over all the steps looked at."""

    value: float
    low: float
    high: float
    min_total_bytes: float


def fit_memory_growth(settled_memory_bytes: Sequence[int]) -> MemoryGrowth | None:
    """Fit a slope to what was held after every step, warm-up left out; None with fewer than 30 steps.

    The first third is left out too: glibc's allocator goes on settling for tens of steps (docs/METHOD.md).
    Steps in a row are alike, and what an allocator has taken it mostly keeps, so that single steps, or the residuals
    of a line through them, promise too much. The steps are cut into 10 contiguous batches. The slope is that from the
    first batch's mean to the last one's; its variance is that of a ratio, from the 9 differences between neighbouring
    batches. A leak raises every batch. An allocator that settles, or one long text, raises few, which makes the
    interval wide enough to hold 0. Neighbouring differences share a batch's noise with opposite signs, so that the
    interval is rather too wide.

    Source: method of batch means: Schmeiser, "Batch size effects in the analysis of simulation output", Operations
    Research 30 (1982) 556-568; variance of a ratio: Cochran, "Sampling techniques", 3rd ed., section 6.3.
    """
    if len(settled_memory_bytes) < MIN_GROWTH_STEPS:
        return None
    settled_memory_bytes = settled_memory_bytes[len(settled_memory_bytes) // 3 :]
    num_steps = len(settled_memory_bytes)
    bounds = [num_steps * index // _NUM_BATCHES for index in range(_NUM_BATCHES + 1)]
    levels = [fmean(settled_memory_bytes[first:end]) for first, end in pairwise(bounds)]
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
    """Bytes that all ranks held after every step, of 10 or more without the first 3; of a killed cell those of rank 0.

    What a step of a shape that was never there before adds is left out: libraries keep what they make for a shape
    (oneDNN its primitives), and a leak adds in every other step as well. Of a killed cell shapes are not known. Of a
    training in pieces, those of the last: each has a process of its own.
    """
    ranks = record.training.held_bytes if record.training else (record.held_bytes,)
    together = tuple(map(sum, zip(*ranks, strict=True)))
    if record.training and together:
        first = record.training.pieces[-1].first_update if record.training.pieces else 0
        steps = record.training.steps
        shapes = list(zip(steps.num_samples, steps.num_padded_tokens, strict=True))
        together = _without_new_shapes(together[first:], shapes[first:])
    return together[_SETTLING_STEPS if len(together) >= _FEWEST_TO_SETTLE else 0 :]


def _without_new_shapes(held: Sequence[int], shapes: Sequence[object]) -> tuple[int, ...]:
    """What was held after each step of a known shape, less what steps of new shapes had added; the first step stays."""
    known, kept, added = {shapes[0]}, [held[0]], 0
    for (before, after), shape in zip(pairwise(held), shapes[1:], strict=False):
        if shape in known:
            kept.append(after - added)
        else:
            added += after - before
        known.add(shape)
    return tuple(kept)


def largest_growth(held: Sequence[Sequence[int]]) -> MemoryGrowth | None:
    """Of several runs, each given as what it held after every step, the one whose memory rose most for certain."""
    found = [growth for run in held if (growth := fit_memory_growth(run)) is not None]
    return max(found, key=lambda growth: growth.min_total_bytes, default=None)


def memory_warnings(records: Sequence[Record], held: Sequence[Sequence[int]]) -> Iterator[str]:
    """What a reader must know of the memory of one cell's runs, failed ones among them; a sentence each."""
    growth = largest_growth([run for run in held if _leaks(run)])
    if growth is not None:
        value, low, high = map(_mib, (growth.value, growth.low, growth.high))
        yield (
            f"Memory grew by {value} MiB a step ({low} to {high}): a leak, or something that is kept from every step."
        )
    # Of the run that had the worst of it.
    for share, holder in max(
        map(find_large_memory_users, records), key=lambda found: found[0][0] if found else 0, default=[]
    ):
        where = "of main memory" if holder.gpu is None else f"of GPU {holder.gpu}"
        yield (
            f"Another process ({holder.name}) held {holder.num_bytes / _GIB:.1f} GiB {where} ({share:.0%}) when this "
            "cell began: end it, and run the cell with --force."
        )
    yield from dict.fromkeys(_approximate(record.cap) for record in records if record.cap and not record.cap.exact)


def _mib(num_bytes: float) -> str:
    size = num_bytes / _MIB
    return f"{size:,.1f}" if size >= 1 else f"{size:.2g}"


def _approximate(cap: MemoryCapFacts) -> str:
    return (
        f"The memory cap of {cap.limit_bytes / _GIB:g} GiB is approximate ({_APPROXIMATE.get(cap.method, cap.method)}): "
        "near it, a machine of that size may answer otherwise."
    )


def _leaks(held: Sequence[int]) -> bool:
    growth = fit_memory_growth(held)
    return growth is not None and growth.min_total_bytes > MAX_GROWTH_FRACTION * max(held)


def find_large_memory_users(record: Record) -> list[tuple[float, MemoryUser]]:
    """Other processes that held so much that it matters, each with its share of the memory, largest first."""
    load = record.load
    found = []
    for holder in (load.holders or ()) if load is not None else ():
        has = _memory_of(record, holder.gpu)
        left = load.available_memory_bytes if load is not None and holder.gpu is None else has
        if has and holder.num_bytes > MAX_OTHERS_MEMORY_FRACTION * min(has, left or has):
            found.append((holder.num_bytes / has, holder))
    return sorted(found, key=lambda pair: pair[0], reverse=True)


def _memory_of(record: Record, gpu: int | None) -> int | None:
    machine = record.machine
    if gpu is None:
        return machine.memory_limit_bytes or machine.memory_bytes
    return machine.gpus[gpu].memory_bytes if gpu < len(machine.gpus) else None
