"""What independent instruments said, as a person reads it."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.workflows.verify import TOLERANCE, Verified

_COLOURS = {"agrees": "green", "differs": "red", "not measured": "yellow"}


def show_verified(console: Console, found: Verified) -> None:
    """Print one cell's readings."""
    console.print(f"\n[bold]{escape(found.cell)}[/]", highlight=False)
    if found.reason is not None:
        console.print(f"  [yellow]{escape(found.outcome)}: {escape(found.reason)}[/]", highlight=False, soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("figure", "harness", "instrument", "difference", "", "by"):
        table.add_column(name, justify="right" if name in ("harness", "instrument", "difference") else "left")
    for one in found.readings:
        ours, theirs = ("-" if value is None else f"{value:,.2f} {one.unit}" for value in (one.ours, one.theirs))
        difference = "-" if one.difference is None else f"{one.difference:+.2%}"
        verdict = f"[{_COLOURS[one.verdict]}]{one.verdict}[/]"
        table.add_row(one.figure, ours, theirs, difference, verdict, escape(one.note or one.instrument))
    console.print(table, highlight=False)


def show_tolerance(console: Console) -> None:
    """Say what the verdicts mean, and that nothing was kept."""
    console.print(
        f"\nagrees: within {TOLERANCE:.0%} of the instrument. Nothing of these runs is in a figure or a record.",
        highlight=False,
    )
