"""The one exception that stands for the user's mistake."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """Something the user can mend; its text says what, where and what to do.

    Raised anywhere, caught once, in `harness.cli.main`, which prints it without a traceback and exits with status 2.
    """


def mistakes(where: object, problems: Sequence[str]) -> UserError:
    """The error that lists every mistake of a file, one line each."""
    count = f"{len(problems)} mistake{'s' if len(problems) > 1 else ''}"
    return UserError("\n".join([f"{where}: {count}", *(f"  {problem}" for problem in problems)]))
