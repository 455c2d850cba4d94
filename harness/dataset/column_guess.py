"""Guess which columns of a table hold text, label, group and time, and give the reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import pandas as pd

from harness.dataset.row_checks import CURES, ENCODING, MAX_LABELS, BadValue, is_scale, parse_label, parse_text

Role = Literal["text", "label", "group", "time"]
Columns = dict[str, list[object]]
Candidate = tuple[tuple[float, ...], str, str]  # score, column name, reason

_MIN_ROWS_PER_CLASS = 5
_MIN_MEAN_WORDS = 2.5
_MIN_DISTINCT_FRACTION = 0.5
_SAMPLE_ROWS = 5_000
_SHOWN_LABELS = 4
_NAME_PATTERNS: dict[Role, re.Pattern[str]] = {
    "text": re.compile(r"text|review|comment|sentence|content|body|message|description|document|tweet|title", re.I),
    "label": re.compile(r"label|class|category|sentiment|target|rating|stars?|topic|polarity|intent|^y$", re.I),
    "group": re.compile(r"(^|_)(id|user|author|movie|film|product|item|customer|thread|url|source|name)s?($|_)", re.I),
    "time": re.compile(r"date|time|year|created|published|stamp|written|posted|_(on|at)$", re.I),
}


@dataclass(frozen=True)
class ColumnGuess:
    """The column guessed for a role.

    Attributes:
        why: The evidence, as a phrase to be shown to the user.
    """

    role: Role
    column: str
    why: str


def guess_columns(columns: Mapping[str, Sequence[object]]) -> dict[Role, ColumnGuess]:
    """Guess the column of each role from values and names; a role without a plausible column is left out.

    The text column has the longest texts. A label column has few values, each in several rows. A group column has many
    values that repeat. A time column has only dates.

    Args:
        columns: Values of each column as read; only the first few thousand are used.
    """
    sample = {
        name: [value for value in values[:_SAMPLE_ROWS] if not _is_missing(value)] for name, values in columns.items()
    }
    sample = {name: values for name, values in sample.items() if values}
    guesses: dict[Role, ColumnGuess] = {}
    for role, find_candidates in _FINDERS.items():
        taken = {guess.column for guess in guesses.values()}
        remaining = {name: values for name, values in sample.items() if name not in taken}
        best = max(find_candidates(remaining), default=None)
        if best is not None:
            _, name, why = best
            guesses[role] = ColumnGuess(role, name, why)
    return guesses


def explain_missing_label(columns: Mapping[str, Sequence[object]]) -> str | None:
    """Say why a column that is named like a label can't be one: it holds lists, dates or fractions; None if none is."""
    for name, values in columns.items():
        present = [value for value in values if not _is_missing(value)]
        if not _NAME_PATTERNS["label"].search(name) or not present:
            continue
        try:
            names = {parse_label(value, name)[0] for value in present}
        except BadValue as error:
            return f"{error.detail or error.kind}"
        if is_scale(names):
            return f"{name!r} holds fractions: that is regression, and only classes are supported"
        return f"{name!r} has {len(names):,} different values in {len(present):,} rows"
    return None


def explain_missing_text(columns: Mapping[str, Sequence[object]]) -> str | None:
    """Name a column whose texts are all in another encoding, with what to do; None if there is none."""
    for name, values in columns.items():
        present = [value for value in values if not _is_missing(value)]
        if present and all(isinstance(value, str | bytes) for value in present) and _valid_texts(present, name) is None:
            return f"{name!r} is not UTF-8: {CURES[ENCODING]}"
    return None


def _texts(columns: Columns) -> Iterator[Candidate]:
    for name, values in columns.items():
        texts = _valid_texts(values, name)
        if texts is None:
            continue
        num_words = sum(len(_WORD.findall(text)) for text in texts) / len(texts)
        is_named = bool(_NAME_PATTERNS["text"].search(name))
        is_distinct = len(set(texts)) >= _MIN_DISTINCT_FRACTION * len(texts)
        if num_words >= _MIN_MEAN_WORDS:
            superlative = "more than any other column" if len(columns) > 1 else "the only column"
            yield (num_words, is_named), name, f"{num_words:.0f} words in the mean, {superlative}"
        elif is_named and is_distinct:
            yield (num_words, is_named), name, "its name, and values that seldom repeat"


# A word, or a sign of a script without blanks between words (Thai, Japanese, Chinese and others).
_WORD = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|\\S+")


def _labels(columns: Columns) -> Iterator[Candidate]:
    for name, values in columns.items():
        counts: Counter[str] = Counter()
        try:
            counts.update(parse_label(value, name)[0] for value in values)
        except BadValue:
            continue
        num_values = len(counts)
        is_named = bool(_NAME_PATTERNS["label"].search(name))
        if not 2 <= num_values <= MAX_LABELS or is_scale(counts):  # noqa: PLR2004 - a classifier needs two
            continue
        if len(values) / num_values >= _MIN_ROWS_PER_CLASS:
            examples = ", ".join(label for label, _ in counts.most_common(_SHOWN_LABELS))
            why = f"{num_values} values ({examples}{', ...' if num_values > _SHOWN_LABELS else ''})"
            yield (is_named, -num_values), name, why + (", and its name" if is_named else "")


def _times(columns: Columns) -> Iterator[Candidate]:
    for name, values in columns.items():
        if all(isinstance(value, date) for value in values):
            yield (1, 1), name, "its type is a time"
        elif _NAME_PATTERNS["time"].search(name) and all(isinstance(value, str) for value in values):
            dates = pd.to_datetime(pd.Series(values, dtype=object), errors="coerce", format="mixed", utc=True)
            if dates.notna().all():
                why = f"its name, and its values are dates ({dates.min():%Y-%m-%d} to {dates.max():%Y-%m-%d})"
                yield (0, dates.nunique()), name, why


def _groups(columns: Columns) -> Iterator[Candidate]:
    for name, values in columns.items():
        if not _NAME_PATTERNS["group"].search(name) or not all(isinstance(value, str | int) for value in values):
            continue
        num_values = len(set(values))
        if 10 <= num_values <= len(values) / 1.5:  # noqa: PLR2004 - enough groups to split, and enough that repeat
            rows_per_value = len(values) / num_values
            why = f"its name, and {num_values:,} values that come back {rows_per_value:.1f} times each"
            yield (rows_per_value,), name, why


def _valid_texts(values: Sequence[object], column: str) -> list[str] | None:
    """Return the texts among a column's values; None if it has values that are no text, or texts only in other encodings."""
    texts = []
    for value in values:
        if not isinstance(value, str | bytes):
            return None
        try:
            texts.append(parse_text(value, column))
        except BadValue:
            continue  # in another encoding: counted when all rows are read
    return texts or None


def _is_missing(value: object) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())  # noqa: PLR0124 - NaN


# Roles in order of priority: a column that is chosen for one role is no candidate for later roles.
_FINDERS: dict[Role, Callable[[Columns], Iterator[Candidate]]] = {
    "text": _texts, "label": _labels, "time": _times, "group": _groups,
}  # fmt: skip
