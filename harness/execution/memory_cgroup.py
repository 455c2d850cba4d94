"""Memory control groups (Linux): create a group with a limit, and read its peak memory and its count of OOM kills."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from harness.machine.cgroups import ControlGroup, find_cgroup

# The kernel's files by version of control groups.
_PEAK_FILE = {1: "memory.max_usage_in_bytes", 2: "memory.peak"}
_EVENTS_FILE = {1: "memory.oom_control", 2: "memory.events"}
_NAME = re.compile(r"harness-(\d+)-[0-9a-f]+")
_OWN_GROUP_OOM = "the control group that the harness itself runs in was out of memory"
_MACHINE_OOM = "the machine was out of memory (its count of such kills rose meanwhile)"


@dataclass(frozen=True)
class MemoryCgroup:
    """A memory control group, whose counters are read from the kernel's files."""

    path: Path
    version: Literal[1, 2]

    @property
    def peak_bytes(self) -> int | None:
        """Most bytes ever charged to the group; None if the kernel has no such file (version 2 before Linux 5.19)."""
        text = read_file(self.path / _PEAK_FILE[self.version])
        return int(text) if text.isdigit() else None

    @property
    def num_oom_kills(self) -> int | None:
        """Number of the group's processes that the kernel killed because memory ran out; None when unknown."""
        return _oom_kills_in(read_file(self.path / _EVENTS_FILE[self.version]))


class OomKillCounter:
    """Detects OOM kills by the kernel outside the cell's own control group, from the counter's creation on."""

    def __init__(self, read_counts: Callable[[], tuple[int | None, int | None]] | None = None) -> None:
        """Read the counts before the cell.

        Args:
            read_counts: Returns the OOM kills of the harness's own control group and of the machine; None: read the
                kernel's files.
        """
        self._read_counts = read_counts or _read_oom_kills
        self._before = self._read_counts()

    def reason(self) -> str | None:
        """Return what ran out of memory, for the record's reason; None if the kernel killed no process."""
        texts = (_OWN_GROUP_OOM, _MACHINE_OOM)
        for now, before, text in zip(self._read_counts(), self._before, texts, strict=True):
            if now is not None and before is not None and now > before:
                return text
        return None


def _read_oom_kills() -> tuple[int | None, int | None]:
    own = find_cgroup("memory")
    own_kills = MemoryCgroup(own.path, own.version).num_oom_kills if own else None
    return own_kills, _oom_kills_in(read_file(Path("/proc/vmstat")))


def _oom_kills_in(text: str) -> int | None:
    match = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
    return int(match[1]) if match else None


def read_file(path: Path) -> str:
    """Return a kernel file's text without surrounding blanks; empty if it can't be read."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").strip()
    except OSError:
        return ""


def make_cgroup(limit_bytes: int, token: str, own: ControlGroup | None = None) -> MemoryCgroup | None:
    """Create a group with a limit; return None if this process may not create a group anywhere.

    Args:
        limit_bytes: Limit on memory and swap together; on memory alone if the kernel does not count swap.
        token: Hexadecimal part of the group's name.
        own: This process's group; None: the result of `find_cgroup`.
    """
    for parent, version in candidate_parents(own or find_cgroup("memory")):
        remove_left_over(parent)
        group = MemoryCgroup(parent / f"harness-{os.getpid()}-{token}", version)
        try:
            group.path.mkdir()
        except OSError:
            continue
        if set_limit(group, limit_bytes) and _can_enter(group):
            return group
        group.path.rmdir()
    return None


def candidate_parents(own: ControlGroup | None) -> Iterator[tuple[Path, Literal[1, 2]]]:
    """Yield the groups in which a new group may be created: this process's own group, then its ancestors.

    The own group comes first, because its limits then apply to the new group too. In version 2, a group with processes
    has no controllers for its children, so usually the parent of the own group is the first that works.
    """
    if own is None:
        return
    path, mount, version = own
    for parent in (path, *path.parents):
        if parent.is_relative_to(mount):
            yield parent, version


def set_limit(group: MemoryCgroup, limit_bytes: int) -> bool:
    """Set a group's limit; False if the kernel refuses it."""

    def write(name: str, value: int) -> bool:
        try:
            (group.path / name).write_text(str(value))
        except OSError:
            return False
        return True

    if group.version == 1:
        # Limit memory and swap together; if the kernel does not count swap, prevent swapping instead.
        return write("memory.limit_in_bytes", limit_bytes) and (
            write("memory.memsw.limit_in_bytes", limit_bytes) or write("memory.swappiness", 0)
        )
    if not (group.path / "memory.max").exists() or not write("memory.max", limit_bytes):
        return False
    if (group.path / "memory.swap.max").exists() and not write("memory.swap.max", 0):
        return False
    write("memory.oom.group", 1)  # kill all ranks or none
    return True


def _can_enter(group: MemoryCgroup) -> bool:
    command = ["/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs"', str(group.path)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def remove_left_over(parent: Path) -> None:
    """Remove the empty groups that this process created, or processes that no longer exist."""
    for path in parent.glob("harness-*-*"):
        owner = _NAME.fullmatch(path.name)
        if owner and (int(owner[1]) == os.getpid() or not psutil.pid_exists(int(owner[1]))):
            with contextlib.suppress(OSError):  # the group is not empty yet
                path.rmdir()
