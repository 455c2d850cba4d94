"""One rank's place in the process group, and the collectives that training uses."""

from __future__ import annotations

import inspect
import os
import random
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from harness.execution.jobs import TrainJob
from harness.schema.cells import Device
from harness.worker.accelerated import require_precision
from harness.worker.device import bind_gpu, set_matmul_precision, silence_transformers

Value = TypeVar("Value")


@dataclass(frozen=True)
class DistributedContext:
    """This process's device, its rank, and the number of ranks."""

    device: torch.device
    rank: int
    world_size: int


def init_distributed(job: TrainJob) -> DistributedContext:
    """Bind this rank to its device, seed all generators, and join the process group if there are several ranks."""
    config = job.config
    torch.set_num_threads(job.num_threads)
    silence_transformers()
    device = torch.device("cpu")
    if config.on_gpu:
        limit_gib = config.limits.memory_limit_gib
        device = bind_gpu(job.rank, share_first=job.share_first_gpu, memory_limit_gib=limit_gib)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(config.seed)
    set_matmul_precision(config.precision)
    require_precision(config.precision, device, allow_slow=config.training.allow_slow_precision)
    if Device.parse(config.device).ddp:
        # NCCL carries the gradients; gloo carries Python objects, which need not wait for the GPU.
        by_nccl = device.type == "cuda" and not job.share_first_gpu
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a cell's ranks share one machine, so loopback is enough
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if by_nccl else "gloo", init_method=f"file://{job.rendezvous}",
            rank=job.rank, world_size=job.world_size, device_id=device if by_nccl else None,
        )  # fmt: skip
    return DistributedContext(device, job.rank, job.world_size)


def wrap_ddp(module: torch.nn.Module) -> torch.nn.Module:
    """Wrap a module in DistributedDataParallel if there is a process group; buffers are not broadcast."""
    if not dist.is_initialized():
        return module
    # BERT's buffers are constants, so they need no broadcast before every forward pass. torch 2.13 renamed this argument.
    renamed = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    options: dict[str, Any] = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
    return DistributedDataParallel(module, **options)


def all_gather_object(value: Value, distributed: DistributedContext) -> list[Value]:
    """Return every rank's value, in order of rank; every rank waits here for all others."""
    values = [value] * distributed.world_size
    if distributed.world_size > 1:
        dist.all_gather_object(values, value)
    return values


def any_across_ranks(flag: bool, distributed: DistributedContext) -> bool:
    """Return whether the flag is true on any rank; every rank waits here for all others."""
    return any(all_gather_object(flag, distributed))
