"""The files that a source names, and their rows, in parts of a few thousand, whatever their format.

Text formats are read by the standard library: pandas' and pyarrow's readers are faster, but stop at the first value
that is not UTF-8, and pyarrow's at the first broken line of JSON, without telling its line. Reading is a small part of
what tokenising takes.
"""

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from harness.dataset.row_checks import BROKEN, ENCODING, RejectedRow
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
_COMPRESSED = {".gz": gzip.open, ".bz2": bz2.open}
_KNOWN = ".csv, .tsv, .jsonl (each also .gz or .bz2), .parquet and .arrow"
# How files begin whose names often say something else.
_SIGNS = {
    b"PAR1": "Parquet", b"ARROW1": "Arrow", b"\x1f\x8b": "compressed by gzip", b"BZh": "compressed by bzip2",
    b"PK\x03\x04": "a zip or Excel file", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
}  # fmt: skip
# What `datasets` lays beside its Arrow files.
_NO_ROWS = frozenset({"dataset_info.json", "dataset_dict.json", "state.json"})
PART_ROWS = 5_000
_BUFFER_BYTES = 4 * 2**20
_MOST_FIELD_BYTES = 2**24


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    Attributes:
        format: A value of FORMATS.
        compression: `.gz`, `.bz2` or empty.
    """

    path: Path
    format: str
    compression: str = ""

    @property
    def is_text(self) -> bool:
        """Whether its rows are told by lines."""
        return self.format in TEXT_FORMATS


@dataclass
class FilePart:
    """Some rows of a file, in its order.

    Attributes:
        columns: Values as the format has them, of each wanted column.
        places: Each row's first line in a text file, else its number; from 1.
        broken: Rows between them that could not be parted into columns.
        is_typed: False where the format has texts alone, whatever they stand for.
    """

    columns: dict[str, list[Any]]
    row_numbers: list[int] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)
    is_typed: bool = True

    @property
    def is_full(self) -> bool:
        """Whether the next rows are another part's."""
        return len(self.row_numbers) + len(self.rejected) >= PART_ROWS


def find_files(source: str, where: str) -> list[SourceFile] | None:
    """The files that a source names, sorted by name: one, a glob's or a folder's; None for what is no path but a hub id.

    Raises:
        UserError: When they are not there, or of no known format.
    """
    path = Path(source).expanduser()
    if glob.has_magic(source):
        found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 - a path of its own
        files = [_source_file(path) or _unknown(path, where) for path in found if path.is_file()]
        if not files:
            raise UserError(f"{where}: no file matches ({_KNOWN} are read)")
        return files
    if path.is_dir():
        shown = sorted(p for p in path.iterdir() if p.is_file() and p.name[0] not in "._" and p.name not in _NO_ROWS)
        files = [file for file in map(_source_file, shown) if file is not None]
        if not files:
            raise UserError(f"{where}: the folder itself holds no file that can be read ({_KNOWN} are)")
        return files
    file = _source_file(path)
    if path.is_file():
        return [file or _unknown(path, where)]
    if file is not None or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise UserError(f"{where}: no such file")
    return None


def hash_files(files: Sequence[SourceFile], where: str) -> str:
    """SHA-256 of a file; of several, over their own hashes in order.

    Raises:
        UserError: When one can't be read.
    """
    digests = []
    for file in files:
        try:
            digests.append(sha256_file(file.path))
        except OSError as error:
            raise UserError(f"{where}: {file.path.name} can't be read: {error.strerror}") from None
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def read_column_names(file: SourceFile, where: str) -> list[str]:
    """A file's columns, in its order; of JSON Lines those of its first row.

    Raises:
        UserError: When it can't be read, or is empty.
    """
    with _reading(file, where):
        if file.format == "JSON Lines":
            with _open_bytes(file) as lines:
                row: object = next((json.loads(line) for line in lines if line.strip()), {})
                return list(row) if isinstance(row, dict) else []
        if file.is_text:
            with _open_text(file) as text:
                return next(csv.reader(text, delimiter=DELIMITERS[file.format]), [])
        return list(open_arrow(file)[0])


def read_parts(file: SourceFile, columns: Sequence[str], where: str) -> Iterator[FilePart]:
    """Read the wanted columns of a file, a part at a time.

    Raises:
        UserError: When it is not what its name says, has not these columns, is empty, or changes meanwhile.
    """
    before = _state(file.path)
    with _reading(file, where):
        _check_sign(file, where)
        if file.format == "JSON Lines":
            yield from _read_lines(file, columns, where)
        elif file.is_text:
            yield from _read_table(file, columns, where)
        else:
            yield from _read_arrow(file, columns, where)
    if _state(file.path) != before:
        raise UserError(f"{where}: the file changed while it was read; run again when it is whole")


def open_arrow(
    file: SourceFile, num_rows: int = PART_ROWS
) -> tuple[Sequence[str], Callable[[Sequence[str]], Iterator[Any]]]:
    """The columns of a Parquet or Arrow file, and a function from wanted ones to its record batches.

    Those of Parquet have `num_rows` rows, those of Arrow as many as they were written with, and columns that were not asked for.

    Raises:
        UserError: Without pyarrow.
        OSError, ValueError: As pyarrow raises them, of a file that is not what its name says.
    """
    try:
        import pyarrow as pa
    except ModuleNotFoundError:
        raise UserError(f"{file.path.name}: to read {file.format}, pyarrow is needed: pip install '.[train]'") from None

    if file.format == "Parquet":
        import pyarrow.parquet as pq

        # Buffered: else a row group's column is held whole, and a group may be the file.
        parquet = pq.ParquetFile(file.path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        names = parquet.schema_arrow.names
        return names, lambda columns: parquet.iter_batches(num_rows, columns=list(columns), use_threads=False)
    source = pa.memory_map(str(file.path))
    try:
        opened = pa.ipc.open_file(source)
    except pa.ArrowInvalid:
        source.seek(0)
        stream = pa.ipc.open_stream(source)  # as `datasets` writes them
        return stream.schema.names, lambda columns: iter(stream)
    return opened.schema.names, lambda columns: map(opened.get_batch, range(opened.num_record_batches))


def _source_file(path: Path) -> SourceFile | None:
    compression = path.suffix.lower() if path.suffix.lower() in _COMPRESSED else ""
    suffix = Path(path.stem).suffix.lower() if compression else path.suffix.lower()
    kind = FORMATS.get(suffix)
    if kind is None or (compression and kind not in TEXT_FORMATS):
        return None
    return SourceFile(path, kind, compression)


def _unknown(path: Path, where: str) -> NoReturn:
    raise UserError(f"{where}: {path.name!r} is of no known format; {_KNOWN} are read")


def _state(path: Path) -> tuple[int, int, int]:
    seen = path.stat()
    return seen.st_ino, seen.st_size, seen.st_mtime_ns


@contextlib.contextmanager
def _reading(file: SourceFile, where: str) -> Iterator[None]:
    """Say of a file that can't be read why, in one line."""
    named = f"{file.format}{f' compressed as {file.compression}' if file.compression else ''}"
    try:
        yield
    except EOFError:
        raise UserError(f"{where}: the file ends too early: it is cut off, or no {named}") from None
    except csv.Error as error:
        raise UserError(
            f"{where}: a field is longer than {_MOST_FIELD_BYTES >> 20} MiB; is a quotation mark never closed? ({error})"
        ) from None
    except (OSError, ValueError, NotImplementedError, zlib.error) as error:  # pyarrow raises subclasses of these
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{where}: can't be read as {named}: {reason}") from None


def _check_sign(file: SourceFile, where: str) -> None:
    """Refuse a text file that begins as another format does, whose bytes would else be taken for text."""
    if not file.is_text:
        return
    with _open_bytes(file) as opened:
        head = opened.read(8)
    if not head:
        raise UserError(f"{where}: the file is empty")
    if file.format == "JSON Lines" and head.lstrip().startswith(b"["):
        raise UserError(f"{where}: the file is one JSON array, no JSON Lines; write one object a line")
    for sign, kind in _SIGNS.items():
        if head.startswith(sign):
            mend = "save it as UTF-8" if kind == "UTF-16" else "give it the name of what it is"
            raise UserError(f"{where}: the file is {kind}, not {file.format} in UTF-8 as its name says; {mend}")


@contextlib.contextmanager
def _open_bytes(file: SourceFile) -> Iterator[IO[bytes]]:
    opener: Any = _COMPRESSED.get(file.compression, open)
    with opener(file.path, "rb") as opened:
        yield opened


@contextlib.contextmanager
def _open_text(file: SourceFile) -> Iterator[IO[str]]:
    csv.field_size_limit(_MOST_FIELD_BYTES)
    # Bytes that are no UTF-8 become surrogates, by which their rows are found.
    with _open_bytes(file) as raw, io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="") as text:
        yield text


def _check_columns(found: Sequence[str], wanted: Sequence[str], where: str) -> None:
    missing = [column for column in wanted if column not in found]
    if missing:
        raise UserError(
            f"{where}: no column {' and none '.join(map(repr, missing))}; its columns: {', '.join(map(repr, found))} "
            "(set data.text and data.label)"
        )
    twice = [column for column in wanted if list(found).count(column) > 1]
    if twice:
        raise UserError(f"{where}: several columns are named {twice[0]!r}; rename one")


class _Lines:
    """Lines on their way to the reader of a table, with a count of what shows a quotation mark that is never closed."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self.num_quotes = iter(lines), 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.num_quotes += line.count('"')
        return line


def _read_table(file: SourceFile, columns: Sequence[str], where: str) -> Iterator[FilePart]:
    with _open_text(file) as text:
        lines = _Lines(text)
        reader = csv.reader(lines, delimiter=DELIMITERS[file.format])
        header = next(reader, [])
        _check_columns(header, columns, where)
        at = {column: header.index(column) for column in columns}
        part, place, unclosed = FilePart({column: [] for column in columns}, is_typed=False), reader.line_num, 0
        lines.num_quotes = 0
        for fields in reader:
            begun, place = place + 1, reader.line_num
            unclosed = begun if place > begun and lines.num_quotes % 2 else 0
            lines.num_quotes = 0
            if not fields:
                continue  # an empty line
            if len(fields) != len(header):
                part.rejected.append(RejectedRow(begun, BROKEN, f"{len(fields)} fields instead of {len(header)}"))
            else:
                part.row_numbers.append(begun)
                for column, index in at.items():
                    part.columns[column].append(fields[index])
            if part.is_full:
                yield part
                part = FilePart({column: [] for column in columns}, is_typed=False)
        if unclosed:  # the last row took the rest of the file for its own
            raise UserError(f"{where}: a quotation mark in line {unclosed} or one after it is never closed")
        yield part


def _read_lines(file: SourceFile, columns: Sequence[str], where: str) -> Iterator[FilePart]:
    seen: dict[str, None] = {}
    part, num_rows = FilePart({column: [] for column in columns}), 0
    with _open_bytes(file) as lines:
        for place, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            row = _parse_line(line, place)
            if isinstance(row, RejectedRow):
                part.rejected.append(row)
            else:
                num_rows += 1
                seen.update(dict.fromkeys(row))
                part.row_numbers.append(place)
                for column, values in part.columns.items():
                    values.append(row.get(column))
            if part.is_full:
                yield part
                part = FilePart({column: [] for column in columns})
    if not num_rows:
        first = (
            f" (line {part.rejected[0].place}: {part.rejected[0].detail or part.rejected[0].kind})"
            if part.rejected
            else ""
        )
        raise UserError(f"{where}: no line is a JSON object: this is no JSON Lines{first}; write one object a line")
    _check_columns(list(seen), columns, where)
    yield part


def _parse_line(line: bytes, place: int) -> dict[str, Any] | RejectedRow:
    try:
        row = json.loads(line.decode("utf-8-sig" if place == 1 else "utf-8"))
    except UnicodeDecodeError:
        return RejectedRow(place, ENCODING, "the line is not UTF-8")
    except (ValueError, RecursionError):
        return RejectedRow(place, BROKEN, "no JSON")
    return row if isinstance(row, dict) else RejectedRow(place, BROKEN, "JSON, but no object")


def _read_arrow(file: SourceFile, columns: Sequence[str], where: str) -> Iterator[FilePart]:
    if not file.path.stat().st_size:
        raise UserError(f"{where}: the file is empty")
    found, batches = open_arrow(file)
    _check_columns(found, columns, where)
    begin = 1
    for batch in batches(columns):
        for at in range(0, batch.num_rows, PART_ROWS):
            rows = batch.slice(at, PART_ROWS)
            values = {column: _values(rows.column(column)) for column in columns}
            yield FilePart(values, list(range(begin, begin + rows.num_rows)))
            begin += rows.num_rows


def _values(column: pa.Array) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        import pyarrow as pa

        values = column.cast(pa.large_binary()).to_pylist()
    return values
