"""What of this machine's GPUs would spoil a benchmark, as NVML tells (no torch, no CUDA context)."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.machine.describe import package_version
from harness.machine.nvml import ask, open_nvml, visible_gpus
from harness.schema.finding import Finding, Verdict
from harness.schema.host_record import Gpu

_MIB = 2**20
_NO_DRIVER = "no NVIDIA driver is installed"


def gpu_findings(gpus: Sequence[Gpu], note: str | None) -> Iterator[Finding]:
    """Judge the GPUs of the machine's facts.

    Args:
        note: Why there is none, or what to know of those that are.
    """
    if not gpus:
        # A machine without a GPU is a machine; a driver that does not answer is a fault.
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
    # Those that are seen may be any of nvidia-smi's.
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
    yield _neighbours(len(gpus))


def driver_finding(gpu: Gpu, torch_version: str, cuda: str | None) -> Finding:
    """Whether this driver runs the CUDA that torch was built with.

    Args:
        cuda: As torch names it, such as 13.0; None for a CPU build, or where torch is not installed.
    """
    name, why = "driver and CUDA", "torch needs a driver of its CUDA's major version, or a newer one"
    driver = f"driver {gpu.driver or 'not known'} (CUDA {gpu.cuda_driver or 'not known'})"
    value = f"{driver}, torch {torch_version}" + (f" for CUDA {cuda}" if cuda else "")
    if torch_version == "not installed":
        fix = "make setup"
        return Finding(name=name, value=value, verdict="not known", why=why, fix=fix)
    if cuda is None:
        fix = "make bench TORCH=torch==2.13.0 (the CUDA build)"
        return Finding(name=name, value=f"{value}, a CPU build", verdict="bad", why=why, fix=fix)
    if gpu.cuda_driver is None:
        fix = "none: the driver does not tell"
        return Finding(name=name, value=value, verdict="not known", why=why, fix=fix)
    # Within a major version any driver runs any CUDA: NVIDIA's "CUDA Compatibility", minor version compatibility.
    if int(cuda.split(".")[0]) <= int(gpu.cuda_driver.split(".")[0]):
        return Finding(name=name, value=value, verdict="good", why=why)
    fix = f"install a newer driver, or a torch built for CUDA {gpu.cuda_driver.split('.')[0]}"
    return Finding(name=name, value=value, verdict="bad", why=why, fix=fix)


def torch_cuda() -> str | None:
    """The CUDA that the installed torch was built with, out of its file of versions, without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return None
    try:
        text = (Path(next(iter(spec.submodule_search_locations))) / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^cuda\b.*?=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return found[1] if found else None


def _setting(name: str, seen: bool | None, *, wanted: bool, why: str, fix: str) -> Finding:
    if seen is None:
        return Finding(name=name, value="not known", verdict="not known", why=why, fix="none: NVML does not tell")
    verdict: Verdict = "good" if seen == wanted else "warn"
    value = "on" if seen else "off"
    return Finding(name=name, value=value, verdict=verdict, why=why, fix=None if verdict == "good" else fix)


def _neighbours(num_gpus: int) -> Finding:
    """Other processes on the GPUs; a display's server draws on one and is told too."""
    name, why = "other GPU processes", "they share a cell's GPU, its memory and its power"
    found: dict[int, int | None] = {}
    told = False
    try:
        with open_nvml() as nvml:
            for handle in visible_gpus(nvml).handles[:num_gpus]:
                for question in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"):
                    running = ask(nvml, question, handle)
                    told = told or running is not None
                    found |= {process.pid: process.usedGpuMemory for process in running or ()}
    except Exception:  # noqa: BLE001 - no driver, a GPU that fell off: nobody looked
        told = False
    if not told:
        return Finding(name=name, value="not known", verdict="not known", why=why, fix="none: NVML does not tell")
    found.pop(os.getpid(), None)
    if not found:
        return Finding(name=name, value="none", verdict="good", why=why)
    sizes = [f"pid {pid}" + ("" if size is None else f" {size / _MIB:.0f} MiB") for pid, size in sorted(found.items())]
    fix = f"kill {' '.join(map(str, sorted(found)))}, or wait until they are done"
    return Finding(name=name, value=", ".join(sizes), verdict="bad", why=why, fix=fix)
