"""Hold back what ends a command (Ctrl-C, SIGTERM, SIGHUP) while the record of a measured cell is made and saved."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class _State:
    is_held: bool = False
    is_waiting: bool = False


_state = _State()


def interrupt() -> None:
    """Raise KeyboardInterrupt, now or, where interrupts are held back, later. Signal handlers call this.

    Raises:
        KeyboardInterrupt: Unless interrupts are held back.
    """
    if not _state.is_held:
        raise KeyboardInterrupt
    _state.is_waiting = True


@contextlib.contextmanager
def hold_interrupts() -> Iterator[None]:
    """Hold interrupts back until the block ends, except in `let_interrupts_through`; then raise one that came.

    Raises:
        KeyboardInterrupt: At the end.
    """
    _state.is_held = True
    try:
        yield
    finally:
        _let_through()


@contextlib.contextmanager
def let_interrupts_through() -> Iterator[None]:
    """Let interrupts through within `hold_interrupts`, one that came before first; elsewhere do nothing.

    Raises:
        KeyboardInterrupt: At any time.
    """
    was_held = _state.is_held
    try:
        _let_through()
        yield
    finally:
        _state.is_held = was_held


def _let_through() -> None:
    _state.is_held, was_waiting = False, _state.is_waiting
    _state.is_waiting = False
    if was_waiting:
        raise KeyboardInterrupt
