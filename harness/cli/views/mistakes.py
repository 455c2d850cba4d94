"""What a cell got wrong, as a person reads it in a terminal."""

from __future__ import annotations

import re

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis.confusion_matrix import MAX_MATRIX_CLASSES, ConfusionMatrix, confusion_matrix
from harness.schema.record import Record

_LONGEST_LABEL = 24
# Control characters, and the marks that turn the direction of the text around them.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")


def describe_mistakes(console: Console, record: Record) -> None:
    """Print a record's confusion matrix, or of many classes the most confused pairs, and its surest mistakes."""
    found = confusion_matrix(record)
    if found is None:
        return
    console.print(
        f"\n[bold]what it got wrong[/]  {found.num_rows - found.num_correct:,} of {found.num_rows:,} test examples",
        highlight=False,
    )
    console.print(_pairs(found) if len(found.labels) > MAX_MATRIX_CLASSES else _matrix(found), highlight=False)
    mistakes = record.training.mistakes if record.training else ()
    if mistakes:
        console.print("\n[bold]the mistakes that it was surest of[/]")
    for one in mistakes:
        labels = f"{_shown(found.labels[one.label])}, labelled {_shown(found.labels[one.predicted])} at {one.probability:.2f}"
        console.print(Text(f"  {labels}: ", style="bold").append(_shown(one.text, None), style="not bold"))


def _matrix(found: ConfusionMatrix) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("its label, the model's →")
    for label in found.labels:
        table.add_column(Text(_shown(label)), justify="right")
    for true, label in enumerate(found.labels):
        counts = (f"{found.counts[true, given]:,}" for given in range(len(found.labels)))
        table.add_row(Text(_shown(label)), *counts)
    return table


def _pairs(found: ConfusionMatrix) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("its label", "the model's", "examples", "of that label"):
        table.add_column(name, justify="right" if name.startswith(("ex", "of")) else "left")
    for true, given, count in found.most_confused():
        labels = (Text(_shown(found.labels[index])) for index in (true, given))
        table.add_row(*labels, f"{count:,}", f"{count / found.num_with_label(true):.0%}")
    return table


def _shown(text: str, longest: int | None = _LONGEST_LABEL) -> str:
    flat = _UNPRINTABLE.sub(" ", text).strip()
    return flat if longest is None or len(flat) <= longest else flat[: longest - 1] + "…"
