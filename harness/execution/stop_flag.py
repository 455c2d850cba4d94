"""Requests to stop gracefully (Ctrl-C, SIGTERM, spot notice), passed to the ranks in shared memory.

The ranks read the flag between steps, so the parent sends them no signal and no message.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Literal

from harness.execution.heartbeat import Heartbeat
from harness.execution.interrupts import interrupt

# AWS recommends polling every 5 s. Its notice comes 2 minutes before the machine ends, those of other clouds 30 s.
# Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
_POLL_INTERVAL_S = 5.0


class StopReason(IntEnum):
    """Why a resumable training stops before its end. If the ranks disagree, the highest value counts."""

    ROW_LIMIT = 1
    TIME_LIMIT = 2
    USER = 3
    SIGTERM = 4
    CLOUD = 5
    SIGHUP = 6

    @property
    def outcome(self) -> Literal["interrupted", "preempted"]:
        """The outcome of a cell that stops for this reason."""
        return "preempted" if self in (StopReason.SIGTERM, StopReason.CLOUD) else "interrupted"


_SIGNALS: dict[int, StopReason] = {
    signal.SIGINT: StopReason.USER,
    signal.SIGTERM: StopReason.SIGTERM,
    signal.SIGHUP: StopReason.SIGHUP,
}


class StopFlag:
    """A counter per stop reason in a memory-mapped file. The parent increments the counters; the ranks read them."""

    def __init__(self, path: Path) -> None:
        self._counters = Heartbeat(path, len(StopReason))

    def request(self, reason: StopReason) -> None:
        """Ask the ranks to stop for a reason."""
        self._counters.tick(reason - 1)

    def reason(self) -> StopReason | None:
        """Return why a stop was requested; None if no stop was requested."""
        return next((reason for reason, count in zip(StopReason, self._counters.read(), strict=True) if count), None)

    def close(self) -> None:
        """Unmap the memory."""
        self._counters.close()


def detach_terminal() -> None:
    """Send output for a terminal that is gone to /dev/null: to write there would raise, and end the command halfway."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


@contextlib.contextmanager
def graceful_stop(
    path: Path, preemption_notice: Callable[[], bool] | None = None, *, poll_interval_s: float = _POLL_INTERVAL_S
) -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM, SIGHUP and the cloud's notice into stop requests; a second Ctrl-C raises KeyboardInterrupt.

    A SIGHUP that the caller ignores (nohup) stays ignored.

    Args:
        path: File of the `StopFlag`.
        preemption_notice: Function that asks whether the cloud takes this machine back; None: don't ask.
        poll_interval_s: Seconds between two calls of `preemption_notice`.
    """
    flag, done = StopFlag(path), threading.Event()

    def on_signal(number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            detach_terminal()
        if number == signal.SIGINT and flag.reason() == StopReason.USER:
            interrupt()
        flag.request(_SIGNALS[number])

    def poll_cloud() -> None:
        while not done.wait(poll_interval_s):
            if preemption_notice is not None and preemption_notice():
                flag.request(StopReason.CLOUD)
                return

    poller = threading.Thread(target=poll_cloud, daemon=True, name="cloud-notice")
    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    previous = {number: signal.signal(number, on_signal) for number in _SIGNALS.keys() - ignored}
    if preemption_notice is not None:
        poller.start()
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        done.set()
        if preemption_notice is not None:
            poller.join()
        flag.close()
