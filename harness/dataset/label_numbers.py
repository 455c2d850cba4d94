"""Number the labels of a source while its rows are read, and merge labels that look alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from harness.dataset.row_checks import UNKNOWN, UNLABELLED, BadValue, check_labels
from harness.dataset.similar_labels import (
    LabelForms,
    canonical_names,
    find_similar_labels,
    is_null_word,
    null_like_labels,
)
from harness.schema.inputs_record import SimilarLabels

_MAX_SHOWN_CHARACTERS = 40


@dataclass
class LabelNumbers:
    """The labels read so far, numbered in order of first appearance.

    Attributes:
        column: The label column.
        is_clean: Whether labels that look alike are merged (`clean_labels`).
        numbers: Number of each label as written in the source.
    """

    column: str
    is_clean: bool
    numbers: dict[str, int] = field(default_factory=dict)
    _unknown: dict[str, str] = field(default_factory=dict)

    def number(self, label: str, where: str, *, is_new_allowed: bool) -> int:
        """Return a label's number, and number it if it is new.

        Args:
            label: The label's name.
            where: Prefix of error messages.
            is_new_allowed: False for validation and test files, whose labels must be those of the source.

        Raises:
            BadValue: If the label stands for a missing one, or is new and must not be.
            UserError: If there are too many labels.
        """
        if label not in self.numbers:
            if self.is_clean and is_null_word(label):
                raise BadValue(UNLABELLED, f"{label!r} stands for a missing label")
            if not is_new_allowed:
                self._require_known(label)
            self.numbers[label] = len(self.numbers)
            check_labels(self.numbers, self.column, where, all_read=False)
        return self.numbers[label]

    def _require_known(self, label: str) -> None:
        """Raise BadValue unless a label of the source looks like this one and both are merged."""
        if label not in self._unknown:
            forms = LabelForms([*self.numbers, label])
            alike = next((known for known in self.numbers if forms.of(known) == forms.of(label)), None)
            if alike is not None and self.is_clean:
                return
            hint = (
                f", which has {alike[:_MAX_SHOWN_CHARACTERS]!r} (data.clean_labels = true merges them)" if alike else ""
            )
            self._unknown[label] = f"{label[:_MAX_SHOWN_CHARACTERS]!r} is in no row of data.source{hint}"
        raise BadValue(UNKNOWN, self._unknown[label])

    def merge(self, labels: np.ndarray) -> np.ndarray:
        """Replace the number of each merged label by the number of the label that it was merged into.

        Args:
            labels: Label numbers, shape `(num_rows,)`.
        """
        if not self.is_clean:
            return labels
        counts = np.bincount(labels, minlength=len(self.numbers))
        names = canonical_names(find_similar_labels({name: int(counts[at]) for name, at in self.numbers.items()}))
        target = np.arange(len(self.numbers), dtype=labels.dtype)
        for name, canonical in names.items():
            target[self.numbers[name]] = self.numbers[canonical]
        merged: np.ndarray = target[labels]
        return merged

    def sort(self, labels: np.ndarray, merged: np.ndarray) -> SortedLabels:
        """Number the labels that occur by their sorted names.

        Args:
            labels: Numbers of the kept rows' labels as written, shape `(num_rows,)`.
            merged: The same after `merge`.
        """
        counts = np.bincount(labels, minlength=len(self.numbers))
        rows = {name: int(counts[number]) for name, number in self.numbers.items() if counts[number]}
        found = [group.model_copy(update={"merged": self.is_clean}) for group in find_similar_labels(rows)]
        present = np.unique(merged)
        names = sorted(name for name, number in self.numbers.items() if number in present)
        renumbered = np.zeros(len(self.numbers), dtype=np.uint16)
        renumbered[[self.numbers[name] for name in names]] = np.arange(len(names))
        return SortedLabels(tuple(names), renumbered[merged], tuple(found), null_like_labels(rows))


class SortedLabels(NamedTuple):
    """The labels of all kept rows.

    Attributes:
        names: All labels, sorted.
        labels: Label of each row as index into `names`, shape `(num_rows,)`.
        similar: Labels as written that look alike.
        null_like: Rows of each label that may stand for a missing one.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    similar: tuple[SimilarLabels, ...]
    null_like: dict[str, int]
