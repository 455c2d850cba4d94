"""Describe this computer: processor, memory, GPUs, cloud, versions. Imports no torch and creates no CUDA context."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import psutil

from harness.files import PACKAGE_FOLDER
from harness.machine.cgroups import ROOT, cpu_quota, memory_limit_bytes
from harness.machine.nvml import describe_gpus
from harness.machine.variables import read_variables
from harness.schema.host_record import Cpu, Git, Gpu, Machine

# CPU flags that affect the speed of matrix products, as /proc/cpuinfo names them (x86, then Arm).
_MATRIX_FLAGS = (
    *("avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "asimddp", "bf16", "i8mm", "sve", "sve2", "svebf16"),
)  # fmt: skip
_CLOUD_VENDORS = (
    "Amazon EC2", "Google", "Microsoft Corporation", "Alibaba Cloud", "DigitalOcean", "Hetzner", "OracleCloud",
)  # fmt: skip
# The asset tag of all Azure machines; needed because other Hyper-V machines have the same vendor and product.
_AZURE_TAG = "7783-7084-3265-9085-8269-3286-77"
_GIB = 2**30


def describe_machine(root: Path = ROOT) -> Machine:
    """Collect the facts about this computer; a fact that the system does not report is None.

    Args:
        root: Folder that contains proc/, sys/ and etc/; tests use their own.
    """
    cpu = _cpu(root)
    memory_bytes = psutil.virtual_memory().total
    limit_bytes = memory_limit_bytes(root)
    if limit_bytes is not None and limit_bytes >= memory_bytes:
        limit_bytes = None
    gpus, gpu_links, gpu_note = describe_gpus()
    vendor, product = _firmware(root)
    return Machine(
        id=_machine_id(cpu, limit_bytes or memory_bytes, gpus),
        host=_host_hash(root),
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
        environment=read_variables(),
    )


def package_version(name: str) -> str:
    """Return an installed package's version, or `not installed`."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def installed_packages() -> dict[str, str]:
    """Return the version of every installed distribution, by the distribution's name in lower case."""
    versions = {dist.metadata["Name"]: dist.version for dist in importlib.metadata.distributions()}
    return dict(sorted((name.lower(), version) for name, version in versions.items() if name))


def harness_checkout() -> Git | None:
    """Return the git commit of the harness; None when the harness does not run from a git checkout."""
    root = PACKAGE_FOLDER.parent
    if not (root / ".git").exists():
        return None
    commit = _output(["git", "-C", str(root), "rev-parse", "HEAD"])
    status = _output(["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"])
    return Git(commit=commit.strip(), dirty=bool(status.strip())) if commit else None


def _output(command: list[str]) -> str:
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return process.stdout


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _cpu(root: Path) -> Cpu:
    info = _read(root / "proc/cpuinfo")
    model = re.search(r"^(?:model name|Model|Processor)\s*:\s*(.+)$", info, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", info, re.MULTILINE)
    known_flags = set(flags[1].split()) if flags else set()
    brand = _output(["sysctl", "-n", "machdep.cpu.brand_string"]).strip() if sys.platform == "darwin" else ""
    return Cpu(
        model=" ".join((model[1] if model else brand or platform.processor() or platform.machine()).split()),
        flags=tuple(flag for flag in _MATRIX_FLAGS if flag in known_flags),
        num_logical=os.cpu_count() or 1,
        num_physical=psutil.cpu_count(logical=False),
        num_usable=_usable_cpus(root),
    )


def _usable_cpus(root: Path) -> int:
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(root)
    return affinity if quota is None else max(1, min(affinity, int(quota.cores)))


def _firmware(root: Path) -> tuple[str | None, str | None]:
    """Return the firmware's vendor and product if the vendor is a known cloud; for privacy, return None for others."""
    dmi = root / "sys/class/dmi/id"
    vendor, product = _read(dmi / "sys_vendor"), _read(dmi / "product_name")
    if vendor == "Microsoft Corporation" and _read(dmi / "chassis_asset_tag") == _AZURE_TAG:
        return vendor, None
    is_cloud = vendor in _CLOUD_VENDORS and product != "Virtual Machine"
    return (vendor, product or None) if is_cloud else (None, None)


def _host_hash(root: Path) -> str | None:
    # The hash identifies nobody: a machine id has 128 random bits, so trying all ids can't reverse its salted hash.
    machine_id = _read(root / "etc/machine-id") or _read(root / "var/lib/dbus/machine-id")
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
