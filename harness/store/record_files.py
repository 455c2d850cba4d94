"""Write records below results/ and read them. A record's file is never overwritten and never incomplete."""

from __future__ import annotations

import hashlib
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
from harness.schema.record import SCHEMA_VERSION, Record, parse_record, to_json, upgrade_record
from harness.schema.settings import MAX_NAME_BYTES, RESERVED_NAME

# Folders of results/ without records of this machine: shipped records, the last report, results of
# bench/bench_peers.py, checkpoints of `harness train`, and saved models. They are read only if the user names them.
_OTHER_FOLDERS = ("reference", "report", "peers", "checkpoints", "models")
# The peaks that `harness doctor` measured, in a file beside the machine's records.
CALIBRATION_FILE = "calibration.json"
_READABLE_CHARS = 180  # of a name that is too long for a folder
_MAX_SHOWN_NAMES = 12
_MAX_SHOWN_CHARS = 200
# Limits that real records do not reach, so that a harmful one can't fill memory: a record of 100,000 steps takes some
# 10 MB and 1 million values; a day of readings of 4 GPUs, 350,000 objects.
MAX_RECORD_BYTES = 32 * 2**20
_MAX_VALUES = 4_000_000
_MAX_OBJECTS = 500_000
_MAX_LISTED_MISTAKES = 1000  # pydantic builds a dictionary of each when asked for one


@dataclass(frozen=True)
class LoadedRecords:
    """Records that were read, oldest first, and one error message for each unreadable file.

    Attributes:
        records: Runs of cells.
        probes: Probes, which are no runs of cells, and are never summarized.
    """

    records: tuple[Record, ...]
    unreadable: tuple[str, ...]
    probes: tuple[Record, ...] = ()

    @classmethod
    def of(cls, records: Iterable[Record], unreadable: Iterable[str]) -> LoadedRecords:
        """Sort records by time, and probes from runs."""
        ordered = sorted(records, key=lambda record: record.started_at)
        runs, probes = ([each for each in ordered if (each.probe is None) is is_run] for is_run in (True, False))
        return cls(tuple(runs), tuple(unreadable), tuple(probes))


def save_record(record: Record, results: Path) -> Path:
    """Write a record beside the older records of its cell, and return its path. A failure leaves no partial file."""
    folder = record_folder(record, results)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record.started_at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}.json"
    if path.exists():
        return save_record(record, results)
    atomic_write_text(path, to_json(record))
    return path


def record_folder(record: Record, results: Path) -> Path:
    """Return a record's folder: always three levels below `results`, even if a name in the record has slashes or is `..`."""
    return results.joinpath(*(folder_name(name) for name in (record.machine.id, record.study, record.cell)))


def folder_name(name: str) -> str:
    """Turn the name of a machine, cell or study into a folder name that is allowed and has no other meaning anywhere.

    Names of the harness's own folders and of devices of other systems get an underscore in front; a name of more than
    200 characters gets a readable beginning and its hash, because file systems allow 255 bytes.
    """
    allowed = re.sub(r"[^A-Za-z0-9._=+-]", "_", name)
    allowed = re.sub(r"\.+$", lambda dots: "_" * len(dots[0]), allowed) if allowed.strip(".") else f"_{allowed}_"
    if allowed.startswith(".") or RESERVED_NAME.fullmatch(allowed):
        allowed = f"_{allowed}"
    if len(allowed) > MAX_NAME_BYTES:
        allowed = f"{allowed[:_READABLE_CHARS]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return allowed


def load_records(paths: Iterable[Path]) -> LoadedRecords:
    """Read the records of files and folders, oldest first. The result lists unreadable files.

    Raises:
        UserError: A path does not exist.
    """
    records, unreadable = [], []
    for file in dict.fromkeys(file for path in paths for file in iter_record_files(path)):
        try:
            records.append(load_record(file))
        except UserError as error:
            unreadable.append(str(error))
    return LoadedRecords.of(records, unreadable)


def load_record(path: Path) -> Record:
    """Read one record.

    Raises:
        UserError: The file can't be read, is not a record, or is from a newer version of the harness.
    """
    try:
        with path.open("rb") as file:
            return decode_record(file.read(MAX_RECORD_BYTES + 1))
    except OSError as error:
        raise UserError(f"{path}: not a readable record: {error}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def decode_record(content: bytes) -> Record:
    """Decode a record from JSON, and upgrade it from an older schema version.

    Raises:
        UserError: The content is not a record, or is from a newer version of the harness.
    """
    if len(content) > MAX_RECORD_BYTES:
        raise UserError(f"not a record: more than {MAX_RECORD_BYTES:,} bytes")
    if content.count(b",") > _MAX_VALUES or content.count(b"{") + content.count(b"[") > _MAX_OBJECTS:
        raise UserError(f"not a record: more than {_MAX_VALUES:,} values or {_MAX_OBJECTS:,} objects")
    if (record := parse_record(content)) is not None:
        return record
    try:
        fields = json.loads(content)
        json.dumps(fields, ensure_ascii=False).encode()  # halves of surrogate pairs are no text, and can't be written
    except (ValueError, RecursionError) as error:
        raise UserError(f"not a readable record: {_shown(error)}") from None
    version = fields.get("schema_version") if isinstance(fields, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise UserError("not a record: schema_version is missing")
    if version > SCHEMA_VERSION:
        raise UserError(
            f"schema_version {_shown(version)}, this harness reads up to {SCHEMA_VERSION}; "
            f"install harness {_shown(fields.get('harness_version', 'of a newer version'))} or newer"
        )
    try:
        return upgrade_record(fields)
    except ValidationError as error:
        if error.error_count() > _MAX_LISTED_MISTAKES:
            raise UserError(f"not a record: {error.error_count():,} mistakes") from None
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise UserError(f"not a record: {_shown('.'.join(map(str, first['loc'])))}: {_shown(first['msg'])}") from None


def estimate_memory(content: bytes) -> int:
    """Estimate the bytes that a record takes in memory, from its JSON: those of its text, numbers, keys and objects."""
    num_objects = content.count(b"{") + content.count(b"[")
    bytes_per_char = 1 if content.isascii() and b"\\u" not in content else 4  # of Python's strings, at most
    return bytes_per_char * len(content) + 40 * content.count(b",") + 150 * content.count(b":") + 400 * num_objects


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}..."


def find_newest_records(cell: str, results: Path) -> list[Path]:
    """Return the newest record file of every cell of this name; without any, of those that have it in MACHINE/STUDY/CELL.

    Raises:
        UserError: No cell matches.
    """
    newest: dict[Path, Path] = {}
    for file in iter_record_files(results) if results.is_dir() else ():
        if file.parent not in newest or file.name > newest[file.parent].name:
            newest[file.parent] = file
    named = [file for folder, file in newest.items() if folder.name == folder_name(cell)]
    matching = named or [file for folder, file in newest.items() if cell in folder.relative_to(results).as_posix()]
    if not matching:
        names = sorted({folder.name for folder in newest})
        shown = ", ".join(names[:_MAX_SHOWN_NAMES]) + (", ..." if len(names) > _MAX_SHOWN_NAMES else "")
        raise UserError(
            f"{cell!r}: no such cell under {results}; {'cells: ' + shown if names else 'there are no records'}"
        )
    return matching


def own_records(results: Path, machine: Machine) -> LoadedRecords:
    """Read this machine's records of all studies."""
    folder = results / machine.id
    if not folder.is_dir():
        return LoadedRecords((), ())
    # Pass each study's folder separately, because a study may have the same name as a folder in `_OTHER_FOLDERS`.
    return load_records(sorted(path for path in folder.iterdir() if path.is_dir()))


def iter_record_files(path: Path) -> Iterator[Path]:
    """Yield the record files in a folder; given a file, yield the file itself.

    Raises:
        UserError: The path does not exist.
    """
    if path.is_file():
        yield path
    elif path.is_dir():
        for file in sorted(path.rglob("*.json")):
            if file.relative_to(path).parts[0] not in _OTHER_FOLDERS and file.name != CALIBRATION_FILE:
                yield file
    else:
        raise UserError(f"{path}: no such record or folder of records")
