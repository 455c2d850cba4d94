"""Measure how much of the all-reduce isn't hidden behind computation."""

from __future__ import annotations

import contextlib
import time

from torch.nn.parallel import DistributedDataParallel

from harness.schema.diagnostics_record import Communication
from harness.worker.device import synchronize
from harness.worker.distributed import all_gather_object
from harness.worker.train_loop import forward_backward, iter_batches
from harness.worker.train_state import TrainContext, TrainState

_NUM_PAIRS = 6


def measure_communication(state: TrainState, context: TrainContext) -> Communication:
    """Time the plan's first batch, forward and backward, with and without all-reduce; the weights don't change.

    The difference between the two times is the part of the all-reduce that no computation hides, and that makes a step longer.
    """
    module, step = state.module, next(iter_batches(context))
    assert isinstance(module, DistributedDataParallel)  # noqa: S101 - called for several ranks only
    seconds: dict[bool, list[float]] = {True: [], False: []}
    state.model.train()
    for turn in range(2 * _NUM_PAIRS):
        with_sync = turn % 4 in (0, 3)  # with, without, without, with: drift cancels
        all_gather_object(None, context.distributed)  # makes all ranks start together
        synchronize(context.device)
        began = time.perf_counter()
        with contextlib.nullcontext() if with_sync else module.no_sync():
            forward_backward(state, context, step)
        synchronize(context.device)
        seconds[with_sync].append(time.perf_counter() - began)
        state.optimizer.zero_grad(set_to_none=True)
    return Communication(sync_s=tuple(seconds[True]), no_sync_s=tuple(seconds[False]))
