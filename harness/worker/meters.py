"""Clocks and high-water marks inside the measured process."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from harness.schema.training_record import MemorySource, PeakMemory

# A mapping's file, size and resident pages (man 5 proc_pid_smaps).
_MAPPING = re.compile(
    r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ +(/.*)\nSize: +(\d+) kB\n(?:(?!Rss).*\n)*?Rss: +(\d+) kB", re.MULTILINE
)


class StepTimer:
    """Times steps without disturbing them.

    On a CPU by `time.perf_counter`. On a GPU by CUDA events, which are read after one synchronisation at the end of
    the window: a synchronisation a step would serialise what the GPU overlaps.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._seconds: list[float] = []
        self._before: tuple[float, ...] = ()
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._began = 0.0

    def start(self) -> None:
        """Begin a step, before its batch is prepared."""
        if self._on_gpu:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            self._events.append((begin, end))
        else:
            self._began = time.perf_counter()

    def resume(self, seconds: Sequence[float]) -> None:
        """Put the steps of earlier pieces of this training before its own."""
        self._before = tuple(seconds)

    def stop(self) -> None:
        """End the step."""
        if self._on_gpu:
            self._events[-1][1].record()
        else:
            self._seconds.append(time.perf_counter() - self._began)

    def seconds(self) -> tuple[float, ...]:
        """Seconds of every step so far; waits for the GPU."""
        if self._on_gpu:
            torch.cuda.synchronize()
            return self._before + tuple(begin.elapsed_time(end) / 1000 for begin, end in self._events)
        return self._before + tuple(self._seconds)


class MemoryMeter:
    """Peaks of this process since `reset`, from high-water marks and never by sampling."""

    def __init__(self, device: torch.device, rank: int) -> None:
        self._device, self._rank = device, rank
        self._kept: dict[MemorySource, int] = {}

    def resume(self, peaks: Iterable[PeakMemory]) -> None:
        """Hold the peaks of earlier pieces of this training, or those up to now, beside what comes."""
        for peak in peaks:
            self._kept[peak.source] = max(self._kept.get(peak.source, 0), peak.num_bytes)

    def peaks_so_far(self) -> tuple[PeakMemory, ...]:
        """Those that `looking_away` holds, of what was before it."""
        return tuple(PeakMemory(rank=self._rank, source=source, num_bytes=kept) for source, kept in self._kept.items())

    @contextlib.contextmanager
    def looking_away(self) -> Iterator[None]:
        """Leave what happens meanwhile out of the peaks."""
        self.resume(self.peaks())
        yield
        self.reset()

    def reset(self) -> None:
        """Let the marks fall to what is held now."""
        _reset_peak_rss()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def peaks(self) -> tuple[PeakMemory, ...]:
        """All marks that this device has, in bytes."""
        found = [PeakMemory(rank=self._rank, source="rss", num_bytes=peak_rss_bytes())]
        if self._device.type == "cuda":
            allocated = torch.cuda.max_memory_allocated(self._device)
            reserved = torch.cuda.max_memory_reserved(self._device)
            found.append(PeakMemory(rank=self._rank, source="cuda_allocated", num_bytes=allocated))
            found.append(PeakMemory(rank=self._rank, source="cuda_reserved", num_bytes=reserved))
            used = nvml_process_bytes()
            if used is not None:
                found.append(PeakMemory(rank=self._rank, source="nvml_process", num_bytes=used))
        return tuple(
            peak.model_copy(update={"num_bytes": max(peak.num_bytes, self._kept.get(peak.source, 0))}) for peak in found
        )


@dataclass(frozen=True)
class ResidentMemory:
    """This process's resident set now; None where the system does not tell.

    Attributes:
        libraries_bytes: Pages of shared libraries.
        unread_weights_bytes: Of weights' files that are mapped, what no one touched yet.
    """

    total_bytes: int
    libraries_bytes: int | None
    unread_weights_bytes: int


def held_now() -> ResidentMemory:
    """Look at this process's mappings; some ten milliseconds, so outside of all that is timed."""
    total = held_bytes(torch.device("cpu"))
    try:
        text = Path("/proc/self/smaps").read_text(errors="replace")
    except OSError:
        return ResidentMemory(total, None, 0)
    libraries = unread = 0
    for path, size, rss in _MAPPING.findall(text):
        libraries += int(rss) * 1024 if ".so" in path else 0
        unread += (int(size) - int(rss)) * 1024 if path.endswith(".safetensors") else 0
    return ResidentMemory(total, libraries, unread)


def held_bytes(device: torch.device) -> int:
    """What is held now: this process's resident set, or what is allocated on its GPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_bytes().split()[1]) * resource.getpagesize()
    return int(psutil.Process().memory_info().rss)


def peak_rss_bytes() -> int:
    """This process's largest resident set: the kernel's VmHWM, elsewhere ru_maxrss (which can't be reset)."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _reset_peak_rss() -> None:
    # Writing 5 resets VmHWM (man 5 proc). Where that is not allowed the mark covers loading too, which is below the
    # peak of training in all but the shortest runs.
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def nvml_process_bytes() -> int | None:
    """Bytes that NVML charges to this process, context included; the caching allocator only grows: now is the peak."""
    try:
        import pynvml

        pynvml.nvmlInit()
        total = 0
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
                if process.pid == os.getpid():
                    total += process.usedGpuMemory or 0
    except Exception:  # noqa: BLE001 - a driver without this answer, or none: not measured
        return None
    return total or None
