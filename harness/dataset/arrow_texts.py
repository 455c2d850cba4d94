"""Keep texts on disk in an Arrow file, and read only the rows that are needed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

# Every record batch but the last has this many rows, so that division gives the batch of a row.
BATCH_ROWS = 10_000


class ArrowTextColumn(Sequence[str]):
    """One column's texts at the given rows of an Arrow file; texts are loaded when accessed.

    Iterating in file order reads each record batch once. The file is mapped anew for every batch, so that pages already
    read don't count as this process's memory.

    Attributes:
        indices: Row of each text in the file, shape `(num_rows,)`.
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
        """Return one text, or a part of the column, which stays on disk."""
        if isinstance(at, slice):
            return ArrowTextColumn(self.path, self.column, self.indices[at])
        return self._read(self.indices[[at]])[0]

    def __iter__(self) -> Iterator[str]:
        for begin in range(0, len(self), BATCH_ROWS):
            yield from self._read(self.indices[begin : begin + BATCH_ROWS])

    def _read(self, rows: np.ndarray) -> list[str]:
        import pyarrow as pa

        # Read in file order, so that each record batch is read once; `positions` restores the requested order.
        by_row = np.argsort(rows, kind="stable")
        batches, begins = np.unique(rows[by_row] // BATCH_ROWS, return_index=True)
        texts: list[str] = [""] * len(rows)
        with pa.memory_map(str(self.path)) as file:
            reader = pa.ipc.open_file(file)
            for batch, positions in zip(batches, np.split(by_row, begins[1:]), strict=True):
                column = reader.get_batch(int(batch)).column(self.column)
                in_batch = column.take(pa.array(rows[positions] % BATCH_ROWS)).to_pylist()
                for position, text in zip(positions, in_batch, strict=True):
                    texts[position] = text
        return texts


class TextWriter:
    """A collector of text columns: it keeps them in lists until `move_to` is called, and then in an Arrow file."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.lists: dict[str, list[str]] = {column: [] for column in columns}
        self.num_rows = 0
        self._writer: pa.RecordBatchFileWriter | None = None

    def add(self, texts: dict[str, list[str]]) -> None:
        """Append rows: lists of equal length, one per column."""
        for column, values in self.lists.items():
            values += texts[column]
        self.num_rows += len(next(iter(texts.values())))
        self._write(all_rows=False)

    def move_to(self, path: Path) -> None:
        """Write the collected rows, and all later ones, to a file."""
        import pyarrow as pa

        self._writer = pa.ipc.new_file(str(path), pa.schema([(name, pa.large_string()) for name in self.lists]))
        self._write(all_rows=False)

    def close(self) -> None:
        """Write the remaining rows and close the file."""
        if self._writer is not None:
            self._write(all_rows=True)
            self._writer.close()
            self._writer = None

    def _write(self, *, all_rows: bool) -> None:
        """Write the pending rows that fill record batches, and with `all_rows` the other pending rows too."""
        if self._writer is None:
            return
        import pyarrow as pa

        num_pending = len(next(iter(self.lists.values())))
        end = num_pending if all_rows else num_pending - num_pending % BATCH_ROWS
        for begin in range(0, end, BATCH_ROWS):
            arrays = [
                pa.array(values[begin : min(end, begin + BATCH_ROWS)], pa.large_string())
                for values in self.lists.values()
            ]
            self._writer.write_batch(pa.record_batch(arrays, names=list(self.lists)))
        self.lists = {name: values[end:] for name, values in self.lists.items()}


class ConcatTexts(Collection[str]):
    """First and second segments joined by a space; first segments alone if there are no second ones."""

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
