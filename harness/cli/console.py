"""Output consoles and exit statuses of the command line."""

from __future__ import annotations

import codecs
import io
import json
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment

from harness.printable import printable, printable_json

EXIT_OK, EXIT_CRASHED, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130
EXIT_FILE_ERROR = 74  # sysexits.h: EX_IOERR, "an error occurred while doing I/O on some file"
EXIT_RESUMABLE = 75  # sysexits.h: EX_TEMPFAIL, "the user is invited to retry"
EXIT_NOTHING_FITS = EXIT_BAD_MACHINE = EXIT_SLOWER = 1
EXIT_CODES = (
    "Exit status: 0 success; 1 a cell crashed; 2 usage error; 74 a file or folder can't be read or "
    "written (full, read-only, ...); 130 stopped by Ctrl-C; 143 by SIGTERM; 129 by SIGHUP."
)


class SafeConsole(Console):
    """A console that shows what others wrote, but never obeys it: text has no escape sequences but rich's own styles.

    Every text passes `render`, whatever it comes from: records, labels, studies, names of files, messages of errors.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, and replace what a terminal could obey."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


out, err = SafeConsole(), SafeConsole(stderr=True)

_HANDLER = "harness.signs"
# What stands for the signs of tables and charts where a terminal or pipe can't hold them.
_SIGNS = str.maketrans(
    {"█": "#", "▇": "#", "▆": "+", "▅": "+", "▄": "=", "▃": "=", "▂": "-", "▁": "_", "━": "-", "─": "-", "…": "...", "→": "->",
     "×": "x", "†": "+", "–": "-", "—": "-", "•": "*", "‘": "'", "’": "'", "“": '"', "”": '"', "²": "^2", "³": "^3", "⁹": "^9",
     "€": "EUR ", "£": "GBP ", "¥": "JPY ", "₹": "INR ", "₩": "KRW "}
)  # fmt: skip


def replace_unprintable_signs() -> None:
    """Let standard output and error replace signs that their encoding lacks, such as ASCII's in a pipe under LANG=C.

    Signs of tables become similar ones, those of texts the escapes of a Python string.
    """
    codecs.register_error(_HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_SIGNS)
    return text.encode("ascii", errors="backslashreplace").decode(), error.end


def print_problems(problems: Sequence[str]) -> None:
    """Print on stderr which files were skipped, and why."""
    for problem in problems:
        err.print(f"[yellow]left aside:[/] {escape(problem)}", soft_wrap=True, highlight=False)


def print_json(value: object) -> None:
    """Print JSON on standard output."""
    print_json_text(json.dumps(value, indent=1, default=str) + "\n")


def print_json_text(text: str) -> None:
    """Print JSON that was made elsewhere on standard output."""
    sys.stdout.write(printable_json(text))
