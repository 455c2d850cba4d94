"""What else this machine did while a cell ran: counters that the parent reads before and after, and the cores' clock on the way."""

from __future__ import annotations

import re
import time
from pathlib import Path
from statistics import fmean

import psutil

from harness.machine.cgroups import ROOT, cpu_quota, periods
from harness.machine.cpu_usage import usable_cores
from harness.machine.memory_users import find_memory_users
from harness.machine.scrub import scrub
from harness.schema.host_record import Load

_CLOCK_EVERY_S = 5.0
_MOST_CORES = 8  # each answer may wake a core of its own
_CPUS = "sys/devices/system/cpu"
# Idle time is told apart from that of others; guests' is in user's already.
_NOT_BUSY = frozenset({"idle", "iowait", "guest", "guest_nice", "steal"})


class LoadMonitor:
    """Counters from now on, and a look at the clock every 5 s: files of the kernel, read by the parent, which is awake anyway."""

    def __init__(self, num_gpus: int, root: Path = ROOT) -> None:
        """Look for the first time; memory is that before the cell, its holders on the first `num_gpus` GPUs too.

        Args:
            root: Where /proc and /sys lie; a test has its own.
        """
        self._root = root
        self._available, swap = psutil.virtual_memory().available, psutil.swap_memory()
        self._swap_used, self._swapped = swap.used, swap.sin + swap.sout
        self._holders = find_memory_users(range(num_gpus))
        self._clock_mhz: list[float] = []
        self._due_s = 0.0
        self._quota = cpu_quota(root)
        self._periods, self._faults, self._hot = periods(self._quota), _major_faults(root), _thermal_throttles(root)
        self._system, self._parent = psutil.cpu_times(), time.process_time()

    def poll(self, now: float) -> None:
        """Read the cores' clock if it is time to; `now` in seconds since the cell was ordered."""
        if now >= self._due_s:
            self._due_s = now + _CLOCK_EVERY_S
            if (clock := _clock_mhz(self._root)) is not None:
                self._clock_mhz.append(clock)

    def snapshot(self, cell_s: float | None) -> Load:
        """What was used since; `cell_s` is the cell's own."""
        now, swap = psutil.cpu_times(), psutil.swap_memory()
        before, ran = self._periods, periods(self._quota)
        busy = [key for key in now._fields if key not in _NOT_BUSY]
        return Load(
            available_memory_bytes=self._available,
            system_busy_s=sum(getattr(now, key) - getattr(self._system, key) for key in busy),
            cell_s=cell_s,
            parent_s=time.process_time() - self._parent,
            steal_s=now.steal - self._system.steal if hasattr(now, "steal") else None,
            swap_used_bytes=self._swap_used,
            holders=self._holders
            and tuple(holder.model_copy(update={"name": scrub(holder.name)}) for holder in self._holders),
            swapped_bytes=swap.sin + swap.sout - self._swapped,
            major_faults=_since(_major_faults(self._root), self._faults),
            quota_periods=_since(ran and ran.total, before and before.total),
            throttled_periods=_since(ran and ran.throttled, before and before.throttled),
            thermal_throttles=_since(_thermal_throttles(self._root), self._hot),
            clock_mhz=tuple(self._clock_mhz) or None,
        )


def _since(now: int | None, before: int | None) -> int | None:
    return now - before if now is not None and before is not None else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _major_faults(root: Path) -> int | None:
    """Pages that any process had to wait for a disk to read, since the machine started; None where that is not counted."""
    try:
        found = re.search(r"^pgmajfault (\d+)$", (root / "proc/vmstat").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def _thermal_throttles(root: Path) -> int | None:
    """How often the usable cores or their packages were slowed by their temperature since the machine started.

    A package's count stands in the files of each of its cores. None where there is no such counter, as in most virtual machines.
    """
    folders = [root / _CPUS / f"cpu{core}/thermal_throttle" for core in usable_cores()]
    cores = [count for folder in folders if (count := _number(folder / "core_throttle_count")) is not None]
    packages = [count for folder in folders if (count := _number(folder / "package_throttle_count")) is not None]
    return sum(cores) + max(packages, default=0) if cores or packages else None


def _clock_mhz(root: Path) -> float | None:
    """Mean of the first usable cores now; None where the kernel does not tell, as in most virtual machines."""
    cores = sorted(usable_cores())[:_MOST_CORES]
    found = [_number(root / _CPUS / f"cpu{core}/cpufreq/scaling_cur_freq") for core in cores]
    known = [khz for khz in found if khz is not None]
    return fmean(known) / 1000 if known else None
