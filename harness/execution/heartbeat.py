"""Where each rank of a cell is, in memory that parent and ranks share: a store of one number, and no message."""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

_BYTES = 8
# A rank hangs when nothing got on for so long, by its waiting neighbours' idle CPUs; a busy one only when its step
# takes so many times the longest seen.
_HANG_S = 5.0
_HANG_STEPS = 4.0
_IDLE_SHARE = 0.05
_AT_WORK_S = 1.0


class Heartbeat:
    """A counter a rank, which the rank alone raises and the parent reads."""

    def __init__(self, path: Path, num_ranks: int) -> None:
        """Open the counters, or make them with every rank at 0; whoever comes second finds them whole."""
        num_bytes = _BYTES * num_ranks
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(file, num_bytes)  # new bytes are 0, and those that are there stay
            self._memory = mmap.mmap(file, num_bytes)
        finally:
            os.close(file)
        self._beats = memoryview(self._memory).cast("q")

    def tick(self, rank: int) -> None:
        """Say that a rank got on: to its next step, forward or backward pass, or batch of an evaluation."""
        self._beats[rank] += 1

    @contextlib.contextmanager
    def keepalive(self, rank: int) -> Iterator[None]:
        """Beat once a second for a rank that does what has no beats of its own, as waiting for a disk.

        The counter is then set back: counters that stay equal tell who is behind.
        """
        done, before = threading.Event(), self._beats[rank]

        def tell() -> None:
            while not done.wait(_AT_WORK_S):
                self._beats[rank] += 1

        thread = threading.Thread(target=tell, daemon=True, name="at-work")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self._beats[rank] = before

    def read(self) -> tuple[int, ...]:
        """Beats of every rank so far."""
        return tuple(self._beats)

    def close(self) -> None:
        """Let the memory go; the file stays."""
        self._beats.release()
        self._memory.close()


class HangDetector:
    """Tells when ranks wait for one that will not come: nothing of the cell gets on, and a rank is idle.

    A long step keeps every rank's CPU busy. On a GPU the CPU tells nothing, so there a hang ends by `timeout_s`.
    """

    def __init__(self, path: Path, pids: Sequence[int]) -> None:
        """Watch the ranks' processes, whose counters are at `path`."""
        self._pulse = Heartbeat(path, len(pids))
        self._processes = [psutil.Process(pid) for pid in pids]
        self._beats = self._pulse.read()
        self._since_s, self._longest_s = 0.0, 0.0
        self._cpu_s: list[float] | None = None

    def poll(self, now: float) -> str | None:
        """Say which rank hangs, or None; `now` is on the cell's clock."""
        beats = self._pulse.read()
        if beats != self._beats or not all(beats) or self._cpu_s is None:
            self._longest_s = max(self._longest_s, now - self._since_s) if all(self._beats) else 0.0
            self._beats, self._since_s, self._cpu_s = beats, now, self._used()
            return None
        quiet_s = now - self._since_s
        if quiet_s < _HANG_S:
            return None
        shares = [(used - before) / quiet_s for used, before in zip(self._used(), self._cpu_s, strict=True)]
        # One that waits for a disk, as when memory is swapped out, is at work.
        idle = [
            share < _IDLE_SHARE and _status(process) != psutil.STATUS_DISK_SLEEP
            for share, process in zip(shares, self._processes, strict=True)
        ]
        if not any(idle) or (not all(idle) and quiet_s < _HANG_STEPS * self._longest_s):
            return None
        return self._name(idle, quiet_s)

    def close(self) -> None:
        """Let the counters go."""
        self._pulse.close()

    def _used(self) -> list[float]:
        return [_cpu_seconds(process) for process in self._processes]

    def _name(self, idle: list[bool], quiet_s: float) -> str:
        suspects = [rank for rank, process in enumerate(self._processes) if _status(process) == psutil.STATUS_STOPPED]
        if not suspects and not all(idle):
            suspects = [rank for rank, waits in enumerate(idle) if not waits]
        if not suspects:
            suspects = [rank for rank, beats in enumerate(self._beats) if beats < max(self._beats)]
        names = ", ".join(map(str, suspects))
        who = f"rank{'s' if len(suspects) > 1 else ''} {names} hung" if suspects else "the ranks hung, each idle"
        return f"{who}: nothing got on for {quiet_s:.0f} s" + (" while the others waited" if suspects else "")


def _cpu_seconds(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def _status(process: psutil.Process) -> str | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        return str(process.status())
    return None
