"""A cap on the memory of a cell's processes, and what the kernel counted under it (Linux; no torch)."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker, spawn
from pathlib import Path
from typing import Literal

import psutil

from harness.errors import UserError
from harness.machine.describe import memory_group
from harness.schema.host_record import CapMethod, MemoryCapFacts

_PEAK = {1: "memory.max_usage_in_bytes", 2: "memory.peak"}
_EVENTS = {1: "memory.oom_control", 2: "memory.events"}
_METHODS: dict[int, CapMethod] = {1: "control_group_v1", 2: "control_group_v2"}
_NAME = re.compile(r"harness-(\d+)-[0-9a-f]+")
# A limit counts as reached when the group's peak came this near: the kernel charges in batches of pages.
_REACHED = 0.98
_KILL_S = 3.0
_GIB = 2**30


@dataclass(frozen=True)
class MemoryCgroup:
    """A memory control group, as the kernel shows it in files."""

    path: Path
    version: Literal[1, 2]

    @property
    def peak_bytes(self) -> int | None:
        """Most that was ever charged to it; kernels before 5.19 do not keep it in version 2."""
        text = _read(self.path / _PEAK[self.version])
        return int(text) if text.isdigit() else None

    @property
    def num_oom_kills(self) -> int | None:
        """Processes that the kernel killed in it for want of memory."""
        return _counter(_read(self.path / _EVENTS[self.version]))


class MemoryCap:
    """A memory cap for one cell: a control group of its own, or where none can be made a limit on each process.

    A cell's processes are started inside it, so that every page that they touch counts: what a process forked from
    the warm forkserver inherits is charged elsewhere.
    """

    def __init__(self, limit_bytes: int, num_ranks: int, folder: Path) -> None:
        """Make the group.

        Args:
            num_ranks: Share one group; without one each gets an equal share of the limit.
            folder: For the scripts by which processes enter.
        """
        self._limit_bytes, self._num_ranks, self._folder = limit_bytes, num_ranks, folder
        self._token = f"{time.monotonic_ns():x}"
        self.group = _make_group(limit_bytes, self._token)

    @contextlib.contextmanager
    def spawn_inside(self, log: Path) -> Iterator[None]:
        """Let multiprocessing's spawn start its next process inside, with all that it prints written to `log`.

        Raises:
            UserError: When the temporary folder is one from which nothing may be run.
        """
        script = self._folder / f"{self._token}-{log.stem}.sh"
        enter = (
            f'echo $$ > "{self.group.path}/cgroup.procs"'
            if self.group
            else f"ulimit -d {self._limit_bytes // self._num_ranks // 1024}"
        )
        python = shlex.quote(sys.executable)
        script.write_text(f'#!/bin/sh\nexec >> {shlex.quote(str(log))} 2>&1\n{enter} && exec {python} "$@"\n')
        script.chmod(0o700)
        if not os.access(script, os.X_OK):
            raise UserError(
                f"limits.memory_limit_gib: no program may start from {self._folder.parent} (mounted noexec); "
                "set TMPDIR to a folder where one may"
            )
        # Were it to start now, it would start inside, and outlive the cell.
        resource_tracker.ensure_running()
        before = spawn.get_executable()
        multiprocessing.set_executable(str(script))
        try:
            yield
        finally:
            multiprocessing.set_executable(before)

    @property
    def exact(self) -> bool:
        """Whether the cap counts the pages that a smaller machine would have to hold."""
        return self.group is not None

    @property
    def description(self) -> str:
        """The cap as a phrase for a record's reason."""
        size = f"{self._limit_bytes / _GIB:g} GiB"
        if self.group is not None:
            return f"the control group's limit of {size}"
        shared = f", {self._num_ranks} ranks with an equal share each" if self._num_ranks > 1 else ""
        return f"an approximate cap of {size}: RLIMIT_DATA{shared}, as no control group could be made"

    def facts(self) -> MemoryCapFacts:
        """What the record keeps of it."""
        group = self.group
        return MemoryCapFacts(
            limit_bytes=self._limit_bytes,
            method=_METHODS[group.version] if group else "rlimit_data",
            exact=self.exact,
            peak_bytes=group.peak_bytes if group else None,
            num_oom_kills=group.num_oom_kills if group else None,
        )

    def oom_reason(self) -> str | None:
        """Say why the kernel killed a process inside, or None if it killed none."""
        if self.group is None or not self.group.num_oom_kills:
            return None
        peak = self.group.peak_bytes
        if peak is not None and peak < _REACHED * self._limit_bytes:
            return f"memory ran out around it, below {self.description}"
        return f"{self.description} was reached"

    def close(self) -> None:
        """Kill what is left inside, and remove the group."""
        if self.group is None:
            return
        left = []
        for pid in _read(self.group.path / "cgroup.procs").split():
            with contextlib.suppress(psutil.NoSuchProcess):
                left.append(psutil.Process(int(pid)))
                left[-1].kill()
        psutil.wait_procs(left, timeout=_KILL_S)
        _remove_left_over(self.group.path.parent)
        self.group = None


class OomKillCounter:
    """Tells whether the kernel killed a process for want of memory since this was made, outside of any cage."""

    def __init__(self) -> None:
        own = memory_group()
        self._own = MemoryCgroup(own[0], own[2]) if own else None
        self._before = self._read()

    def reason(self) -> str | None:
        """Say whose memory ran out, or None."""
        for now, before, words in zip(self._read(), self._before, _OUTSIDE, strict=True):
            if now is not None and before is not None and now > before:
                return words
        return None

    def _read(self) -> tuple[int | None, int | None]:
        return self._own.num_oom_kills if self._own else None, _counter(_read(Path("/proc/vmstat")))


_OUTSIDE = (
    "the control group that the harness itself runs in was out of memory",
    "the machine was out of memory (its count of such kills rose meanwhile)",
)


def can_cap_memory() -> bool:
    """Whether this system has any of the ways to cap main memory."""
    return sys.platform == "linux"


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _counter(text: str) -> int | None:
    found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else None


def _candidates() -> Iterator[tuple[Path, Literal[1, 2]]]:
    """Groups to make one in, this process's own first: its limits then hold for the new one too.

    In version 2 a group with processes has no controller for its children, so there mostly its parent is the first
    that will do.
    """
    own = memory_group()
    if own is None:
        return
    path, mount, version = own
    for parent in (path, *path.parents):
        if parent.is_relative_to(mount):
            yield parent, version


def _make_group(limit_bytes: int, token: str) -> MemoryCgroup | None:
    for parent, version in _candidates():
        _remove_left_over(parent)
        group = MemoryCgroup(parent / f"harness-{os.getpid()}-{token}", version)
        try:
            group.path.mkdir()
        except OSError:
            continue
        if _set_limit(group, limit_bytes) and _can_enter(group):
            return group
        group.path.rmdir()
    return None


def _set_limit(group: MemoryCgroup, limit_bytes: int) -> bool:
    def write(name: str, value: int) -> bool:
        file = group.path / name
        try:
            file.write_text(str(value))
        except OSError:
            return False
        return True

    if group.version == 1:
        # Of memory and swap together; where the kernel does not count swap, it is kept from swapping instead.
        return write("memory.limit_in_bytes", limit_bytes) and (
            write("memory.memsw.limit_in_bytes", limit_bytes) or write("memory.swappiness", 0)
        )
    if not (group.path / "memory.max").exists() or not write("memory.max", limit_bytes):
        return False
    if (group.path / "memory.swap.max").exists() and not write("memory.swap.max", 0):
        return False
    write("memory.oom.group", 1)  # all ranks or none
    return True


def _can_enter(group: MemoryCgroup) -> bool:
    command = ["/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs"', str(group.path)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _remove_left_over(parent: Path) -> None:
    """Remove groups that this process, or one that is gone, left empty."""
    for path in parent.glob("harness-*-*"):
        owner = _NAME.fullmatch(path.name)
        if owner and (int(owner[1]) == os.getpid() or not psutil.pid_exists(int(owner[1]))):
            with contextlib.suppress(OSError):  # it is not empty yet
                path.rmdir()
