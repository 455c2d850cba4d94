"""Pack records of a machine into one archive, and read or unpack it on another."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from harness.errors import Unavailable, UserError
from harness.files import atomic_write_bytes, naming, remove_partial_files
from harness.schema.record import Record
from harness.store.record_files import (
    MAX_RECORD_BYTES,
    LoadedRecords,
    decode_record,
    estimate_memory,
    iter_record_files,
    load_record,
    load_records,
    record_folder,
)
from harness.store.tar_stream import ArchiveError, TarMember, TarStream, expand_gzip

_FILE_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}\.json")
_SUFFIXES = (".tar.gz", ".tgz")
MAX_TOTAL_BYTES = 2**30  # expanded; 5,000 records of reference size
# Estimated memory of all records that one command reads from archives without unpacking them, so that no archive needs
# more than 1 GiB. `harness import` holds one record at a time and has no such limit.
MAX_HELD_BYTES = 448 * 2**20


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
        with naming(archive), _open_new(partial) as new, tarfile.open(fileobj=new, mode="w:gz") as tar:
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
        raise UserError(f"{results}: {missing}{hint} (`harness run default` measures the default study)")
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
    held_bytes = 0
    for path in paths:
        if not path.name.endswith(_SUFFIXES) or path.is_dir():
            unpacked.append(path)
            continue
        for name, member in iter_members(path):
            if isinstance(member, Unavailable):
                unreadable.append(f"{path}: {name!r}: {member.reason}")
                continue
            held_bytes += estimate_memory(member.content)
            if held_bytes > MAX_HELD_BYTES:
                unreadable.append(
                    f"{path}: {name!r} and all after it: too many records to read from archives at once; "
                    "unpack them with `harness import`"
                )
                break
            records.append(member.record)
    loaded = load_records(unpacked)
    by_run = {_run_key(record): record for record in (*loaded.records, *loaded.probes, *records)}
    return LoadedRecords.of(by_run.values(), (*loaded.unreadable, *unreadable))


def _run_key(record: Record) -> tuple[object, ...]:
    """Return a key that is equal for all copies of one run's record and differs between runs."""
    machine = record.machine
    return (machine.id, machine.host, record.config_hash, record.repeat, record.started_at, record.duration_s)


def unpack_records(archive: Path, results: Path) -> UnpackedArchive:
    """Write an archive's records below `results` without overwriting any file; remove what killed writers left there.

    Folders in the archive are ignored: each record's own fields determine its folder.

    Raises:
        UserError: The archive can't be read.
    """
    remove_partial_files(results, subfolders=True)
    new: list[Path] = []
    refused: list[str] = []
    num_known = 0
    for name, member in iter_members(archive):
        if isinstance(member, Unavailable):
            refused.append(f"{name!r}: {member.reason}")
            continue
        target = record_folder(member.record, results) / PurePosixPath(name).name
        if (other := _differs_in_case(target, results)) is not None:
            refused.append(f"{name!r}: its folder's name differs from {other}'s only in case")
            continue
        if not target.exists():
            _write(target, member.content)
            new.append(target)
        elif target.read_bytes() == member.content:
            num_known += 1
        else:
            refused.append(f"{name!r}: another record of this name is there already")
    return UnpackedArchive(tuple(new), num_known, tuple(refused))


def iter_members(
    archive: Path, max_member_bytes: int = MAX_RECORD_BYTES, max_total_bytes: int = MAX_TOTAL_BYTES
) -> Iterator[tuple[str, ArchiveRecord | Unavailable]]:
    """Yield the name of each file in an archive with its record, or with the reason why the file is not a record.

    Raises:
        UserError: The archive can't be read, or is larger than `max_total_bytes`.
    """
    try:
        for _ in expand_gzip(archive, max_total_bytes):
            pass  # checksums stand at the end of gzip streams: of a damaged archive nothing is used
        tar = TarStream(archive, max_total_bytes)
        for member in tar:
            yield member.name, _read_member(tar, member, max_member_bytes)
    except FileNotFoundError:
        raise UserError(f"{archive}: not a readable .tar.gz archive: there is no such file") from None
    except (OSError, ArchiveError) as error:
        raise UserError(f"{archive}: not a readable .tar.gz archive: {error}") from None


def _read_member(tar: TarStream, member: TarMember, max_bytes: int) -> ArchiveRecord | Unavailable:
    path = PurePosixPath(member.name)
    if not member.is_plain or ".." in path.parts:
        return Unavailable("not a plain file within the archive")
    if not _FILE_NAME.fullmatch(path.name):
        return Unavailable("not a record's file")
    if member.num_bytes > max_bytes:
        return Unavailable(f"{member.num_bytes:,} bytes, too large for a record")
    content = tar.read(member)
    try:
        return ArchiveRecord(decode_record(content), content)
    except UserError as error:
        return Unavailable(str(error))


def _differs_in_case(target: Path, results: Path) -> Path | None:
    """Return a folder that some systems would take for one of the target's, because only the case of its name differs."""
    for folder in reversed(target.relative_to(results).parents[:-1]):
        path = results / folder
        if path.parent.is_dir() and path.name not in (names := [other.name for other in path.parent.iterdir()]):
            return next((path.parent / name for name in names if name.casefold() == path.name.casefold()), None)
    return None


def _write(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(target, content)


def _open_new(path: Path) -> BinaryIO:
    """Open a new file for writing. What has its name is removed; if that is a link, its target stays as it is."""
    path.unlink(missing_ok=True)
    return path.open("xb")
