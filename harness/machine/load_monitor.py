"""Monitor the machine's load while a cell runs: counters before and after the cell, and samples of the CPU clock."""

from __future__ import annotations

import re
import time
from pathlib import Path
from statistics import fmean

import psutil

from harness.machine.cgroups import ROOT, cpu_quota, read_throttled_periods
from harness.machine.cpu_usage import usable_cores
from harness.machine.memory_users import find_memory_users
from harness.machine.scrub import scrub
from harness.schema.host_record import Load

_CLOCK_EVERY_S = 5.0
_MAX_CORES = 8  # cores whose clock is read; few, because each reading may wake a core
_CPUS = "sys/devices/system/cpu"
# Times excluded from busy time; guest times are excluded because user times already contain them.
_NOT_BUSY = frozenset({"idle", "iowait", "guest", "guest_nice", "steal"})


class LoadMonitor:
    """Compares kernel counters with their values at its creation, and samples the CPU clock every 5 s."""

    def __init__(self, num_gpus: int, root: Path = ROOT) -> None:
        """Read all counters for the first time, before the cell starts.

        Args:
            num_gpus: Number of the cell's GPUs, whose memory users are listed too.
            root: Folder that contains proc/ and sys/; tests use their own.
        """
        self._root = root
        self._available, swap = psutil.virtual_memory().available, psutil.swap_memory()
        self._swap_used, self._swapped = swap.used, swap.sin + swap.sout
        self._memory_users = find_memory_users(range(num_gpus))
        self._clock_mhz: list[float] = []
        self._due_s = 0.0
        self._quota = cpu_quota(root)
        self._periods = read_throttled_periods(self._quota)
        self._faults, self._throttles = _major_faults(root), _thermal_throttles(root)
        self._system, self._parent = psutil.cpu_times(), time.process_time()

    def poll(self, now: float) -> None:
        """Sample the CPU clock if 5 s have passed; `now` is on the cell's clock, in seconds."""
        if now >= self._due_s:
            self._due_s = now + _CLOCK_EVERY_S
            if (clock := _clock_mhz(self._root)) is not None:
                self._clock_mhz.append(clock)

    def snapshot(self, cell_s: float | None) -> Load:
        """Return the load since this monitor's creation; `cell_s` is the cell's own CPU seconds, None when unknown."""
        now, swap = psutil.cpu_times(), psutil.swap_memory()
        before, periods = self._periods, read_throttled_periods(self._quota)
        busy = [key for key in now._fields if key not in _NOT_BUSY]
        return Load(
            available_memory_bytes=self._available,
            system_busy_s=sum(getattr(now, key) - getattr(self._system, key) for key in busy),
            cell_s=cell_s,
            parent_s=time.process_time() - self._parent,
            steal_s=now.steal - self._system.steal if hasattr(now, "steal") else None,
            swap_used_bytes=self._swap_used,
            holders=self._memory_users
            and tuple(user.model_copy(update={"name": scrub(user.name)}) for user in self._memory_users),
            swapped_bytes=swap.sin + swap.sout - self._swapped,
            major_faults=_increase(_major_faults(self._root), self._faults),
            quota_periods=_increase(periods and periods.total, before and before.total),
            throttled_periods=_increase(periods and periods.throttled, before and before.throttled),
            thermal_throttles=_increase(_thermal_throttles(self._root), self._throttles),
            clock_mhz=tuple(self._clock_mhz) or None,
        )


def _increase(now: int | None, before: int | None) -> int | None:
    return now - before if now is not None and before is not None else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _major_faults(root: Path) -> int | None:
    """Return the number of major page faults, which wait for a disk, since the machine started; None when unknown."""
    try:
        line = re.search(r"^pgmajfault (\d+)$", (root / "proc/vmstat").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(line[1]) if line else None


def _thermal_throttles(root: Path) -> int | None:
    """Return how often heat slowed the usable cores or their packages since the machine started.

    The package counts are not summed, because every core's folder repeats the count of its package. Returns None when
    the machine has no counters, as in most virtual machines.
    """
    folders = [root / _CPUS / f"cpu{core}/thermal_throttle" for core in usable_cores()]
    cores = [count for folder in folders if (count := _number(folder / "core_throttle_count")) is not None]
    packages = [count for folder in folders if (count := _number(folder / "package_throttle_count")) is not None]
    return sum(cores) + max(packages, default=0) if cores or packages else None


def _clock_mhz(root: Path) -> float | None:
    """Return the current mean clock of the first usable cores in MHz; None when unknown, as in most virtual machines."""
    cores = sorted(usable_cores())[:_MAX_CORES]
    readings = [_number(root / _CPUS / f"cpu{core}/cpufreq/scaling_cur_freq") for core in cores]
    known = [khz for khz in readings if khz is not None]
    return fmean(known) / 1000 if known else None
