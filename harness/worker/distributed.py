"""TODO: say in one line what this module is for."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

Told = TypeVar("Told")


@dataclass(frozen=True)
class DistributedContext:
    """Where this rank runs, and beside how many."""

    device: torch.device
    rank: int
    world_size: int


def no_buffer_broadcasts() -> dict[str, Any]:
    """Keyword arguments that stop DistributedDataParallel from broadcasting buffers."""
    # BERT's buffers are constants: nothing to broadcast before every forward pass. torch 2.13 renamed the argument.
    new = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    return {"forward_sync_buffers" if new else "broadcast_buffers": False}


def synchronize(place: DistributedContext) -> None:
    """Wait for all kernels of this rank's GPU; no-op on a CPU."""
    if place.device.type == "cuda":
        torch.cuda.synchronize(place.device)


def all_gather_object(told: Told, place: DistributedContext) -> list[Told]:
    """What every rank tells, in order of rank; each waits here for all."""
    all_told = [told] * place.world_size
    if place.world_size > 1:
        dist.all_gather_object(all_told, told)
    return all_told


def any_across_ranks(flag: bool, place: DistributedContext) -> bool:
    """Whether it is so on any rank; each waits here for all."""
    return any(all_gather_object(flag, place))
