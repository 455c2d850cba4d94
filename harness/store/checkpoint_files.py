"""Checkpoints as folders: how they are named, sealed, found, verified and let go (no torch).

A training's folder holds `update-00000120/` and the one before it. Each has weights and optimiser (safetensors), what
every rank knows (JSON), and a manifest with the size and SHA-256 of each file and with what training it is of. It
is written under another name and gets its own when it is whole and on the disk.
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

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
# Written when the folder is whole: how long it took could not stand in it.
_TOOK = "took.json"
_NUM_KEPT = 2
_PREFIX, _WRITING = "update-", ".writing-"


class IncompatibleCheckpoint(Exception):  # noqa: N818 - what becomes of the checkpoint
    """A checkpoint can't be gone on with."""


class TrainingIdentity(Settings):
    """What a training is; a checkpoint of another one is foreign.

    Attributes:
        config: The whole configuration, to tell in what another one differs.
        splits: SHA-256 of each split's labels and texts.
        model_sha256: Of the weights that training began with; None: they were random.
    """

    config: dict[str, Any]
    config_hash: str
    repeat: int
    world_size: int
    model_sha256: str | None
    tokenizer_sha256: str | None
    splits: dict[str, str]


class FileDigest(Settings):
    """A file as it was written."""

    sha256: str
    num_bytes: int


class Manifest(Settings):
    """What stands in a checkpoint, and of which training.

    Attributes:
        num_updates: Done by then.
        versions: Of what wrote it; for people: another version goes on from it.
        pieces: Up to then; of its last one, this checkpoint has no seconds yet.
    """

    format_version: int
    harness_version: str
    versions: dict[str, str]
    written_at: datetime
    identity: TrainingIdentity
    num_updates: int
    num_updates_planned: int
    pieces: tuple[Segment, ...]
    files: dict[str, FileDigest]


@dataclass(frozen=True)
class ResumePoint:
    """The newest checkpoint that can be gone on with, if any; `refused` says of each newer one, why not."""

    path: Path | None
    manifest: Manifest | None
    refused: tuple[str, ...]


def find_newest(folder: Path, identity: TrainingIdentity) -> ResumePoint:
    """Verify a training's checkpoints, the newest first, until one is whole and of this training.

    Raises:
        UserError: When there are some, and none that can be gone on with: nothing is begun anew over them.
    """
    refused: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            return ResumePoint(path, verify(path, identity), tuple(refused))
        except IncompatibleCheckpoint as why:
            refused.append(f"{path}: {why}")
    if refused:
        lines = "\n".join(f"  {line}" for line in refused)
        raise UserError(
            f"{folder}: none of its checkpoints can be gone on with:\n{lines}\n"
            "name another folder (--checkpoints), or remove this one to train from the beginning"
        )
    return ResumePoint(None, None, ())


def list_checkpoints(folder: Path) -> list[Path]:
    """Those of a training, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.startswith(_PREFIX) and path.is_dir())


def verify(path: Path, identity: TrainingIdentity) -> Manifest:
    """Read a checkpoint's manifest, and every byte of its files.

    Raises:
        Refused: When it is damaged, of another format, or of another training.
    """
    manifest = _read_manifest(path)
    if difference := _difference(manifest.identity, identity):
        raise IncompatibleCheckpoint(f"it is of another training: {difference}")
    for name, sealed in manifest.files.items():
        file = path / name
        if Path(name).name != name or not file.is_file():
            raise IncompatibleCheckpoint(f"it is damaged: {name} is missing")
        if (num_bytes := file.stat().st_size) != sealed.num_bytes:
            raise IncompatibleCheckpoint(
                f"it is damaged: {name} has {num_bytes} bytes, {sealed.num_bytes} were written"
            )
        if sha256_file(file) != sealed.sha256:
            raise IncompatibleCheckpoint(f"it is damaged: {name} is not what was written (sha256)")
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


def _difference(there: TrainingIdentity, here: TrainingIdentity) -> str | None:
    """In what a checkpoint's training is another one than this, or None."""
    if there.config_hash != here.config_hash:
        others = dict(flat_items(there.config))
        for key, value in flat_items(here.config):
            if (other := others.get(key)) != value:
                return f"{key} = {other!r} there, {value!r} here"
        return "its configuration's hash is another"
    if there.splits != here.splits:
        names = [name for name in here.splits if there.splits.get(name) != here.splits[name]]
        return f"its data is not the same ({', '.join(names)})"
    for key in ("repeat", "world_size", "model_sha256", "tokenizer_sha256"):
        if getattr(there, key) != getattr(here, key):
            return f"{key} = {getattr(there, key)} there, {getattr(here, key)} here"
    return None


def begin(folder: Path, num_updates: int) -> Path:
    """Make the folder that a checkpoint is written in; what an ended process left half-written goes."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{_WRITING}*"):
        shutil.rmtree(leftover)
    writing = writing_folder(folder, num_updates)
    writing.mkdir()
    return writing


def writing_folder(folder: Path, num_updates: int) -> Path:
    """Where a checkpoint lies until it is whole; all ranks write there."""
    return folder / f"{_WRITING}{num_updates:08d}"


def digest_file(path: Path) -> FileDigest:
    """Have a file on the disk, and tell what it is."""
    _sync(path)
    return FileDigest(sha256=sha256_file(path), num_bytes=path.stat().st_size)


def commit(folder: Path, manifest: Manifest) -> Path:
    """Give a whole checkpoint its name, and let go those before the last two.

    Raises:
        OSError: When the disk does not take it; then the ones before are as they were.
    """
    writing, path = writing_folder(folder, manifest.num_updates), folder / f"{_PREFIX}{manifest.num_updates:08d}"
    atomic_write_text(writing / MANIFEST, json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True) + "\n")
    _sync(writing)
    if path.exists():  # one that was refused, or training would not be here again
        shutil.rmtree(path)
    writing.rename(path)
    _sync(folder)
    earlier = [one for one in list_checkpoints(folder) if one.name <= path.name]
    for old in earlier[:-_NUM_KEPT]:
        # Its manifest first: what is half removed must not be taken for whole.
        (old / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(old)
    return path


def write_save_time(path: Path, seconds: float) -> None:
    """Leave in a checkpoint how long it took; nothing depends on it."""
    with contextlib.suppress(OSError):
        atomic_write_text(path / _TOOK, json.dumps({"seconds": seconds}) + "\n")


def earlier_segments(path: Path) -> tuple[Segment, ...]:
    """The pieces up to a checkpoint, with its own seconds where they were written down."""
    *before, last = _read_manifest(path).pieces
    *others, written = last.checkpoints
    try:
        took = float(json.loads((path / _TOOK).read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return (*before, last)
    whole = written.model_copy(update={"seconds": took})
    return (*before, last.model_copy(update={"checkpoints": (*others, whole)}))


def delete_all(folder: Path) -> None:
    """Let all checkpoints of a training go: it has its record."""
    for path in [*list_checkpoints(folder), *folder.glob(f"{_WRITING}*")]:
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path)


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
