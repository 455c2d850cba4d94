"""SIGTERM and SIGHUP end a command as Ctrl-C does, so that it saves what is finished and removes its temporary files."""

from __future__ import annotations

import signal
from types import FrameType

from harness.execution.interrupts import interrupt

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_received: list[int] = []  # in order; of SIGTERM and SIGHUP the first only


def handle_signals() -> None:
    """Raise KeyboardInterrupt at each Ctrl-C, and at the first SIGTERM or SIGHUP; see `hold_interrupts`.

    A signal that the caller ignores (nohup) stays ignored.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _on_signal)


def stop_handling() -> None:
    """Let signals end the process at once, now that the command is over and Python takes itself down."""
    for number in _SIGNALS:
        if signal.getsignal(number) is _on_signal:
            signal.signal(number, signal.SIG_DFL)


def was_interrupted() -> bool:
    """Return whether a signal has raised KeyboardInterrupt, which imports of libraries may turn into other errors."""
    return bool(_received)


def exit_status(status: int) -> int:
    """Return the exit status of a command: 128 + the number of the signal that ended it, or `status` without a signal."""
    return next((128 + number for number in _received if number != signal.SIGINT), status)


def _on_signal(number: int, _: FrameType | None) -> None:
    if number != signal.SIGINT and any(earlier != signal.SIGINT for earlier in _received):
        return  # the command is already ending
    _received.append(number)
    if number == signal.SIGHUP:
        from harness.execution.stop_flag import detach_terminal

        detach_terminal()
    interrupt()
