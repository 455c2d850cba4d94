"""Decide whether this machine can run a cell, or its part of one, and with how many ranks, threads and GPUs.

Starts no process and imports no torch.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from harness.machine.describe import package_version
from harness.schema.cells import BaselineConfig, Device, FineTuneConfig
from harness.schema.host_record import BF16_FLAGS, Machine
from harness.schema.settings import Allocator
from harness.shipped import how_to_install_torch

_AMPERE = 8  # major compute capability of the first GPUs with bf16 and TF32
_GIB = 2**30


def unsupported_reason(
    config: FineTuneConfig | BaselineConfig, machine: Machine, torch_version: str | None = None, *, num_nodes: int = 1
) -> str | None:
    """Return why this machine can't run a cell, or its part of one; None when the machine can run it.

    Args:
        config: The cell's configuration.
        machine: The machine's facts.
        torch_version: Version of torch; None: the installed version.
        num_nodes: Number of machines like this one that would run the cell together.
    """
    if (reason := _unsupported_nodes(config, num_nodes)) is not None:
        return reason
    if isinstance(config, BaselineConfig):
        return _unsupported_baseline(config, machine, torch_version or package_version("torch"))
    if (reason := _unsupported_anywhere(config, machine)) is not None:
        return reason
    if not config.on_gpu:
        return _unsupported_on_cpu(config, machine) or _unsupported_cap(config, machine)
    version = torch_version or package_version("torch")
    return _unsupported_on_gpu(config, machine, version) or _unsupported_cap(config, machine)


def num_ranks(config: FineTuneConfig | BaselineConfig, machine: Machine) -> int:
    """Return the number of ranks of a cell on all its nodes; `gpu-ddp` uses every visible GPU."""
    return config.num_nodes * ranks_per_node(config, machine)


def ranks_per_node(config: FineTuneConfig | BaselineConfig, machine: Machine) -> int:
    """Return the number of ranks of a cell on this machine."""
    if isinstance(config, BaselineConfig):
        return 1
    ranks = Device.parse(config.device).ranks_per_node
    return ranks if ranks is not None else max(1, len(machine.gpus))


def num_gpus_used(config: FineTuneConfig | BaselineConfig, machine: Machine) -> int:
    """Return the number of this machine's GPUs that a cell uses: one per rank, beginning with the first visible GPU."""
    if not config.on_gpu:
        return 0
    return min(ranks_per_node(config, machine), len(machine.gpus))


def num_threads(config: FineTuneConfig | BaselineConfig, machine: Machine) -> int:
    """Return the CPU threads of each rank: the cell's threads (default: all usable cores) split evenly, at least 1."""
    return max(1, (config.threads or machine.cpu.num_usable) // ranks_per_node(config, machine))


def _unsupported_nodes(config: FineTuneConfig | BaselineConfig, num_nodes: int) -> str | None:
    needed = config.num_nodes
    if needed == num_nodes:
        return None
    if num_nodes == 1 and isinstance(config, FineTuneConfig):
        return (
            f"{config.device} trains on {needed} machines together, and this is one; no command places it on several yet: in "
            "Python, `Runner.run_part` runs the part of each (docs/GUIDE.md)"
        )
    return f"the cell trains on {needed} of the {num_nodes} machines given: give it exactly {needed}"


def _unsupported_anywhere(config: FineTuneConfig, machine: Machine) -> str | None:
    if (reason := _missing_glibc(config.training.allocator, machine)) is not None:
        return reason
    return _missing_for_compile(on_gpu=config.on_gpu) if config.training.compile else None


def _unsupported_baseline(config: BaselineConfig, machine: Machine, torch_version: str) -> str | None:
    return _missing_glibc(config.allocator, machine) or (
        _missing_gpu(machine, torch_version) if config.on_gpu else None
    )


def _missing_glibc(allocator: Allocator | None, machine: Machine) -> str | None:
    if allocator == "mmap" and not machine.allocator.startswith("glibc"):
        return f'training.allocator = "mmap" is a setting of glibc\'s malloc; here it is {machine.allocator}'
    return None


def _missing_gpu(machine: Machine, torch_version: str) -> str | None:
    if not machine.gpus:
        return f"no NVIDIA GPU here ({machine.gpu_note or 'NVML lists none'})"
    if "+cpu" in torch_version:
        return (
            f"torch {torch_version} is a CPU build; `{how_to_install_torch('torch==2.13.0')}` installs the CUDA build"
        )
    return None


def _missing_for_compile(*, on_gpu: bool) -> str | None:
    """Return what torch.compile lacks on this machine; None when it lacks nothing.

    torch.compile needs a C++ compiler on a CPU, and a C compiler on a GPU, for code around Triton's kernels.
    """
    default = "clang++" if sys.platform == "darwin" else "g++"
    cxx = os.environ.get("CXX", default)
    if not on_gpu and shutil.which(cxx.split()[0] if cxx else default) is None:
        return f"torch.compile needs a C++ compiler, and there is no {cxx} (Debian: apt install g++; CXX names another)"
    c_compilers = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang"]
    if on_gpu and not any(shutil.which(name) for name in c_compilers):
        return f"torch.compile needs a C compiler for Triton, and there is no {' or '.join(c_compilers)} (Debian: apt install gcc; CC names another)"
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").exists():
        return f"torch.compile needs Python's headers, and there is no {include.name}/Python.h (Debian: apt install python3-dev)"
    return None


def _unsupported_on_cpu(config: FineTuneConfig, machine: Machine) -> str | None:
    ranks = Device.parse(config.device).ranks_per_node
    if config.precision == "tf32":
        return "tf32 is a format of NVIDIA's tensor cores; a CPU has none"
    if config.precision == "fp16":
        return "fp16 on a CPU is not accelerated by torch; bf16 is its 16-bit format"
    if config.precision == "bf16" and not (BF16_FLAGS & set(machine.cpu.flags) or config.training.allow_slow_precision):
        return (
            "bf16 is not accelerated on this CPU (no avx512_bf16, amx_bf16 or Arm bf16 instructions); "
            "training.allow_slow_precision = true runs it all the same, many times slower than fp32"
        )
    if ranks is not None and ranks > machine.cpu.num_usable:
        return f"{ranks} ranks need {ranks} cores, {machine.cpu.num_usable} usable here"
    if num_ranks(config, machine) > 1 and sys.platform == "win32":
        return "DDP on Windows is not supported; use WSL2"
    return None


def _unsupported_on_gpu(config: FineTuneConfig, machine: Machine, torch_version: str) -> str | None:
    if (reason := _missing_gpu(machine, torch_version)) is not None:
        return reason
    ranks = Device.parse(config.device).ranks_per_node
    if ranks is not None and ranks > len(machine.gpus):
        return f"{ranks} GPUs are asked for, {len(machine.gpus)} seen"
    capability = machine.gpus[0].compute_capability
    if config.precision in {"bf16", "tf32"} and capability is not None and capability[0] < _AMPERE:
        # Check the capability because torch.cuda.is_bf16_supported() returns True on a T4, which emulates bf16 at about
        # 2 TFLOP/s.
        return f"{config.precision} needs compute capability 8.0, this GPU has {capability[0]}.{capability[1]}"
    return None


def _unsupported_cap(config: FineTuneConfig, machine: Machine) -> str | None:
    limit = config.limits.memory_limit_gib
    if limit is None:
        return None
    if not config.on_gpu and machine.system != "Linux":
        return f"limits.memory_limit_gib on a CPU needs Linux; {machine.system} has no such cap"
    total = machine.gpus[0].memory_bytes if config.on_gpu else machine.memory_limit_bytes or machine.memory_bytes
    if total is not None and limit * _GIB > total:
        whose = "this GPU" if config.on_gpu else "this machine"
        return (
            f"limits.memory_limit_gib = {limit:g} is more than {whose} has ({total / _GIB:.1f} GiB): "
            "what ended a cell would not be the cap"
        )
    return None
