"""One generated data file and what reading it must give."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Content = bytes | Callable[[Path], None]

NUM_ROWS = 40
WORDS = (
    "a slow and tender film",
    "too loud by half",
    "the plot wanders off",
    "it earns every tear",
    "nobody to root for",
)


@dataclass(frozen=True)
class Case:
    """One generated file or folder.

    Attributes:
        name: What is special about it.
        kind: Its group in the table.
        file: Name of the file, folder or glob that is inspected.
        content: The bytes of `file`, or a function that writes into a folder.
        rows: Distinct usable rows; None if `run` refuses the file.
        bad: Rows that can't be used; with any, a study without `on_bad_row = "skip"` is refused.
        refusal: Pattern of the refusal of `inspect` and `run`: what to do; empty if the file is read.
        predicted: Rows that `predict` reads; None if it refuses the file.
        predict_refusal: Pattern of the refusal of `predict`: what to do; empty if the file is read.
        text: The text column.
        label: The label column.
        has_rare_label: Whether a label is so rare that `run` refuses the split, which `inspect` says.
        in_ci: Whether the tests use it too.
    """

    name: str
    kind: str
    file: str
    content: Content
    rows: int | None = NUM_ROWS
    bad: int = 0
    refusal: str = ""
    predicted: int | None = NUM_ROWS
    predict_refusal: str = ""
    text: str = "text"
    label: str = "label"
    has_rare_label: bool = False
    in_ci: bool = False

    def write(self, folder: Path) -> Path:
        """Write the file into an empty folder, and return the path to inspect."""
        path = folder / self.file
        if isinstance(self.content, bytes):
            path.write_bytes(self.content)
        else:
            self.content(folder)
        return path


def refused(name: str, kind: str, file: str, content: Content, cure: str, **fields: Any) -> Case:
    """Return a case that all commands refuse with the same cure; `fields` are further fields of the case."""
    changes = {"rows": None, "predicted": None, "refusal": cure, "predict_refusal": cure} | fields
    return Case(name, kind, file, content, **changes)


def texts(num_rows: int = NUM_ROWS) -> list[str]:
    """Return distinct texts."""
    return [f"{WORDS[row % len(WORDS)]}, number {row}" for row in range(num_rows)]


def table(num_rows: int = NUM_ROWS, labels: Sequence[object] = ("good", "bad")) -> list[tuple[str, object]]:
    """Return rows of distinct texts; labels alternate."""
    return [(text, labels[row % len(labels)]) for row, text in enumerate(texts(num_rows))]


def csv_text(
    rows: Iterable[Sequence[object]] | None = None, header: Sequence[str] = ("text", "label"), **options: object
) -> str:
    """Return a table as CSV; `options` are those of `csv.writer`."""
    stream = io.StringIO()
    writer = csv.writer(stream, **({"lineterminator": "\n"} | options))  # type: ignore[arg-type]
    if header:
        writer.writerow(header)
    writer.writerows(table() if rows is None else rows)
    return stream.getvalue()


def json_lines(rows: Iterable[object] | None = None) -> bytes:
    """Return rows as JSON Lines; tuples become objects of text and label."""
    objects = [
        {"text": row[0], "label": row[1]} if isinstance(row, tuple) else row
        for row in (table() if rows is None else rows)
    ]
    return "".join(json.dumps(row) + "\n" for row in objects).encode()
