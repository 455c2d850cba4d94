"""Any file of texts as a stream of windows of rows, in memory that does not grow with the file (pyarrow, no torch)."""

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

# Between several columns of one text.
JOINT = " "
_BLOCK_BYTES = 4 * 2**20  # no row may be longer
_PACKED = (".gz", ".bz2")
_WRITTEN = tuple(kind for kind, format_ in FORMATS.items() if format_ != "Arrow")
_SHOWN_COLUMNS = 20


@dataclass(frozen=True)
class TextWindow:
    """Some rows that follow each other.

    Attributes:
        first_row: Of the file, from 0.
        texts: None where a row has none, or nothing but blanks.
        pairs: Second texts; None where none are asked for.
        carried: The columns to be copied, as they were read.
    """

    first_row: int
    texts: list[str | None]
    pairs: list[str] | None
    carried: pa.Table


def file_format_of(path: Path, *, is_read: bool = True) -> str:
    """A file's kind, as its name ends: `.csv`, `.parquet`, ...

    Args:
        path: Of any file.
        is_read: Whether the file is there to be read: of any kind, and `.gz` or `.bz2` may follow.

    Raises:
        UserError: When it is none of those.
    """
    ends = path.suffixes[-2:] if is_read and path.suffix in _PACKED else path.suffixes[-1:]
    kind = ends[0].lower() if ends else ""
    kinds = tuple(FORMATS) if is_read else _WRITTEN
    if kind not in kinds or (FORMATS[kind] not in TEXT_FORMATS and len(ends) > 1):
        allowed = ", ".join(kinds) + (f"; text files also as {' and '.join(_PACKED)}" if is_read else "")
        raise UserError(f"{path.name}: its name must end as one of {allowed}")
    return kind


def read_windows(
    path: Path,
    *,
    text: Sequence[str],
    pair: str | None = None,
    carried: Sequence[str] = (),
    num_rows: int,
    skip: int = 0,
) -> Iterator[TextWindow]:
    """Read windows of `num_rows` rows (the last may be shorter), leaving out the first `skip` rows.

    Raises:
        UserError: When there is no such file or column, a row is broken, or a column holds no text.
    """
    columns = list(dict.fromkeys([*text, *([pair] if pair else []), *carried]))
    first_row = 0
    with _told_for(path):
        for table in _regrouped(_batches(path, columns, num_rows), num_rows):
            begin, first_row = first_row, first_row + table.num_rows
            if first_row <= skip:
                continue
            kept = table.slice(max(0, skip - begin))
            yield TextWindow(
                first_row=begin + table.num_rows - kept.num_rows,
                texts=_joined(kept, text),
                pairs=None if pair is None else [one or "" for one in _strings(kept, pair)],
                carried=kept.select(list(carried)),
            )


@contextlib.contextmanager
def _told_for(path: Path) -> Iterator[None]:
    """Pyarrow's complaints as a user's mistake."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read: {' '.join(str(error).split())[:400]}") from None


def _batches(path: Path, columns: list[str], num_rows: int) -> Iterator[pa.RecordBatch]:
    kind = file_format_of(path)
    if FORMATS[kind] in DELIMITERS:
        return _read_csv(path, DELIMITERS[FORMATS[kind]], columns)
    return (
        _read_binary(path, kind, columns, num_rows) if FORMATS[kind] not in TEXT_FORMATS else _read_json(path, columns)
    )


def _read_csv(path: Path, separator: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    parse = pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    read = pa.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False)
    with pa.input_stream(str(path), compression="detect") as names:
        header = pa.csv.open_csv(names, read_options=read, parse_options=parse).schema.names
    _require(path, columns, header)
    convert = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(columns, pa.string()), include_columns=columns, strings_can_be_null=False
    )
    with pa.input_stream(str(path), compression="detect") as stream:
        yield from pa.csv.open_csv(stream, read_options=read, parse_options=parse, convert_options=convert)


def _read_json(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    read = pa.json.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False)
    with pa.input_stream(str(path), compression="detect") as first_block:
        found = pa.json.open_json(first_block, read_options=read).schema
    _require(path, columns, found.names)
    # Types are the first block's, and what a later one has beside these columns is left out.
    schema = pa.schema([(column, _as_text(found.field(column).type)) for column in columns])
    parse = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    with pa.input_stream(str(path), compression="detect") as stream:
        yield from pa.json.open_json(stream, read_options=read, parse_options=parse)


def _as_text(found: pa.DataType) -> pa.DataType:
    """A column of which the first block held nothing is taken for texts."""
    return pa.string() if pa.types.is_null(found) else found


def _read_binary(path: Path, kind: str, columns: list[str], num_rows: int) -> Iterator[pa.RecordBatch]:
    found, batches = open_arrow(SourceFile(path, FORMATS[kind]), num_rows)
    _require(path, columns, found)
    for batch in batches(columns):
        yield batch.select(columns)


def _require(path: Path, columns: Sequence[str], found: Sequence[str]) -> None:
    if missing := [column for column in columns if column not in found]:
        shown = ", ".join(map(repr, found[:_SHOWN_COLUMNS])) + (", ..." if len(found) > _SHOWN_COLUMNS else "")
        raise UserError(
            f"{path.name}: no column {' and none '.join(map(repr, missing))}; its columns: {shown} (--text names the text's)"
        )


def _regrouped(batches: Iterator[pa.RecordBatch], num_rows: int) -> Iterator[pa.Table]:
    """Batches of whatever size as tables of `num_rows` rows: a window is the same rows however often one stops."""
    held: list[pa.RecordBatch] = []
    num_held = 0
    for batch in batches:
        held.append(batch)
        num_held += batch.num_rows
        while num_held >= num_rows:
            table = pa.Table.from_batches(held)
            yield table.slice(0, num_rows)
            held, num_held = table.slice(num_rows).to_batches(), num_held - num_rows
    if num_held:
        yield pa.Table.from_batches(held)


def _joined(table: pa.Table, columns: Sequence[str]) -> list[str | None]:
    parts = [_strings(table, column) for column in columns]
    rows = (JOINT.join(part for part in row if part) for row in zip(*parts, strict=True))
    return [row if row.strip() else None for row in rows]


def _strings(table: pa.Table, column: str) -> list[str | None]:
    found = table.column(column)
    value_type = found.type.value_type if pa.types.is_dictionary(found.type) else found.type
    if not (pa.types.is_string(value_type) or pa.types.is_large_string(value_type)):
        raise UserError(f"column {column!r} holds {value_type}, not text")
    strings: list[str | None] = pc.cast(found, pa.string()).to_pylist()
    return strings
