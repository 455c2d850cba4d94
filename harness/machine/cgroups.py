"""The control groups around this process: how much of the CPUs they let it use, and how much memory is left in them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")
_NO_LIMIT_BYTES = 2**60  # version 1 writes "no limit" as the largest multiple of a page


class Quota(NamedTuple):
    """CPU time that a group may use, in cores, and the file that sets it."""

    cores: float
    file: Path
    unlimited: str  # what to write into the file to lift it


class ThrottledPeriods(NamedTuple):
    """Periods (100 ms by default) in which a group ran since it was made, and those in which its quota ran out."""

    total: int
    throttled: int


def cpu_quota(root: Path = ROOT) -> Quota | None:
    """The tightest CPU quota of the own control group and those around it, None without one.

    Args:
        root: Where /proc and /sys lie; a test has its own.
    """
    return min((quota for group in _groups("cpu", root) if (quota := _quota(group))), default=None)


def periods(quota: Quota | None) -> ThrottledPeriods | None:
    """How often a quota has run out until now; None where the kernel does not count it."""
    if quota is None:
        return None
    counts = dict(re.findall(r"^(nr_periods|nr_throttled) (\d+)$", _read(quota.file.parent / "cpu.stat"), re.MULTILINE))
    return ThrottledPeriods(int(counts["nr_periods"]), int(counts["nr_throttled"])) if len(counts) > 1 else None


def memory_left_bytes(root: Path = ROOT) -> int | None:
    """Memory that the own control group and those around it still give, None where none has a limit.

    Pages of files that were not used of late count as left: the kernel takes them back.
    """
    left = (_left(group) for group in _groups("memory", root))
    return min((room for room in left if room is not None), default=None)


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """This process's group of a controller, and every group around it, in version 1 or 2 of control groups."""
    mount = root / "sys/fs/cgroup"
    pattern = r"^0::(/.*)$"
    if not (mount / "cgroup.controllers").exists():
        mount, pattern = mount / controller, rf"^\d+:(?:[^:]*,)?{controller}(?:,[^:]*)?:(/.*)$"
    found = re.search(pattern, _read(root / "proc/self/cgroup"), re.MULTILINE)
    path = mount / found[1].lstrip("/") if found else mount
    # In a container the path may be the host's, of which nothing is mounted here.
    if not path.is_dir() or ".." in path.parts:
        path = mount
    yield from (group for group in (path, *path.parents) if group.is_relative_to(mount))


def _quota(group: Path) -> Quota | None:
    new, old = group / "cpu.max", group / "cpu.cfs_quota_us"
    match _read(new).split():
        case [quota, period] if quota.isdigit():
            return Quota(int(quota) / int(period), new, "max")
    quota, period = _read(old), _read(group / "cpu.cfs_period_us")
    return Quota(int(quota) / int(period), old, "-1") if quota.isdigit() and period.isdigit() else None


def _left(group: Path) -> int | None:
    for limit_name, usage_name, files in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, usage = _read(group / limit_name), _read(group / usage_name)
        if limit.isdigit() and usage.isdigit() and int(limit) < _NO_LIMIT_BYTES:
            idle = re.search(rf"^{files} (\d+)$", _read(group / "memory.stat"), re.MULTILINE)
            return max(0, int(limit) - int(usage) + (int(idle[1]) if idle else 0))
    return None


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""
