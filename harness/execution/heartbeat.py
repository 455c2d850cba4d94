"""Per-rank heartbeat counters in shared memory, and the detection of ranks that hang."""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from harness.files import naming
from harness.machine.cpu_usage import cpu_seconds

_BYTES = 8
# Seconds without a heartbeat after which a cell hangs if a rank's CPU is idle, because that rank waits for another.
_HANG_S = 5.0
# If other ranks are busy, the time without a heartbeat must also be this many times the longest one so far.
_HANG_STEPS = 4.0
_IDLE_FRACTION = 0.05
_KEEPALIVE_S = 1.0


class Heartbeat:
    """One counter per rank in a memory-mapped file. Each rank increments its own counter; the parent reads all."""

    def __init__(self, path: Path, num_ranks: int) -> None:
        """Map the file. If the file does not exist yet, create it with zeros; any process may create it."""
        num_bytes = _BYTES * num_ranks
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with naming(path):
                os.ftruncate(file, num_bytes)  # extends a new file with zeros, and keeps an existing file's counters
                if hasattr(os, "posix_fallocate"):  # on a full disk an OSError, instead of SIGBUS at the first tick
                    os.posix_fallocate(file, 0, num_bytes)
                self._memory = mmap.mmap(file, num_bytes)
        finally:
            os.close(file)
        self._counters = memoryview(self._memory).cast("q")

    def tick(self, rank: int) -> None:
        """Count progress of a rank: a step, a forward or backward pass, or a batch of an evaluation."""
        self._counters[rank] += 1

    @contextlib.contextmanager
    def keepalive(self, rank: int, interval_s: float = _KEEPALIVE_S) -> Iterator[None]:
        """Tick every `interval_s` during work without ticks of its own, such as waiting for a disk.

        At the end, the counter gets back its earlier value, so that the ranks' counters remain comparable: a rank with
        a lower counter is behind.
        """
        done, before = threading.Event(), self._counters[rank]

        def tick_until_done() -> None:
            while not done.wait(interval_s):
                self.tick(rank)

        thread = threading.Thread(target=tick_until_done, daemon=True, name="keepalive")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self._counters[rank] = before

    def read(self) -> tuple[int, ...]:
        """Return the counter of every rank."""
        return tuple(self._counters)

    def close(self) -> None:
        """Unmap the memory; the file stays."""
        self._counters.release()
        self._memory.close()


@dataclass(frozen=True)
class Stall:
    """A time in which no rank of a node made progress.

    Attributes:
        quiet_s: Seconds since a counter rose.
        longest_s: The longest such time so far.
        counters: Each rank's counter.
        idle: Whether each rank's CPU was idle meanwhile.
        stopped: Whether each rank's process is stopped, as by SIGSTOP.
    """

    quiet_s: float
    longest_s: float
    counters: tuple[int, ...]
    idle: tuple[bool, ...]
    stopped: tuple[bool, ...]

    def as_json(self) -> dict[str, object]:
        """Return the fields as JSON has them."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: object) -> Stall | None:
        """Read the fields that another node sent; None for anything else."""
        try:
            counters, idle, stopped = (tuple(fields[name]) for name in ("counters", "idle", "stopped"))  # type: ignore[index]
            quiet_s, longest_s = (float(fields[name]) for name in ("quiet_s", "longest_s"))  # type: ignore[index]
        except (KeyError, TypeError, ValueError):
            return None
        is_whole = len(counters) == len(idle) == len(stopped) and all(isinstance(count, int) for count in counters)
        return cls(quiet_s, longest_s, counters, idle, stopped) if is_whole else None


class StallDetector:
    """Detects that no counter of this machine's ranks rises.

    On a GPU, the CPU does not show whether a rank waits; a hang there ends by `timeout_s`.
    """

    def __init__(self, path: Path, pids: Sequence[int]) -> None:
        """Begin to watch the ranks' processes, whose counters are in the file `path`."""
        self._heartbeat = Heartbeat(path, len(pids))
        self._processes = [psutil.Process(pid) for pid in pids]
        self._counters = self._heartbeat.read()
        self._changed_at, self._longest_s = 0.0, 0.0
        self._cpu_s: list[float] | None = None

    def poll(self, now: float) -> Stall | None:
        """Return the ranks' state if none made progress for some seconds. `now` is in seconds since submission."""
        counters = self._heartbeat.read()
        if counters != self._counters or not all(counters) or self._cpu_s is None:
            self._longest_s = max(self._longest_s, now - self._changed_at) if all(self._counters) else 0.0
            self._counters, self._changed_at, self._cpu_s = counters, now, self._read_cpu_s()
            return None
        quiet_s = now - self._changed_at
        if quiet_s < _HANG_S:
            return None
        shares = [(after - before) / quiet_s for after, before in zip(self._read_cpu_s(), self._cpu_s, strict=True)]
        states = [_status(process) for process in self._processes]
        # A process that waits for a disk does not count as idle: it may wait for memory that was swapped out.
        idle = [
            share < _IDLE_FRACTION and state != psutil.STATUS_DISK_SLEEP
            for share, state in zip(shares, states, strict=True)
        ]
        stopped = [state == psutil.STATUS_STOPPED for state in states]
        return Stall(quiet_s, self._longest_s, counters, tuple(idle), tuple(stopped))

    def close(self) -> None:
        """Unmap the counters."""
        self._heartbeat.close()

    def _read_cpu_s(self) -> list[float]:
        return list(map(cpu_seconds, self._processes))


def hang_reason(stalls: Sequence[Stall]) -> str | None:
    """Return which rank hangs, for the record's reason; None if none does.

    In a hang, ranks wait forever for another rank: no counter rises, and a rank's CPU is idle. A long step is no hang, since it
    keeps every rank's CPU busy.

    Args:
        stalls: The stall of each node, in the order of their ranks.
    """
    quiet_s, longest_s = min(each.quiet_s for each in stalls), max(each.longest_s for each in stalls)
    idle = [is_idle for each in stalls for is_idle in each.idle]
    if not any(idle) or (not all(idle) and quiet_s < _HANG_STEPS * longest_s):
        return None
    names = ", ".join(map(str, _suspects(stalls, idle)))
    who = f"rank{'s' if ',' in names else ''} {names} hung" if names else "the ranks hung, each idle"
    return f"{who}: nothing got on for {quiet_s:.0f} s" + (" while the others waited" if names else "")


def _suspects(stalls: Sequence[Stall], idle: Sequence[bool]) -> list[int]:
    """Return the ranks that may cause the hang: stopped ranks; else busy ranks; else ranks with lower counters."""
    stopped = [rank for rank, is_stopped in enumerate(flag for each in stalls for flag in each.stopped) if is_stopped]
    if stopped:
        return stopped
    if not all(idle):
        return [rank for rank, is_idle in enumerate(idle) if not is_idle]
    counters = [count for each in stalls for count in each.counters]
    return [rank for rank, count in enumerate(counters) if count < max(counters)]


def _status(process: psutil.Process) -> str | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        return str(process.status())
    return None
