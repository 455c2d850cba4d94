"""Checkpoints on disk: named, committed, found, verified and deleted (no torch).

A training's folder holds `update-00000120/` and the one before it. Each contains weights and optimizer state
(safetensors), every rank's state (JSON), and a manifest with each file's size and SHA-256 and the training's identity. A
checkpoint is written under a temporary name and renamed once it is complete and on the disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.errors import UserError
from harness.files import atomic_write_text, sha256_file
from harness.schema.settings import Settings
from harness.schema.study_file import flat_items
from harness.schema.training_record import Segment

# 2: the manifest names segments; how long a checkpoint took is in save_time.json.
FORMAT_VERSION = 2
MANIFEST = "manifest.json"
# Written after the commit, because the manifest can't contain the duration of its own commit.
_SAVE_TIME = "save_time.json"
_NUM_KEPT = 2
_PREFIX, _WRITING = "update-", ".writing-"


class IncompatibleCheckpoint(Exception):  # noqa: N818 - a state of the checkpoint
    """A training can't resume from this checkpoint."""


class TrainingIdentity(Settings):
    """What a training is; a checkpoint with another identity belongs to another training.

    Attributes:
        config: The whole configuration, to name the key that differs.
        splits: SHA-256 of each split's labels and texts.
        model_sha256: Hash of the weights that training began with; None if they were random.
    """

    config: dict[str, Any]
    config_hash: str
    repeat: int
    world_size: int
    model_sha256: str | None
    tokenizer_sha256: str | None
    splits: dict[str, str]


class FileDigest(Settings):
    """Hash and size of a file when it was written."""

    sha256: str
    num_bytes: int


class Manifest(Settings):
    """Content of a checkpoint and identity of its training.

    Attributes:
        num_updates: Updates done.
        versions: Packages that wrote it, for people; another version can resume from it.
        segments: Segments so far; the last one does not yet contain this checkpoint's duration.
    """

    format_version: int
    harness_version: str
    versions: dict[str, str]
    written_at: datetime
    identity: TrainingIdentity
    num_updates: int
    num_updates_planned: int
    segments: tuple[Segment, ...]
    files: dict[str, FileDigest]


@dataclass(frozen=True)
class ResumePoint:
    """The newest checkpoint to resume from, if any, and one message for each newer one that was refused."""

    path: Path | None
    manifest: Manifest | None
    refused: tuple[str, ...]


def find_newest(folder: Path, identity: TrainingIdentity) -> ResumePoint:
    """Verify a training's checkpoints, newest first, until one is intact and of this training.

    Raises:
        UserError: There are checkpoints but none is usable; training anew would overwrite them.
    """
    refused: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            return ResumePoint(path, verify(path, identity), tuple(refused))
        except IncompatibleCheckpoint as error:
            refused.append(f"{path}: {error}")
    if refused:
        lines = "\n".join(f"  {line}" for line in refused)
        raise UserError(
            f"{folder}: training can't resume from any of its checkpoints:\n{lines}\n"
            "name another folder (--checkpoints), or remove this one to train from the beginning"
        )
    return ResumePoint(None, None, ())


def list_checkpoints(folder: Path) -> list[Path]:
    """Return a training's checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.startswith(_PREFIX) and path.is_dir())


def verify(path: Path, identity: TrainingIdentity) -> Manifest:
    """Verify a checkpoint's identity and the hashes of all its files, and return its manifest.

    Raises:
        IncompatibleCheckpoint: It is damaged, of another format version, or of another training.
    """
    manifest = _read_manifest(path)
    if difference := _describe_difference(manifest.identity, identity):
        raise IncompatibleCheckpoint(f"it is of another training: {difference}")
    for name, digest in manifest.files.items():
        file = path / name
        if Path(name).name != name or not file.is_file():
            raise IncompatibleCheckpoint(f"it is damaged: {name} is missing")
        if (num_bytes := file.stat().st_size) != digest.num_bytes:
            raise IncompatibleCheckpoint(
                f"it is damaged: {name} has {num_bytes} bytes, {digest.num_bytes} were written"
            )
        if sha256_file(file) != digest.sha256:
            raise IncompatibleCheckpoint(f"it is damaged: {name} has changed since it was written (sha256)")
    return manifest


def _read_manifest(path: Path) -> Manifest:
    try:
        fields = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise IncompatibleCheckpoint(f"it is damaged: {MANIFEST} is missing") from None
    except (OSError, ValueError) as error:
        raise IncompatibleCheckpoint(f"it is damaged: {MANIFEST} can't be read: {error}") from None
    version = fields.get("format_version") if isinstance(fields, dict) else None
    if version != FORMAT_VERSION:
        written_by = fields.get("harness_version", "another") if isinstance(fields, dict) else "another"
        raise IncompatibleCheckpoint(
            f"its format version is {version}, this harness reads {FORMAT_VERSION}; harness {written_by} wrote it"
        )
    try:
        return Manifest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise IncompatibleCheckpoint(
            f"it is damaged: {MANIFEST}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from None


def _describe_difference(checkpoint: TrainingIdentity, current: TrainingIdentity) -> str | None:
    """Name the first difference between a checkpoint's training and the current one; None if they are equal."""
    if checkpoint.config_hash != current.config_hash:
        others = dict(flat_items(checkpoint.config))
        for key, value in flat_items(current.config):
            if (other := others.get(key)) != value:
                return f"{key} = {other!r} there, {value!r} here"
        return "its configuration has another hash"
    if checkpoint.splits != current.splits:
        names = [name for name in current.splits if checkpoint.splits.get(name) != current.splits[name]]
        return f"its data is not the same ({', '.join(names)})"
    for key in ("repeat", "world_size", "model_sha256", "tokenizer_sha256"):
        if getattr(checkpoint, key) != getattr(current, key):
            return f"{key} = {getattr(checkpoint, key)} there, {getattr(current, key)} here"
    return None


def begin(folder: Path, num_updates: int) -> Path:
    """Create the folder to write a checkpoint in, and delete incomplete ones of killed processes."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{_WRITING}*"):
        shutil.rmtree(leftover)
    writing = writing_folder(folder, num_updates)
    writing.mkdir()
    return writing


def writing_folder(folder: Path, num_updates: int) -> Path:
    """Return the folder in which all ranks write a checkpoint until it is committed."""
    return folder / f"{_WRITING}{num_updates:08d}"


def digest_file(path: Path) -> FileDigest:
    """Flush a file to the disk and return its hash and size."""
    _sync(path)
    return FileDigest(sha256=sha256_file(path), num_bytes=path.stat().st_size)


def commit(folder: Path, manifest: Manifest) -> Path:
    """Give a complete checkpoint its name, and delete all but the last two.

    Raises:
        OSError: The disk failed or is full; earlier checkpoints are unchanged.
    """
    writing, path = writing_folder(folder, manifest.num_updates), folder / f"{_PREFIX}{manifest.num_updates:08d}"
    atomic_write_text(writing / MANIFEST, json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True) + "\n")
    _sync(writing)
    if path.exists():  # it was refused, or training would not be at this update again
        shutil.rmtree(path)
    writing.rename(path)
    _sync(folder)
    up_to_this = [checkpoint for checkpoint in list_checkpoints(folder) if checkpoint.name <= path.name]
    for old in up_to_this[:-_NUM_KEPT]:
        _delete(old)
    return path


def write_save_time(path: Path, seconds: float) -> None:
    """Store how long a checkpoint took to write; ignores a disk that fails, since nothing depends on it."""
    with contextlib.suppress(OSError):
        atomic_write_text(path / _SAVE_TIME, json.dumps({"seconds": seconds}) + "\n")


def earlier_segments(path: Path) -> tuple[Segment, ...]:
    """Return the segments up to a checkpoint, with its own duration if that was stored."""
    *before, last = _read_manifest(path).segments
    *others, written = last.checkpoints
    try:
        seconds = float(json.loads((path / _SAVE_TIME).read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return (*before, last)
    timed = written.model_copy(update={"seconds": seconds})
    return (*before, last.model_copy(update={"checkpoints": (*others, timed)}))


def delete_all(folder: Path) -> None:
    """Delete the checkpoints of a finished training."""
    for path in [*list_checkpoints(folder), *folder.glob(f"{_WRITING}*")]:
        _delete(path)


def _delete(path: Path) -> None:
    # The manifest first, so that a half-deleted checkpoint can't be taken for a complete one.
    (path / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path)


def _sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
