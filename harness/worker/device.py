"""TODO: say in one line what this module is for."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist

# Their first import would be each cell's first cost: transformers and DDP load their parts lazily.
import transformers.models.bert.modeling_bert
import transformers.models.distilbert.modeling_distilbert  # noqa: F401
from transformers.utils import logging as transformers_logging

from harness.execution.jobs import TrainJob
from harness.schema.cells import Device
from harness.worker.distributed import DistributedContext
from harness.worker.train_loop import set_precision


class Unsupported(Exception):  # noqa: N818 - the name of the outcome
    """Only torch itself could tell that this machine can't do the cell."""


def init_distributed(job: TrainJob) -> DistributedContext:
    """Bind this rank to its device before anything touches one, seed, and join the other ranks."""
    config = job.config
    torch.set_num_threads(job.num_threads)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    device = bind_gpu(job) if config.on_gpu else torch.device("cpu")
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(config.seed)
    set_precision(config)
    if Device.parse(config.device).ddp:
        # Two backends: gradients go by NCCL, and what ranks tell each other in Python by gloo, which waits for no GPU.
        by_nccl = device.type == "cuda" and not job.share_first_gpu
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the ranks of a cell are on one machine
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if by_nccl else "gloo", init_method=f"file://{job.rendezvous}",
            rank=job.rank, world_size=job.world_size, device_id=device if by_nccl else None,
        )  # fmt: skip
    return DistributedContext(device, job.rank, job.world_size)


def bind_gpu(job: TrainJob) -> torch.device:
    """Take the GPU of this rank before anything asks CUDA for memory; rank r has the r-th that is visible."""
    # NVML counts by PCI bus, and so do the record and CUDA_VISIBLE_DEVICES as it was read; CUDA's own default is by speed.
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    if not torch.cuda.is_available():
        raise Unsupported(
            f"torch {torch.__version__} sees no CUDA device: driver and CUDA build do not fit each other "
            f"(its CUDA is {torch.version.cuda}; `nvidia-smi` shows the newest that the driver runs)"
        )
    device = torch.device("cuda", 0 if job.share_first_gpu else job.rank)
    if torch.cuda.device_count() <= device.index:
        raise Unsupported(f"torch sees {torch.cuda.device_count()} CUDA devices, too few for rank {job.rank}")
    torch.cuda.set_device(device)
    check_gpu_architecture(device)
    return device


def check_gpu_architecture(device: torch.device) -> None:
    """Raise Unsupported if this build of torch has no kernels for the GPU."""
    major, minor = torch.cuda.get_device_capability(device)
    if not has_kernels((major, minor), built := torch.cuda.get_arch_list()):
        raise Unsupported(
            f"torch {torch.__version__} has no kernels for {torch.cuda.get_device_name(device)} (sm_{major}{minor}; "
            f"built for {', '.join(built)}); install a build for an older CUDA, e.g. "
            "make bench TORCH='torch==2.13.0 --index-url https://download.pytorch.org/whl/cu126'"
        )


def has_kernels(capability: tuple[int, int], built: Sequence[str]) -> bool:
    """Whether a GPU can run what torch was built for: its major version's cubins, or PTX of an earlier one."""
    for arch in built:
        kind, _, digits = arch.partition("_")
        version = int(re.sub(r"\D", "", digits))
        found = (version // 10, version % 10)
        if found <= capability and (kind == "compute" or found[0] == capability[0]):
            return True
    return False
