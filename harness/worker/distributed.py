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
class Place:
    """Where this rank runs, and beside how many."""

    device: torch.device
    rank: int
    world_size: int


def _no_broadcasts() -> dict[str, Any]:
    # BERT's buffers are constants: nothing to broadcast before every forward pass. torch 2.13 renamed the argument.
    new = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    return {"forward_sync_buffers" if new else "broadcast_buffers": False}


def _synchronize(place: Place) -> None:
    if place.device.type == "cuda":
        torch.cuda.synchronize(place.device)


def of_all_ranks(told: Told, place: Place) -> list[Told]:
    """What every rank tells, in order of rank; each waits here for all."""
    all_told = [told] * place.world_size
    if place.world_size > 1:
        dist.all_gather_object(all_told, told)
    return all_told


def any_rank(flag: bool, place: Place) -> bool:
    """Whether it is so on any rank; each waits here for all."""
    return any(of_all_ranks(flag, place))
