"""Who else holds memory before a cell begins."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from harness.machine.nvml import open_nvml, visible_gpus
from harness.schema.host_record import MemoryUser

_LEAST_BYTES = 256 * 2**20
_MOST_SHOWN = 5
_PAGE_BYTES = mmap.PAGESIZE
_UNKNOWN = "a process that is not to be seen from here"


def find_memory_users(gpus: Iterable[int] = ()) -> tuple[MemoryUser, ...] | None:
    """The largest holders of main memory, then of each GPU, the harness's own processes left out.

    Only a process's name is told: its command line and its user are nobody's business.

    Args:
        gpus: Indices among the GPUs that CUDA_VISIBLE_DEVICES leaves.

    Returns:
        At most 5 of 256 MiB or more of each kind of memory; None where nothing could be looked at.
    """
    found = [_main_memory(), *map(_gpu, gpus)]
    known = [holders for holders in found if holders is not None]
    return tuple(holder for holders in known for holder in holders) if known else None


def _is_own(pid: int) -> bool:
    """Whether it is this process or one that it started; a notebook that started this one is another."""
    try:
        return pid == os.getpid() or any(parent.pid == os.getpid() for parent in psutil.Process(pid).parents())
    except psutil.Error:
        return False


def _main_memory() -> list[MemoryUser] | None:
    try:
        pids = psutil.pids()
    except (psutil.Error, OSError):
        return None
    sizes = []
    for pid in pids:
        resident = _resident_bytes(pid)
        if resident >= _LEAST_BYTES and not _is_own(pid):
            sizes.append((resident - _file_bytes(pid), _name(pid)))
    return _largest(sizes, gpu=None)


def _resident_bytes(pid: int) -> int:
    """A process's resident set; 0 where it is gone or nobody may know."""
    try:
        # Ten times as quick as psutil, and this is asked of every process that there is.
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE_BYTES
    except FileNotFoundError:
        if psutil.LINUX:
            return 0
    except (OSError, IndexError):
        return 0
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _file_bytes(pid: int) -> int:
    """Pages of files, which the kernel takes back when it needs them; 0 where it does not tell them apart."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^RssFile:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _gpu(index: int) -> list[MemoryUser] | None:
    try:
        with open_nvml() as nvml:
            handle = visible_gpus(nvml).handles[index]
            running: list[Any] = [
                *nvml.nvmlDeviceGetComputeRunningProcesses(handle),
                *nvml.nvmlDeviceGetGraphicsRunningProcesses(handle),
            ]
    except Exception:  # noqa: BLE001 - no driver, a GPU that fell off, MIG: nobody looked
        return None
    # A process that computes and draws is listed twice, with all its bytes each time.
    sizes = {process.pid: process.usedGpuMemory for process in running if not _is_own(process.pid)}
    return _largest([(size, _name(pid)) for pid, size in sizes.items() if size is not None], gpu=index)


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name() or _UNKNOWN
    except psutil.Error:
        return _UNKNOWN  # of another container


def _largest(sizes: list[tuple[int, str]], gpu: int | None) -> list[MemoryUser]:
    kept = sorted(((size, name) for size, name in sizes if size >= _LEAST_BYTES), reverse=True)[:_MOST_SHOWN]
    return [MemoryUser(name=name, num_bytes=size, gpu=gpu) for size, name in kept]
