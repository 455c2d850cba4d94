"""What each model gets wrong: confusion matrices, and the mistakes that it was surest of, in words (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.confusion_matrix import MAX_MATRIX_CLASSES, ConfusionMatrix, confusion_matrix
from harness.pricing.cost import Priced
from harness.report.formatting import clean, percent
from harness.report.labels import short_labels
from harness.report.sections.cell_table import Field
from harness.schema.record import Record
from harness.schema.training_record import LONGEST_TEXT, Mistake

MAX_CELLS = 12
MISTAKE_HEADS = ("text", "its label", "the model's", "probability")
_PAIR_HEADS = ("its label", "the model's", "examples", "of that label")
_LONGEST_LABEL = 40


@dataclass(frozen=True)
class CellMistakes:
    """One cell's, of its newest run that was tested.

    Attributes:
        told: How many were right, in words.
        heads, rows: The confusion matrix, or of many classes the most confused pairs; none where nothing was wrong.
        surest: In the order of MISTAKE_HEADS.
        untold: Why there are no mistakes to read; empty where there are.
    """

    name: str
    told: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Field, ...], ...]
    surest: tuple[tuple[Field, ...], ...]
    untold: str


@dataclass(frozen=True)
class Mistakes:
    """The section; `num_more` cells are not shown."""

    cells: tuple[CellMistakes, ...]
    num_more: int


def mistakes(cells: Sequence[Priced], pick: Priced | None) -> Mistakes | None:
    """Of the chosen cell first, then of the others in their order; None where nothing was tested.

    Of always answering the commonest label there is nothing to learn.
    """
    labels = short_labels(cells)
    ordered = sorted(
        (cell for cell in cells if cell.summary.classifier != "majority"), key=lambda cell: cell is not pick
    )
    tested = [(cell, record) for cell in ordered if (record := _newest(cell)) is not None]
    shown = [
        _cell(labels[cell.key], record, found)
        for cell, record in tested[:MAX_CELLS]
        if (found := confusion_matrix(record)) is not None
    ]
    return Mistakes(tuple(shown), len(tested) - len(shown)) if shown else None


def _newest(cell: Priced) -> Record | None:
    for record in reversed(cell.summary.ok_records):
        ran = record.training or record.baseline
        if ran is not None and ran.test is not None and record.data is not None:
            return record
    return None


def _cell(name: str, record: Record, found: ConfusionMatrix) -> CellMistakes:
    wide = len(found.labels) > MAX_MATRIX_CLASSES
    share = percent(found.num_correct / found.num_rows)
    kept = record.training.kept if record.training else None
    model = f"; the model after update {kept.num_updates:,} was tested, and is kept" if kept else ""
    return CellMistakes(
        name=name,
        told=f"{found.num_correct:,} of {found.num_rows:,} right ({share}){model}",
        heads=_PAIR_HEADS if wide else ("its label, the model's →", *map(_label, found.labels)),
        rows=tuple(_pairs(found) if wide else _matrix(found)),
        surest=tuple(_mistake(one, found.labels) for one in record.training.mistakes) if record.training else (),
        untold=_untold(record, found),
    )


def _matrix(found: ConfusionMatrix) -> list[tuple[Field, ...]]:
    rows = []
    for true, label in enumerate(found.labels):
        num_of = found.num_with_label(true)
        counts = [found.counts[true, given] for given in range(len(found.labels))]
        rows.append(
            (
                Field(_label(label), None, numeric=False),
                *(Field(f"{count:,}", count, percent(count / num_of) if num_of else "") for count in counts),
            )
        )
    return rows


def _pairs(found: ConfusionMatrix) -> list[tuple[Field, ...]]:
    return [
        (
            Field(_label(found.labels[true]), None, numeric=False),
            Field(_label(found.labels[given]), None, numeric=False),
            Field(f"{count:,}", count),
            Field(percent(count / found.num_with_label(true)), count / found.num_with_label(true)),
        )
        for true, given, count in found.most_confused()
    ]


def _mistake(mistake: Mistake, labels: Sequence[str]) -> tuple[Field, ...]:
    return (
        Field(clean(mistake.text, LONGEST_TEXT), None, numeric=False),
        Field(_label(labels[mistake.label]), None, numeric=False),
        Field(_label(labels[mistake.predicted]), None, numeric=False),
        Field(percent(mistake.probability), mistake.probability),
    )


def _untold(record: Record, found: ConfusionMatrix) -> str:
    if record.training is None:
        return "A baseline's mistakes are counted, not kept."
    if record.training.mistakes or found.num_correct == found.num_rows:
        return ""
    if not record.config.data.store_texts:
        return "The study stores no texts (store_texts = false), so none of its mistakes can be read."
    return "Its record is of a time when probabilities were not kept, or they were no numbers."


def _label(label: str) -> str:
    return clean(label, _LONGEST_LABEL)
