"""Pack records of a machine into one archive, and read or unpack it on another."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness.errors import Unavailable, UserError
from harness.schema.record import Record
from harness.store.record_files import (
    LoadedRecords,
    decode_record,
    iter_record_files,
    load_record,
    load_records,
    record_folder,
)

_FILE_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}\.json")
_SUFFIXES = (".tar.gz", ".tgz")
# Limits that real records do not reach, so that a harmful archive can't fill memory: a record of 100,000 steps takes
# some 10 MB.
MAX_MEMBER_BYTES = 64 * 2**20
MAX_TOTAL_BYTES = 2**30


@dataclass(frozen=True)
class ArchiveRecord:
    """A record in an archive, and the bytes of its file."""

    record: Record
    content: bytes


@dataclass(frozen=True)
class UnpackedArchive:
    """Result of unpacking an archive.

    Attributes:
        new: Files that were written.
        num_known: Number of records that were already present.
        refused: One message for each file in the archive that was not unpacked.
    """

    new: tuple[Path, ...]
    num_known: int
    refused: tuple[str, ...]


def pack_records(files: Iterable[Path], results: Path, archive: Path) -> None:
    """Write record files into an archive without users, groups or modification times.

    If writing fails, no archive is left behind.

    Args:
        files: Record files below `results`.
        results: Folder of records.
        archive: Path of the new .tar.gz file.
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
    """Return the record files of one machine, or of all if `machine_id` is None, and one message per unreadable file.

    Raises:
        UserError: No record can be packed.
    """
    packable: list[Path] = []
    problems: list[str] = []
    for file in iter_record_files(results):
        try:
            record = load_record(file)
        except UserError as error:
            problems.append(str(error))
            continue
        if machine_id in (None, record.machine.id):
            packable.append(file)
    if not packable:
        missing = "no records" if machine_id is None else f"no records of this machine, {machine_id}"
        hint = "" if machine_id is None else "; --all packs those of every machine"
        raise UserError(f"{results}: {missing}{hint} (`make bench` measures the default study)")
    return packable, problems


def read_records(paths: Iterable[Path]) -> LoadedRecords:
    """Read the records of files, folders and archives, oldest first. Writes nothing to disk.

    Of several copies of the same run's record, only one is returned.

    Raises:
        UserError: A path does not exist, or an archive can't be read.
    """
    unpacked: list[Path] = []
    records: list[Record] = []
    unreadable: list[str] = []
    for path in paths:
        if not path.name.endswith(_SUFFIXES) or path.is_dir():
            unpacked.append(path)
            continue
        for name, member in iter_members(path):
            if isinstance(member, Unavailable):
                unreadable.append(f"{path}: {name!r}: {member.reason}")
            else:
                records.append(member.record)
    loaded = load_records(unpacked)
    by_run = {_run_key(record): record for record in (*loaded.records, *records)}
    ordered = sorted(by_run.values(), key=lambda record: record.started_at)
    return LoadedRecords(tuple(ordered), (*loaded.unreadable, *unreadable))


def _run_key(record: Record) -> tuple[object, ...]:
    """Return a key that is equal for all copies of one run's record and differs between runs."""
    machine = record.machine
    return (machine.id, machine.host, record.config_hash, record.repeat, record.started_at, record.duration_s)


def unpack_records(archive: Path, results: Path) -> UnpackedArchive:
    """Write an archive's records below `results` without overwriting any file.

    Folders in the archive are ignored: each record's own fields determine its folder.

    Raises:
        UserError: The archive can't be read.
    """
    new: list[Path] = []
    refused: list[str] = []
    num_known = 0
    for name, member in iter_members(archive):
        if isinstance(member, Unavailable):
            refused.append(f"{name!r}: {member.reason}")
            continue
        target = record_folder(member.record, results) / PurePosixPath(name).name
        if not target.exists():
            _write(target, member.content)
            new.append(target)
        elif target.read_bytes() == member.content:
            num_known += 1
        else:
            refused.append(f"{name!r}: another record of this name is there already")
    return UnpackedArchive(tuple(new), num_known, tuple(refused))


def iter_members(
    archive: Path, max_member_bytes: int = MAX_MEMBER_BYTES, max_total_bytes: int = MAX_TOTAL_BYTES
) -> Iterator[tuple[str, ArchiveRecord | Unavailable]]:
    """Yield the name of each file in an archive with its record, or with the reason why the file is not a record.

    Raises:
        UserError: The archive can't be read, or is larger than `max_total_bytes`.
    """
    try:
        _verify_checksum(archive, max_total_bytes)
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if not member.isdir():
                    yield member.name, _read_member(tar, member, max_member_bytes)
    except FileNotFoundError:
        raise UserError(f"{archive}: not a readable .tar.gz archive: there is no such file") from None
    except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"{archive}: not a readable .tar.gz archive: {error}") from None


def _verify_checksum(archive: Path, max_bytes: int) -> None:
    """Read the whole archive, so that gzip verifies the checksum at its end.

    tarfile stops reading before the checksum and would accept damaged content.
    """
    num_bytes = 0
    with gzip.open(archive) as file:
        while chunk := file.read(2**20):
            num_bytes += len(chunk)
            if num_bytes > max_bytes:
                raise UserError(f"{archive}: more than {max_bytes:,} bytes, too large for records")


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo, max_bytes: int) -> ArchiveRecord | Unavailable:
    try:
        tarfile.data_filter(member, "/nowhere")
    except tarfile.FilterError as error:
        return Unavailable(f"not a plain file within the archive ({type(error).__name__})")
    if not member.isreg() or not _FILE_NAME.fullmatch(PurePosixPath(member.name).name):
        return Unavailable("not a record's file")
    if member.size > max_bytes:
        return Unavailable(f"{member.size:,} bytes, too large for a record")
    file = tar.extractfile(member)
    assert file is not None  # noqa: S101 - not None for a regular file
    content = file.read()
    try:
        return ArchiveRecord(decode_record(content), content)
    except UserError as error:
        return Unavailable(str(error))


def _write(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_bytes(content)
    partial.rename(target)
