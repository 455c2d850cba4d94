"""Check and convert a row's values, and count unusable rows by kind of problem."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from typing import NamedTuple

from harness.errors import UserError

BROKEN, ENCODING, EMPTY, UNLABELLED, UNKNOWN, MIXED, UNGROUPED, UNTIMED, NO_TEXT, SEVERAL, NO_CLASS = (
    "broken row", "wrong encoding", "empty text", "missing label", "unknown label", "mixed types", "missing group",
    "missing time", "no text", "several labels", "no class",
)  # fmt: skip
# What to do about a kind of problem beyond fixing or skipping single rows.
CURES = {
    ENCODING: "save it as UTF-8",
    NO_TEXT: "write it as text, or name another column in data.text (--text)",
    SEVERAL: "one label a text is supported, not several (multi-label): write one into a column, and name it in data.label",
    NO_CLASS: "a label is text, a whole number or true or false: write each row's class into a column, and name it in "
    "data.label",
}
MAX_LABELS = 1_000
_MAX_SHOWN_PLACES = 5
_MAX_SHOWN_CHARACTERS = 40
_NUMBERS = {"a whole number", "a number"}


class RejectedRow(NamedTuple):
    """One unusable row.

    Attributes:
        row_number: In a text file, the first line of the row; otherwise the number of the row. Both count from 1.
        kind: The kind of problem: one of this module's constants, e.g. BROKEN.
        detail: What is wrong; empty if the kind says everything.
    """

    row_number: int
    kind: str
    detail: str = ""


class BadValue(Exception):  # noqa: N818 - not an error of the program: caught where the row's number is known
    """An unusable value, which makes its row unusable."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(kind, detail)
        self.kind, self.detail = kind, detail


@dataclass
class RejectedRows:
    """Counts of rejected rows by kind, with the places and details of the first few of each kind."""

    counts: Counter[str] = field(default_factory=Counter)
    shown: dict[str, list[str]] = field(default_factory=dict)

    def add(self, rows: Iterable[RejectedRow], location: str) -> None:
        """Count rejected rows; `location` is the text before a row's number in messages, e.g. `b.csv line`."""
        for row in rows:
            self.counts[row.kind] += 1
            places = self.shown.setdefault(row.kind, [])
            if len(places) < _MAX_SHOWN_PLACES:
                places.append(f"{location} {row.row_number}" + (f": {row.detail}" if row.detail else ""))

    def lines(self) -> list[str]:
        """Return one line per kind of problem, the most frequent kind first."""
        return [
            f"{kind}: {count:,} ({', '.join(self.shown[kind])}{', ...' if count > _MAX_SHOWN_PLACES else ''})"
            f"{f'; {CURES[kind]}' if kind in CURES else ''}"
            for kind, count in self.counts.most_common()
        ]


@dataclass
class RowValidator:
    """A check that all values of a column are of the same kind as the column's first value."""

    first_kinds: dict[str, str] = field(default_factory=dict)

    def check(self, column: str, kind: str) -> None:
        """Compare a value's kind with that of the column's first value; whole and other numbers count as one kind.

        Raises:
            BadValue: If the kinds differ.
        """
        first = self.first_kinds.setdefault(column, kind)
        if first != kind and {first, kind} != _NUMBERS:
            raise BadValue(MIXED, f"{column!r} is {kind}, and {first} in earlier rows")


def parse_text(value: object, column: str) -> str:
    """Return a value as text: strings unchanged, bytes decoded, and an empty text for a missing value.

    Raises:
        BadValue: If the value is not text, or not UTF-8.
    """
    if value is None:
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise BadValue(ENCODING, f"{column!r} is not UTF-8") from None
    if not isinstance(value, str):
        raise BadValue(NO_TEXT, f"{column!r} is {_describe_type(value)}")
    if not value.isascii():
        try:
            value.encode()  # fails for surrogates
        except UnicodeEncodeError as error:
            if not "\udc80" <= value[error.start] <= "\udcff":  # those stand for bytes that are not UTF-8
                raise BadValue(BROKEN, f"{column!r} has half of a surrogate pair, {value[error.start]!a}") from None
            raise BadValue(ENCODING, f"{column!r} is not UTF-8") from None
    return value


def parse_label(value: object, column: str) -> tuple[str, str]:
    """Return a label's name and its kind: text, a whole number, a number, or true or false.

    Fractional numbers are accepted here and rejected by `check_labels`, which sees all labels.

    Raises:
        BadValue: If the label is missing, or of a type that can't name a class.
    """
    if value is None or (isinstance(value, float | Decimal) and math.isnan(value)):
        raise BadValue(UNLABELLED)
    if isinstance(value, bool):
        return str(value), "true or false"
    if isinstance(value, int):
        return str(value), "a whole number"
    if isinstance(value, float | Decimal):
        is_whole = math.isfinite(value) and value == int(value)
        return (str(int(value)), "a whole number") if is_whole else (str(value), "a number")
    if isinstance(value, list | tuple | set):
        raise BadValue(SEVERAL, f"{column!r} is a list")
    if not isinstance(value, str | bytes):
        raise BadValue(NO_CLASS, f"{column!r} is {_describe_type(value)}")
    text = parse_text(value, column)
    if not text.strip():
        raise BadValue(UNLABELLED)
    return text, "text"


def check_labels(names: Collection[str], column: str, where: str, *, all_read: bool = True) -> None:
    """Reject labels that are not classes.

    Args:
        names: All labels, or those read so far.
        column: The label column.
        where: Prefix of the error message.
        all_read: Whether `names` has all labels; if not, only the number of labels is checked.

    Raises:
        UserError: If the labels are numbers on a scale, or are more than `MAX_LABELS`.
    """
    if not all_read and len(names) <= MAX_LABELS:
        return
    examples = ", ".join(repr(name[:_MAX_SHOWN_CHARACTERS]) for name in islice(names, 3))
    if is_scale(names):
        raise UserError(
            f"{where}: labels such as {examples} are numbers on a scale: that is regression, and only classes are "
            "supported; write each row's class (low, high) into a column, and name it in data.label"
        )
    if len(names) > MAX_LABELS:
        raise UserError(
            f"{where}: more than {MAX_LABELS:,} different labels ({examples}, ...); is {column!r} the label column "
            "(data.label)?"
        )


def is_scale(names: Iterable[str]) -> bool:
    """Return True if all labels are numbers and some are fractional."""
    all_whole = True
    for name in names:
        try:
            number = float(name)
        except ValueError:
            return False
        # "nan" among whole numbers is a word for a missing label, and makes them no scale.
        all_whole = all_whole and (number.is_integer() or not math.isfinite(number))
    return not all_whole


def parse_group(value: object, column: str) -> str:
    """Return a group's name.

    Raises:
        BadValue: If the group is missing.
    """
    name = parse_text(value, column) if isinstance(value, str | bytes) else "" if value is None else str(value)
    if not name.strip():
        raise BadValue(UNGROUPED)
    return name


def parse_time(value: object, column: str) -> tuple[float, str]:
    """Return a time as a number that grows with time (seconds since 1970 for a date), and its kind.

    Dates are ISO 8601; dates without a time zone are taken as UTC.

    Raises:
        BadValue: If the time is missing, or neither a number nor a date.
    """
    if isinstance(value, datetime):
        return value.replace(tzinfo=value.tzinfo or UTC).timestamp(), "a date"
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp(), "a date"
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value), "a number"
    text = parse_text(value, column).strip() if isinstance(value, str | bytes) else ""
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        if math.isfinite(number):
            return number, "a number"
    try:
        return parse_time(datetime.fromisoformat(text), column)
    except ValueError:
        detail = f"{text[:_MAX_SHOWN_CHARACTERS]!r} is neither a number nor an ISO date" if text else ""
        raise BadValue(UNTIMED, detail) from None


def _describe_type(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float | Decimal):
        return "a number"
    if isinstance(value, date | time | timedelta):
        return "a date" if isinstance(value, date) else "a time"
    name = type(value).__name__
    return {"list": "a list", "dict": "an object"}.get(name, f"a {name}")
