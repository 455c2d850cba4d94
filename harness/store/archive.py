"""Records of another machine as one archive: back into results/, or read as it is."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from harness.errors import UserError
from harness.schema.record import SCHEMA_VERSION, Record, parse_record, upgrade_record
from harness.store.record_files import LoadedRecords, load_record, load_records, record_files, record_folder

_FILE_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}\.json")
# A record of 100,000 steps is some 10 MB; an archive is not read past what thousands of real ones would take.
_MOST_BYTES = 64 * 2**20
_MOST_BYTES_IN_ALL = 2**30


_SUFFIXES = (".tar.gz", ".tgz")


@dataclass(frozen=True)
class UnpackedArchive:
    """What became of an archive's members; `refused` says of each why."""

    new: tuple[Path, ...]
    known: int
    refused: tuple[str, ...]


def pack_records(files: Iterable[Path], results: Path, archive: Path) -> None:
    """Write records of a results folder, and nothing of the machine's users or clocks, into an archive.

    It is there whole or not at all.
    """
    partial = archive.with_name(f"{archive.name}.partial")
    try:
        with tarfile.open(partial, "w:gz") as tar:
            for file in sorted(files):
                content = file.read_bytes()
                member = tarfile.TarInfo(file.relative_to(results).as_posix())
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        partial.replace(archive)
    finally:
        partial.unlink(missing_ok=True)


def packable_files(results: Path, machine_id: str | None) -> tuple[list[Path], list[str]]:
    """Files of a results folder that hold records, of one machine or of all; and of what holds none, why.

    Raises:
        UserError: When there is nothing to pack.
    """
    found: list[Path] = []
    problems: list[str] = []
    for file in record_files(results):
        try:
            record = load_record(file)
        except UserError as error:
            problems.append(str(error))
            continue
        if machine_id in (None, record.machine.id):
            found.append(file)
    if not found:
        whose = "no records" if machine_id is None else f"no records of this machine, {machine_id}"
        others = "" if machine_id is None else "; --all packs those of every machine"
        raise UserError(f"{results}: {whose}{others} (`make bench` measures the default study)")
    return found, problems


def read_records(paths: Iterable[Path]) -> LoadedRecords:
    """Read the records of files, folders and archives, oldest first, each run once; what is no record is named.

    Nothing of an archive is written to disk.

    Raises:
        UserError: When a path does not exist, or an archive can't be read.
    """
    plain: list[Path] = []
    records: list[Record] = []
    unreadable: list[str] = []
    for path in paths:
        if not path.name.endswith(_SUFFIXES) or path.is_dir():
            plain.append(path)
            continue
        for name, found in _members(path):
            if isinstance(found, str):
                unreadable.append(f"{path}: {name!r}: {found}")
            else:
                records.append(found[0])
    loose = load_records(plain)
    once = {_run(record): record for record in (*loose.records, *records)}
    ordered = sorted(once.values(), key=lambda record: record.started_at)
    return LoadedRecords(tuple(ordered), (*loose.unreadable, *unreadable))


def _run(record: Record) -> tuple[object, ...]:
    """What tells one run from every other, wherever its record was copied to."""
    machine = record.machine
    return (machine.id, machine.host, record.config_hash, record.repeat, record.started_at, record.duration_s)


def unpack_records(archive: Path, results: Path) -> UnpackedArchive:
    """Put an archive's records where they belong under `results`; nothing that is there is overwritten.

    Nothing is extracted by a path that the archive names: each record says itself where it belongs.

    Raises:
        UserError: When the archive can't be read.
    """
    new: list[Path] = []
    refused: list[str] = []
    known = 0
    for name, found in _members(archive):
        if isinstance(found, str):
            refused.append(f"{name!r}: {found}")
            continue
        record, content = found
        target = record_folder(record, results) / PurePosixPath(name).name
        try:
            known += _is_known(target, content)
        except _RefusedMemberError as reason:
            refused.append(f"{name!r}: {reason}")
            continue
        if not target.exists():
            _write(target, content)
            new.append(target)
    return UnpackedArchive(tuple(new), known, tuple(refused))


def _members(archive: Path) -> Iterator[tuple[str, tuple[Record, bytes] | str]]:
    """Each member's name, and its record with its bytes, or why it is none.

    Raises:
        UserError: When the archive can't be read.
    """
    try:
        _check_sum(archive)
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.isdir():
                    continue
                try:
                    found: tuple[Record, bytes] | str = _read(tar, member)
                except _RefusedMemberError as reason:
                    found = str(reason)
                yield member.name, found
    except FileNotFoundError:
        raise UserError(f"{archive}: not a readable .tar.gz archive: there is no such file") from None
    except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"{archive}: not a readable .tar.gz archive: {error}") from None


def _check_sum(archive: Path) -> None:
    """Read to the end, where gzip's checksum stands: tarfile stops before it, and would take changed figures."""
    total = 0
    with gzip.open(archive) as file:
        while chunk := file.read(2**20):
            total += len(chunk)
            if total > _MOST_BYTES_IN_ALL:
                raise UserError(f"{archive}: more than {_MOST_BYTES_IN_ALL >> 30} GiB, which no records take")


class _RefusedMemberError(Exception):
    """Why a member stays out."""


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[Record, bytes]:
    try:
        tarfile.data_filter(member, "/nowhere")
    except tarfile.FilterError as error:
        raise _RefusedMemberError(f"not a plain file within the archive ({type(error).__name__})") from None
    if not member.isreg() or not _FILE_NAME.fullmatch(PurePosixPath(member.name).name):
        raise _RefusedMemberError("not a record's file")
    if member.size > _MOST_BYTES:
        raise _RefusedMemberError(f"{member.size:,} bytes, which no record takes")
    file = tar.extractfile(member)
    assert file is not None  # noqa: S101 - a regular file has a content
    content = file.read()
    if (whole := parse_record(content)) is not None:
        return whole, content
    try:
        fields: Any = json.loads(content)
        version = fields.get("schema_version") if isinstance(fields, dict) else None
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise _RefusedMemberError(f"schema_version {version}, this harness reads up to {SCHEMA_VERSION}")
        return upgrade_record(fields), content
    except ValidationError as error:
        first = error.errors()[0]
        raise _RefusedMemberError(f"no record: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise _RefusedMemberError(f"no record: {error}") from None


def _is_known(target: Path, content: bytes) -> bool:
    """Whether the very same record is there; another of its name is never overwritten."""
    if not target.exists():
        return False
    if target.read_bytes() != content:
        raise _RefusedMemberError("another record of this name is there already")
    return True


def _write(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_bytes(content)
    partial.rename(target)
