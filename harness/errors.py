"""The exception for users' mistakes, and the value that stands for a figure that can't be given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class UserError(Exception):
    """A mistake that the user can fix; its text says what is wrong, where, and what to do.

    Raised anywhere, caught once, in `harness.cli.main`, which prints it without a traceback and exits with status 2.
    """


@dataclass(frozen=True)
class Unavailable:
    """Returned in place of a price, a fit or another value that can't be given.

    Attributes:
        reason: Why, as a clause to be shown to the user.
    """

    reason: str


def mistakes(where: object, problems: Sequence[str]) -> UserError:
    """Build the error that lists every mistake in a file, one per line."""
    count = f"{len(problems)} mistake{'s' if len(problems) > 1 else ''}"
    return UserError("\n".join([f"{where}: {count}", *(f"  {problem}" for problem in problems)]))
