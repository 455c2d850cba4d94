"""What this computer is: processor, GPUs, limits, versions (no torch, no CUDA context)."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import psutil

from harness.files import PACKAGE_FOLDER
from harness.machine.cgroups import cpu_quota
from harness.machine.nvml import describe_gpus
from harness.schema.cells import BaselineConfig, Device, FineTuneConfig
from harness.schema.host_record import Cpu, Git, Gpu, Machine

# Instructions that decide how fast a matrix product is, by /proc/cpuinfo's names (x86, then Arm).
_TELLING_FLAGS = (
    *(
        "avx",
        "avx2",
        "fma",
        "avx512f",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "amx_tile",
        "amx_bf16",
        "amx_int8",
    ),
    *("asimd", "asimddp", "bf16", "i8mm", "sve", "sve2", "svebf16"),
)
# A CPU's 16-bit products are accelerated by these alone. oneDNN's own check says yes on any AVX512 CPU, where bf16
# autocast ran over 20 times slower than fp32.
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16", "svebf16"})
_CLOUD_VENDORS = (
    "Amazon EC2",
    "Google",
    "Microsoft Corporation",
    "Alibaba Cloud",
    "DigitalOcean",
    "Hetzner",
    "OracleCloud",
)
# The asset tag of every machine of Azure; other machines of Hyper-V have the same vendor and product.
_AZURE_TAG = "7783-7084-3265-9085-8269-3286-77"
_GROUP_MOUNTS = {1: Path("/sys/fs/cgroup/memory"), 2: Path("/sys/fs/cgroup")}
_AMPERE = 8  # major compute capability of the first GPUs with bf16 and TF32
_GIB = 2**30


def describe_machine() -> Machine:
    """Look at this computer; what it does not tell is None."""
    cpu = _cpu()
    memory_bytes = psutil.virtual_memory().total
    limit_bytes = _memory_limit(memory_bytes)
    gpus, gpu_links, gpu_note = describe_gpus()
    vendor, product = _firmware()
    return Machine(
        id=_machine_id(cpu, limit_bytes or memory_bytes, gpus),
        host=_host_hash(),
        system=platform.system(),
        kernel=platform.release(),
        cpu=cpu,
        memory_bytes=memory_bytes,
        memory_limit_bytes=limit_bytes,
        swap_bytes=psutil.swap_memory().total,
        gpus=gpus,
        gpu_links=gpu_links,
        gpu_note=gpu_note,
        cloud_vendor=vendor,
        cloud_product=product,
        python=platform.python_version(),
        allocator=_allocator(),
    )


def unsupported_reason(config: FineTuneConfig | BaselineConfig, machine: Machine) -> str | None:
    """Say why this machine can't do a cell, or None; starts no process and asks no torch."""
    if isinstance(config, BaselineConfig):
        return None
    device = Device.parse(config.device)
    if (reason := _unsupported_anywhere(config, machine)) is not None:
        return reason
    if not device.on_gpu:
        return _unsupported_on_cpu(config, machine) or _unsupported_cap(config, machine)
    if not machine.gpus:
        return f"no NVIDIA GPU here ({machine.gpu_note or 'NVML lists none'})"
    if "+cpu" in package_version("torch"):
        return (
            f"torch {package_version('torch')} is a CPU build; `make bench TORCH=torch==2.13.0` installs the CUDA build"
        )
    if device.num_ranks is not None and device.num_ranks > len(machine.gpus):
        return f"{device.num_ranks} GPUs are asked for, {len(machine.gpus)} seen"
    capability = machine.gpus[0].compute_capability
    if config.precision in {"bf16", "tf32"} and capability is not None and capability[0] < _AMPERE:
        # torch.cuda.is_bf16_supported() says yes on a T4, which emulates it at about 2 TFLOP/s.
        return f"{config.precision} needs compute capability 8.0, this GPU has {capability[0]}.{capability[1]}"
    return _unsupported_cap(config, machine)


def num_ranks(config: FineTuneConfig, machine: Machine) -> int:
    """Ranks that a cell has on this machine; `gpu-ddp` means every GPU seen."""
    ranks = Device.parse(config.device).num_ranks
    return ranks if ranks is not None else max(1, len(machine.gpus))


def num_gpus_used(config: FineTuneConfig | BaselineConfig, machine: Machine) -> int:
    """GPUs that a cell computes on: the first so many of those seen, one a rank."""
    if isinstance(config, BaselineConfig) or not config.on_gpu:
        return 0
    return min(num_ranks(config, machine), len(machine.gpus))


def num_threads(config: FineTuneConfig, machine: Machine) -> int:
    """CPU threads of each rank: the cell's threads (default: all usable cores) shared out, at least one."""
    return max(1, (config.threads or machine.cpu.num_usable) // num_ranks(config, machine))


def package_version(name: str) -> str:
    """An installed package's version, or `not installed`."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def installed_packages() -> dict[str, str]:
    """Every installed distribution and its version, by lower-case name."""
    found = {dist.metadata["Name"]: dist.version for dist in importlib.metadata.distributions()}
    return dict(sorted((name.lower(), version) for name, version in found.items() if name))


def harness_checkout() -> Git | None:
    """The harness's own commit, or None when it runs from no git checkout."""
    root = PACKAGE_FOLDER.parent
    if not (root / ".git").exists():
        return None
    commit = _output(["git", "-C", str(root), "rev-parse", "HEAD"])
    status = _output(["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"])
    return Git(commit=commit.strip(), dirty=bool(status.strip())) if commit else None


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _compile_lacks(kind: str) -> str | None:
    """What torch.compile needs beside torch, and this machine has not: it writes C++ for a CPU, and C around Triton's kernels."""
    default = "clang++" if sys.platform == "darwin" else "g++"
    asked = os.environ.get("CXX", default)
    if kind == "cpu" and shutil.which(asked.split()[0] if asked else default) is None:
        return (
            f"torch.compile needs a C++ compiler, and there is no {asked} (Debian: apt install g++; CXX names another)"
        )
    c_compilers = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang"]
    if kind == "gpu" and not any(shutil.which(name) for name in c_compilers):
        return f"torch.compile needs a C compiler for Triton, and there is no {' or '.join(c_compilers)} (Debian: apt install gcc; CC names another)"
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").exists():
        return f"torch.compile needs Python's headers, and there is no {include.name}/Python.h (Debian: apt install python3-dev)"
    return None


def _unsupported_anywhere(config: FineTuneConfig, machine: Machine) -> str | None:
    if config.training.allocator == "mmap" and not machine.allocator.startswith("glibc"):
        return f'training.allocator = "mmap" is a setting of glibc\'s malloc; here it is {machine.allocator}'
    return _compile_lacks(Device.parse(config.device).kind) if config.training.compile else None


def _unsupported_on_cpu(config: FineTuneConfig, machine: Machine) -> str | None:
    ranks = Device.parse(config.device).num_ranks
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
    if ranks is not None and ranks > 1 and sys.platform == "win32":
        return "DDP on Windows is not supported; use WSL2"
    return None


def _unsupported_cap(config: FineTuneConfig, machine: Machine) -> str | None:
    limit = config.limits.memory_limit_gib
    if limit is None:
        return None
    on_gpu = config.on_gpu
    if not on_gpu and machine.system != "Linux":
        return f"limits.memory_limit_gib on a CPU needs Linux; {machine.system} has no such cap"
    has = machine.gpus[0].memory_bytes if on_gpu else machine.memory_limit_bytes or machine.memory_bytes
    if has is not None and limit * _GIB > has:
        whose = "this GPU" if on_gpu else "this machine"
        return (
            f"limits.memory_limit_gib = {limit:g} is more than {whose} has ({has / _GIB:.1f} GiB): "
            "what ended a cell would not be the cap"
        )
    return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _cpu() -> Cpu:
    info = _read("/proc/cpuinfo")
    model = re.search(r"^(?:model name|Model|Processor)\s*:\s*(.+)$", info, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", info, re.MULTILINE)
    seen = set(flags[1].split()) if flags else set()
    brand = _output(["sysctl", "-n", "machdep.cpu.brand_string"]).strip() if sys.platform == "darwin" else ""
    return Cpu(
        model=" ".join((model[1] if model else brand or platform.processor() or platform.machine()).split()),
        flags=tuple(flag for flag in _TELLING_FLAGS if flag in seen),
        num_logical=os.cpu_count() or 1,
        num_physical=psutil.cpu_count(logical=False),
        num_usable=_usable_cpus(),
    )


def _usable_cpus() -> int:
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return affinity if quota is None else max(1, min(affinity, int(quota.cores)))


def memory_group(
    mounts: Mapping[int, Path] | None = None, process_groups: str = "/proc/self/cgroup"
) -> tuple[Path, Path, Literal[1, 2]] | None:
    """Memory control group of this process, the mount it lies under, and the version of control groups; None without."""
    mounts = mounts or _GROUP_MOUNTS
    version: Literal[1, 2] = 2 if (mounts[2] / "cgroup.controllers").exists() else 1
    mount = mounts[version]
    pattern = r"^0::(/.*)$" if version == 2 else r"^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(/.*)$"  # noqa: PLR2004
    found = re.search(pattern, _read(process_groups), re.MULTILINE)
    if found is None or not mount.is_dir():
        return None
    path = mount / found[1].lstrip("/")
    # In a container the path may be the host's, of which nothing is mounted here.
    return (path if path.is_dir() and ".." not in path.parts else mount), mount, version


def _memory_limit(memory_bytes: int) -> int | None:
    """The lowest limit of the own control group and those around it, where it is below the machine's memory."""
    found = memory_group()
    if found is None:
        return None
    path, mount, version = found
    name = "memory.max" if version == 2 else "memory.limit_in_bytes"  # noqa: PLR2004
    around = [group for group in (path, *path.parents) if group.is_relative_to(mount)]
    limits = [int(limit) for group in around if (limit := _read(str(group / name))).isdigit()]
    return min((limit for limit in limits if limit < memory_bytes), default=None)


def _firmware() -> tuple[str | None, str | None]:
    """Vendor and product of the firmware where the vendor is a cloud; of a person's own computer, neither."""
    vendor, product = _read("/sys/class/dmi/id/sys_vendor"), _read("/sys/class/dmi/id/product_name")
    if vendor == "Microsoft Corporation" and _read("/sys/class/dmi/id/chassis_asset_tag") == _AZURE_TAG:
        return vendor, None
    known = vendor in _CLOUD_VENDORS and product != "Virtual Machine"
    return (vendor, product or None) if known else (None, None)


def _host_hash() -> str | None:
    # The machine id is 128 random bits, so its salted hash can't be guessed back.
    machine_id = _read("/etc/machine-id") or _read("/var/lib/dbus/machine-id")
    if not machine_id:
        return None
    return hashlib.sha256(f"bert-cost-harness {machine_id}".encode()).hexdigest()[:12]


def _machine_id(cpu: Cpu, memory_bytes: int, gpus: tuple[Gpu, ...]) -> str:
    gib = round(memory_bytes / _GIB)
    identity = [cpu.model, *cpu.flags, cpu.num_logical, cpu.num_usable, gib, *(gpu.name for gpu in gpus)]
    digest = hashlib.sha256(repr(identity).encode()).hexdigest()[:6]
    name = gpus[0].name if gpus else re.sub(r"\(R\)|\(TM\)|@.*|\bCPU\b|\bProcessor\b|\d+-Core", " ", cpu.model)
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
    count = f"{len(gpus)}x-" if len(gpus) > 1 else ""
    return f"{count}{slug}-{cpu.num_usable}c-{gib}g-{digest}"


def _allocator() -> str:
    preloaded = os.environ.get("LD_PRELOAD", "")
    for name in ("jemalloc", "tcmalloc", "mimalloc"):
        if name in preloaded:
            return name
    library, version = platform.libc_ver()
    return f"{library} {version}".strip() or "system"
