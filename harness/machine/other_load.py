"""The share of the CPU that other processes took lately, while a cell runs."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import psutil

from harness.machine.cgroups import ROOT
from harness.machine.cpu_usage import cpu_seconds, read_ticks, usable_cores

_WINDOW_S = 5.0
_MIN_WINDOW_S = 1.5  # the kernel counts ticks of 10 ms, so a shorter window is mostly rounding
_READ_EVERY_S = 0.9


class OtherLoad:
    """Compares the busy time of the usable cores with that of the harness's own processes, about once a second."""

    def __init__(self, pids: Iterable[int], root: Path = ROOT) -> None:
        """Name the harness's own processes, besides this one.

        Args:
            pids: Process ids of the cell's ranks.
            root: Folder that contains proc/; tests use their own.
        """
        self._root, self._cores = root, usable_cores()
        self._own = [psutil.Process(pid) for pid in (os.getpid(), *pids) if psutil.pid_exists(pid)]
        self._own_s = [0.0] * len(self._own)
        self._readings: deque[tuple[float, float]] = deque()

    def poll(self, now: float) -> float | None:
        """Return the share of the last seconds, 0 to 1; None while it is not known. `now` is in seconds."""
        if not self._readings or now - self._readings[-1][0] >= _READ_EVERY_S:
            ticks = read_ticks(self._cores, self._root)
            if ticks is None:
                return None
            # An ended process reads 0: what it used before stays its own.
            self._own_s = list(map(max, self._own_s, map(cpu_seconds, self._own)))
            self._readings.append((now, ticks.busy_s - sum(self._own_s)))
            while now - self._readings[0][0] > _WINDOW_S:
                self._readings.popleft()
        (began, before), (ended, after) = self._readings[0], self._readings[-1]
        if ended - began < _MIN_WINDOW_S:
            return None
        return min(1.0, max(0.0, (after - before) / ((ended - began) * len(self._cores))))
