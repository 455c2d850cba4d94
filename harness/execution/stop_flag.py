"""Why a training in pieces is asked to stop at its next step: by Ctrl-C, SIGTERM or its cloud, and how its ranks hear it.

The parent raises a counter in memory that it shares with the ranks, which look at it between steps: no signal reaches
them, and nothing is sent.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from harness.execution.heartbeat import Heartbeat

# The outcome of the piece that ends so, and why.
CAUSES: tuple[tuple[str, str], ...] = (
    ("interrupted", "stopped by the user"),
    ("preempted", "SIGTERM"),
    ("preempted", "the cloud takes this machine back"),
)
_BY_USER, _BY_SIGNAL, _BY_CLOUD = range(len(CAUSES))
# EC2 asks to look every 5 s; its notice comes 2 minutes before the end, the other clouds' 30 s.
# Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
_LOOK_EVERY_S = 5.0


class StopFlag:
    """Counters of each cause, which the parent raises and the ranks read."""

    def __init__(self, path: Path) -> None:
        self._counters = Heartbeat(path, len(CAUSES))

    def request(self, cause: int) -> None:
        """Ask for a stop."""
        self._counters.tick(cause)

    def cause(self) -> int | None:
        """Why a stop is asked for, as an index into CAUSES; None: it is not."""
        return next((cause for cause, count in enumerate(self._counters.read()) if count), None)

    def close(self) -> None:
        """Let the memory go."""
        self._counters.close()


@contextlib.contextmanager
def graceful_stop(
    path: Path, notice: Callable[[], bool] | None = None, *, look_every_s: float = _LOOK_EVERY_S
) -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and the cloud's notice into requests to stop; a second Ctrl-C ends the cell at once.

    Args:
        path: Of the flag.
        notice: Asks the cloud whether it takes this machine back; None: it is not asked.
        look_every_s: How often it is asked.
    """
    flag, done = StopFlag(path), threading.Event()

    def on_signal(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and flag.cause() == _BY_USER:
            raise KeyboardInterrupt
        flag.request(_BY_USER if number == signal.SIGINT else _BY_SIGNAL)

    def ask() -> None:
        while not done.wait(look_every_s):
            if notice is not None and notice():
                flag.request(_BY_CLOUD)
                return

    asking = threading.Thread(target=ask, daemon=True, name="cloud-notice")
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    if notice is not None:
        asking.start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        done.set()
        if notice is not None:
            asking.join()
        flag.close()
