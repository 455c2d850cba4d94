"""Terminal view of a cell's mistakes."""

from __future__ import annotations

import re

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis.confusion_matrix import MAX_MATRIX_CLASSES, ConfusionMatrix, confusion_matrix
from harness.schema.record import Record

_MAX_LABEL_LENGTH = 24
# Control characters and bidirectional marks.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")


def show_mistakes(console: Console, record: Record) -> None:
    """Print a record's confusion matrix (or, for many classes, the most confused pairs) and its most confident mistakes."""
    confusion = count_confusion(record)
    if confusion is None:
        return
    console.print(
        f"\n[bold]what it got wrong[/]  {confusion.num_rows - confusion.num_right:,} of {confusion.num_rows:,} test examples",
        highlight=False,
    )
    table = _pairs(confusion) if len(confusion.labels) > MAX_CLASSES else _matrix(confusion)
    console.print(table, highlight=False)
    mistakes = record.training.mistakes if record.training else ()
    if mistakes:
        console.print("\n[bold]the mistakes that it was surest of[/]")
    for mistake in mistakes:
        true, predicted = (_printable(confusion.labels[index]) for index in (mistake.label, mistake.predicted))
        heading = f"  {true}, labelled {predicted} at {mistake.probability:.2f}: "
        console.print(Text(heading, style="bold").append(_printable(mistake.text, None), style="not bold"))


def _matrix(confusion: Confusion) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("its label, the model's →")
    for label in confusion.labels:
        table.add_column(Text(_printable(label)), justify="right")
    for true, label in enumerate(confusion.labels):
        counts = (f"{confusion.counts[true, predicted]:,}" for predicted in range(len(confusion.labels)))
        table.add_row(Text(_printable(label)), *counts)
    return table


def _pairs(confusion: Confusion) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("its label", "the model's", "examples", "of that label"):
        table.add_column(name, justify="right" if name.startswith(("ex", "of")) else "left")
    for true, predicted, count in confusion.confused():
        labels = (Text(_printable(confusion.labels[index])) for index in (true, predicted))
        table.add_row(*labels, f"{count:,}", f"{count / confusion.num_of(true):.0%}")
    return table


def _printable(text: str, max_length: int | None = _MAX_LABEL_LENGTH) -> str:
    flat = _UNPRINTABLE.sub(" ", text).strip()
    return flat if max_length is None or len(flat) <= max_length else flat[: max_length - 1] + "…"
