"""Find labels that look alike, such as `neg` and `neg ` or `0` and `0.0`, and words that stand for a missing label."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from harness.schema.inputs_record import SimilarityKind, SimilarLabels

# Words that programs write for a missing value; no one names a class so.
_NULL_WORDS = frozenset({"nan", "-nan", "null", "<na>", "#n/a", "n/a", "nat", "#null!"})
# Words that may also name a class ("none" in a data set of insults): reported, never dropped.
_AMBIGUOUS_NULL_WORDS = frozenset({"none", "na", "nil", "-", "?", "missing", "undefined"})
_INVISIBLE = re.compile("[\u200b\u200c\u200d\u2060\ufeff\u00ad]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII)
_TRUTH = {"true": "1", "false": "0"}


def is_null_word(label: str) -> bool:
    """Return whether a label is a word that programs write for a missing value."""
    return label.strip().casefold() in _NULL_WORDS


def null_like_labels(rows: Mapping[str, int]) -> dict[str, int]:
    """Return the labels that may stand for a missing label, with their rows.

    Args:
        rows: Rows of each label.
    """
    words = _NULL_WORDS | _AMBIGUOUS_NULL_WORDS
    return {label: num_rows for label, num_rows in rows.items() if label.strip().casefold() in words}


def find_similar_labels(rows: Mapping[str, int]) -> list[SimilarLabels]:
    """Group the labels that look alike.

    Args:
        rows: Rows of each label.

    Returns:
        Groups of two labels or more; the first label of a group, which stands for the others, has the most rows.
    """
    forms = LabelForms(rows)
    groups: dict[str, list[str]] = defaultdict(list)
    for label in rows:
        groups[forms.of(label)].append(label)
    found = []
    for labels in groups.values():
        if len(labels) > 1:
            by_rows = sorted(labels, key=lambda label: (-rows[label], label))
            found.append(SimilarLabels(kinds=_kinds(labels, forms), rows={label: rows[label] for label in by_rows}))
    return sorted(found, key=lambda group: -sum(group.rows.values()))


def merged_kind(label: str, kind: str) -> str:
    """Return the kind of a label if labels that look alike are merged: 1, 1.0, "1" and true are all numbers.

    Args:
        label: The label's name.
        kind: Its kind, from `parse_label`.
    """
    is_number = kind != "text" or _NUMBER.fullmatch(label.strip()) or label.strip().casefold() in _TRUTH
    return "a number" if is_number else kind


def canonical_names(groups: Collection[SimilarLabels]) -> dict[str, str]:
    """Return the name that each label of the groups is merged into: its group's first label."""
    return {label: next(iter(group.rows)) for group in groups for label in group.rows}


class LabelForms:
    """The form under which labels are compared: the same for labels that look alike.

    The words true and false count as the numbers 1 and 0 only if a label is one of these numbers: among `yes`, `no` and
    `true` they are words.
    """

    def __init__(self, labels: Collection[str]) -> None:
        numbers = {_plain_number(label) for label in labels}
        self._steps: list[_Step] = [*_STEPS]
        if numbers & {"0", "1"}:
            self._steps.append(_Step("number form", lambda label: _TRUTH.get(label, label)))

    def of(self, label: str) -> str:
        """Return the form of a label."""
        return self.all_of(label)[-1][1]

    def all_of(self, label: str) -> list[tuple[SimilarityKind, str]]:
        """Return the label after each step, with the kind of difference that the step removes."""
        forms = []
        for step in self._steps:
            label = step.apply(label)
            forms.append((step.kind, label))
        return forms


class _Step(NamedTuple):
    kind: SimilarityKind
    apply: Callable[[str], str]


def _plain_number(label: str) -> str:
    """Write a number without sign, zeros and exponent that don't matter: `+1.0` as `1`; return other labels unchanged."""
    if not _NUMBER.fullmatch(label):
        return label
    number = float(label)
    # Longer whole numbers may be identifiers, which differ in digits that a float drops.
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else label


_STEPS = (
    _Step("Unicode normalization", lambda label: unicodedata.normalize("NFC", label)),
    _Step("blanks", lambda label: " ".join(_INVISIBLE.sub("", label).split())),
    _Step("full-width form", lambda label: " ".join(unicodedata.normalize("NFKC", label).split())),
    _Step("case", str.casefold),
    _Step("number form", _plain_number),
)


def _kinds(labels: Collection[str], forms: LabelForms) -> tuple[SimilarityKind, ...]:
    """Return the steps that reduce the number of different forms."""
    kinds: dict[SimilarityKind, None] = {}
    num_forms = len(labels)
    for after_step in zip(*(forms.all_of(label) for label in labels), strict=True):
        num_left = len({form for _, form in after_step})
        if num_left < num_forms:
            kinds[after_step[0][0]] = None
        num_forms = num_left
    return tuple(kinds)
