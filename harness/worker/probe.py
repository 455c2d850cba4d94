"""A few steps at a few batch shapes, so that the seconds of cells can be predicted before they run."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from harness.dataset.batch_plan import Step
from harness.dataset.tokens import TokenArrays
from harness.schema.probe_record import ProbedShape
from harness.worker.device import synchronize
from harness.worker.distributed import any_across_ranks
from harness.worker.evaluation import autocast, predict
from harness.worker.meters import MemoryMeter
from harness.worker.train_loop import forward_backward, update_weights
from harness.worker.train_state import SplitTokens, TrainContext, TrainState

NUM_STEPS = 3  # timed steps of each shape in a round, after the first
_NUM_PASSES = 3  # timed forward passes of each shape in a round, after the first
_MAX_AGAIN_S = 0.6  # a shape whose step takes longer is not timed in a second round


def probe_shapes(
    state: TrainState, context: TrainContext, memory: MemoryMeter, shapes: tuple[tuple[int, int], ...]
) -> tuple[ProbedShape, ...]:
    """Time steps and forward passes of each shape; the weights change, so that nothing else can be measured after it.

    All shapes but slow ones are timed in two rounds, so that a disturbance of some seconds spoils at most half of their steps.

    Args:
        state: The model and its optimizer.
        context: Configuration, ranks, and rows whose token ids are used.
        memory: Reset before the first step.
        shapes: Rows of one rank's micro-batch, and tokens of each.
    """
    memory.reset()
    probed = [_probe_shape(state, context, memory, *shape) for shape in shapes]
    for index, first in enumerate(probed):
        if any_across_ranks(max(first.step_s) > _MAX_AGAIN_S, context.distributed):
            continue
        again = _probe_shape(state, context, memory, first.num_rows, first.num_tokens)
        both = {name: getattr(first, name) + getattr(again, name) for name in ("step_s", "evaluate_s")}
        probed[index] = first.model_copy(update=both)
    return tuple(probed)


def _probe_shape(
    state: TrainState, context: TrainContext, memory: MemoryMeter, num_rows: int, num_tokens: int
) -> ProbedShape:
    num_micros = context.config.training.grad_accum
    total = num_rows * context.world_size * num_micros
    rows = rows_of_length(context.splits.train, total, num_tokens)
    # More padding would hide the shape.
    config = context.config.model_copy(update={"padding": "longest", "pad_multiple": 1})
    context = replace(context, config=config, splits=SplitTokens(rows, rows, rows))
    step = _step(total, num_micros, context.world_size)
    state.model.train()
    step_s = [_time_step(state, context, step) for _ in range(1 + NUM_STEPS)]
    peak = max((peak.num_bytes for peak in memory.peaks()), default=0)
    state.model.eval()
    batch = step[0][context.rank]
    with autocast(config.precision, context.device):
        pass_s = [_time_pass(state, context, rows, batch) for _ in range(1 + _NUM_PASSES)]
    return ProbedShape(
        num_rows=num_rows,
        num_tokens=num_tokens,
        first_step_s=step_s[0],
        step_s=tuple(step_s[1:]),
        evaluate_s=tuple(pass_s[1:]),
        peak_bytes=peak,
    )


def rows_of_length(tokens: TokenArrays, num_rows: int, num_tokens: int) -> TokenArrays:
    """Cut a split's token ids into rows of one length; the last row has half of it, so that batches are padded as usual."""
    lengths = np.full(num_rows, num_tokens)
    lengths[-1] = max(1, num_tokens // 2)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.resize(tokens.ids[: offsets[-1]], offsets[-1]).astype(np.int32)
    segments = None if tokens.first_segment_lengths is None else np.maximum(1, lengths // 2).astype(np.int32)
    return TokenArrays(ids, offsets, np.resize(tokens.labels, num_rows), segments)


def _step(num_rows: int, num_micros: int, world_size: int) -> Step:
    return [
        [micro[rank::world_size] for rank in range(world_size)] for micro in np.split(np.arange(num_rows), num_micros)
    ]


def _time_step(state: TrainState, context: TrainContext, step: Step) -> float:
    context.heartbeat()
    began = time.perf_counter()
    forward_backward(state, context, step)
    update_weights(state)
    synchronize(context.device)
    return time.perf_counter() - began


def _time_pass(state: TrainState, context: TrainContext, rows: TokenArrays, batch: np.ndarray) -> float:
    context.heartbeat()
    began = time.perf_counter()
    predict(state.model, rows, batch, context)
    synchronize(context.device)
    return time.perf_counter() - began
