"""Read the rows of a file in parts of a few thousand, whatever its format.

Text formats are read with the standard library: the readers of pandas and pyarrow are faster, but stop at the first
value that is not UTF-8, and pyarrow's reader stops at the first broken JSON line without giving its number. Their speed
would save little, since reading takes a small part of the time of tokenising.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.dataset.file_formats import (
    DELIMITERS,
    PART_ROWS,
    SourceFile,
    check_magic_bytes,
    convert_read_errors,
    open_arrow,
    open_bytes,
    open_text,
)
from harness.dataset.row_checks import BROKEN, ENCODING, RejectedRow
from harness.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class FilePart:
    """Some rows of a file, in file order.

    Attributes:
        columns: Raw values of each wanted column.
        row_numbers: In a text file, the first line of each row; otherwise the number of each row. Both count from 1.
        rejected: Rows of this part that could not be split into columns.
        is_typed: False for CSV and TSV, where every value is a string.
    """

    columns: dict[str, list[object]]
    row_numbers: list[int] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)
    is_typed: bool = True

    @property
    def is_full(self) -> bool:
        """Return whether the part is full, so that the next row belongs to a new part."""
        return len(self.row_numbers) + len(self.rejected) >= PART_ROWS


def read_parts(file: SourceFile, columns: Sequence[str], where: str) -> Iterator[FilePart]:
    """Yield the wanted columns of a file in parts of at most `PART_ROWS` rows.

    Raises:
        UserError: If the file is not in the format of its name, lacks a column, is empty, or changes while it is read.
    """
    before = _file_version(file.path)
    with convert_read_errors(file, where):
        check_magic_bytes(file, where)
        if file.format == "JSON Lines":
            yield from _read_json_lines(file, columns, where)
        elif file.is_text:
            yield from _read_csv(file, columns, where)
        else:
            yield from _read_arrow(file, columns, where)
    if _file_version(file.path) != before:
        raise UserError(f"{where}: the file changed while it was read; run again when it is complete")


def _file_version(path: Path) -> tuple[int, int, int]:
    """Return inode, size and modification time, which change when the file does."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _check_columns(available: Sequence[str], wanted: Sequence[str], where: str) -> None:
    missing = [column for column in wanted if column not in available]
    if missing:
        raise UserError(
            f"{where}: no column {' and no column '.join(map(repr, missing))}; its columns: "
            f"{', '.join(map(repr, available))} (set data.text and data.label)"
        )
    repeated = [column for column in wanted if list(available).count(column) > 1]
    if repeated:
        raise UserError(f"{where}: several columns are named {repeated[0]!r}; rename one")


class _QuoteCounter:
    """Iterator over lines that counts quotation marks; an odd count at a row's end means that one was never closed."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self.num_quotes = iter(lines), 0

    def __iter__(self) -> _QuoteCounter:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.num_quotes += line.count('"')
        return line


def _read_csv(file: SourceFile, columns: Sequence[str], where: str) -> Iterator[FilePart]:
    with open_text(file) as text:
        lines = _QuoteCounter(text)
        reader = csv.reader(lines, delimiter=DELIMITERS[file.format])
        header = next(reader, [])
        _check_columns(header, columns, where)
        positions = {column: header.index(column) for column in columns}
        part, last_line, unclosed_line = (
            FilePart({column: [] for column in columns}, is_typed=False),
            reader.line_num,
            0,
        )
        lines.num_quotes = 0
        for fields in reader:
            first_line, last_line = last_line + 1, reader.line_num
            unclosed_line = first_line if last_line > first_line and lines.num_quotes % 2 else 0
            lines.num_quotes = 0
            if not fields:
                continue  # an empty line
            if len(fields) != len(header):
                detail = f"{len(fields)} fields instead of {len(header)}"
                part.rejected.append(RejectedRow(first_line, BROKEN, detail))
            else:
                part.row_numbers.append(first_line)
                for column, position in positions.items():
                    part.columns[column].append(fields[position])
            if part.is_full:
                yield part
                part = FilePart({column: [] for column in columns}, is_typed=False)
        if unclosed_line:  # the last row swallowed the rest of the file
            raise UserError(f"{where}: a quotation mark in line {unclosed_line} or after it is never closed")
        yield part


def _read_json_lines(file: SourceFile, columns: Sequence[str], where: str) -> Iterator[FilePart]:
    keys: dict[str, None] = {}  # in order of first appearance
    part, num_rows = FilePart({column: [] for column in columns}), 0
    with open_bytes(file) as lines:
        for line_number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            row = _parse_json_line(line, line_number)
            if isinstance(row, RejectedRow):
                part.rejected.append(row)
            else:
                num_rows += 1
                keys.update(dict.fromkeys(row))
                part.row_numbers.append(line_number)
                for column, values in part.columns.items():
                    values.append(row.get(column))
            if part.is_full:
                yield part
                part = FilePart({column: [] for column in columns})
    if not num_rows:
        first = part.rejected[0] if part.rejected else None
        example = f" (line {first.row_number}: {first.detail or first.kind})" if first else ""
        raise UserError(f"{where}: not JSON Lines: no line is a JSON object{example}; write one object per line")
    _check_columns(list(keys), columns, where)
    yield part


def _parse_json_line(line: bytes, line_number: int) -> dict[str, object] | RejectedRow:
    try:
        row = json.loads(line.decode("utf-8-sig" if line_number == 1 else "utf-8"))
    except UnicodeDecodeError:
        return RejectedRow(line_number, ENCODING, "the line is not UTF-8")
    except (ValueError, RecursionError):
        return RejectedRow(line_number, BROKEN, "not JSON")
    return row if isinstance(row, dict) else RejectedRow(line_number, BROKEN, "not a JSON object")


def _read_arrow(file: SourceFile, columns: Sequence[str], where: str) -> Iterator[FilePart]:
    if not file.path.stat().st_size:
        raise UserError(f"{where}: the file is empty")
    available, read_batches = open_arrow(file)
    _check_columns(available, columns, where)
    first_row = 1
    for batch in read_batches(columns):
        for start in range(0, batch.num_rows, PART_ROWS):
            rows = batch.slice(start, PART_ROWS)
            values = {column: _to_list(rows.column(column)) for column in columns}
            yield FilePart(values, list(range(first_row, first_row + rows.num_rows)))
            first_row += rows.num_rows


def _to_list(column: pa.Array) -> list[object]:
    """Convert a column to Python values; non-UTF-8 strings become bytes, which `parse_text` rejects one by one."""
    try:
        values: list[object] = column.to_pylist()
    except UnicodeDecodeError:
        import pyarrow as pa

        values = column.cast(pa.large_binary()).to_pylist()
    return values
