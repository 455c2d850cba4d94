"""Limits that control groups (cgroups, versions 1 and 2) set on this process: CPU quota and memory."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

ROOT = Path("/")
# A limit of at least this many bytes means no limit: version 1 writes the largest multiple of a page for it.
_NO_LIMIT_BYTES = 2**60
# For version 2, then 1: the file of the memory limit, the file of the memory in use, and the line of memory.stat that
# counts page cache not used lately.
_MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


class ControlGroup(NamedTuple):
    """A control group of one controller.

    Attributes:
        path: Folder of the group.
        mount: Folder that contains all groups of the controller.
        version: Version of control groups.
    """

    path: Path
    mount: Path
    version: Literal[1, 2]


class Quota(NamedTuple):
    """A CPU quota.

    Attributes:
        cores: CPU seconds per second that the group may use.
        file: The file that sets the quota.
        unlimited: The text to write into the file to remove the quota.
    """

    cores: float
    file: Path
    unlimited: str


class ThrottledPeriods(NamedTuple):
    """Numbers of scheduling periods (100 ms by default) since a group was created.

    Attributes:
        total: Periods in which the group ran.
        throttled: Periods in which the group's quota was used up.
    """

    total: int
    throttled: int


def find_cgroup(controller: str, root: Path = ROOT) -> ControlGroup | None:
    """Find this process's control group of a controller; None when there is none.

    Args:
        controller: Name of the controller, e.g. `cpu` or `memory`.
        root: Folder that contains proc/ and sys/; tests use their own.
    """
    unified = root / "sys/fs/cgroup"
    is_v2 = (unified / "cgroup.controllers").exists()
    mount = unified if is_v2 else unified / controller
    pattern = r"^0::(/.*)$" if is_v2 else rf"^\d+:(?:[^:]*,)?{controller}(?:,[^:]*)?:(/.*)$"
    line = re.search(pattern, _read(root / "proc/self/cgroup"), re.MULTILINE)
    if line is None or not mount.is_dir():
        return None
    path = mount / line[1].lstrip("/")
    # Inside a container, the path may be that of the host, which is not mounted here: then the mount is the container's
    # own group.
    return ControlGroup(path if path.is_dir() and ".." not in path.parts else mount, mount, 2 if is_v2 else 1)


def cpu_quota(root: Path = ROOT) -> Quota | None:
    """Return the smallest CPU quota of this process's group and its ancestors; None without a quota."""
    return min((quota for group in _with_ancestors("cpu", root) if (quota := _quota(group))), default=None)


def read_throttled_periods(quota: Quota | None) -> ThrottledPeriods | None:
    """Read the counts of periods so far under a quota; None without a quota, or when the kernel does not count them."""
    if quota is None:
        return None
    counts = dict(re.findall(r"^(nr_periods|nr_throttled) (\d+)$", _read(quota.file.parent / "cpu.stat"), re.MULTILINE))
    return ThrottledPeriods(int(counts["nr_periods"]), int(counts["nr_throttled"])) if len(counts) > 1 else None


def memory_limit_bytes(root: Path = ROOT) -> int | None:
    """Return the lowest memory limit of this process's group and its ancestors in bytes; None without a limit."""
    texts = [_read(group / file) for group in _with_ancestors("memory", root) for file, _, _ in _MEMORY_FILES]
    return min((limit for text in texts if text.isdigit() and (limit := int(text)) < _NO_LIMIT_BYTES), default=None)


def available_memory_bytes(root: Path = ROOT) -> int | None:
    """Return how many bytes this process's group and its ancestors can still allocate; None without a limit.

    Page cache that was not used lately counts as available, because the kernel reclaims it when memory is short.
    """
    available = (_available_bytes(group) for group in _with_ancestors("memory", root))
    return min((num_bytes for num_bytes in available if num_bytes is not None), default=None)


def _with_ancestors(controller: str, root: Path) -> Iterator[Path]:
    group = find_cgroup(controller, root)
    if group is not None:
        yield from (folder for folder in (group.path, *group.path.parents) if folder.is_relative_to(group.mount))


def _quota(group: Path) -> Quota | None:
    file_v2, file_v1 = group / "cpu.max", group / "cpu.cfs_quota_us"
    match _read(file_v2).split():
        case [quota, period] if quota.isdigit():
            return Quota(int(quota) / int(period), file_v2, "max")
    quota, period = _read(file_v1), _read(group / "cpu.cfs_period_us")
    return Quota(int(quota) / int(period), file_v1, "-1") if quota.isdigit() and period.isdigit() else None


def _available_bytes(group: Path) -> int | None:
    for limit_file, usage_file, cache_line in _MEMORY_FILES:
        limit, usage = _read(group / limit_file), _read(group / usage_file)
        if limit.isdigit() and usage.isdigit() and int(limit) < _NO_LIMIT_BYTES:
            cache = re.search(rf"^{cache_line} (\d+)$", _read(group / "memory.stat"), re.MULTILINE)
            return max(0, int(limit) - int(usage) + (int(cache[1]) if cache else 0))
    return None


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""
