"""Save records that nodes send among the results, each once, however often it is sent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from harness.errors import UnwritableError, UserError
from harness.execution.assemble import blank_record
from harness.execution.hidden_paths import hide_homes
from harness.execution.jobs import Environment
from harness.files import atomic_write_bytes
from harness.schema.cells import Cell
from harness.schema.host_record import ClusterRun
from harness.schema.record import Outcome, Record
from harness.store.record_files import decode_record, load_record, record_folder
from harness.store.unsaved_records import save_or_keep

_FILE_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}\.json")
_STOPPED = ("interrupted", "preempted")


@dataclass(frozen=True)
class Arrival:
    """A record from a node.

    Attributes:
        path: Its file among the results; None if its attempt was recorded before, when its node was lost.
        is_new: Whether the file was written now.
    """

    record: Record
    path: Path | None
    is_new: bool


@dataclass(frozen=True)
class Attempt:
    """An attempt at a cell, as the computer that planned it knows it; its times are of that computer's clock."""

    cell: Cell
    environment: Environment
    cluster: ClusterRun
    started_at: datetime
    duration_s: float


def bring_home(name: str, content: bytes, results: Path) -> Arrival:
    """Save a record that a node sent, under the name that it has there.

    Raises:
        UserError: The node sent no record.
        UnwritableError: It can't be saved.
    """
    if not _FILE_NAME.fullmatch(name):
        raise UserError(f"a node sent {name!r}, which is no record's file")
    record = decode_record(content)
    path = record_folder(record, results) / name
    try:
        if path.exists() and path.read_bytes() == content:
            return Arrival(record, path, is_new=False)
        if record.outcome in _STOPPED and _is_recorded(record, path.parent):
            return Arrival(record, None, is_new=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(path, content)
    except OSError as error:
        raise UnwritableError(
            f"{results}: the record of cell {record.cell} can't be saved: {error.strerror or error}; it waits on its node, "
            "and the same command brings it once there is room"
        ) from None
    return Arrival(record, path, is_new=True)


def save_lost(attempt: Attempt, outcome: Outcome, reason: str, results: Path) -> tuple[Record, Path]:
    """Record an attempt whose node was lost, and return the record with its path.

    Raises:
        UnsavedRecordError: It can't be saved among the results.
    """
    record = blank_record(attempt.cell, attempt.environment, outcome, reason).model_copy(
        update={"cluster": attempt.cluster, "started_at": attempt.started_at, "duration_s": attempt.duration_s}
    )
    record = hide_homes(record)
    return record, save_or_keep(record, results)


def _is_recorded(record: Record, folder: Path) -> bool:
    """Return whether the folder has another record of the same attempt."""
    if record.cluster is None or not folder.is_dir():
        return False
    for path in folder.glob("*.json"):
        try:
            other = load_record(path)
        except UserError:
            continue
        if (other.cluster, other.config_hash, other.repeat) == (record.cluster, record.config_hash, record.repeat):
            return True
    return False
