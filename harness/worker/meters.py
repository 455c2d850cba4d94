"""Step timer and peak memory of the measured process."""

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

# Matches a mapped file's path, size and resident size in /proc/self/smaps (man 5 proc_pid_smaps).
_MAPPING = re.compile(
    r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ +(/.*)\nSize: +(\d+) kB\n(?:(?!Rss).*\n)*?Rss: +(\d+) kB", re.MULTILINE
)


class StepTimer:
    """Times steps without slowing them down.

    Uses `time.perf_counter` on a CPU. On a GPU, records CUDA events and reads them after one synchronization at the end:
    synchronizing in every step would serialize work that the GPU overlaps.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._seconds: list[float] = []
        self._resumed_seconds: tuple[float, ...] = ()
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._began = 0.0

    @property
    def began(self) -> float:
        """The `time.perf_counter` reading when the latest step began; 0 on a GPU, where events are recorded instead."""
        return self._began

    def start(self) -> None:
        """Start timing a step; called before the step's batch is prepared."""
        if self._on_gpu:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            self._events.append((begin, end))
        else:
            self._began = time.perf_counter()

    def resume(self, seconds: Sequence[float]) -> None:
        """Prepend the step times of the training's earlier segments."""
        self._resumed_seconds = tuple(seconds)

    def stop(self) -> None:
        """Stop timing the step."""
        if self._on_gpu:
            self._events[-1][1].record()
        else:
            self._seconds.append(time.perf_counter() - self._began)

    def seconds(self) -> tuple[float, ...]:
        """Wait for the GPU, if any, and return the seconds of every step."""
        if self._on_gpu:
            torch.cuda.synchronize()
            return self._resumed_seconds + tuple(begin.elapsed_time(end) / 1000 for begin, end in self._events)
        return self._resumed_seconds + tuple(self._seconds)


class MemoryMeter:
    """Reads this process's peak memory since `reset` from high-water marks, never by sampling."""

    def __init__(self, device: torch.device, rank: int) -> None:
        self._device, self._rank = device, rank
        self._earlier_peaks: dict[MemorySource, int] = {}

    def resume(self, peaks: Iterable[PeakMemory]) -> None:
        """Include peaks from before the last reset, such as those of the training's earlier segments."""
        for peak in peaks:
            self._earlier_peaks[peak.source] = max(self._earlier_peaks.get(peak.source, 0), peak.num_bytes)

    def peaks_before_pause(self) -> tuple[PeakMemory, ...]:
        """Return the peaks from before the current `paused` block."""
        return tuple(
            PeakMemory(rank=self._rank, source=source, num_bytes=num_bytes)
            for source, num_bytes in self._earlier_peaks.items()
        )

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the memory use inside this block from the peaks."""
        self.resume(self.peaks())
        yield
        self.reset()

    def reset(self) -> None:
        """Reset the high-water marks to the memory in use now."""
        _reset_peak_rss()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def peaks(self) -> tuple[PeakMemory, ...]:
        """Return the peak from every source that this device has."""
        num_bytes: dict[MemorySource, int | None] = {"rss": peak_rss_bytes()}
        if self._device.type == "cuda":
            num_bytes["cuda_allocated"] = torch.cuda.max_memory_allocated(self._device)
            num_bytes["cuda_reserved"] = torch.cuda.max_memory_reserved(self._device)
            num_bytes["nvml_process"] = nvml_process_bytes()
        return tuple(
            PeakMemory(rank=self._rank, source=source, num_bytes=max(peak, self._earlier_peaks.get(source, 0)))
            for source, peak in num_bytes.items()
            if peak is not None
        )


@dataclass(frozen=True)
class Meters:
    """The instruments of one rank's training."""

    timer: StepTimer
    memory: MemoryMeter

    @classmethod
    def create(cls, device: torch.device, rank: int) -> Meters:
        """Create a timer and a memory meter for a rank's device."""
        return cls(StepTimer(device), MemoryMeter(device, rank))


@dataclass(frozen=True)
class ResidentMemory:
    """This process's resident set at one moment.

    Attributes:
        total_bytes: Size of the whole resident set.
        libraries_bytes: Resident pages of shared libraries; None if the system doesn't report them.
        unread_weights_bytes: Pages of memory-mapped weight files that nothing has read yet.
    """

    total_bytes: int
    libraries_bytes: int | None
    unread_weights_bytes: int


def resident_memory() -> ResidentMemory:
    """Measure this process's resident set by its memory mappings.

    This takes about ten milliseconds, so never call it while something is timed.
    """
    total = memory_in_use(torch.device("cpu"))
    try:
        smaps = Path("/proc/self/smaps").read_text(errors="replace")
    except OSError:
        return ResidentMemory(total, None, 0)
    libraries = unread = 0
    for path, size, rss in _MAPPING.findall(smaps):
        libraries += int(rss) * 1024 if ".so" in path else 0
        unread += (int(size) - int(rss)) * 1024 if path.endswith(".safetensors") else 0
    return ResidentMemory(total, libraries, unread)


def memory_in_use(device: torch.device) -> int:
    """Return the bytes allocated on a GPU, or this process's resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_bytes().split()[1]) * resource.getpagesize()
    return int(psutil.Process().memory_info().rss)


def peak_rss_bytes() -> int:
    """Return this process's peak resident set: the kernel's VmHWM, or else ru_maxrss, which can't be reset."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _reset_peak_rss() -> None:
    # Writing 5 resets VmHWM (man 5 proc). If that is not allowed, the peak includes loading, which stays below the peak of
    # training in all but the shortest runs.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def nvml_process_bytes() -> int | None:
    """Return the GPU memory that NVML charges to this process, CUDA context included; None if NVML doesn't report it.

    The caching allocator never shrinks, so the value now is also the peak.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
        total = 0
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
                if process.pid == os.getpid():
                    total += process.usedGpuMemory or 0
    except Exception:  # noqa: BLE001 - no driver, or one that can't answer: not measured
        return None
    return total or None
