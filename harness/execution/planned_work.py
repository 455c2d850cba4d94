"""Plan what a cell computes before it runs: its batches follow from the lengths of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from harness.dataset.training_plan import evaluation_batches, iter_steps, planned_updates, validation_updates
from harness.schema.cells import FineTuneConfig
from harness.schema.probe_record import CellWork, Work

_MAX_PLANNED = 20_000  # updates; of longer runs the first ones stand for all
Shape = tuple[int, int]  # rows of a rank's micro-batch, and padded tokens of each


class CellPlan(NamedTuple):
    """What a cell computes in all, and the shape of each of its micro-batches, or of those of its first 20,000 updates."""

    work: CellWork
    shapes: list[Shape]


def plan_cell(
    config: FineTuneConfig, train: np.ndarray, val: np.ndarray, test: np.ndarray, world_size: int
) -> CellPlan:
    """Plan a cell.

    Args:
        config: The cell's configuration.
        train: Tokens of each row of the training split, `(num_rows,)`.
        val: The same of the validation split.
        test: The same of the test split.
        world_size: Number of ranks.
    """
    num_updates = planned_updates(config, len(train), world_size)
    steps = list(islice(iter_steps(config, train, world_size), min(num_updates, _MAX_PLANNED)))
    shapes = [_slowest(config, train, micro) for step in steps for micro in step]
    scale = num_updates / len(steps)
    num_validations = len(validation_updates(config, len(train), world_size)) if config.is_judged else 0
    work = CellWork(
        num_rows=round(scale * sum(len(rows) for step in steps for micro in step for rows in micro)),
        training=_work(shapes, num_updates, scale),
        validations=_evaluation(config, val, world_size, num_validations) if num_validations else None,
        test=_evaluation(config, test, world_size) if config.is_judged else None,
        longest=max(shapes, key=lambda shape: shape[0] * shape[1] ** 2)[1],
    )
    return CellPlan(work, shapes)


def _evaluation(config: FineTuneConfig, lengths: np.ndarray, world_size: int, times: int = 1) -> Work:
    by_rank = [evaluation_batches(config, lengths, rank, world_size) for rank in range(world_size)]
    shapes = [_slowest(config, lengths, batches) for batches in zip(*by_rank, strict=False)]
    return _work(shapes, times * len(shapes), times)


def _slowest(config: FineTuneConfig, lengths: np.ndarray, parts: Sequence[np.ndarray]) -> Shape:
    shapes = [(len(rows), config.padded_length(int(lengths[rows].max()))) for rows in parts if len(rows)]
    return max(shapes, key=lambda shape: shape[0] * shape[1])


def _work(shapes: Sequence[Shape], num_batches: int, scale: float) -> Work:
    return Work(
        num_batches=num_batches,
        num_tokens=round(scale * sum(rows * width for rows, width in shapes)),
        num_pairs=round(scale * sum(rows * width**2 for rows, width in shapes)),
        num_shapes=len(set(shapes)),
    )
