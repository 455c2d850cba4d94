"""Stream any supported file in windows of rows, with memory use independent of the file size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from harness.dataset.file_damage import check_content, convert_read_errors
from harness.dataset.file_formats import FORMATS, find_file, open_arrow
from harness.dataset.file_readers import FilePart, check_columns, read_parts, to_list
from harness.dataset.row_checks import CURES, ENCODING, BadValue, RejectedRows, parse_text
from harness.errors import UserError

TEXT_SEPARATOR = " "  # between the columns of one text
_TOO_LARGE = 2**63  # whole numbers from here on are copied as text
_OUTPUT_SUFFIXES = tuple(suffix for suffix, file_format in FORMATS.items() if file_format != "Arrow")


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


def output_format_of(path: Path) -> str:
    """Return an output file's format suffix, such as `.csv` or `.parquet`.

    Raises:
        UserError: If the suffix is not supported.
    """
    suffix = path.suffix.lower()
    if suffix not in _OUTPUT_SUFFIXES:
        raise UserError(f"{path.name}: its name must end in one of {', '.join(_OUTPUT_SUFFIXES)}")
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
    reader = _PieceReader(path, text, pair, carried)
    end = 0
    for piece in _regroup(reader.read(num_rows), num_rows):
        begin, end = end, end + len(piece)
        if end <= skip:
            continue
        rest = piece.part(max(0, skip - begin), len(piece))
        yield TextWindow(end - len(rest), rest.texts, None if pair is None else rest.pairs, rest.carried)


@dataclass(frozen=True)
class _Piece:
    """Some rows of the file, as in `TextWindow`."""

    texts: list[str | None]
    pairs: list[str]
    carried: pa.Table

    def __len__(self) -> int:
        return len(self.texts)

    def part(self, begin: int, end: int) -> _Piece:
        """Return the rows from `begin` up to `end`."""
        return _Piece(self.texts[begin:end], self.pairs[begin:end], self.carried.slice(begin, end - begin))

    def followed_by(self, other: _Piece) -> _Piece:
        """Return these rows and then those of another piece."""
        carried = pa.concat_tables([self.carried, other.carried])
        return _Piece(self.texts + other.texts, self.pairs + other.pairs, carried)


class _PieceReader:
    """Reads pieces of a file of any format; the first rows decide the types of columns that are copied from text formats."""

    def __init__(self, path: Path, text: Sequence[str], pair: str | None, carried: Sequence[str]) -> None:
        self.file, self.where = find_file(path), str(path)
        self._text, self._pair, self._carried = text, pair, carried
        self._types: dict[str, pa.DataType] = {}

    def read(self, num_rows: int) -> Iterator[_Piece]:
        """Yield all rows in pieces of any size.

        Args:
            num_rows: Most rows of a piece of a Parquet or Arrow file.
        """
        columns = list(dict.fromkeys([*self._text, *([self._pair] if self._pair else []), *self._carried]))
        if not self.file.is_text:
            yield from self._read_binary(columns, num_rows)
            return
        for part in read_parts(self.file, columns, self.where):
            if part.rejected:
                rejected = RejectedRows()
                rejected.add(part.rejected, "line")
                raise UserError(f"{self.where}: {'; '.join(rejected.lines())}; fix them: each row gets a label")
            yield self._piece(part.columns, part.row_numbers, "line", self._copied(part))

    def _read_binary(self, columns: Sequence[str], num_rows: int) -> Iterator[_Piece]:
        first_row = 1
        with convert_read_errors(self.file, self.where):
            check_content(self.file, self.where)
            available, read_batches = open_arrow(self.file, num_rows)
            check_columns(self.file, available, columns, self.where)
            for batch in read_batches(columns):
                for begin in range(0, batch.num_rows, num_rows):
                    rows = batch.slice(begin, num_rows)
                    values = {
                        name: to_list(rows.column(name))
                        for name in (*self._text, *([self._pair] if self._pair else []))
                    }
                    numbers = range(first_row, first_row + rows.num_rows)
                    first_row += rows.num_rows
                    yield self._piece(values, numbers, "row", pa.Table.from_batches([rows.select(list(self._carried))]))

    def _piece(
        self, columns: Mapping[str, list[object]], numbers: Sequence[int], location: str, carried: pa.Table
    ) -> _Piece:
        """Check the texts of some rows.

        Args:
            columns: Raw values of the text columns.
            numbers: Number of each row in the file.
            location: `line` or `row`, the word before a number in messages.
            carried: The columns to copy.
        """
        parts = [self._strings(columns[name], name, numbers, location) for name in self._text]
        joined = (TEXT_SEPARATOR.join(filter(None, row)) for row in zip(*parts, strict=True))
        pairs = self._strings(columns[self._pair], self._pair, numbers, location) if self._pair else []
        return _Piece([text if text.strip() else None for text in joined], pairs, carried)

    def _strings(self, values: Sequence[object], column: str, numbers: Sequence[int], location: str) -> list[str]:
        """Return a column's texts; missing ones are empty.

        Args:
            values: The raw values.
            column: The column's name.
            numbers: Number of each row in the file.
            location: `line` or `row`, the word before a number in messages.
        """
        try:
            return [parse_text(value, column) for value in values]
        except BadValue:
            pass
        for value, number in zip(values, numbers, strict=True):
            try:
                parse_text(value, column)
            except BadValue as error:
                cure = CURES.get(error.kind, "fix it")
                raise UserError(f"{self.where}: {location} {number}: {error.detail}; {cure}") from None
        raise AssertionError  # one value was bad

    def _copied(self, part: FilePart) -> pa.Table:
        """Return the columns to copy, with the types of the first part's values."""
        arrays = {}
        for name in self._carried:
            where = (
                f"{self.where}: column {name!r} from line {part.row_numbers[0]:,} on"
                if part.row_numbers
                else self.where
            )
            values = part.columns[name]
            if any(isinstance(value, int) and abs(value) >= _TOO_LARGE for value in values):
                values = [None if value is None else str(value) for value in values]
            try:
                array = pa.array(values, self._types.get(name))
            except UnicodeEncodeError:
                raise UserError(f"{where} is not UTF-8; {CURES[ENCODING]}, or leave it out of --with") from None
            except (pa.ArrowException, TypeError, OverflowError):
                raise UserError(
                    f"{where} has values of another type than before; leave it out of --with, or write its values alike"
                ) from None
            if name not in self._types:
                # A column of nulls alone could get values of any type later: it counts as text.
                self._types[name] = pa.string() if pa.types.is_null(array.type) else array.type
            arrays[name] = array.cast(self._types[name])
        return pa.table(arrays)


def _regroup(pieces: Iterator[_Piece], num_rows: int) -> Iterator[_Piece]:
    """Regroup pieces of any size into pieces of `num_rows` rows, so that a resumed run gets the same windows."""
    pending: _Piece | None = None
    for piece in pieces:
        pending = piece if pending is None else pending.followed_by(piece)
        while len(pending) >= num_rows:
            yield pending.part(0, num_rows)
            pending = pending.part(num_rows, len(pending))
    if pending is not None and len(pending):
        yield pending
