"""Count which labels a test evaluation confused."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from harness.schema.record import Record

MAX_MATRIX_CLASSES = 12  # with more classes, show the most confused pairs instead of the matrix
_MAX_PAIRS = 12


@dataclass(frozen=True)
class ConfusionMatrix:
    """Counts of (true label, predicted label) pairs.

    Attributes:
        labels: Label names by index.
        counts: Number of test examples of each pair of label indices that occurred.
    """

    labels: tuple[str, ...]
    counts: Counter[tuple[int, int]]

    @property
    def num_rows(self) -> int:
        """Number of test examples."""
        return self.counts.total()

    @property
    def num_correct(self) -> int:
        """Number of correctly classified examples."""
        return sum(count for (true, predicted), count in self.counts.items() if true == predicted)

    def num_with_label(self, label: int) -> int:
        """Return the number of examples whose true label is `label`."""
        return sum(count for (true, _), count in self.counts.items() if true == label)

    def most_confused(self) -> list[tuple[int, int, int]]:
        """Return the 12 most frequent errors as (true label, predicted label, count)."""
        errors = [(true, predicted, count) for (true, predicted), count in self.counts.items() if true != predicted]
        return sorted(errors, key=lambda error: (-error[2], error[0], error[1]))[:_MAX_PAIRS]


def confusion_matrix(record: Record) -> ConfusionMatrix | None:
    """Return the confusion matrix of a record's test evaluation; None without one."""
    if record.test is None or record.data is None:
        return None
    return ConfusionMatrix(record.data.labels, record.test.pairs)
