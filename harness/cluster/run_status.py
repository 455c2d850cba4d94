"""What a run on a cluster does now, in a file among the results, so that another command can show it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.cluster.cluster_options import NodeState
from harness.files import atomic_write_text, lock_if_free

STATUS_FILE = ".cluster-status"
LOG_FILE = ".cluster-log"
_WRITE_EVERY_S = 5.0


@dataclass(frozen=True)
class RunStatus:
    """A run as it was a few seconds ago.

    Attributes:
        pid: The process that plans the run.
        seconds: Seconds since it began.
        num_ended: Cells that ended in this run, of `num_cells`.
        held_usd: Dollars of all nodes while they were held.
        budget_usd: Most that they may cost; None without a limit.
    """

    pid: int
    seconds: float
    num_ended: int
    num_cells: int
    held_usd: float
    budget_usd: float | None
    nodes: tuple[NodeState, ...]


class StatusFile:
    """Writes the status of a run every few seconds, and removes it at the end."""

    def __init__(self, results: Path, budget_usd: float | None) -> None:
        self._path, self._budget_usd = results / STATUS_FILE, budget_usd
        self._written_at: float | None = None

    def write(self, seconds: float, counts: tuple[int, int], nodes: Sequence[NodeState], held_usd: float) -> None:
        """Write the status unless that was done a moment ago.

        Args:
            seconds: Seconds since the run began.
            counts: Cells that ended, and cells to run.
            nodes: What each node does.
            held_usd: Dollars so far.
        """
        if self._written_at is None or seconds - self._written_at >= _WRITE_EVERY_S:
            self._written_at = seconds
            status = RunStatus(os.getpid(), seconds, *counts, held_usd, self._budget_usd, tuple(nodes))
            atomic_write_text(self._path, json.dumps(asdict(status)) + "\n")

    def remove(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)


def read_status(results: Path) -> RunStatus | None:
    """Return the status of the run that writes into a folder; None if none does, or if it has just begun."""
    try:
        with (results / ".lock").open("rb") as lock:
            if lock_if_free(lock.fileno()):
                return None
        fields = json.loads((results / STATUS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return RunStatus(**fields | {"nodes": tuple(NodeState(**node) for node in fields["nodes"])})
