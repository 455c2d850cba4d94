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
class RankProcess:
    """One process of a cell, and what it told so far."""

    process: Any
    pipe: connection.Connection
    stderr: Path
    messages: list[dict[str, Any]] = field(default_factory=list)
    ended_at: float | None = None

    @property
    def end(self) -> dict[str, Any] | None:
        """The final message; None until it arrives."""
        return next((message for message in self.messages if message["kind"] == "end"), None)


def receive_messages(rank: RankProcess, now: float, on_progress: Progress) -> None:
    """Read every pending message of a rank."""
    with contextlib.suppress(EOFError, OSError):
        while rank.pipe.poll():
            message = rank.pipe.recv() | {"at_s": now}
            rank.messages.append(message)
            on_progress(message)


def read_tail(path: Path) -> str:
    """The last lines of a log file."""
    return path.read_bytes()[-_TAIL_BYTES:].decode(errors="replace") if path.exists() else ""
