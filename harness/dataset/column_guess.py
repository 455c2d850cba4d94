"""Which columns of a table hold text, label, group and time, and why it is thought so (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from harness.dataset.row_checks import MAX_LABELS

Role = Literal["text", "label", "group", "time"]

_FEWEST_ROWS_A_CLASS = 5
_FEWEST_WORDS = 2.5  # of a text, in the mean
_LOOKED_AT = 5_000  # rows by which a column is known
_NAMES: dict[Role, re.Pattern[str]] = {
    "text": re.compile(r"text|review|comment|sentence|content|body|message|description|document|tweet|title", re.I),
    "label": re.compile(r"label|class|category|sentiment|target|rating|stars?|topic|polarity|intent|^y$", re.I),
    "group": re.compile(r"(^|_)(id|user|author|movie|film|product|item|customer|thread|url|source|name)s?($|_)", re.I),
    "time": re.compile(r"date|time|year|created|published|stamp|written|posted|_(on|at)$", re.I),
}


@dataclass(frozen=True)
class ColumnGuess:
    """One column's part.

    Attributes:
        why: What of the column speaks for it, in words.
    """

    role: Role
    column: str
    why: str


def guess_columns(frame: pd.DataFrame) -> dict[Role, ColumnGuess]:
    """Tell the text and the label by their values, names as a second reason; group and time where there seem to be such.

    Text is the column of the longest texts; label one of few values that each stand in several rows. A group is a column
    of many values that come back, a time one whose values all are dates. What can't be told is left out.

    Args:
        frame: Rows of a table, as strings, numbers or dates; the first few thousand are looked at.
    """
    seen = {str(name): frame[name].head(_LOOKED_AT).dropna() for name in frame.columns}
    seen = {name: column for name, column in seen.items() if len(column)}
    found: dict[Role, ColumnGuess] = {}
    for role, candidates in (("text", _texts), ("label", _labels), ("time", _times), ("group", _groups)):
        taken = {guess.column for guess in found.values()}
        left = {name: column for name, column in seen.items() if name not in taken}
        best = max(candidates(left), default=None)
        if best is not None:
            found[role] = ColumnGuess(role, best[1], best[2])  # type: ignore[index,arg-type]
    return found


Candidate = tuple[tuple[float, ...], str, str]  # how strongly, which column, why


def _texts(columns: dict[str, pd.Series]) -> Iterator[Candidate]:
    for name, column in columns.items():
        if not _is_words(column):
            continue
        num_words = float(column.str.count(r"\S+").mean())
        named = bool(_NAMES["text"].search(name))
        if num_words >= _FEWEST_WORDS:
            why = f"{num_words:.0f} words in the mean, {'more than any other column' if len(columns) > 1 else 'the only column'}"
            yield (num_words, named), name, why


def _labels(columns: dict[str, pd.Series]) -> Iterator[Candidate]:
    for name, column in columns.items():
        if pd.api.types.is_float_dtype(column) and not (column % 1 == 0).all():
            continue
        values = column.nunique()
        named = bool(_NAMES["label"].search(name))
        if 2 <= values <= MAX_LABELS and len(column) / values >= _FEWEST_ROWS_A_CLASS:  # noqa: PLR2004 - a classifier needs two
            shown = ", ".join(map(str, column.value_counts().index[:4]))
            why = f"{values} values ({shown}{', ...' if values > 4 else ''})"  # noqa: PLR2004 - as many as are shown
            yield (named, -values), name, why + (", and its name" if named else "")


def _times(columns: dict[str, pd.Series]) -> Iterator[Candidate]:
    for name, column in columns.items():
        if pd.api.types.is_datetime64_any_dtype(column):
            yield (1, 1), name, "its type is a time"
        elif _NAMES["time"].search(name) and _is_words(column):
            dates = pd.to_datetime(column, errors="coerce", format="mixed", utc=True)
            if dates.notna().all():
                yield (
                    (0, dates.nunique()),
                    name,
                    f"its name, and its values are dates ({dates.min():%Y-%m-%d} to {dates.max():%Y-%m-%d})",
                )


def _groups(columns: dict[str, pd.Series]) -> Iterator[Candidate]:
    for name, column in columns.items():
        if pd.api.types.is_float_dtype(column) or not _NAMES["group"].search(name):
            continue
        values = column.nunique()
        if 10 <= values <= len(column) / 1.5:  # noqa: PLR2004 - too few could not be split; of more, hardly any comes back
            yield (
                (len(column) / values,),
                name,
                f"its name, and {values:,} values that come back {len(column) / values:.1f} times each",
            )


def _is_words(column: pd.Series) -> bool:
    return pd.api.types.infer_dtype(column, skipna=True) == "string"
