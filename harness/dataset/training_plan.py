"""What a cell computes, known before it runs: its updates, the rows of every step, and the batches of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate, islice, pairwise

import numpy as np

from harness.dataset.batch_plan import (
    Step,
    chunk_ends,
    plan_chunks,
    plan_epochs,
    steps_per_epoch,
)
from harness.schema.cells import MIN_EVALUATION_BATCH, FineTuneConfig

_MAX_COUNTED = 20_000  # updates


def planned_updates(config: FineTuneConfig, num_rows: int, world_size: int) -> int:
    """Return the number of optimizer updates in the whole run on `num_rows` training rows."""
    return updates_by_chunk(config, num_rows, world_size)[-1]


def updates_by_chunk(config: FineTuneConfig, num_rows: int, world_size: int) -> tuple[int, ...]:
    """Return the number of updates completed at the end of each chunk of the training rows.

    The last number is that of the whole run. In a shuffled run, chunks are equal shares of the updates, since every update
    has rows from the whole split.
    """
    training, global_batch = config.training, config.global_batch(world_size)
    if training.chunk_order == "shuffled":
        per_epoch = steps_per_epoch(num_rows, global_batch)
        total = training.max_steps or max(1, math.ceil(training.epochs * per_epoch))
        return chunk_ends(total, training.chunks)
    ends = (0, *chunk_ends(num_rows, training.chunks))
    updates = [math.ceil(training.epochs * steps_per_epoch(end - first, global_batch)) for first, end in pairwise(ends)]
    completed = tuple(accumulate(updates))
    limit = training.max_steps or max(1, completed[-1])
    return (*(min(count, limit) for count in completed[:-1]), limit)


def updates_per_epoch(config: FineTuneConfig, num_rows: int, world_size: int) -> int:
    """Return the number of optimizer updates in one epoch."""
    return steps_per_epoch(num_rows, config.global_batch(world_size))


def updates_between_validations(config: FineTuneConfig, num_rows: int, world_size: int) -> int:
    """Return the number of optimizer updates from one validation to the next."""
    return max(1, round(config.training.eval_every * updates_per_epoch(config, num_rows, world_size)))


def validation_updates(config: FineTuneConfig, num_rows: int, world_size: int) -> list[int]:
    """Return the updates after which the model is validated: at regular distances, at each chunk's end and at the end."""
    ends = updates_by_chunk(config, num_rows, world_size)
    every = updates_between_validations(config, num_rows, world_size)
    return sorted({*range(every, ends[-1] + 1, every), *ends})


def iter_steps(config: FineTuneConfig, lengths: np.ndarray, world_size: int) -> Iterator[Step]:
    """Yield the rows of the cell's steps without end; every call yields the same sequence.

    Args:
        config: The cell's configuration.
        lengths: Tokens of each training row, `(num_rows,)`.
        world_size: Number of ranks.
    """
    plan = {
        "global_batch": config.global_batch(world_size),
        "grad_accum": config.training.grad_accum,
        "world_size": world_size,
        "padding": config.padding,
        "seed": config.seed,
    }
    if config.training.chunk_order == "arrival":
        ends = updates_by_chunk(config, len(lengths), world_size)
        return plan_chunks(lengths, chunk_updates=[end - first for first, end in pairwise((0, *ends))], **plan)  # type: ignore[arg-type]
    return plan_epochs(lengths, **plan)  # type: ignore[arg-type]


def mean_step(config: FineTuneConfig, lengths: np.ndarray, world_size: int) -> tuple[float, float]:
    """Return the mean rows and padded tokens of a planned update, over all ranks; of long runs, of the first 20,000.

    Args:
        config: The cell's configuration.
        lengths: Tokens of each training row, `(num_rows,)`.
        world_size: Number of ranks.
    """
    num_updates = min(_MAX_COUNTED, planned_updates(config, len(lengths), world_size))
    steps = islice(iter_steps(config, lengths, world_size), num_updates)
    parts = [rows for step in steps for micro in step for rows in micro if len(rows)]
    num_tokens = sum(len(rows) * config.padded_length(int(lengths[rows].max())) for rows in parts)
    return sum(len(rows) for rows in parts) / num_updates, num_tokens / num_updates


def evaluation_batches(config: FineTuneConfig, lengths: np.ndarray, rank: int, world_size: int) -> list[np.ndarray]:
    """Sort the rows of a split by length, take a rank's share, and cut it into batches of row indices."""
    by_length = np.argsort(lengths, kind="stable")[rank::world_size]
    batch_size = evaluation_batch_size(config, world_size)
    return [by_length[begin : begin + batch_size] for begin in range(0, len(by_length), batch_size)]


def evaluation_batch_size(config: FineTuneConfig, world_size: int) -> int:
    """Return the rows of one batch of an evaluation."""
    return max(config.device_batch(world_size), MIN_EVALUATION_BATCH)
