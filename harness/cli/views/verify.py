"""Terminal view of `harness run --verify`."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from harness.cli.console import print_table, print_text
from harness.cli.layout import columns
from harness.workflows.verify import TOLERANCE, VerifiedCell

_COLOURS = {"agrees": "green", "differs": "red", "not measured": "yellow"}


def show_verified(console: Console, cell: VerifiedCell) -> None:
    """Print one cell's readings, or why there are none."""
    print_text(console, f"\n[bold]{escape(cell.cell)}[/]")
    if cell.reason is not None:
        print_text(console, f"  [yellow]{escape(cell.outcome)}: {escape(cell.reason)}[/]", hang=2)
        return
    rows = []
    for reading in cell.readings:
        values = ("-" if value is None else f"{value:,.2f} {reading.unit}" for value in (reading.ours, reading.theirs))
        difference = "-" if reading.difference is None else f"{reading.difference:+.2%}"
        verdict = f"[{_COLOURS[reading.verdict]}]{reading.verdict}[/]"
        rows.append((reading.figure, *values, difference, verdict, escape(reading.note or reading.instrument)))
    print_table(console, columns(["figure"], ["harness", "instrument", "difference"], ["", "by"]), rows)


def show_tolerance(console: Console) -> None:
    """Print the tolerance, and that no record is saved."""
    print_text(
        console,
        f"\nagrees: within {TOLERANCE:.0%} of the instrument. Nothing of these runs is in a figure or a record.",
    )
