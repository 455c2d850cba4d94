"""TODO: say in one line what this module is for."""

from __future__ import annotations

import contextlib
import time

from torch.nn.parallel import DistributedDataParallel

from harness.dataset.tokens import TokenArrays
from harness.execution.messages import TrainHistory
from harness.schema.cells import FineTuneConfig
from harness.schema.diagnostics_record import Communication
from harness.worker.distributed import DistributedContext, all_gather_object, synchronize
from harness.worker.train_loop import forward_backward, iter_batches
from harness.worker.train_state import OnProgress, TrainState

_COMMUNICATION_PAIRS = 6


def measure_communication(
    trainee: TrainState, rows: TokenArrays, config: FineTuneConfig, place: DistributedContext, beat: OnProgress
) -> Communication:
    """Time forward and backward passes on the plan's first batch with and without all-reduce, in turns; no update.

    Of what all-reduce costs, only the part that no computation hides makes a step longer: the difference of the two.
    """
    module, step = trainee.module, next(iter_batches(rows, config, place))
    assert isinstance(module, DistributedDataParallel)  # noqa: S101 - asked for under DDP alone
    seconds: dict[bool, list[float]] = {True: [], False: []}
    trainee.model.train()
    for turn in range(2 * _COMMUNICATION_PAIRS):
        syncs = turn % 4 in (0, 3)  # A B B A, so that drift cancels
        all_gather_object(None, place)  # begin together
        synchronize(place)
        began = time.perf_counter()
        with contextlib.nullcontext() if syncs else module.no_sync():
            forward_backward(trainee, rows, step, config, place, TrainHistory(), beat)
        synchronize(place)
        seconds[syncs].append(time.perf_counter() - began)
        trainee.optimizer.zero_grad(set_to_none=True)
    return Communication(sync_s=tuple(seconds[True]), no_sync_s=tuple(seconds[False]))
