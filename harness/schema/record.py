"""The schema of a record: what one run of one cell left behind.

History of `SCHEMA_VERSION` (frozen records of each are in tests/fixtures/records; older ones are upgraded on reading):
    1: first.
    2: where the memory went, who else held it and whether it grew; caps; GPU readings; exposed communication; compile
        and activation checkpointing; a global batch that no device's batch tells.
    3: what the cloud's metadata service said of the machine; joules by counters.
    4: FLOPs of a counted step and the machine's peak beside it; what disturbed the machine; a ladder's rungs.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError

from harness.schema.cells import Config
from harness.schema.host_record import (
    DetectedInstance,
    Energy,
    Git,
    GpuReading,
    Load,
    Machine,
    MemoryCapFacts,
    StatedInstance,
)
from harness.schema.settings import Settings
from harness.schema.training_record import Baseline, DataFacts, ModelFacts, Phases, ProgressMark, Training

SCHEMA_VERSION = 4


# Raised by hand when a change of the measuring code could move a figure: older records become stale.
# 2: DDP no longer broadcasts buffers; a process's resident set is read between steps.
MEASURING_VERSION = 2


Outcome = Literal["ok", "oom", "timeout", "crashed", "diverged", "unsupported", "skipped", "interrupted", "preempted"]


# An outcome that measuring again would repeat; the others are run anew.
FINISHED: frozenset[str] = frozenset({"ok", "oom", "timeout", "diverged", "unsupported"})


class Record(Settings):
    """One run of one cell, self-contained.

    Attributes:
        rung: Of a study that is a ladder, the cell's place in it, from 0.
        stderr_tail: Last lines of each rank, scrubbed.
        marks: Kept of a cell that failed too: how far it came.
        cap: None where memory was not limited.
        held_bytes: Rank 0's after every step up to its last mark, of a cell that did not live to tell; where it did,
            `training` has those of every rank.
        detected: None where no metadata service was asked, or none answered.
        start_method: None when no process was started.
        energy: None where the machine has no counter that the harness may read.
        is_made_up: Nothing in it was measured: it serves a test, and a report of it says so across its page.
    """

    schema_version: int = SCHEMA_VERSION
    measuring_version: int = MEASURING_VERSION
    harness_version: str
    study: str
    cell: str
    repeat: int
    rung: int | None = None
    config: Config
    config_hash: str
    outcome: Outcome
    reason: str | None
    stderr_tail: tuple[tuple[str, ...], ...] = ()
    started_at: datetime
    duration_s: float
    phases: Phases
    git: Git | None
    packages: dict[str, str]
    machine: Machine
    stated: StatedInstance | None
    detected: DetectedInstance | None = None
    load: Load | None
    start_method: Literal["forkserver", "spawn", "fresh"] | None
    model: ModelFacts | None = None
    data: DataFacts | None = None
    marks: tuple[ProgressMark, ...] = ()
    cap: MemoryCapFacts | None = None
    gpu_readings: tuple[GpuReading, ...] = ()
    held_bytes: tuple[int, ...] = ()
    energy: Energy | None = None
    is_made_up: bool = False
    training: Training | None = None
    baseline: Baseline | None = None


def was_fitted_on_part(record: Record) -> bool:
    """Whether a baseline did not see all its training rows."""
    fitted = record.baseline.num_fitted if record.baseline else None
    return fitted is not None and record.data is not None and fitted < record.data.train.num_rows


def to_json(record: Record) -> str:
    """Render as indented JSON with sorted keys, each array of numbers on one line."""
    text = json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    # A raw line break stands outside every JSON string, so no text can match.
    return re.sub(r"\[\n([-\d.eE+,\s]+?)\n\s*\]", _on_one_line, text) + "\n"


def _on_one_line(array: re.Match[str]) -> str:
    return "[" + " ".join(array[1].split()) + "]"


def upgrade_record(fields: dict[str, Any]) -> Record:
    """Check a record's fields as read from JSON, upgrading older versions: what they do not hold was not measured.

    Raises:
        pydantic.ValidationError: When they are no record.
    """
    return Record.model_validate(fields | {"schema_version": SCHEMA_VERSION})


def parse_record(text: str | bytes) -> Record | None:
    """Read a record of this schema version in one go; None of all else, which `from_fields` can say more about."""
    try:
        record = Record.model_validate_json(text)
    except ValidationError:
        return None
    stated = "schema_version" in record.model_fields_set
    return record if stated and record.schema_version == SCHEMA_VERSION else None
