"""Terminal view of `harness run --verify`."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.workflows.verify import TOLERANCE, VerifiedCell

_COLOURS = {"agrees": "green", "differs": "red", "not measured": "yellow"}


def show_verified(console: Console, cell: VerifiedCell) -> None:
    """Print one cell's readings, or why there are none."""
    console.print(f"\n[bold]{escape(cell.cell)}[/]", highlight=False)
    if cell.reason is not None:
        console.print(f"  [yellow]{escape(cell.outcome)}: {escape(cell.reason)}[/]", highlight=False, soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("figure", "harness", "instrument", "difference", "", "by"):
        table.add_column(name, justify="right" if name in ("harness", "instrument", "difference") else "left")
    for reading in cell.readings:
        values = ("-" if value is None else f"{value:,.2f} {reading.unit}" for value in (reading.ours, reading.theirs))
        difference = "-" if reading.difference is None else f"{reading.difference:+.2%}"
        verdict = f"[{_COLOURS[reading.verdict]}]{reading.verdict}[/]"
        table.add_row(reading.figure, *values, difference, verdict, escape(reading.note or reading.instrument))
    console.print(table, highlight=False)


def show_tolerance(console: Console) -> None:
    """Print the tolerance, and that no record is saved."""
    console.print(
        f"\nagrees: within {TOLERANCE:.0%} of the instrument. Nothing of these runs is in a figure or a record.",
        highlight=False,
    )
