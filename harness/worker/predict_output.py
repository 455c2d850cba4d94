"""Labels to a file that is written window by window, so that a run that was ended goes on without a lost or doubled row.

Beside OUT lie, until it is whole, OUT.partial, OUT.progress.json and a lock. A window is written, then it is noted how far
that came: whatever is behind that in OUT.partial is cut off when the run goes on.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet
from filelock import FileLock, Timeout

from harness.dataset.file_formats import DELIMITERS, FORMATS
from harness.dataset.text_stream import file_format_of
from harness.errors import UserError
from harness.files import atomic_write_text, sha256_file
from harness.schema.predict_job import PredictJob, progress_paths, restart
from harness.schema.settings import Settings

_ENDS_BYTES = 2**20
# A run that was killed may take a moment to be gone.
_LOCK_S = 10
# All of a model that decides a label.
_MODEL_FILES = ("model.safetensors", "config.json", "tokenizer.json")


class FileIdentity(Settings):
    """What tells that a file is still the same; sha256 is over its first and last MiB alone: files may be large."""

    num_bytes: int
    modified_ns: int
    ends_sha256: str


class PredictIdentity(Settings):
    """All that decides an output's rows; a run that was ended goes on only where none of it changed.

    Attributes:
        model_sha256: Over the weights, the configuration and the tokenizer.
    """

    file: FileIdentity
    model_sha256: str
    text: tuple[str, ...]
    pair: str | None
    carried: tuple[str, ...]
    seq_len: int
    precision: str
    kind: str


class PredictProgress(Settings):
    """How far an output came: whole windows alone."""

    identity: PredictIdentity
    num_rows: int
    num_unlabelled: int
    num_bytes: int


class PredictOutput:
    """The rows of one output; a context that closes what it opened, and leaves it to be gone on with."""

    def __init__(self, job: PredictJob, identity: PredictIdentity) -> None:
        """Begin, or go on where an earlier run left off.

        Raises:
            UserError: When the output can't be written, or what is there is of another input, model or setting.
        """
        self._out = Path(job.out)
        self._partial, self._note, lock = progress_paths(self._out)
        self._identity, self._kind = identity, identity.kind
        self._lock = FileLock(lock, timeout=_LOCK_S)
        try:
            self._lock.acquire()
            found = self._read_progress()
            # Without a note it ended before its first window was whole.
            self._file = self._partial.open("r+b" if found else "wb")
        except Timeout:
            raise UserError(f"{self._out}: another run is writing it; wait for it, or end it") from None
        except OSError as error:
            raise UserError(f"{self._partial}: can't be written: {error.strerror}") from None
        self.progress = found or PredictProgress(identity=identity, num_rows=0, num_unlabelled=0, num_bytes=0)
        self._file.truncate(self.progress.num_bytes)
        self._file.seek(self.progress.num_bytes)

    def __enter__(self) -> PredictOutput:
        """Nothing more to open."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the file; what is whole stays."""
        self._file.close()
        self._lock.release()

    def append(self, table: pa.Table, num_unlabelled: int) -> None:
        """Write a window's rows, and note that they are there."""
        at_begin = self._file.tell() == 0
        self._file.write(_encoded(table, self._kind, header=at_begin))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.progress = PredictProgress(
            identity=self._identity,
            num_rows=self.progress.num_rows + table.num_rows,
            num_unlabelled=self.progress.num_unlabelled + num_unlabelled,
            num_bytes=self._file.tell(),
        )
        atomic_write_text(self._note, self.progress.model_dump_json(indent=1) + "\n")

    def finish(self, empty: pa.Table) -> None:
        """Put the whole output under its name; `empty` has its columns, for a file without a row."""
        if self._file.tell() == 0:
            self._file.write(_encoded(empty, self._kind, header=True))
        self._file.close()
        if FORMATS[self._kind] == "Parquet":
            _to_parquet(self._partial, self._out)
        else:
            self._partial.replace(self._out)
        restart(self._out)

    def _read_progress(self) -> PredictProgress | None:
        if not self._note.exists():
            return None
        try:
            found = PredictProgress.model_validate_json(self._note.read_text(encoding="utf-8"))
            if not self._partial.exists() and self._out.stat().st_size == found.num_bytes:
                self._out.replace(self._partial)  # it was ended between its last two steps
            num_bytes = self._partial.stat().st_size
        except (OSError, ValueError):
            raise UserError(f"{self._note}: no progress that can be gone on with; --restart begins anew") from None
        changed = [
            name
            for name in PredictIdentity.model_fields
            if getattr(found.identity, name) != getattr(self._identity, name)
        ]
        if changed:
            raise UserError(
                f"{self._note}: left off with another {', '.join(_WORDS[name] for name in changed)}; --restart begins anew, "
                "or give another -o"
            )
        if num_bytes < found.num_bytes:
            raise UserError(f"{self._partial}: shorter than it was left; --restart begins anew")
        return found


_WORDS = {
    "file": "input file",
    "model_sha256": "model",
    "text": "--text",
    "pair": "--pair",
    "carried": "--with",
    "seq_len": "--seq-len",
    "precision": "--precision",
    "kind": "kind of output",
}


def identify(job: PredictJob) -> PredictIdentity:
    """Look at a job's input and model.

    Raises:
        UserError: When one of them is not there.
    """
    return PredictIdentity(
        file=file_facts(Path(job.file)),
        model_sha256=_hash_model(Path(job.model)),
        text=job.text,
        pair=job.pair,
        carried=job.carried,
        seq_len=job.seq_len,
        precision=job.precision,
        kind=file_format_of(Path(job.out), is_input=False),
    )


def file_facts(path: Path) -> FileIdentity:
    """What a file is now.

    Raises:
        UserError: When it is not there.
    """
    digest = hashlib.sha256()
    try:
        seen = path.stat()
        with path.open("rb") as file:
            digest.update(file.read(_ENDS_BYTES))
            file.seek(max(0, seen.st_size - _ENDS_BYTES))
            digest.update(file.read(_ENDS_BYTES))
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    return FileIdentity(num_bytes=seen.st_size, modified_ns=seen.st_mtime_ns, ends_sha256=digest.hexdigest())


def _hash_model(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in _MODEL_FILES:
        try:
            digest.update(bytes.fromhex(sha256_file(folder / name)))
        except OSError as error:
            raise UserError(f"model {folder}: {name} can't be read: {error.strerror}") from None
    return digest.hexdigest()


def _encoded(table: pa.Table, kind: str, *, header: bool) -> bytes:
    """Rows as they follow each other in the partial file; of Parquet, which can't be added to, as Arrow's stream."""
    sink = io.BytesIO()
    if (format_ := FORMATS[kind]) in DELIMITERS:
        options = pa.csv.WriteOptions(include_header=header, delimiter=DELIMITERS[format_])
        pa.csv.write_csv(table, sink, options)
    elif format_ == "Parquet":
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        for row in table.to_pylist():
            sink.write(json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n")
    return sink.getvalue()


def _to_parquet(partial: Path, out: Path) -> None:
    """One row group a window, read and written one at a time."""
    written = partial.with_name(f"{partial.name}.parquet")
    writer: pa.parquet.ParquetWriter | None = None
    for table in _streams(partial):
        writer = writer or pa.parquet.ParquetWriter(written, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()
    written.replace(out)


def _streams(path: Path) -> Iterator[Any]:
    size = path.stat().st_size
    with pa.OSFile(str(path), "rb") as file:
        while file.tell() < size:
            with pa.ipc.open_stream(file) as reader:
                yield reader.read_all()
