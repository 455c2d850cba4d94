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
from typing import IO, TYPE_CHECKING

from harness.dataset.file_damage import check_content, convert_read_errors
from harness.dataset.file_formats import (
    DELIMITERS,
    MAX_FIELD_BYTES,
    PART_ROWS,
    SourceFile,
    open_arrow,
    open_bytes,
    open_text,
)
from harness.dataset.row_checks import BROKEN, ENCODING, RejectedRow
from harness.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


_MAX_SHOWN_COLUMNS = 20
_DELIMITER_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


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
        check_content(file, where)
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


def read_column_names(file: SourceFile, where: str) -> list[str]:
    """Return a file's column names in order; for JSON Lines, the keys of the first row.

    Raises:
        UserError: If the file can't be read, or is empty.
    """
    with convert_read_errors(file, where):
        check_content(file, where)
        if file.format == "JSON Lines":
            with open_bytes(file) as content:
                rejected: list[RejectedRow] = []
                for number, line in enumerate(_bounded_lines(content, where), start=1):
                    row = _parse_json_line(line, number) if line.strip() else None
                    if isinstance(row, dict):
                        return list(row)
                    if row is not None and not rejected:
                        rejected.append(row)
            raise _not_json_lines(rejected, where)
        if file.is_text:
            with open_text(file) as text:
                return _read_header(csv.reader(text, delimiter=DELIMITERS[file.format]))
        return list(open_arrow(file)[0])


def check_columns(file: SourceFile, available: Sequence[str], wanted: Sequence[str], where: str) -> None:
    """Raise UserError if a wanted column is missing or comes twice; the message says what the file's columns may mean."""
    missing = [column for column in wanted if column not in available]
    if missing:
        shown = ", ".join(map(repr, available[:_MAX_SHOWN_COLUMNS]))
        shown += f" and {len(available) - _MAX_SHOWN_COLUMNS:,} more" if len(available) > _MAX_SHOWN_COLUMNS else ""
        raise UserError(
            f"{where}: no column {' and no column '.join(map(repr, missing))}; its columns: {shown or 'none'}; "
            f"{_how_to_name(file, available)}"
        )
    repeated = [column for column in wanted if list(available).count(column) > 1]
    if repeated:
        raise UserError(f"{where}: several columns are named {repeated[0]!r}; rename one")


def is_utf8(text: str) -> bool:
    """Return False if a text has surrogates, which stand for bytes that are not UTF-8."""
    return not any("\ud800" <= sign <= "\udfff" for sign in text)


def _how_to_name(file: SourceFile, available: Sequence[str]) -> str:
    name = "name them with data.text and data.label (--text, --label)"
    is_delimited = file.format in DELIMITERS
    return suspect_columns(file, available) or (
        f"{name}; its first line must name the columns" if is_delimited else name
    )


def suspect_columns(file: SourceFile, available: Sequence[str]) -> str | None:
    """Return what is wrong with the whole file, by the look of its column names, and what to do; None if nothing seems so."""
    delimiter = DELIMITERS.get(file.format)
    if not all(map(is_utf8, available)):
        return "its first line is not UTF-8: save it as UTF-8"
    if delimiter and len(available) == 1:
        others = [sign for sign in _DELIMITER_NAMES if sign != delimiter and sign in available[0]]
        if others:
            return f"its columns seem to be separated by {_DELIMITER_NAMES[others[0]]}: save it with {_DELIMITER_NAMES[delimiter]}"
    return None


class _RowLines:
    """Iterator over lines that keeps those of the current row, which a quotation mark may let span several."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self.row = iter(lines), list[str]()

    def __iter__(self) -> _RowLines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.row.append(line)
        return line

    def take(self) -> list[str]:
        """Return the lines of the row that ends here, and begin a new row."""
        row, self.row = self.row, []
        return row


def _read_csv(file: SourceFile, columns: Sequence[str], where: str) -> Iterator[FilePart]:
    delimiter = DELIMITERS[file.format]
    with open_text(file) as text:
        lines = _RowLines(text)
        reader = csv.reader(lines, delimiter=delimiter)
        header = _read_header(reader)
        check_columns(file, header, columns, where)
        positions = {column: header.index(column) for column in columns}
        part, last_line, unclosed_line = (
            FilePart({column: [] for column in columns}, is_typed=False),
            reader.line_num,
            0,
        )
        lines.take()
        for fields in reader:
            first_line, last_line, row = last_line + 1, reader.line_num, lines.take()
            unclosed_line = first_line if len(row) > 1 and sum(line.count('"') for line in row) % 2 else 0
            if not fields:
                continue  # an empty line
            if len(row) > 1 and _is_misquoted(row, delimiter, len(header)):
                detail = f"a quotation mark in lines {first_line} to {last_line} is not doubled, or never closed"
                # One rejected row for each line, since each was meant as a row.
                part.rejected += [
                    RejectedRow(first_line + index, BROKEN, "" if index else detail) for index in range(len(row))
                ]
            elif len(fields) != len(header):
                part.rejected.append(RejectedRow(first_line, BROKEN, f"{len(fields)} fields instead of {len(header)}"))
            else:
                part.row_numbers.append(first_line)
                for column, position in positions.items():
                    part.columns[column].append(fields[position])
            if part.is_full:
                yield part
                part = FilePart({column: [] for column in columns}, is_typed=False)
        if unclosed_line:  # the last row swallowed the rest of the file
            raise UserError(
                f"{where}: a quotation mark in line {unclosed_line} or after it is never closed; close it, or double it if it "
                "belongs to a text"
            )
        yield part


def _is_misquoted(row: Sequence[str], delimiter: str, num_columns: int) -> bool:
    """Return whether a row spans several lines by mistake: a text begins with a quotation mark that is its own.

    Text goes on after the mark that closes the row's quotation marks, or the lines are rows of a TSV file without them. (A CSV
    file's texts may well have commas in each line.)

    Args:
        row: The row's lines.
        delimiter: Separator of its fields.
        num_columns: Columns of the file.
    """
    try:
        list(csv.reader(row, delimiter=delimiter, strict=True))
    except csv.Error:
        return True
    return delimiter == "\t" and all(line.count(delimiter) == num_columns - 1 for line in row)


def _read_header(reader: Iterator[list[str]]) -> list[str]:
    """Return the first line that is not empty."""
    return next((fields for fields in reader if fields), [])


def _read_json_lines(file: SourceFile, columns: Sequence[str], where: str) -> Iterator[FilePart]:
    keys: dict[str, None] = {}  # in order of first appearance
    first_row: dict[str, object] = {}
    part, num_rows = FilePart({column: [] for column in columns}), 0
    with open_bytes(file) as content:
        for line_number, line in enumerate(_bounded_lines(content, where), start=1):
            if not line.strip():
                continue
            row = _parse_json_line(line, line_number)
            if isinstance(row, RejectedRow):
                part.rejected.append(row)
            else:
                num_rows += 1
                first_row = first_row or row
                keys.update(dict.fromkeys(row))
                part.row_numbers.append(line_number)
                for column, values in part.columns.items():
                    values.append(row.get(column))
            if part.is_full:
                yield part
                part = FilePart({column: [] for column in columns})
    if not num_rows:
        raise _not_json_lines(part.rejected, where)
    if num_rows == 1 and any(isinstance(value, list | dict) for value in first_row.values()):
        raise UserError(f"{where}: the file is one JSON object, not JSON Lines; write one object per line")
    check_columns(file, list(keys), columns, where)
    yield part


def _bounded_lines(file: IO[bytes], where: str) -> Iterator[bytes]:
    while line := file.readline(MAX_FIELD_BYTES + 1):
        if len(line) > MAX_FIELD_BYTES:
            raise UserError(
                f"{where}: a line is longer than {MAX_FIELD_BYTES >> 20} MiB; write one object per line, or shorten "
                "the text"
            )
        yield line


def _not_json_lines(rejected: Sequence[RejectedRow], where: str) -> UserError:
    first = rejected[0] if rejected else None
    example = f" (line {first.row_number}: {first.detail or first.kind})" if first else ""
    return UserError(f"{where}: not JSON Lines: no line is a JSON object{example}; write one object per line")


def _parse_json_line(line: bytes, line_number: int) -> dict[str, object] | RejectedRow:
    try:
        row = json.loads(line.decode("utf-8-sig" if line_number == 1 else "utf-8"))
    except UnicodeDecodeError:
        return RejectedRow(line_number, ENCODING, "the line is not UTF-8")
    except (ValueError, RecursionError):
        return RejectedRow(line_number, BROKEN, "not JSON")
    return row if isinstance(row, dict) else RejectedRow(line_number, BROKEN, "not a JSON object")


def _read_arrow(file: SourceFile, columns: Sequence[str], where: str) -> Iterator[FilePart]:
    available, read_batches = open_arrow(file)
    check_columns(file, available, columns, where)
    first_row = 1
    for batch in read_batches(columns):
        for start in range(0, batch.num_rows, PART_ROWS):
            rows = batch.slice(start, PART_ROWS)
            values = {column: to_list(rows.column(column)) for column in columns}
            yield FilePart(values, list(range(first_row, first_row + rows.num_rows)))
            first_row += rows.num_rows


def to_list(column: pa.Array) -> list[object]:
    """Convert a column to Python values.

    Non-UTF-8 strings become bytes, which `parse_text` rejects one by one; times that Python's dates can't hold become numbers.
    """
    try:
        values: list[object] = column.to_pylist()
    except (UnicodeDecodeError, OverflowError) as error:
        import pyarrow as pa

        other = pa.large_binary() if isinstance(error, UnicodeDecodeError) else pa.int64()
        values = column.cast(other).to_pylist()
    return values
