"""Write predictions window by window, so that a killed run resumes without losing or repeating a row.

A window is a number of consecutive rows; OUT is the output file. Until OUT is complete, OUT.partial, OUT.progress.json and
a lock file lie next to it. Each window is first written to OUT.partial; then its end is recorded in OUT.progress.json. A
resumed run cuts off what follows the recorded end.
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
from harness.dataset.model_folder import WEIGHTS_FILE, weight_files
from harness.dataset.text_stream import output_format_of
from harness.errors import UserError
from harness.files import atomic_write_text, naming, sha256_file
from harness.schema.predict_job import PredictJob, progress_paths, restart
from harness.schema.settings import Settings

_ENDS_BYTES = 2**20
# Wait this long for the lock, since a killed run may take a moment to release it.
_LOCK_S = 10
# The files of a model that determine its predictions, beside its weights.
_MODEL_FILES = ("config.json", "tokenizer.json")


class FileIdentity(Settings):
    """A file's size, modification time, and SHA-256 of its first and last MiB; it may be too large to hash whole."""

    num_bytes: int
    modified_ns: int
    ends_sha256: str


class PredictIdentity(Settings):
    """Everything that determines the output's rows; a run resumes only if none of it changed.

    Attributes:
        model_sha256: SHA-256 over the files of the weights, the configuration and the tokenizer.
        text: Text columns of the input.
        pair: Column of a second text; None for single texts.
        carried: Columns that are copied to the output.
        kind: Format of the output file.
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
    """How much of the output is written, in complete windows."""

    identity: PredictIdentity
    num_rows: int
    num_unlabelled: int
    num_bytes: int


class PredictOutput:
    """A resumable output file; leaving its context closes the file, complete or not."""

    def __init__(self, job: PredictJob, identity: PredictIdentity) -> None:
        """Start a new output, or resume an earlier run's.

        Raises:
            UserError: If another run writes the output, or the earlier run had another input, model or setting.
            OSError: If the output can't be written.
        """
        self._out = Path(job.out)
        self._partial, self._progress_file, lock = progress_paths(self._out)
        self._identity, self._format = identity, identity.kind
        self._lock = FileLock(lock, timeout=_LOCK_S)
        try:
            self._lock.acquire()
            earlier = self._read_progress()
            # Without a progress file, no earlier run completed a window: start an empty file.
            self._file = self._partial.open("r+b" if earlier else "wb")
        except Timeout:
            raise UserError(f"{self._out}: another run is writing it; wait for it, or stop it") from None
        self.progress = earlier or PredictProgress(identity=identity, num_rows=0, num_unlabelled=0, num_bytes=0)
        self._file.truncate(self.progress.num_bytes)
        self._file.seek(self.progress.num_bytes)

    def __enter__(self) -> PredictOutput:
        """Return self; the file is already open."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the file and release the lock."""
        try:
            with naming(self._partial):  # closing may write what is buffered
                self._file.close()
        finally:
            self._lock.release()

    def append(self, table: pa.Table, num_unlabelled: int) -> None:
        """Write a window's rows to disk, then record the progress."""
        is_first = self._file.tell() == 0
        with naming(self._partial):
            self._file.write(encode_rows(table, self._format, header=is_first))
            self._file.flush()
            os.fsync(self._file.fileno())
        self.progress = PredictProgress(
            identity=self._identity,
            num_rows=self.progress.num_rows + table.num_rows,
            num_unlabelled=self.progress.num_unlabelled + num_unlabelled,
            num_bytes=self._file.tell(),
        )
        atomic_write_text(self._progress_file, self.progress.model_dump_json(indent=1) + "\n")

    def finish(self, empty: pa.Table) -> None:
        """Move the complete output to its final name; if no row was written, it gets the columns of `empty`."""
        with naming(self._out):
            if self._file.tell() == 0:
                self._file.write(encode_rows(empty, self._format, header=True))
            self._file.close()
            if FORMATS[self._format] == "Parquet":
                _to_parquet(self._partial, self._out)
            else:
                self._partial.replace(self._out)
        restart(self._out)

    def _read_progress(self) -> PredictProgress | None:
        if not self._progress_file.exists():
            return None
        try:
            earlier = PredictProgress.model_validate_json(self._progress_file.read_text(encoding="utf-8"))
            if not self._partial.exists() and self._out.stat().st_size == earlier.num_bytes:
                self._out.replace(self._partial)  # a run was killed inside `finish`, just after this file's move
            num_bytes = self._partial.stat().st_size
        except (OSError, ValueError):
            raise UserError(f"{self._progress_file}: no progress that can be resumed; --restart starts over") from None
        changed = [
            option
            for name, option in _OPTION_NAMES.items()
            if getattr(earlier.identity, name) != getattr(self._identity, name)
        ]
        if changed:
            raise UserError(
                f"{self._progress_file}: written with another {', '.join(changed)}; --restart starts over, or give another -o"
            )
        if num_bytes < earlier.num_bytes:
            raise UserError(f"{self._partial}: shorter than the recorded progress; --restart starts over")
        return earlier


# How error messages name the fields of PredictIdentity.
_OPTION_NAMES = {
    "file": "input file",
    "model_sha256": "model",
    "text": "--text",
    "pair": "--pair",
    "carried": "--with",
    "seq_len": "--seq-len",
    "precision": "--precision",
    "kind": "output format",
}


def identify(job: PredictJob) -> PredictIdentity:
    """Read everything that determines the rows of a job's output.

    Raises:
        UserError: If the input file or a file of the model can't be read.
    """
    return PredictIdentity(
        file=identify_file(Path(job.file)),
        model_sha256=_hash_model(Path(job.model)),
        text=job.text,
        pair=job.pair,
        carried=job.carried,
        seq_len=job.seq_len,
        precision=job.precision,
        kind=output_format_of(Path(job.out)),
    )


def identify_file(path: Path) -> FileIdentity:
    """Read a file's current identity.

    Raises:
        UserError: If the file can't be read.
    """
    digest = hashlib.sha256()
    try:
        status = path.stat()
        with path.open("rb") as file:
            digest.update(file.read(_ENDS_BYTES))
            file.seek(max(0, status.st_size - _ENDS_BYTES))
            digest.update(file.read(_ENDS_BYTES))
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    return FileIdentity(num_bytes=status.st_size, modified_ns=status.st_mtime_ns, ends_sha256=digest.hexdigest())


def _hash_model(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in [*(weight_files(folder) or [folder / WEIGHTS_FILE]), *(folder / name for name in _MODEL_FILES)]:
        try:
            digest.update(bytes.fromhex(sha256_file(file)))
        except OSError as error:
            raise UserError(f"model {folder}: {file.name} can't be read: {error.strerror}") from None
    return digest.hexdigest()


def encode_rows(table: pa.Table, file_format: str, *, header: bool) -> bytes:
    """Encode rows for the partial file.

    Rows of a Parquet output become an Arrow stream, since a Parquet file can't be appended to.
    """
    sink = io.BytesIO()
    if (name := FORMATS[file_format]) in DELIMITERS:
        options = pa.csv.WriteOptions(include_header=header, delimiter=DELIMITERS[name])
        pa.csv.write_csv(_with_csv_types(table), sink, options)
    elif name == "Parquet":
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        for row in table.to_pylist():
            sink.write(json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n")
    return sink.getvalue()


def _with_csv_types(table: pa.Table) -> pa.Table:
    """Write the values of columns whose type CSV has not as text: lists and objects as JSON."""
    for index, field in enumerate(table.schema):
        try:
            pa.csv.write_csv(pa.table({field.name: pa.array([], field.type)}), io.BytesIO())
        except pa.ArrowException:
            values = table.column(index).to_pylist()
            if pa.types.is_nested(field.type):
                values = [json.dumps(value, ensure_ascii=False, default=str) for value in values]
            texts = [None if value is None else str(value) for value in values]
            table = table.set_column(index, field.name, pa.array(texts, pa.string()))
    return table


def _to_parquet(partial: Path, out: Path) -> None:
    """Convert the partial file to Parquet, one window at a time; each window becomes a row group."""
    converted = partial.with_name(f"{partial.name}.parquet")
    try:
        writer: pa.parquet.ParquetWriter | None = None
        for table in _read_windows(partial):
            writer = writer or pa.parquet.ParquetWriter(converted, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
        converted.replace(out)
    finally:
        converted.unlink(missing_ok=True)


def _read_windows(path: Path) -> Iterator[Any]:
    size = path.stat().st_size
    with pa.OSFile(str(path), "rb") as file:
        while file.tell() < size:
            with pa.ipc.open_stream(file) as reader:
                yield reader.read_all()
