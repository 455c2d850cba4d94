"""The exception for user errors, and the value returned when a figure is unavailable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_CUT = " ... "


class UserError(Exception):
    """An error that the user can fix; its text says what is wrong, where, and what to do.

    Any module may raise it. `harness.cli.main` alone catches it, prints it without a traceback and exits with status 2.
    """


class UnwritableError(UserError):
    """A file or folder can't be written: the disk is full, read-only, ...; `harness.cli.main` exits with status 74."""


class UnsavedRecordError(UnwritableError):
    """The record of a finished cell could not be saved among the results; the text says where it is now.

    Attributes:
        line: The record as one line of JSON, for standard output, if no folder took it; else None.
    """

    def __init__(self, message: str, line: str | None = None) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Unavailable:
    """The result in place of a price, a fit or another value that is not available.

    Attributes:
        reason: Why it is unavailable, as a clause to show to the user.
    """

    reason: str


def invalid_file(where: object, problems: Sequence[str]) -> UserError:
    """Build the error that lists every mistake in a file, one per line."""
    count = f"{len(problems)} mistake{'s' if len(problems) > 1 else ''}"
    return UserError("\n".join([f"{where}: {count}", *(f"  {problem}" for problem in problems)]))


def shorten(text: str, max_chars: int) -> str:
    """Cut the middle out of a message that is too long: its beginning says what is wrong, and its end what to do."""
    if len(text) <= max_chars:
        return text
    num_kept = max_chars - len(_CUT)
    return text[: num_kept - num_kept // 2] + _CUT + text[len(text) - num_kept // 2 :]
