"""Checkpoints on disk: name, commit, find, verify and delete them. Imports no torch.

A training's folder holds its two newest checkpoints, folders such as `update-00000120/`. Each contains weights and
optimizer state (safetensors), every rank's state (JSON), and a manifest with each file's size and SHA-256 and the
training's identity. A checkpoint is written under a temporary name and renamed once all its files are flushed to the
disk.
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

# Since version 2, the manifest lists segments, and save_time.json holds the time that writing the checkpoint took.
FORMAT_VERSION = 2
MANIFEST = "manifest.json"
# A file of its own, written after the commit: the manifest can't contain the duration of its own commit.
_SAVE_TIME = "save_time.json"
_NUM_KEPT = 2
_PREFIX, _WRITING = "update-", ".writing-"


class IncompatibleCheckpoint(Exception):  # noqa: N818 - a state of the checkpoint
    """A training can't resume from this checkpoint."""


class TrainingIdentity(Settings):
    """The facts that identify a training: a checkpoint with another identity belongs to another training.

    Attributes:
        config: The whole configuration, so that an error message can name the key that differs.
        model_sha256: Hash of the weights that training began with; None if they were random.
        splits: SHA-256 of the labels and texts of each split.
    """

    config: dict[str, Any]
    config_hash: str
    repeat: int
    world_size: int
    model_sha256: str | None
    tokenizer_sha256: str | None
    splits: dict[str, str]


class FileDigest(Settings):
    """Hash and size that a file had when it was written."""

    sha256: str
    num_bytes: int


class Manifest(Settings):
    """A checkpoint's manifest: its files, its training's identity and progress.

    Attributes:
        versions: Versions of the packages that wrote the checkpoint, for information: other versions can resume from it.
        num_updates: Optimizer updates done.
        segments: The training's segments so far; the last does not contain the duration of this checkpoint yet.
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
    """The checkpoint to resume from.

    Attributes:
        path: The newest usable checkpoint; None if training starts from the beginning.
        manifest: The manifest of that checkpoint, or None.
        refused: One message for each newer checkpoint that is unusable.
    """

    path: Path | None
    manifest: Manifest | None
    refused: tuple[str, ...]


def find_newest(folder: Path, identity: TrainingIdentity) -> ResumePoint:
    """Find the newest checkpoint that is intact and belongs to this training.

    Raises:
        UserError: There are checkpoints but none is usable, and training from the beginning would overwrite them.
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
        IncompatibleCheckpoint: The checkpoint is damaged, of another format version, or of another training.
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
    """Create the folder to write a checkpoint in, and delete incomplete checkpoints that killed processes left."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{_WRITING}*"):
        shutil.rmtree(leftover)
    writing = writing_folder(folder, num_updates)
    writing.mkdir()
    return writing


def writing_folder(folder: Path, num_updates: int) -> Path:
    """Return the folder in which all ranks write a checkpoint until it is committed."""
    return folder / f"{_WRITING}{num_updates:08d}"


def discard(folder: Path, num_updates: int) -> None:
    """Delete what was written of a checkpoint that failed, so that it takes no room of the next one."""
    shutil.rmtree(writing_folder(folder, num_updates), ignore_errors=True)


def digest_file(path: Path) -> FileDigest:
    """Flush a file to the disk and return its hash and size."""
    _sync(path)
    return FileDigest(sha256=sha256_file(path), num_bytes=path.stat().st_size)


def commit(folder: Path, manifest: Manifest) -> Path:
    """Write a complete checkpoint's manifest, give the checkpoint its final name, and delete all but the last two.

    Raises:
        OSError: The disk failed or is full. Earlier checkpoints are then unchanged.
    """
    writing, path = writing_folder(folder, manifest.num_updates), folder / f"{_PREFIX}{manifest.num_updates:08d}"
    atomic_write_text(writing / MANIFEST, json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True) + "\n")
    _sync(writing)
    # An existing checkpoint of this update is unusable: otherwise training would have resumed from it.
    if path.exists():
        shutil.rmtree(path)
    writing.rename(path)
    _sync(folder)
    up_to_this = [checkpoint for checkpoint in list_checkpoints(folder) if checkpoint.name <= path.name]
    for old in up_to_this[:-_NUM_KEPT]:
        _delete(old)
    return path


def write_save_time(path: Path, seconds: float) -> None:
    """Store how long a checkpoint took to write. Ignores a failing disk, since no training depends on this time."""
    with contextlib.suppress(OSError):
        atomic_write_text(path / _SAVE_TIME, json.dumps({"seconds": seconds}) + "\n")


def earlier_segments(path: Path) -> tuple[Segment, ...]:
    """Return the training's segments up to a checkpoint, with the checkpoint's own duration if it was stored."""
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
    # Delete the manifest first, so that a half-deleted checkpoint is not mistaken for a complete one.
    (path / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path)


def _sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
