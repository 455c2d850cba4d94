"""Rows of known lengths to batches, epoch after epoch (no torch)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from harness.schema.settings import Padding

# A step is a list of micro-batches, a micro-batch a list of row indices for each rank.
Step = list[list[np.ndarray]]

# Batches sorted together before they are shuffled: enough that little is padded, few enough that epochs still differ.
_GROUPED_BATCHES = 50


def plan_epochs(
    lengths: np.ndarray, *, global_batch: int, grad_accum: int, world_size: int, padding: Padding,
    seed: int | tuple[int, int],
) -> Iterator[Step]:  # fmt: skip
    """Yield steps without end, an epoch after the other; every epoch holds each row once, its last step the remainder.

    A step's rows depend on the global batch alone, not on how many ranks or micro-batches share it, so that the same
    global batch is trained on whatever the number of devices.

    Args:
        lengths: Tokens of each row, `(num_rows,)`.
        global_batch: Rows a step, of all ranks and micro-batches.
    """
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(lengths))
        if padding == "grouped":
            order = _grouped(order, lengths, global_batch, rng)
        for begin in range(0, len(order), global_batch):
            rows = order[begin : begin + global_batch]
            yield [_share_out(micro, world_size) for micro in np.array_split(rows, min(grad_accum, len(rows)))]


def plan_chunks(
    lengths: np.ndarray, *, chunk_updates: Sequence[int], global_batch: int, grad_accum: int, world_size: int,
    padding: Padding, seed: int,
) -> Iterator[Step]:  # fmt: skip
    """Yield steps of chunk after chunk of the rows as they lie, so many of each; the last chunk's without end.

    Args:
        lengths: Tokens of each row, `(num_rows,)`.
        chunk_updates: Of each chunk.
        global_batch: As in `plan_epochs`, like the others.
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
    """The row after the last of each chunk; chunks differ by one row at most."""
    return tuple(num_rows * (index + 1) // num_chunks for index in range(num_chunks))


def steps_per_epoch(num_rows: int, global_batch: int) -> int:
    """Optimiser updates that see each row once."""
    return -(-num_rows // global_batch)


def _grouped(order: np.ndarray, lengths: np.ndarray, batch: int, rng: np.random.Generator) -> np.ndarray:
    """Sort by length within windows of many batches, then shuffle the batches; a short one stays last."""
    window = batch * _GROUPED_BATCHES
    windows = [order[i : i + window] for i in range(0, len(order), window)]
    by_length = np.concatenate([rows[np.argsort(lengths[rows], kind="stable")] for rows in windows])
    batches = [by_length[i : i + batch] for i in range(0, len(by_length), batch)]
    whole = [rows for rows in batches if len(rows) == batch]
    short = [rows for rows in batches if len(rows) < batch]
    return np.concatenate([*(whole[i] for i in rng.permutation(len(whole))), *short])


def _share_out(rows: np.ndarray, world_size: int) -> list[np.ndarray]:
    # Every world_size-th row, so that of rows sorted by length each rank gets its share of long ones.
    return [rows[rank::world_size] for rank in range(world_size)]


MIN_EVALUATION_BATCH = 32
