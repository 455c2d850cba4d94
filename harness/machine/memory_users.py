"""Find other processes that use much memory before a cell starts."""

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

_MIN_BYTES = 256 * 2**20
_MAX_LISTED = 5
_PAGE_BYTES = mmap.PAGESIZE
_UNKNOWN = "a process that is not to be seen from here"


def find_memory_users(gpus: Iterable[int] = ()) -> tuple[MemoryUser, ...] | None:
    """List the largest users of main memory, then of each GPU's memory, without the harness's own processes.

    For privacy, only the process name is listed, without command line and user.

    Args:
        gpus: Indices of GPUs among the visible GPUs.

    Returns:
        For main memory and for each GPU, at most 5 processes that use 256 MiB or more; None when neither could be
        inspected.
    """
    users_by_memory = [_main_memory(), *map(_gpu, gpus)]
    known = [users for users in users_by_memory if users is not None]
    return tuple(user for users in known for user in users) if known else None


def is_own_process(pid: int) -> bool:
    """Return whether a process is this one or a descendant. Ancestors, such as a notebook, don't count as own."""
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
        if resident >= _MIN_BYTES and not is_own_process(pid):
            sizes.append((resident - _file_bytes(pid), _name(pid)))
    return _largest(sizes, gpu=None)


def _resident_bytes(pid: int) -> int:
    """Return a process's resident set in bytes; 0 when it has ended or is not accessible."""
    try:
        # Read the kernel's file, ten times faster than psutil, because this runs for every process of the machine.
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
    """Return the bytes of a process's resident file pages, which the kernel can reclaim; 0 when unknown."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    line = re.search(r"^RssFile:\s+(\d+) kB$", status, re.MULTILINE)
    return int(line[1]) * 1024 if line else 0


def _gpu(index: int) -> list[MemoryUser] | None:
    try:
        with open_nvml() as nvml:
            handle = visible_gpus(nvml).handles[index]
            running: list[Any] = [
                *nvml.nvmlDeviceGetComputeRunningProcesses(handle),
                *nvml.nvmlDeviceGetGraphicsRunningProcesses(handle),
            ]
    except Exception:  # noqa: BLE001 - without a driver, with a lost GPU or with MIG, the users are unknown
        return None
    # By process id, because NVML lists a process that uses compute and graphics twice, with all its bytes each time.
    sizes = {process.pid: process.usedGpuMemory for process in running if not is_own_process(process.pid)}
    return _largest([(size, _name(pid)) for pid, size in sizes.items() if size is not None], gpu=index)


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name() or _UNKNOWN
    except psutil.Error:
        return _UNKNOWN  # the process belongs to another container


def _largest(sizes: list[tuple[int, str]], gpu: int | None) -> list[MemoryUser]:
    largest = sorted(((size, name) for size, name in sizes if size >= _MIN_BYTES), reverse=True)[:_MAX_LISTED]
    return [MemoryUser(name=name, num_bytes=size, gpu=gpu) for size, name in largest]
