"""Stream any supported file in windows of rows, with memory use independent of the file size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from harness.dataset.file_formats import DELIMITERS, FORMATS, TEXT_FORMATS, SourceFile, open_arrow
from harness.errors import UserError

TEXT_SEPARATOR = " "  # between the columns of one text
_BLOCK_BYTES = 4 * 2**20  # also the longest row that pyarrow can read
_COMPRESSED_SUFFIXES = (".gz", ".bz2")
_OUTPUT_SUFFIXES = tuple(suffix for suffix, file_format in FORMATS.items() if file_format != "Arrow")
_MAX_SHOWN_COLUMNS = 20


@dataclass(frozen=True)
class TextWindow:
    """Consecutive rows of a file.

    Attributes:
        first_row: Index of the first row in the file, from 0.
        texts: Text of each row; None if it is missing or blank.
        pairs: Second text of each row; None if no pair column was requested.
        carried: The columns to copy to the output, unchanged.
    """

    first_row: int
    texts: list[str | None]
    pairs: list[str] | None
    carried: pa.Table


def file_format_of(path: Path, *, is_input: bool = True) -> str:
    """Return a file's format suffix, such as `.csv` or `.parquet`.

    Args:
        path: The file's path; it need not exist.
        is_input: Whether the file will be read; if so, `.gz` and `.bz2` are allowed after a text format's suffix.

    Raises:
        UserError: If the suffix is not supported.
    """
    suffixes = path.suffixes[-2:] if is_input and path.suffix in _COMPRESSED_SUFFIXES else path.suffixes[-1:]
    suffix = suffixes[0].lower() if suffixes else ""
    supported = tuple(FORMATS) if is_input else _OUTPUT_SUFFIXES
    if suffix not in supported or (FORMATS[suffix] not in TEXT_FORMATS and len(suffixes) > 1):
        allowed = ", ".join(supported)
        if is_input:
            allowed += f"; text files also with {' and '.join(_COMPRESSED_SUFFIXES)}"
        raise UserError(f"{path.name}: its name must end in one of {allowed}")
    return suffix


def read_windows(
    path: Path,
    *,
    text: Sequence[str],
    pair: str | None = None,
    carried: Sequence[str] = (),
    num_rows: int,
    skip: int = 0,
) -> Iterator[TextWindow]:
    """Yield windows of `num_rows` rows; the last one may be shorter.

    Args:
        path: A file of any supported format.
        text: Columns that form the text, joined by `TEXT_SEPARATOR`.
        pair: Column of the second text; None for single-segment data.
        carried: Columns to copy unchanged.
        num_rows: Rows per window.
        skip: Number of rows to leave out at the beginning; later windows still begin at multiples of `num_rows`.

    Raises:
        UserError: If the file or a column doesn't exist, a row is broken, or a text column contains no text.
    """
    columns = list(dict.fromkeys([*text, *([pair] if pair else []), *carried]))
    end = 0
    with _convert_arrow_errors(path):
        for table in _regroup(_read_batches(path, columns, num_rows), num_rows):
            begin, end = end, end + table.num_rows
            if end <= skip:
                continue
            rest = table.slice(max(0, skip - begin))
            yield TextWindow(
                first_row=end - rest.num_rows,
                texts=_join_columns(rest, text),
                pairs=None if pair is None else [value or "" for value in _strings(rest, pair)],
                carried=rest.select(list(carried)),
            )


@contextlib.contextmanager
def _convert_arrow_errors(path: Path) -> Iterator[None]:
    """Convert any error of reading the file to a UserError."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read: {' '.join(str(error).split())[:400]}") from None


def _read_batches(path: Path, columns: list[str], num_rows: int) -> Iterator[pa.RecordBatch]:
    suffix = file_format_of(path)
    file_format = FORMATS[suffix]
    if file_format in DELIMITERS:
        return _read_csv(path, DELIMITERS[file_format], columns)
    return (
        _read_json(path, columns) if file_format in TEXT_FORMATS else _read_binary(path, file_format, columns, num_rows)
    )


def _read_csv(path: Path, delimiter: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    parse = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    read = pa.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False)
    with pa.input_stream(str(path), compression="detect") as first_block:
        header = pa.csv.open_csv(first_block, read_options=read, parse_options=parse).schema.names
    _require_columns(path, columns, header)
    convert = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(columns, pa.string()), include_columns=columns, strings_can_be_null=False
    )
    with pa.input_stream(str(path), compression="detect") as stream:
        yield from pa.csv.open_csv(stream, read_options=read, parse_options=parse, convert_options=convert)


def _read_json(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    read = pa.json.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False)
    with pa.input_stream(str(path), compression="detect") as first_block:
        inferred = pa.json.open_json(first_block, read_options=read).schema
    _require_columns(path, columns, inferred.names)
    # Take the types of `columns` from the first block, and ignore all other columns.
    schema = pa.schema([(column, _text_if_null(inferred.field(column).type)) for column in columns])
    parse = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    with pa.input_stream(str(path), compression="detect") as stream:
        yield from pa.json.open_json(stream, read_options=read, parse_options=parse)


def _text_if_null(column_type: pa.DataType) -> pa.DataType:
    """Treat a column as text if all its values in the first block are null."""
    return pa.string() if pa.types.is_null(column_type) else column_type


def _read_binary(path: Path, file_format: str, columns: list[str], num_rows: int) -> Iterator[pa.RecordBatch]:
    """Read a Parquet or Arrow file.

    Args:
        path: The file.
        file_format: `Parquet` or `Arrow`.
        columns: Columns to read.
        num_rows: Rows per batch of a Parquet file.
    """
    available, read_columns = open_arrow(SourceFile(path, file_format), num_rows)
    _require_columns(path, columns, available)
    for batch in read_columns(columns):
        yield batch.select(columns)


def _require_columns(path: Path, columns: Sequence[str], available: Sequence[str]) -> None:
    if missing := [column for column in columns if column not in available]:
        shown = ", ".join(map(repr, available[:_MAX_SHOWN_COLUMNS]))
        shown += ", ..." if len(available) > _MAX_SHOWN_COLUMNS else ""
        raise UserError(
            f"{path.name}: no column {' and no column '.join(map(repr, missing))}; its columns: {shown} (--text names "
            "the text column)"
        )


def _regroup(batches: Iterator[pa.RecordBatch], num_rows: int) -> Iterator[pa.Table]:
    """Regroup batches of any size into tables of `num_rows` rows, so that a resumed run gets the same windows."""
    pending: list[pa.RecordBatch] = []
    num_pending = 0
    for batch in batches:
        pending.append(batch)
        num_pending += batch.num_rows
        while num_pending >= num_rows:
            table = pa.Table.from_batches(pending)
            yield table.slice(0, num_rows)
            pending, num_pending = table.slice(num_rows).to_batches(), num_pending - num_rows
    if num_pending:
        yield pa.Table.from_batches(pending)


def _join_columns(table: pa.Table, columns: Sequence[str]) -> list[str | None]:
    parts = [_strings(table, column) for column in columns]
    rows = (TEXT_SEPARATOR.join(part for part in row if part) for row in zip(*parts, strict=True))
    return [row if row.strip() else None for row in rows]


def _strings(table: pa.Table, column: str) -> list[str | None]:
    values = table.column(column)
    value_type = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if not (pa.types.is_string(value_type) or pa.types.is_large_string(value_type)):
        raise UserError(f"column {column!r} holds {value_type}, not text")
    strings: list[str | None] = pc.cast(values, pa.string()).to_pylist()
    return strings
