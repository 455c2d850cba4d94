"""Device setup that comes before anything allocates memory: GPU binding, kernel support, matmul precision."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import torch
from transformers.utils import logging as transformers_logging

from harness.shipped import how_to_install_torch

_GIB = 2**30
_HALF_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Unsupported(Exception):  # noqa: N818 - named like the outcome
    """The machine can't run the cell, for a reason that only torch could detect."""


def bind_gpu(rank: int = 0, *, share_first: bool = False, memory_limit_gib: float | None = None) -> torch.device:
    """Select a rank's GPU, the r-th visible one for rank r, before anything allocates CUDA memory.

    Args:
        rank: The rank.
        share_first: Select the first GPU for every rank.
        memory_limit_gib: Most that torch's allocator may take of the GPU; the CUDA context comes on top.

    Raises:
        Unsupported: If torch sees too few GPUs, or has no kernels for the selected GPU.
    """
    # Number GPUs by PCI bus, as NVML, the record and CUDA_VISIBLE_DEVICES do; CUDA's default order is by speed.
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    if not torch.cuda.is_available():
        raise Unsupported(
            f"torch {torch.__version__} sees no CUDA device: driver and CUDA build do not fit each other "
            f"(its CUDA is {torch.version.cuda}; `nvidia-smi` shows the newest that the driver runs)"
        )
    device = torch.device("cuda", 0 if share_first else rank)
    if torch.cuda.device_count() <= device.index:
        raise Unsupported(f"torch sees {torch.cuda.device_count()} CUDA devices, too few for rank {rank}")
    torch.cuda.set_device(device)
    check_gpu_architecture(device)
    if memory_limit_gib is not None:
        share = memory_limit_gib * _GIB / torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, share), device)
    return device


def check_gpu_architecture(device: torch.device) -> None:
    """Raise Unsupported if this build of torch has no kernels for the GPU."""
    major, minor = torch.cuda.get_device_capability(device)
    if not has_kernels((major, minor), built := torch.cuda.get_arch_list()):
        raise Unsupported(
            f"torch {torch.__version__} has no kernels for {torch.cuda.get_device_name(device)} (sm_{major}{minor}; "
            f"built for {', '.join(built)}); install a build for an older CUDA, e.g. "
            + how_to_install_torch("torch==2.13.0 --index-url https://download.pytorch.org/whl/cu126")
        )


def has_kernels(capability: tuple[int, int], built: Sequence[str]) -> bool:
    """Return whether a GPU can run kernels of one of the architectures that torch was built for.

    Machine code for an architecture (`sm_80`) runs on GPUs of the same major version and the same or a later minor version;
    PTX (`compute_80`) runs on every later version too.
    """
    for arch in built:
        kind, _, digits = arch.partition("_")
        number = int(re.sub(r"\D", "", digits))
        version = (number // 10, number % 10)
        if version <= capability and (kind == "compute" or version[0] == capability[0]):
            return True
    return False


def silence_transformers() -> None:
    """Keep transformers' reports on loading and its progress bars out of the log, whose end becomes part of the record."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def product_dtype(precision: str) -> torch.dtype:
    """Return the dtype that a precision computes matrix products in; tf32 is fp32 with shortened products."""
    return _HALF_DTYPES.get(precision, torch.float32)


def set_matmul_precision(precision: str) -> None:
    """Switch TF32 on or off explicitly: other tools compute "fp32" products in TF32 by default on Ampere and later GPUs.

    These two calls set both torch's older and newer flags. Setting only the newer `fp32_precision` would make code that reads
    the older flags fail, such as torch.compile (torch 2.11 to 2.13).
    """
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def synchronize(device: torch.device) -> None:
    """Wait for all kernels of a GPU; no-op on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
