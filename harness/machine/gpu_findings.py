"""Check the GPUs and their driver with NVML. Imports no torch and creates no CUDA context."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.machine.describe import package_version
from harness.machine.nvml import open_nvml, query, visible_gpus
from harness.machine.processes import describe_process, how_to_free
from harness.schema.finding import Finding, Verdict
from harness.schema.host_record import Gpu
from harness.shipped import how_to_install, how_to_install_torch, is_checkout

_MIB = 2**20
_NO_DRIVER = "no NVIDIA driver is installed"


def gpu_findings(gpus: Sequence[Gpu], note: str | None) -> Iterator[Finding]:
    """Check the GPUs.

    Args:
        gpus: The machine's visible GPUs.
        note: Why there is no GPU, or how the GPUs are limited; see `GpuInventory.note`.
    """
    if not gpus:
        # Having no GPU is fine; a driver that does not answer is a fault.
        broken = note is not None and ("MIG" in note or (note.startswith("NVML: ") and _NO_DRIVER not in note))
        yield Finding(
            name="GPU",
            value=f"none ({note or 'NVML lists none'})",
            verdict="bad" if broken else "good",
            why="cells on a GPU are `unsupported` here",
            fix="none: see what the driver says, in brackets" if broken else None,
        )
        return
    yield driver_finding(gpus[0], package_version("torch"), torch_cuda())
    # Numbers for nvidia-smi's option -i; with CUDA_VISIBLE_DEVICES they are unknown, so show a placeholder.
    numbers = ["GPU"] * len(gpus) if "CUDA_VISIBLE_DEVICES" in os.environ else [str(i) for i in range(len(gpus))]
    for index, (gpu, number) in enumerate(zip(gpus, numbers, strict=True)):
        of = f" of GPU {index}" if len(gpus) > 1 else ""
        yield _setting(
            f"persistence{of}", gpu.persistence, wanted=True, fix=f"sudo nvidia-smi -i {number} -pm 1",
            why="without it the driver is loaded anew, for seconds, when a cell begins",
        )  # fmt: skip
        yield _setting(
            f"ECC{of}", gpu.ecc, wanted=True, fix=f"sudo nvidia-smi -i {number} -e 1, then restart",
            why="off, memory is larger and faster than on others of this card",
        )  # fmt: skip
        yield _setting(
            f"MIG{of}", gpu.mig, wanted=False, fix=f"sudo nvidia-smi -i {number} -mig 0 (to measure the whole card)",
            why="a part of a card, whose neighbours share its power and clock",
        )  # fmt: skip
    yield _other_processes(len(gpus))


def driver_finding(gpu: Gpu, torch_version: str, cuda: str | None) -> Finding:
    """Check that the driver supports the CUDA version that torch was built with.

    Args:
        gpu: Any GPU of the machine, for the driver's version.
        torch_version: Version of torch, or `not installed`.
        cuda: CUDA version of torch, e.g. 13.0; None for a CPU build, or when torch is not installed.
    """
    name, why = "driver and CUDA", "torch needs a driver of its CUDA's major version, or a newer one"
    driver = f"driver {gpu.driver or 'not known'} (CUDA {gpu.cuda_driver or 'not known'})"
    value = f"{driver}, torch {torch_version}" + (f" for CUDA {cuda}" if cuda else "")
    if torch_version == "not installed":
        fix = "make setup" if is_checkout() else how_to_install("train")
        return Finding(name=name, value=value, verdict="not known", why=why, fix=fix)
    if cuda is None:
        fix = f"{how_to_install_torch('torch==2.13.0')} (the CUDA build)"
        return Finding(name=name, value=f"{value}, a CPU build", verdict="bad", why=why, fix=fix)
    if gpu.cuda_driver is None:
        fix = "none: the driver does not tell"
        return Finding(name=name, value=value, verdict="not known", why=why, fix=fix)
    # Compare major versions only: a driver supports all CUDA versions of its own major version (NVIDIA's document "CUDA
    # Compatibility", minor version compatibility).
    if int(cuda.split(".")[0]) <= int(gpu.cuda_driver.split(".")[0]):
        return Finding(name=name, value=value, verdict="good", why=why)
    fix = f"install a newer driver, or a torch built for CUDA {gpu.cuda_driver.split('.')[0]}"
    return Finding(name=name, value=value, verdict="bad", why=why, fix=fix)


def torch_cuda() -> str | None:
    """Read the CUDA version of the installed torch from its version.py, without importing it; None for a CPU build."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return None
    try:
        text = (Path(next(iter(spec.submodule_search_locations))) / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    line = re.search(r"^cuda\b.*?=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return line[1] if line else None


def _setting(name: str, actual: bool | None, *, wanted: bool, why: str, fix: str) -> Finding:
    if actual is None:
        return Finding(name=name, value="not known", verdict="not known", why=why, fix="none: NVML does not tell")
    verdict: Verdict = "good" if actual == wanted else "warn"
    value = "on" if actual else "off"
    return Finding(name=name, value=value, verdict=verdict, why=why, fix=None if verdict == "good" else fix)


def _other_processes(num_gpus: int) -> Finding:
    """Check for other processes on the GPUs, including a display server."""
    name, why = "other GPU processes", "they share a cell's GPU, its memory and its power"
    sizes_by_pid: dict[int, int | None] = {}
    answered = False
    try:
        with open_nvml() as nvml:
            for handle in visible_gpus(nvml).handles[:num_gpus]:
                for call in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"):
                    running = query(nvml, call, handle)
                    answered = answered or running is not None
                    sizes_by_pid |= {process.pid: process.usedGpuMemory for process in running or ()}
    except Exception:  # noqa: BLE001 - without a driver or with a lost GPU, the processes are unknown
        answered = False
    if not answered:
        return Finding(name=name, value="not known", verdict="not known", why=why, fix="none: NVML does not tell")
    sizes_by_pid.pop(os.getpid(), None)
    if not sizes_by_pid:
        return Finding(name=name, value="none", verdict="good", why=why)
    found = [(describe_process(pid), size) for pid, size in sorted(sizes_by_pid.items())]
    lines = [process.description + ("" if size is None else f" {size / _MIB:.0f} MiB") for process, size in found]
    fix = how_to_free(process for process, _ in found)
    count = "1 process" if len(found) == 1 else f"{len(found)} processes"
    return Finding(name=name, value="\n".join([count, *lines]), verdict="bad", why=why, fix=fix)
