"""Find a source's files, detect their formats, and open them; see `file_readers` for reading their rows."""

from __future__ import annotations

import bz2
import contextlib
import csv
import glob
import gzip
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from harness.errors import UserError
from harness.files import expand_user, sha256_file
from harness.shipped import how_to_install

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = {
    ".csv": "CSV", ".tsv": "TSV", ".jsonl": "JSON Lines", ".ndjson": "JSON Lines", ".json": "JSON Lines",
    ".parquet": "Parquet", ".pq": "Parquet", ".arrow": "Arrow", ".feather": "Arrow", ".ipc": "Arrow",
}  # fmt: skip
DELIMITERS = {"CSV": ",", "TSV": "\t"}
TEXT_FORMATS = frozenset({*DELIMITERS, "JSON Lines"})
PART_ROWS = 5_000
MAX_FIELD_BYTES = 2**24
_OPENERS: dict[str, Callable[..., Any]] = {"": open, ".gz": gzip.open, ".bz2": bz2.open}
_ARCHIVES = frozenset({".zip", ".tar", ".tgz", ".xz", ".zst", ".7z", ".rar", ".gz", ".bz2"})
SUPPORTED = ".csv, .tsv, .jsonl (each also .gz or .bz2), .parquet and .arrow"
# Files without rows: metadata that the `datasets` library writes next to its Arrow files.
_METADATA_FILES = frozenset({"dataset_info.json", "dataset_dict.json", "state.json"})
_BUFFER_BYTES = 4 * 2**20
_NO_SUCH_FILE = "no such file; check the path, which is relative to the working directory"
_NOT_A_FILE = "neither a file nor a folder; write its content to a file, and name that"


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    Attributes:
        format: A value of FORMATS.
        compression: Suffix `.gz` or `.bz2`, or empty for an uncompressed file.
    """

    path: Path
    format: str
    compression: str = ""

    @property
    def is_text(self) -> bool:
        """Return whether the file has a text format, whose rows are located by line number."""
        return self.format in TEXT_FORMATS


def find_files(source: str, where: str) -> list[SourceFile] | None:
    """Return the files of a path, glob or folder, sorted by name; None if the source looks like a hub id.

    Args:
        source: The path, glob, folder or hub id that the study names.
        where: Prefix of error messages.

    Raises:
        UserError: If there is no such file, or if a file's format is not supported.
    """
    require_utf8_name(source, where)
    path = expand_user(source)
    # A file named `reviews [1].csv` is itself, not a pattern.
    if glob.has_magic(source) and not os.path.lexists(path):
        matches = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 - Path.glob takes no absolute pattern
        files = [detect_format(match) or reject_format(match, where) for match in matches if match.is_file()]
        if not files:
            raise UserError(f"{where}: no file matches (supported: {SUPPORTED})")
        return files
    # os.path, because methods of Path raise an OSError for a name that is too long.
    if os.path.isdir(path):  # noqa: PTH112
        visible = sorted(
            p for p in path.iterdir() if p.is_file() and p.name[0] not in "._" and p.name not in _METADATA_FILES
        )
        files = [file for file in map(detect_format, visible) if file is not None]
        if not files:
            raise UserError(f"{where}: the folder contains no supported file ({SUPPORTED})")
        return files
    file = detect_format(path)
    if os.path.isfile(path):  # noqa: PTH113
        return [file or reject_format(path, where)]
    if os.path.exists(path):  # noqa: PTH110
        raise UserError(f"{where}: {_NOT_A_FILE}")
    if file is not None or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise UserError(f"{where}: {_NO_SUCH_FILE}")
    return None


def find_file(path: Path) -> SourceFile:
    """Return one file with its format.

    Raises:
        UserError: If there is no such file, or its format is not supported.
    """
    require_utf8_name(str(path), str(path))
    if os.path.isdir(path):  # noqa: PTH112 - as in find_files
        raise UserError(f"{path}: is a folder; name one file")
    if not os.path.isfile(path):  # noqa: PTH113
        raise UserError(f"{path}: {_NOT_A_FILE if os.path.exists(path) else _NO_SUCH_FILE}")  # noqa: PTH110
    return detect_format(path) or reject_format(path, str(path))


def require_utf8_name(name: str, where: str) -> None:
    """Raise UserError if a name has bytes that are not UTF-8: no record or message could hold it."""
    if any("\ud800" <= sign <= "\udfff" for sign in name):
        raise UserError(f"{where}: the name is not UTF-8; rename the file")


def hash_files(files: Sequence[SourceFile], where: str) -> str:
    """Return the SHA-256 of a single file; for several files, the SHA-256 of their hashes in order.

    Raises:
        UserError: If a file can't be read.
    """
    digests = []
    for file in files:
        try:
            digests.append(sha256_file(file.path))
        except OSError as error:
            raise UserError(f"{where}: {file.path.name} can't be read: {error.strerror}") from None
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def open_arrow(
    file: SourceFile, num_rows: int = PART_ROWS
) -> tuple[Sequence[str], Callable[[Sequence[str]], Iterator[pa.RecordBatch]]]:
    """Open a Parquet or Arrow file.

    Returns:
        The column names, and a function that takes column names and yields record batches. Batches of a Parquet file
        have `num_rows` rows and only these columns; batches of an Arrow file are as written, with all columns.

    Raises:
        UserError: If pyarrow is not installed.
        OSError, ValueError: From pyarrow, if the file is not of the format that its name says.
    """
    try:
        import pyarrow as pa
    except ModuleNotFoundError:
        raise UserError(f"{file.path.name}: reading {file.format} needs pyarrow: {how_to_install('train')}") from None

    if file.format == "Parquet":
        import pyarrow.parquet as pq

        # Buffered reads: otherwise pyarrow loads a row group's whole column, and a row group may be the whole file.
        parquet = pq.ParquetFile(file.path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        names = parquet.schema_arrow.names
        return names, lambda columns: parquet.iter_batches(num_rows, columns=list(columns), use_threads=False)
    mapped = pa.memory_map(str(file.path))
    try:
        opened = pa.ipc.open_file(mapped)
    except pa.ArrowInvalid:
        mapped.seek(0)
        stream = pa.ipc.open_stream(mapped)  # the `datasets` library writes the stream format
        return stream.schema.names, lambda columns: iter(stream)
    return opened.schema.names, lambda columns: map(opened.get_batch, range(opened.num_record_batches))


@contextlib.contextmanager
def open_bytes(file: SourceFile) -> Iterator[IO[bytes]]:
    """Open a file to read its decompressed bytes."""
    with _OPENERS[file.compression](file.path, "rb") as opened:
        yield opened


@contextlib.contextmanager
def open_text(file: SourceFile) -> Iterator[IO[str]]:
    """Open a file to read its decompressed text; non-UTF-8 bytes become surrogates, which `parse_text` rejects."""
    csv.field_size_limit(MAX_FIELD_BYTES)
    with open_bytes(file) as raw, io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="") as text:
        yield text


def detect_format(path: Path) -> SourceFile | None:
    """Detect a file's format by its suffixes; return None if the format is not supported."""
    compression = path.suffix.lower() if path.suffix.lower() in _OPENERS else ""
    suffix = Path(path.stem).suffix.lower() if compression else path.suffix.lower()
    file_format = FORMATS.get(suffix)
    if file_format is None or (compression and file_format not in TEXT_FORMATS):
        return None
    return SourceFile(path, file_format, compression)


def reject_format(path: Path, where: str) -> NoReturn:
    """Raise UserError that a file's format is not supported, with what to do."""
    is_packed = path.suffix.lower() in _ARCHIVES
    fix = f"unpack it; supported: {SUPPORTED}" if is_packed else f"save it in one of the supported: {SUPPORTED}"
    raise UserError(f"{where}: the format of {path.name!r} is not supported; {fix}")
