"""Time all-reduces over all ranks of several machines, before training."""

from __future__ import annotations

import time
from statistics import median

import torch
import torch.distributed as dist

from harness.schema.nodes_record import AllReduceTimes, Network
from harness.worker.device import synchronize
from harness.worker.diagnostics.microbenchmarks import available_bytes
from harness.worker.distributed import DistributedContext, all_gather_object

_MIB = 2**20
SIZES = tuple(2**16 * 4**power for power in range(7))  # 64 KiB to 256 MiB
# Under a memory cap larger tensors could end a cell whose training fits, or be its peak.
_MAX_BYTES_UNDER_CAP = 4 * _MIB
_MIN_REPEATS, _MAX_REPEATS = 3, 20
_BYTES_PER_SIZE = 64 * _MIB  # of all repeats of one size, roughly: large ones are repeated less
_MAX_SECONDS = 20.0  # of all sizes
_COPIES = 4  # of the tensor, which free memory must hold: gloo works on a copy, and as much must stay free


def measure_network(distributed: DistributedContext, local_world_size: int, *, is_capped: bool) -> Network:
    """Time all-reduces of several sizes, the smallest first; every rank calls this at the same time.

    Args:
        distributed: This rank's device and place.
        local_world_size: Number of ranks on this machine, which share its memory if they compute on its CPU.
        is_capped: Whether the cell has a memory cap.
    """
    device, began = distributed.device, time.perf_counter()
    sharing = local_world_size if device.type == "cpu" else 1
    measured: list[AllReduceTimes] = []
    for num_bytes in SIZES:
        repeats = num_repeats(num_bytes)
        last = measured[-1] if measured else None
        expected_s = 0.0 if last is None else median(last.seconds) * num_bytes / last.num_bytes * (repeats + 1)
        fits = available_bytes(device) >= _COPIES * num_bytes * sharing and (
            not is_capped or num_bytes <= _MAX_BYTES_UNDER_CAP
        )
        # All ranks must take the same decision: rank 0's clock, and the memory of all.
        decisions = all_gather_object((fits, time.perf_counter() - began + expected_s <= _MAX_SECONDS), distributed)
        if measured and not (all(has_room for has_room, _ in decisions) and decisions[0][1]):
            break
        measured.append(AllReduceTimes(num_bytes=num_bytes, seconds=_time(num_bytes, repeats, distributed)))
    backend = "nccl" if device.type == "cuda" else "gloo"
    return Network(backend=backend, all_reduce=tuple(measured))


def num_repeats(num_bytes: int) -> int:
    """Return how often an all-reduce of this size is timed."""
    return max(_MIN_REPEATS, min(_MAX_REPEATS, _BYTES_PER_SIZE // num_bytes))


def _time(num_bytes: int, repeats: int, distributed: DistributedContext) -> tuple[float, ...]:
    """Return the seconds of each all-reduce on this rank; all ranks begin together."""
    tensor = torch.zeros(num_bytes // 4, dtype=torch.float32, device=distributed.device)
    seconds = []
    for repeat in range(repeats + 1):
        all_gather_object(None, distributed)
        synchronize(distributed.device)
        began = time.perf_counter()
        dist.all_reduce(tensor)
        synchronize(distributed.device)
        if repeat:  # the first connects the ranks and touches the memory
            seconds.append(time.perf_counter() - began)
    return tuple(seconds)
