"""What a test evaluation got wrong: which labels for which others, and where it was surest (pure)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from harness.schema.record import Record

MAX_MATRIX_CLASSES = 12  # a wider matrix nobody reads: then the most confused pairs


_MAX_PAIRS = 12


@dataclass(frozen=True)
class ConfusionMatrix:
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
    def num_correct(self) -> int:
        """Examples whose label was found."""
        return sum(count for (true, given), count in self.counts.items() if true == given)

    def num_with_label(self, true: int) -> int:
        """Examples of a label."""
        return sum(count for (label, _), count in self.counts.items() if label == true)

    def most_confused(self) -> list[tuple[int, int, int]]:
        """The pairs that were confused most, as true label, predicted label and count; at most 12."""
        wrong = [(true, given, count) for (true, given), count in self.counts.items() if true != given]
        return sorted(wrong, key=lambda pair: (-pair[2], pair[0], pair[1]))[:_MAX_PAIRS]


def confusion_matrix(record: Record) -> ConfusionMatrix | None:
    """Of a record's test evaluation; None where there was none."""
    ran = record.training or record.baseline
    if ran is None or ran.test is None or record.data is None:
        return None
    return ConfusionMatrix(record.data.labels, ran.test.pairs)
