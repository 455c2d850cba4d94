"""Where commands print, and the exit statuses they end with."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

EXIT_OK, EXIT_CRASHED, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130
EXIT_GO_ON = 75  # sysexits.h: EX_TEMPFAIL, "the user is invited to retry"
EXIT_NOTHING_FITS = EXIT_SPOILT = EXIT_SLOWER = 1
EXIT_CODES = "Exit status: 0 done; 1 a cell crashed; 2 a mistake in what was asked; 130 stopped by Ctrl-C."

out, err = Console(), Console(stderr=True)


def print_problems(problems: Sequence[str]) -> None:
    """Say on stderr which files were left aside, and why."""
    for problem in problems:
        err.print(f"[yellow]left aside:[/] {escape(problem)}", soft_wrap=True, highlight=False)


def print_json(value: object) -> None:
    """Print what a script reads."""
    sys.stdout.write(json.dumps(value, indent=1, default=str) + "\n")
