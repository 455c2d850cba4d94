"""Who else holds memory before a cell begins."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from harness.record import Holder

_LEAST_BYTES = 256 * 2**20
_MOST_SHOWN = 5
_UNKNOWN = "a process that is not to be seen from here"


def find_holders(gpus: Iterable[int] = ()) -> tuple[Holder, ...] | None:
    """The largest holders of main memory, then of each GPU, the harness's own processes left out.

    Only a process's name is told: its command line and its user are nobody's business.

    Args:
        gpus: Indices among the GPUs that CUDA_VISIBLE_DEVICES leaves.

    Returns:
        At most 5 of 256 MiB or more of each kind of memory; None where nothing could be looked at.
    """
    own = _family()
    found = [_main_memory(own), *(_gpu(gpu, own) for gpu in gpus)]
    known = [holders for holders in found if holders is not None]
    return tuple(holder for holders in known for holder in holders) if known else None


def _family() -> set[int]:
    """This process and all that it started; a notebook that started it is another."""
    return {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}


def _main_memory(own: set[int]) -> list[Holder] | None:
    try:
        processes = list(psutil.process_iter(["name", "memory_info"]))
    except (psutil.Error, OSError):
        return None
    sizes = []
    for process in processes:
        memory = process.info["memory_info"]
        if process.pid not in own and memory is not None and memory.rss >= _LEAST_BYTES:
            sizes.append((memory.rss - _file_bytes(process.pid), process.info["name"] or _UNKNOWN))
    return _largest(sizes, gpu=None)


def _file_bytes(pid: int) -> int:
    """Pages of files, which the kernel takes back when it needs them; 0 where it does not tell them apart."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^RssFile:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _gpu(index: int, own: set[int]) -> list[Holder] | None:
    try:
        import pynvml

        from harness.machine import visible_gpus

        pynvml.nvmlInit()
        try:
            handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
            handle = visible_gpus(handles, os.environ.get("CUDA_VISIBLE_DEVICES"), pynvml)[index]
            running: list[Any] = [
                *pynvml.nvmlDeviceGetComputeRunningProcesses(handle),
                *pynvml.nvmlDeviceGetGraphicsRunningProcesses(handle),
            ]
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # noqa: BLE001 - no driver, a GPU that fell off, MIG: nobody looked
        return None
    # A process that computes and draws is listed twice, with all its bytes each time.
    sizes = {process.pid: process.usedGpuMemory for process in running if process.pid not in own}
    return _largest([(size, _name(pid)) for pid, size in sizes.items() if size is not None], gpu=index)


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name() or _UNKNOWN
    except psutil.Error:
        return _UNKNOWN  # of another container


def _largest(sizes: list[tuple[int, str]], gpu: int | None) -> list[Holder]:
    kept = sorted(((size, name) for size, name in sizes if size >= _LEAST_BYTES), reverse=True)[:_MOST_SHOWN]
    return [Holder(name=name, num_bytes=size, gpu=gpu) for size, name in kept]
