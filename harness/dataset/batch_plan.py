"""Plan batches from row lengths, epoch after epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from harness.schema.settings import Padding

# The row indices of one optimizer step, by micro-batch and rank.
Step = list[list[np.ndarray]]

# Number of batches whose rows are sorted by length together: enough to save most padding, few enough that epochs
# differ.
_GROUPED_BATCHES = 50


def plan_epochs(
    lengths: np.ndarray, *, global_batch: int, grad_accum: int, world_size: int, padding: Padding,
    seed: int | tuple[int, int],
) -> Iterator[Step]:  # fmt: skip
    """Yield steps endlessly; every epoch has each row once, and its last step may be smaller.

    A step's rows depend on the global batch size only, so the same rows are trained on for any number of ranks and
    micro-batches.

    Args:
        lengths: Tokens of each row, shape `(num_rows,)`.
        global_batch: Rows per step, over all ranks and micro-batches.
        grad_accum: Micro-batches per step.
        world_size: Number of ranks.
        padding: `grouped` puts rows of similar length into one batch.
        seed: Seed of the shuffling.
    """
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(lengths))
        if padding == "grouped":
            order = _group_by_length(order, lengths, global_batch, rng)
        for begin in range(0, len(order), global_batch):
            rows = order[begin : begin + global_batch]
            yield [_split_across_ranks(micro, world_size) for micro in np.array_split(rows, min(grad_accum, len(rows)))]


def plan_chunks(
    lengths: np.ndarray, *, chunk_updates: Sequence[int], global_batch: int, grad_accum: int, world_size: int,
    padding: Padding, seed: int,
) -> Iterator[Step]:  # fmt: skip
    """Yield steps chunk by chunk, for data that arrives over time; the last chunk's steps never end.

    Args:
        lengths: Tokens of each row, shape `(num_rows,)`; chunks are consecutive rows.
        chunk_updates: Steps on each chunk.
        global_batch: Rows per step, over all ranks and micro-batches.
        grad_accum: Micro-batches per step.
        world_size: Number of ranks.
        padding: `grouped` puts rows of similar length into one batch.
        seed: Seed of the shuffling.
    """
    ends = chunk_ends(len(lengths), len(chunk_updates))
    for index, (first, end) in enumerate(zip((0, *ends), ends, strict=False)):
        steps = plan_epochs(
            lengths[first:end], global_batch=global_batch, grad_accum=grad_accum, world_size=world_size, padding=padding,
            seed=(seed, index),
        )  # fmt: skip
        for step in steps if end == len(lengths) else islice(steps, chunk_updates[index]):
            yield [[rows + first for rows in micro] for micro in step]


def chunk_ends(num_rows: int, num_chunks: int) -> tuple[int, ...]:
    """Return the exclusive end row of each chunk; chunk sizes differ by at most one row."""
    return tuple(num_rows * (index + 1) // num_chunks for index in range(num_chunks))


def steps_per_epoch(num_rows: int, global_batch: int) -> int:
    """Return the number of optimizer steps that use each row once."""
    return -(-num_rows // global_batch)


def _group_by_length(order: np.ndarray, lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Sort by length within windows of many batches, then shuffle the batches; an incomplete batch stays last.

    Args:
        order: Shuffled row indices, shape `(num_rows,)`.
        lengths: Tokens of each row, shape `(num_rows,)`.
        batch_size: Rows per global batch.
        rng: Random generator that shuffles the batches.
    """
    window = batch_size * _GROUPED_BATCHES
    windows = [order[i : i + window] for i in range(0, len(order), window)]
    by_length = np.concatenate([rows[np.argsort(lengths[rows], kind="stable")] for rows in windows])
    batches = [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    full = [rows for rows in batches if len(rows) == batch_size]
    incomplete = [rows for rows in batches if len(rows) < batch_size]
    return np.concatenate([*(full[i] for i in rng.permutation(len(full))), *incomplete])


def _split_across_ranks(rows: np.ndarray, world_size: int) -> list[np.ndarray]:
    # Strided, so that each rank gets its share of long rows when the rows are sorted by length.
    return [rows[rank::world_size] for rank in range(world_size)]
