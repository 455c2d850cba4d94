"""Find a source's files, detect their formats, and open them; see `file_readers` for reading their rows."""

from __future__ import annotations

import bz2
import contextlib
import csv
import glob
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from harness.errors import UserError
from harness.files import sha256_file

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
_SUPPORTED = ".csv, .tsv, .jsonl (each also .gz or .bz2), .parquet and .arrow"
# First bytes of the formats that files often have despite a text format's suffix.
_MAGIC_BYTES = {
    b"PAR1": "Parquet", b"ARROW1": "Arrow", b"\x1f\x8b": "compressed by gzip", b"BZh": "compressed by bzip2",
    b"PK\x03\x04": "a zip or Excel file", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
}  # fmt: skip
# Files without rows: metadata that the `datasets` library writes next to its Arrow files.
_METADATA_FILES = frozenset({"dataset_info.json", "dataset_dict.json", "state.json"})
_BUFFER_BYTES = 4 * 2**20


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
    path = Path(source).expanduser()
    if glob.has_magic(source):
        matches = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 - Path.glob takes no absolute pattern
        files = [_source_file(match) or _reject_format(match, where) for match in matches if match.is_file()]
        if not files:
            raise UserError(f"{where}: no file matches (supported: {_SUPPORTED})")
        return files
    if path.is_dir():
        visible = sorted(
            p for p in path.iterdir() if p.is_file() and p.name[0] not in "._" and p.name not in _METADATA_FILES
        )
        files = [file for file in map(_source_file, visible) if file is not None]
        if not files:
            raise UserError(f"{where}: the folder contains no supported file ({_SUPPORTED})")
        return files
    file = _source_file(path)
    if path.is_file():
        return [file or _reject_format(path, where)]
    if file is not None or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise UserError(f"{where}: no such file")
    return None


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


def read_column_names(file: SourceFile, where: str) -> list[str]:
    """Return a file's column names in order; for JSON Lines, the keys of the first row.

    Raises:
        UserError: If the file can't be read, or is empty.
    """
    with convert_read_errors(file, where):
        if file.format == "JSON Lines":
            with open_bytes(file) as lines:
                row: object = next((json.loads(line) for line in lines if line.strip()), {})
                return list(row) if isinstance(row, dict) else []
        if file.is_text:
            with open_text(file) as text:
                return next(csv.reader(text, delimiter=DELIMITERS[file.format]), [])
        return list(open_arrow(file)[0])


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
        raise UserError(f"{file.path.name}: reading {file.format} needs pyarrow: pip install '.[train]'") from None

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


@contextlib.contextmanager
def convert_read_errors(file: SourceFile, where: str) -> Iterator[None]:
    """Convert any error of reading the file to a UserError of one line."""
    format_name = f"{file.format}{f' compressed as {file.compression}' if file.compression else ''}"
    try:
        yield
    except EOFError:
        raise UserError(f"{where}: the file ends too early: it is truncated, or not {format_name}") from None
    except csv.Error as error:
        raise UserError(
            f"{where}: a field is longer than {MAX_FIELD_BYTES >> 20} MiB; is a quotation mark never closed? ({error})"
        ) from None
    except (OSError, ValueError, NotImplementedError, zlib.error) as error:  # these include pyarrow's own exceptions
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{where}: can't be read as {format_name}: {reason}") from None


def check_magic_bytes(file: SourceFile, where: str) -> None:
    """Reject a text file whose first bytes are those of another format, which would otherwise be read as text.

    Raises:
        UserError: If the file is of another format, or empty.
    """
    if not file.is_text:
        return
    with open_bytes(file) as opened:
        head = opened.read(8)
    if not head:
        raise UserError(f"{where}: the file is empty")
    if file.format == "JSON Lines" and head.lstrip().startswith(b"["):
        raise UserError(f"{where}: the file is one JSON array, not JSON Lines; write one object per line")
    for magic, actual in _MAGIC_BYTES.items():
        if head.startswith(magic):
            fix = "save it as UTF-8" if actual == "UTF-16" else "rename it with the suffix of its format"
            raise UserError(f"{where}: the file is {actual}, not {file.format} in UTF-8 as its name says; {fix}")


def _source_file(path: Path) -> SourceFile | None:
    """Detect a file's format by its suffixes; return None if the format is not supported."""
    compression = path.suffix.lower() if path.suffix.lower() in _OPENERS else ""
    suffix = Path(path.stem).suffix.lower() if compression else path.suffix.lower()
    file_format = FORMATS.get(suffix)
    if file_format is None or (compression and file_format not in TEXT_FORMATS):
        return None
    return SourceFile(path, file_format, compression)


def _reject_format(path: Path, where: str) -> NoReturn:
    raise UserError(f"{where}: the format of {path.name!r} is not supported; supported: {_SUPPORTED}")
