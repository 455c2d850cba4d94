"""Records to results/ and back: atomic, never overwritten; and which cells are done."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from harness.errors import UserError
from harness.files import atomic_write_text
from harness.schema.host_record import Machine
from harness.schema.record import (
    SCHEMA_VERSION,
    Record,
    parse_record,
    to_json,
    upgrade_record,
)

# Under results/: records shipped with the repository, read only when they are named, the last report, what
# bench/bench_peers.py measured, short runs for its own tables, what `harness train` goes on from, and models that were kept.
_NOT_OWN = ("reference", "report", "peers", "checkpoints", "models")


# Beside a machine's records: what `harness doctor` found that it reaches.
CALIBRATION_FILE = "calibration.json"


_SHOWN_NAMES = 12


@dataclass(frozen=True)
class LoadedRecords:
    """Records of a folder; `unreadable` says of each file that is none, why."""

    records: tuple[Record, ...]
    unreadable: tuple[str, ...]


def save_record(record: Record, results: Path) -> Path:
    """Write a record whole or not at all, beside the older ones of its cell."""
    folder = record_folder(record, results)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record.started_at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}.json"
    if path.exists():
        return save_record(record, results)
    atomic_write_text(path, to_json(record))
    return path


def record_folder(record: Record, results: Path) -> Path:
    """Where a record belongs, whatever its fields hold: three folders below `results`."""
    parts = [folder_name(part) for part in (record.machine.id, record.study, record.cell)]
    return results.joinpath(*(part if part.strip(".") else f"_{part}" for part in parts))


def load_records(paths: Iterable[Path]) -> LoadedRecords:
    """Read the records of files and folders, oldest first; what is no record is named, not raised.

    Raises:
        UserError: When a path does not exist.
    """
    records, unreadable = [], []
    for file in dict.fromkeys(file for path in paths for file in record_files(path)):
        try:
            records.append(load_record(file))
        except UserError as error:
            unreadable.append(str(error))
    return LoadedRecords(tuple(sorted(records, key=lambda record: record.started_at)), tuple(unreadable))


def load_record(path: Path) -> Record:
    """Read one record.

    Raises:
        UserError: When it can't be read, is no record, or a newer harness wrote it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if (whole := parse_record(text)) is not None:
            return whole
        fields = json.loads(text)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable record: {error}") from None
    version = fields.get("schema_version") if isinstance(fields, dict) else None
    if not isinstance(version, int):
        raise UserError(f"{path}: no record: schema_version is missing")
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema_version {version}, this harness reads up to {SCHEMA_VERSION}; "
            f"install harness {fields.get('harness_version', 'of a newer version')} or newer"
        )
    try:
        return upgrade_record(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: no record: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def find_record(cell: str, results: Path) -> Path:
    """The newest record's file of a cell, named whole or by a part that only one cell has.

    Raises:
        UserError: When no cell, or more than one, has this name.
    """
    files = list(record_files(results)) if results.is_dir() else []
    names = sorted({file.parent.name for file in files})
    fitting = [name for name in names if name == folder_name(cell)] or [name for name in names if cell in name]
    if len(fitting) != 1:
        wanted = fitting or names
        found = f"{len(fitting)} cells have this in their name" if fitting else "no such cell"
        shown = ", ".join(wanted[:_SHOWN_NAMES]) + (", ..." if len(wanted) > _SHOWN_NAMES else "")
        raise UserError(f"{cell!r}: {found} under {results}; {'cells: ' + shown if wanted else 'there are no records'}")
    return max((file for file in files if file.parent.name == fitting[0]), key=lambda file: file.name)


def own_records(results: Path, machine: Machine) -> LoadedRecords:
    """This machine's records, of all studies."""
    folder = results / machine.id
    # Study by study: here a study may be named as what lies beside the machines is.
    return (
        load_records(sorted(path for path in folder.iterdir() if path.is_dir()))
        if folder.is_dir()
        else LoadedRecords((), ())
    )


def record_files(path: Path) -> Iterator[Path]:
    """The files of records that a folder holds, or the file itself.

    Raises:
        UserError: When there is no such path.
    """
    if path.is_file():
        yield path
    elif path.is_dir():
        for file in sorted(path.rglob("*.json")):
            if file.relative_to(path).parts[0] not in _NOT_OWN and file.name != CALIBRATION_FILE:
                yield file
    else:
        raise UserError(f"{path}: no such record or folder of records")


def folder_name(cell: str) -> str:
    """A cell's or study's name as a folder's."""
    return re.sub(r"[^A-Za-z0-9._=+-]", "_", cell)
