"""Messages between a node's agent and the process that measures cells there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.execution.jobs import Environment
from harness.schema.cells import Cell
from harness.schema.host_record import Git
from harness.schema.record import Record

Detect = Literal["firmware", "everywhere", "never"]
StopOutcome = Literal["interrupted", "preempted"]


@dataclass(frozen=True)
class Session:
    """What all runs on a node have in common; the first command.

    Attributes:
        run: Random name of the command that plans the run.
        node: Ray's id of the node.
        driver_host: `Machine.host` of the computer that plans the run.
        code_sha256: SHA-256 of the code that was sent.
        git: State of the checkout that the code is from.
        detect: Whose metadata services to ask: the one of the cloud that the firmware names, all, or none.
        results_key: Name of the results folder that the records are for; equal for the same folder later.
        skip: Skip cells larger than one that ran out of memory.
    """

    run: str
    node: str
    driver_host: str | None
    code_sha256: str
    git: Git | None
    detect: Detect
    results_key: str
    skip: bool


@dataclass(frozen=True)
class Begin:
    """Command to prepare the data of all cells and to load torch.

    Attributes:
        cells: All cells that this node may get, in the study's order.
        copies: Where the node's copies are of what the study names.
    """

    cells: tuple[Cell, ...]
    copies: Mapping[str, Path]


@dataclass(frozen=True)
class RunCell:
    """Command to run one of the prepared cells.

    Attributes:
        attempt: 1 for the cell's first attempt.
        oom_records: Earlier records of this kind of machine that ran out of memory.
    """

    cell: Cell
    attempt: int
    oom_records: tuple[Record, ...] = ()


@dataclass(frozen=True)
class Stop:
    """Command to end the running cell, if any, and then the process.

    Attributes:
        outcome: Outcome of the running cell.
        reason: Why; None for the words of Ctrl-C.
    """

    outcome: StopOutcome
    reason: str | None = None


@dataclass(frozen=True)
class Described:
    """Event: what the node is.

    Attributes:
        folder: Private folder, which the process removes at its end; the agent unpacks files there.
        niceness: Niceness of the process, which cells inherit; 0 unless Ray raised it and it can't be lowered.
    """

    environment: Environment
    code_sha256: str
    folder: Path
    niceness: int


@dataclass(frozen=True)
class Ready:
    """Event: data are prepared and torch is loaded."""


@dataclass(frozen=True)
class Progressed:
    """Event: what the process does, at most once a second.

    Attributes:
        share: Share of the training that is done, from 0 to 1; None before it begins.
    """

    work: str
    share: float | None = None


@dataclass(frozen=True)
class Ended:
    """Event: a cell ended, and its record waits in the node's folder of records.

    Attributes:
        name: Name of the record's file.
        content: The record as JSON.
        unsaved: Why the record could not be saved on the node; None if it is there.
    """

    name: str
    content: bytes
    unsaved: str | None = None


@dataclass(frozen=True)
class Refused:
    """Event: the process can't go on; the text is a `UserError`'s."""

    reason: str


Command = Begin | RunCell | Stop
Event = Described | Ready | Progressed | Ended | Refused
