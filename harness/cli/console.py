"""Output consoles and exit statuses of the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

EXIT_OK, EXIT_CRASHED, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130
EXIT_RESUMABLE = 75  # sysexits.h: EX_TEMPFAIL, "the user is invited to retry"
EXIT_NOTHING_FITS = EXIT_BAD_MACHINE = EXIT_SLOWER = 1
EXIT_CODES = "Exit status: 0 success; 1 a cell crashed; 2 usage error; 130 stopped by Ctrl-C."

out, err = Console(), Console(stderr=True)


def print_problems(problems: Sequence[str]) -> None:
    """Print on stderr which files were skipped, and why."""
    for problem in problems:
        err.print(f"[yellow]left aside:[/] {escape(problem)}", soft_wrap=True, highlight=False)


def print_json(value: object) -> None:
    """Print JSON on standard output."""
    sys.stdout.write(json.dumps(value, indent=1, default=str) + "\n")
