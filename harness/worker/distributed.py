"""One rank's place in the process group, and the collectives that training uses."""

from __future__ import annotations

import inspect
import os
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # the type stub does not export it
from torch.nn.parallel import DistributedDataParallel

from harness.execution.jobs import TrainJob
from harness.machine.network import listen
from harness.schema.cells import Device
from harness.worker.accelerated import require_precision
from harness.worker.device import bind_gpu, set_matmul_precision, silence_transformers

Value = TypeVar("Value")

_STORE_TIMEOUT_S = 120.0  # until all ranks have connected, whose nodes may start at different speeds


@dataclass(frozen=True)
class DistributedContext:
    """This process's device, its rank, and the number of ranks.

    Attributes:
        over_machines: Whether the ranks are on several machines, which share no disk.
    """

    device: torch.device
    rank: int
    world_size: int
    over_machines: bool = False


def init_distributed(job: TrainJob) -> DistributedContext:
    """Bind this rank to its device, seed all generators, and join the process group if there are several ranks."""
    config = job.config
    torch.set_num_threads(job.num_threads)
    silence_transformers()
    device = torch.device("cpu")
    if config.on_gpu:
        limit_gib = config.limits.memory_limit_gib
        device = bind_gpu(job.local_rank, share_first=job.share_first_gpu, memory_limit_gib=limit_gib)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(config.seed)
    set_matmul_precision(config.precision)
    require_precision(config.precision, device, allow_slow=config.training.allow_slow_precision)
    if Device.parse(config.device).ddp:
        # NCCL carries the gradients; gloo carries Python objects, which need not wait for the GPU.
        by_nccl = device.type == "cuda" and not job.share_first_gpu
        _choose_interface(job.interface)
        options: dict[str, Any] = {"store": _tcp_store(job)} if job.interface else {"init_method": job.rendezvous}
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if by_nccl else "gloo",
            rank=job.rank, world_size=job.world_size, device_id=device if by_nccl else None, **options,
        )  # fmt: skip
    return DistributedContext(device, job.rank, job.world_size, over_machines=bool(job.interface))


def _choose_interface(interface: str) -> None:
    """Let gloo and NCCL use one network interface alone; empty: loopback, since the ranks share one machine."""
    if not interface:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        return
    os.environ["GLOO_SOCKET_IFNAME"] = interface
    os.environ["NCCL_SOCKET_IFNAME"] = f"={interface}"  # with =, the whole name; without, all that begin with it


def _tcp_store(job: TrainJob) -> TCPStore:
    """Return torch's store, which rank 0 serves on its address in the nodes' network alone; torch would open all networks.

    Raises:
        OSError: If the port was taken meanwhile.
    """
    url = urlsplit(job.rendezvous)
    host, port = url.hostname or "", url.port or 0
    listening: dict[str, Any] = {}
    if job.rank == 0:
        listening = {"master_listen_fd": listen(host, port, job.world_size).detach()}
    return TCPStore(host, port, job.world_size, job.rank == 0, timedelta(seconds=_STORE_TIMEOUT_S), **listening)


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


def copy_from_rank_0(model: torch.nn.Module) -> None:
    """Give all ranks the parameters that rank 0 has; every rank calls this at the same time."""
    with torch.no_grad():
        for parameter in model.parameters():
            dist.broadcast(parameter, src=0)


def any_across_ranks(flag: bool, distributed: DistributedContext) -> bool:
    """Return whether the flag is true on any rank; every rank waits here for all others."""
    return any(all_gather_object(flag, distributed))
