"""TODO: say in one line what this module is for."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

from harness.execution.jobs import Progress

_TAIL_BYTES = 20_000


@dataclass
class _Rank:
    """One process of a cell, and what it told so far."""

    process: Any
    pipe: connection.Connection
    stderr: Path
    messages: list[dict[str, Any]] = field(default_factory=list)
    ended_at: float | None = None

    @property
    def end(self) -> dict[str, Any] | None:
        return next((message for message in self.messages if message["kind"] == "end"), None)


def _receive(rank: _Rank, now: float, on_progress: Progress) -> None:
    with contextlib.suppress(EOFError, OSError):
        while rank.pipe.poll():
            message = rank.pipe.recv() | {"at_s": now}
            rank.messages.append(message)
            on_progress(message)


def _tail(path: Path) -> str:
    return path.read_bytes()[-_TAIL_BYTES:].decode(errors="replace") if path.exists() else ""
