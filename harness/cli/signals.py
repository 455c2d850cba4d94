"""SIGTERM and SIGHUP end a command as Ctrl-C does, so that it saves what is finished and removes its temporary files."""

from __future__ import annotations

import signal
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_received: list[int] = []


def handle_signals() -> None:
    """Raise KeyboardInterrupt at the first SIGTERM or SIGHUP. A signal that the caller ignores (nohup) stays ignored."""
    for number in _SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)


def exit_status(status: int) -> int:
    """Return the exit status of a command: 128 + the number of the signal that ended it, or `status` without a signal."""
    return 128 + _received[0] if _received else status


def _interrupt(number: int, _: FrameType | None) -> None:
    if not _received:  # once: the command is already ending
        _received.append(number)
        if number == signal.SIGHUP:
            from harness.execution.stop_flag import detach_terminal

            detach_terminal()
        raise KeyboardInterrupt
