"""Output consoles and exit statuses of the command line. Every text and table is printed by a function of this module."""

from __future__ import annotations

import codecs
import io
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.text import Text

from harness.cli.layout import Cell, Column, as_text, fact_lines, table_lines, wrap
from harness.printable import printable, printable_json

EXIT_OK, EXIT_CRASHED, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130
EXIT_FILE_ERROR = 74  # sysexits.h: EX_IOERR, "an error occurred while doing I/O on some file"
EXIT_RESUMABLE = 75  # sysexits.h: EX_TEMPFAIL, "the user is invited to retry"
EXIT_NOTHING_FITS = EXIT_BAD_MACHINE = EXIT_SLOWER = 1
EXIT_CODES = (
    "Exit status: 0 success; 1 a cell crashed; 2 usage error; 74 a file can't be read or written; 130 stopped by Ctrl-C, "
    "143 by SIGTERM, 129 by SIGHUP."
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
    {"█": "#", "░": ".", "▇": "#", "▆": "+", "▅": "+", "▄": "=", "▃": "=", "▂": "-", "▁": "_", "━": "-", "─": "-", "…": "...", "→": "->",
     "×": "x", "†": "+", "–": "-", "—": "-", "•": "*", "‘": "'", "’": "'", "“": '"', "”": '"', "±": "+/-", "²": "^2", "³": "^3", "⁹": "^9",
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


def layout_width(console: Console) -> int | None:
    """Return the columns in which text is laid out; None for a pipe or file, where no line is broken."""
    return console.width if console.is_terminal else None


def print_text(console: Console, text: Cell = "", *, style: str = "", hang: int = 0) -> None:
    """Print text, broken between words in a terminal.

    Args:
        console: Where to print.
        text: Markup, or text with styles.
        style: Style of the whole text.
        hang: Blanks before continuation lines.
    """
    print_lines(console, wrap(as_text(text), layout_width(console), hang), style)


def print_lines(console: Console, lines: Iterable[Text], style: str = "") -> None:
    """Print lines that are laid out already."""
    for line in lines:
        console.print(line, style=style, soft_wrap=True, highlight=False)


def print_table(console: Console, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    """Print a table; see `harness.cli.layout` for what happens where it does not fit."""
    print_lines(console, table_lines(columns, rows, layout_width(console)))


def print_facts(console: Console, facts: Sequence[tuple[str, Cell]]) -> None:
    """Print names and values below each other."""
    print_lines(console, fact_lines(facts, layout_width(console)))


@dataclass
class Verbosity:
    """What the user wants to see beside the result; set anew by every command."""

    quiet: bool = False
    verbose: bool = False


verbosity = Verbosity()


def print_note(text: Cell, *, label: str = "") -> None:
    """Print a remark on stderr, after a yellow label if one is given; nothing with `--quiet`."""
    if not verbosity.quiet:
        print_text(err, Text.assemble((f"{label}: ", "yellow"), as_text(text)) if label else text, hang=2)


def print_detail(text: Cell) -> None:
    """Print on stderr what only `--verbose` shows."""
    if verbosity.verbose:
        print_text(err, text, style="dim")


def print_problems(problems: Sequence[str]) -> None:
    """Print on stderr which files were skipped, and why."""
    for problem in problems:
        print_note(escape(problem), label="left aside")


def print_failure(outcome: str, cell: str, reason: str | None) -> None:
    """Print on stderr how a cell ended that did not end well."""
    print_text(err, f"{outcome:>12}  {escape(cell)}: {escape(reason or '')}", hang=14)


def screen(*, as_json: bool) -> Console:
    """Return where a run is shown: standard output, or stderr if that gets JSON; nowhere with `--quiet`."""
    return Console(quiet=True) if verbosity.quiet else err if as_json else out


def print_json(value: object) -> None:
    """Print JSON on standard output."""
    print_json_text(json.dumps(value, indent=1, default=str) + "\n")


def print_result(text: str, fields: dict[str, object], *, as_json: bool) -> None:
    """Print the result of a command that has one line of it: as text, or as JSON."""
    if as_json:
        print_json(fields)
    else:
        print_text(out, escape(text))


def print_json_text(text: str) -> None:
    """Print JSON that was made elsewhere on standard output."""
    sys.stdout.write(printable_json(text))
