"""Mistakes: confusion matrices, and each model's most confident wrong answers (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.confusion_matrix import MAX_MATRIX_CLASSES, ConfusionMatrix, confusion_matrix
from harness.pricing.cost import Priced
from harness.report.formatting import clean, percent
from harness.report.labels import short_labels
from harness.report.table import Field, Row, Table, table, text_field
from harness.schema.record import Record
from harness.schema.training_record import LONGEST_TEXT, Mistake

MAX_CELLS = 12
HEADS = ("text", "its label", "the model's", "probability")
_PAIR_HEADS = ("its label", "the model's", "examples", "of that label")
_MAX_LABEL = 40


@dataclass(frozen=True)
class CellMistakes:
    """The mistakes of one cell's newest tested run.

    Attributes:
        score: How many answers were right, as text.
        confusion: The confusion matrix, or the most confused pairs of many classes; empty if nothing was wrong.
        most_confident: The wrong answers with the highest probability.
        why_none: Why no mistakes are listed; empty if some are.
    """

    name: str
    score: str
    confusion: Table
    most_confident: Table
    why_none: str


@dataclass(frozen=True)
class Mistakes:
    """The section on mistakes; `num_more` is the number of tested cells that are not shown."""

    cells: tuple[CellMistakes, ...]
    num_more: int


def mistakes_section(cells: Sequence[Priced], pick: Priced | None) -> Mistakes | None:
    """Build the section, the chosen cell first; None if nothing was tested.

    The majority baseline is left out: its mistakes follow from its one answer.
    """
    labels = short_labels(cells)
    ordered = sorted(
        (cell for cell in cells if cell.summary.classifier != "majority"), key=lambda cell: cell is not pick
    )
    tested = [(cell, record) for cell in ordered if (record := _newest_tested(cell)) is not None]
    shown = [
        _cell_mistakes(labels[cell.key], record, confusion)
        for cell, record in tested[:MAX_CELLS]
        if (confusion := confusion_matrix(record)) is not None
    ]
    return Mistakes(tuple(shown), len(tested) - len(shown)) if shown else None


def _newest_tested(cell: Priced) -> Record | None:
    for record in reversed(cell.summary.ok_records):
        if record.test is not None and record.data is not None:
            return record
    return None


def _cell_mistakes(name: str, record: Record, confusion: ConfusionMatrix) -> CellMistakes:
    share = percent(confusion.num_correct / confusion.num_rows)
    training = record.training
    kept = training.kept if training else None
    model = f"; the model after update {kept.num_updates:,} was tested, and is kept" if kept else ""
    mistakes = training.mistakes if training else ()
    return CellMistakes(
        name=name,
        score=f"{confusion.num_correct:,} of {confusion.num_rows:,} right ({share}){model}",
        confusion=_pairs(confusion) if len(confusion.labels) > MAX_MATRIX_CLASSES else _matrix(confusion),
        most_confident=table(HEADS, [_mistake(mistake, confusion.labels) for mistake in mistakes]),
        why_none=_why_none(record, confusion),
    )


def _matrix(confusion: ConfusionMatrix) -> Table:
    """Build a table with a row for each true label and a column for each predicted label."""
    rows: list[Row] = []
    for true, label in enumerate(confusion.labels):
        num_rows = confusion.num_with_label(true)
        counts = [confusion.counts[true, predicted] for predicted in range(len(confusion.labels))]
        shares = [percent(count / num_rows) if num_rows else "" for count in counts]
        fields = [Field(f"{count:,}", count, share) for count, share in zip(counts, shares, strict=True)]
        rows.append((text_field(_label(label)), *fields))
    return table(("its label, the model's →", *map(_label, confusion.labels)), rows)


def _pairs(confusion: ConfusionMatrix) -> Table:
    """Build a table with a row for each of the most confused pairs of labels."""
    rows = [
        (
            text_field(_label(confusion.labels[true])),
            text_field(_label(confusion.labels[predicted])),
            Field(f"{count:,}", count),
            Field(percent(count / confusion.num_with_label(true)), count / confusion.num_with_label(true)),
        )
        for true, predicted, count in confusion.most_confused()
    ]
    return table(_PAIR_HEADS, rows)


def _mistake(mistake: Mistake, labels: Sequence[str]) -> Row:
    return (
        text_field(clean(mistake.text, LONGEST_TEXT)),
        text_field(_label(labels[mistake.label])),
        text_field(_label(labels[mistake.predicted])),
        Field(percent(mistake.probability), mistake.probability),
    )


def _why_none(record: Record, confusion: ConfusionMatrix) -> str:
    if record.training is None:
        return "A baseline's mistakes are counted, not kept."
    if record.training.mistakes or confusion.num_correct == confusion.num_rows:
        return ""
    if not record.config.data.store_texts:
        return "The study stores no texts (store_texts = false), so none of its mistakes can be read."
    return "Its record is of a time when probabilities were not kept, or they were no numbers."


def _label(label: str) -> str:
    return clean(label, _MAX_LABEL)
