"""Rows that can't be used: of which kinds, how many, and where; and what their values say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import islice
from typing import NamedTuple, TypeVar

from harness.errors import UserError

BROKEN, ENCODING, EMPTY, UNLABELLED, UNKNOWN, MIXED, UNGROUPED, UNTIMED = (
    "broken row", "wrong encoding", "empty text", "missing label", "unknown label", "mixed types", "missing group",
    "missing time",
)  # fmt: skip
_SHOWN_PLACES = 5
_SHOWN_SIGNS = 40
MAX_LABELS = 1_000
_NUMBERS = {"a whole number", "a number"}
Value = TypeVar("Value")


class RejectedRow(NamedTuple):
    """One row that can't be used.

    Attributes:
        place: Its first line in a text file, else its row, from 1.
        detail: What of it is wrong, or empty where the kind says all.
    """

    place: int
    kind: str
    detail: str = ""


class BadValue(Exception):  # noqa: N818 - a finding, caught where the row is known
    """A value that can't be used, with its kind and what is wrong."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(kind, detail)
        self.kind, self.detail = kind, detail


@dataclass
class RejectedRows:
    """All that were found, counted by kind; places and details of the first few alone."""

    counts: Counter[str] = field(default_factory=Counter)
    shown: dict[str, list[str]] = field(default_factory=dict)

    def add(self, found: Iterable[RejectedRow], where: str) -> None:
        """Count rows of a file; `where` stands before each place."""
        for row in found:
            self.counts[row.kind] += 1
            places = self.shown.setdefault(row.kind, [])
            if len(places) < _SHOWN_PLACES:
                places.append(f"{where} {row.place}" + (f": {row.detail}" if row.detail else ""))

    def lines(self) -> list[str]:
        """A line a kind, the most frequent first."""
        return [
            f"{kind}: {count:,} ({', '.join(self.shown[kind])}{', ...' if count > _SHOWN_PLACES else ''})"
            for kind, count in self.counts.most_common()
        ]


@dataclass
class RowValidator:
    """Of what kind each column's values are: that of the first one."""

    first: dict[str, str] = field(default_factory=dict)

    def check(self, column: str, found: tuple[Value, str]) -> Value:
        """Give a value on whose kind is its column's.

        Raises:
            BadValue: When it is of another.
        """
        value, kind = found
        first = self.first.setdefault(column, kind)
        if first != kind and {first, kind} != _NUMBERS:
            raise BadValue(MIXED, f"{column!r} is {kind}, and {first} in earlier rows")
        return value


def parse_text(value: object, column: str) -> str:
    """A text as it stands in its source; empty where there is none.

    Raises:
        BadValue: When it is no text, or not UTF-8.
    """
    if value is None:
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise BadValue(ENCODING, f"{column!r} is not UTF-8") from None
    if not isinstance(value, str):
        raise BadValue(MIXED, f"{column!r} is {_kind(value)}")
    if not value.isascii():
        try:
            value.encode()  # bytes that were no UTF-8 were read as surrogates, which can't be written
        except UnicodeEncodeError:
            raise BadValue(ENCODING, f"{column!r} is not UTF-8") from None
    return value


def parse_label(value: object, column: str) -> tuple[str, str]:
    """A label's name, and of what kind it was: text, a whole number, true or false.

    A number that is not whole is a kind of its own: see `check_labels`.

    Raises:
        BadValue: When there is none, or it is nothing that names a class.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise BadValue(UNLABELLED)
    if isinstance(value, bool):
        return str(value), "true or false"
    if isinstance(value, int):
        return str(value), "a whole number"
    if isinstance(value, float):
        return (str(int(value)), "a whole number") if value.is_integer() else (str(value), "a number")
    text = parse_text(value, column)
    if not text.strip():
        raise BadValue(UNLABELLED)
    return text, "text"


def check_labels(names: Collection[str], column: str, where: str, *, whole: bool = True) -> None:
    """Refuse labels that are no classes; `whole`: all of them are there.

    Raises:
        UserError: When they are numbers of a scale, or too many.
    """
    if not whole and len(names) <= MAX_LABELS:
        return
    some = ", ".join(repr(name[:_SHOWN_SIGNS]) for name in islice(names, 3))
    if _is_scale(names):
        raise UserError(
            f"{where}: labels such as {some} are numbers of a scale: that is regression, and only classes are learnt here; "
            "write each row's class (low, high) into a column, and name it in data.label"
        )
    if len(names) > MAX_LABELS:
        raise UserError(
            f"{where}: more than {MAX_LABELS:,} different labels ({some}, ...); is {column!r} the label's column (data.label)?"
        )


def _is_scale(names: Iterable[str]) -> bool:
    """Whether all labels are numbers, and not all of them whole."""
    whole = True
    for name in names:
        try:
            number = float(name)
        except ValueError:
            return False
        whole = whole and number.is_integer()
    return not whole


def parse_group(value: object, column: str) -> str:
    """A group's name.

    Raises:
        BadValue: When there is none.
    """
    name = parse_text(value, column) if isinstance(value, str | bytes) else "" if value is None else str(value)
    if not name.strip():
        raise BadValue(UNGROUPED)
    return name


def parse_time(value: object, column: str) -> tuple[float, str]:
    """A time as a number that grows, and of what kind it was: a number or a date.

    Dates are ISO 8601, without a zone UTC.

    Raises:
        BadValue: When there is none, or it is neither a number nor a date.
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
        shown = f"{text[:_SHOWN_SIGNS]!r} is no number and no ISO date" if text else ""
        raise BadValue(UNTIMED, shown) from None


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    name = type(value).__name__
    return {"list": "a list", "dict": "an object"}.get(name, f"a {name}")
