"""Texts that stay on disk: columns of an Arrow file, of the rows that are asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

# Every record batch of the file but the last has so many rows: a row's batch is told by division.
BATCH_ROWS = 10_000


class ArrowTextColumn(Sequence[str]):
    """The texts of one column at `indices`, in that order; none is in memory until it is asked for.

    Asked for in the file's order, each part of it is read once. The file is mapped anew for every batch, so that pages
    which were read do not add up.

    Attributes:
        indices: Rows of the file, `(num_rows,)`.
    """

    def __init__(self, path: Path, column: str, indices: np.ndarray) -> None:
        self.path, self.column, self.indices = path, column, indices

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> ArrowTextColumn: ...
    def __getitem__(self, at: int | slice) -> str | ArrowTextColumn:
        """One text, or a part, which stays on disk."""
        if isinstance(at, slice):
            return ArrowTextColumn(self.path, self.column, self.indices[at])
        return self._read(self.indices[[at]])[0]

    def __iter__(self) -> Iterator[str]:
        for begin in range(0, len(self), BATCH_ROWS):
            yield from self._read(self.indices[begin : begin + BATCH_ROWS])

    def _read(self, rows: np.ndarray) -> list[str]:
        import pyarrow as pa

        # Sorted by batch, each is looked at once; the order that was asked for is put back.
        by_row = np.argsort(rows, kind="stable")
        batches, begins = np.unique(rows[by_row] // BATCH_ROWS, return_index=True)
        found: list[str] = [""] * len(rows)
        with pa.memory_map(str(self.path)) as file:
            reader = pa.ipc.open_file(file)
            for batch, wanted in zip(batches, np.split(by_row, begins[1:]), strict=True):
                column = reader.get_batch(int(batch)).column(self.column)
                texts = column.take(pa.array(rows[wanted] % BATCH_ROWS)).to_pylist()
                for place, text in zip(wanted, texts, strict=True):
                    found[place] = text
        return found


class TextWriter:
    """Columns of texts as they grow: lists, and once `move_to` was called an Arrow file."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.lists: dict[str, list[str]] = {column: [] for column in columns}
        self.num_rows = 0
        self._writer: Any = None

    def add(self, texts: dict[str, list[str]]) -> None:
        """Take more rows, as many of each column."""
        for column, values in self.lists.items():
            values += texts[column]
        self.num_rows += len(next(iter(texts.values())))
        self._write(whole=False)

    def move_to(self, path: Path) -> None:
        """Write what is there, and all that comes, to a file."""
        import pyarrow as pa

        self._writer = pa.ipc.new_file(str(path), pa.schema([(name, pa.large_string()) for name in self.lists]))
        self._write(whole=False)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._write(whole=True)
            self._writer.close()
            self._writer = None

    def _write(self, *, whole: bool) -> None:
        if self._writer is None:
            return
        import pyarrow as pa

        waiting = len(next(iter(self.lists.values())))
        end = waiting if whole else waiting - waiting % BATCH_ROWS
        for begin in range(0, end, BATCH_ROWS):
            arrays = [
                pa.array(values[begin : min(end, begin + BATCH_ROWS)], pa.large_string())
                for values in self.lists.values()
            ]
            self._writer.write_batch(pa.record_batch(arrays, names=list(self.lists)))
        self.lists = {name: values[end:] for name, values in self.lists.items()}


class ConcatTexts(Collection[str]):
    """First and second segments as one text each, joined by a blank; without second ones the first as they are."""

    def __init__(self, first: Sequence[str], second: Sequence[str] | None) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first)

    def __contains__(self, text: object) -> bool:
        return any(text == other for other in self)

    def __iter__(self) -> Iterator[str]:
        if self._second is None:
            return iter(self._first)
        return map(" ".join, zip(self._first, self._second, strict=True))
