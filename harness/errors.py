"""The one exception that stands for the user's mistake."""


class UserError(Exception):
    """Something the user can mend; its text says what, where and what to do.

    Raised anywhere, caught once, in `harness.cli.main`, which prints it without a traceback and exits with status 2.
    """
