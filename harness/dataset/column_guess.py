"""Guess which columns of a table hold text, label, group and time, and give the reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from harness.dataset.row_checks import MAX_LABELS

Role = Literal["text", "label", "group", "time"]
Columns = dict[str, pd.Series]
Candidate = tuple[tuple[float, ...], str, str]  # score, column name, reason

_MIN_ROWS_PER_CLASS = 5
_MIN_MEAN_WORDS = 2.5
_SAMPLE_ROWS = 5_000
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


def guess_columns(frame: pd.DataFrame) -> dict[Role, ColumnGuess]:
    """Guess the column of each role from values and names; a role without a plausible column is left out.

    The text column has the longest texts. A label column has few values, each in several rows. A group column has many
    values that repeat. A time column has only dates.

    Args:
        frame: Rows of a table, as strings, numbers or dates; only the first few thousand are used.
    """
    sample = {str(name): frame[name].head(_SAMPLE_ROWS).dropna() for name in frame.columns}
    sample = {name: column for name, column in sample.items() if len(column)}
    guesses: dict[Role, ColumnGuess] = {}
    for role, find_candidates in _FINDERS.items():
        taken = {guess.column for guess in guesses.values()}
        remaining = {name: column for name, column in sample.items() if name not in taken}
        best = max(find_candidates(remaining), default=None)
        if best is not None:
            _, name, why = best
            guesses[role] = ColumnGuess(role, name, why)
    return guesses


def _texts(columns: Columns) -> Iterator[Candidate]:
    for name, column in columns.items():
        if not _has_strings(column):
            continue
        num_words = float(column.str.count(r"\S+").mean())
        is_named = bool(_NAME_PATTERNS["text"].search(name))
        if num_words >= _MIN_MEAN_WORDS:
            why = f"{num_words:.0f} words in the mean, {'more than any other column' if len(columns) > 1 else 'the only column'}"
            yield (num_words, is_named), name, why


def _labels(columns: Columns) -> Iterator[Candidate]:
    for name, column in columns.items():
        if pd.api.types.is_float_dtype(column) and not (column % 1 == 0).all():
            continue
        num_values = column.nunique()
        is_named = bool(_NAME_PATTERNS["label"].search(name))
        if 2 <= num_values <= MAX_LABELS and len(column) / num_values >= _MIN_ROWS_PER_CLASS:  # noqa: PLR2004 - a classifier needs two
            examples = ", ".join(map(str, column.value_counts().index[:4]))
            why = f"{num_values} values ({examples}{', ...' if num_values > 4 else ''})"  # noqa: PLR2004 - four are shown
            yield (is_named, -num_values), name, why + (", and its name" if is_named else "")


def _times(columns: Columns) -> Iterator[Candidate]:
    for name, column in columns.items():
        if pd.api.types.is_datetime64_any_dtype(column):
            yield (1, 1), name, "its type is a time"
        elif _NAME_PATTERNS["time"].search(name) and _has_strings(column):
            dates = pd.to_datetime(column, errors="coerce", format="mixed", utc=True)
            if dates.notna().all():
                why = f"its name, and its values are dates ({dates.min():%Y-%m-%d} to {dates.max():%Y-%m-%d})"
                yield (0, dates.nunique()), name, why


def _groups(columns: Columns) -> Iterator[Candidate]:
    for name, column in columns.items():
        if pd.api.types.is_float_dtype(column) or not _NAME_PATTERNS["group"].search(name):
            continue
        num_values = column.nunique()
        if 10 <= num_values <= len(column) / 1.5:  # noqa: PLR2004 - enough groups to split, and enough that repeat
            rows_per_value = len(column) / num_values
            yield (
                (rows_per_value,),
                name,
                f"its name, and {num_values:,} values that come back {rows_per_value:.1f} times each",
            )


def _has_strings(column: pd.Series) -> bool:
    return pd.api.types.infer_dtype(column, skipna=True) == "string"


# Roles in order of priority: a column that is chosen for one role is no candidate for later roles.
_FINDERS: dict[Role, Callable[[Columns], Iterator[Candidate]]] = {
    "text": _texts, "label": _labels, "time": _times, "group": _groups,
}  # fmt: skip
