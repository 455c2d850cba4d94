"""What a test evaluation got wrong: which labels for which others, and where it was surest (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.record import Mistake, Record, TestEvaluation

# Texts of the test split by their rows.
ReadTexts = Callable[[Sequence[int]], Sequence[str]]

MAX_CLASSES = 12  # a wider matrix nobody reads: then the most confused pairs
_MAX_PAIRS = 12
_MAX_MISTAKES = 10
LONGEST_TEXT = 300


@dataclass(frozen=True)
class Confusion:
    """How often each label was given for each.

    Attributes:
        labels: Names, by index.
        counts: By (true label, predicted label); pairs that never occurred are not there.
    """

    labels: tuple[str, ...]
    counts: Counter[tuple[int, int]]

    @property
    def num_rows(self) -> int:
        """Examples in all."""
        return self.counts.total()

    @property
    def num_right(self) -> int:
        """Examples whose label was found."""
        return sum(count for (true, given), count in self.counts.items() if true == given)

    def num_of(self, true: int) -> int:
        """Examples of a label."""
        return sum(count for (label, _), count in self.counts.items() if label == true)

    def confused(self) -> list[tuple[int, int, int]]:
        """The pairs that were confused most, as true label, predicted label and count; at most 12."""
        wrong = [(true, given, count) for (true, given), count in self.counts.items() if true != given]
        return sorted(wrong, key=lambda pair: (-pair[2], pair[0], pair[1]))[:_MAX_PAIRS]


def confusion(record: Record) -> Confusion | None:
    """Of a record's test evaluation; None where there was none."""
    ran = record.training or record.baseline
    if ran is None or ran.test is None or record.data is None:
        return None
    return Confusion(record.data.labels, ran.test.pairs)


def most_confident(test: TestEvaluation | None, read_texts: ReadTexts | None) -> tuple[Mistake, ...]:
    """The wrong predictions of which the model was surest, with their texts cut; none where no text may be kept."""
    if test is None or read_texts is None or not test.probabilities:
        return ()
    wrong = [row for row, (true, given) in enumerate(zip(test.labels, test.predictions, strict=True)) if true != given]
    rows = sorted(wrong, key=lambda row: (-test.probabilities[row], row))[:_MAX_MISTAKES]
    return tuple(
        Mistake(
            row=row,
            label=test.labels[row],
            predicted=test.predictions[row],
            probability=test.probabilities[row],
            text=_cut(text),
        )
        for row, text in zip(rows, read_texts(rows), strict=True)
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
