"""A study's cells under instruments that are not the harness's own."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from harness.cli import console
from harness.cli.console import EXIT_CRASHED, EXIT_INTERRUPTED

if TYPE_CHECKING:
    from harness.schema.cells import Cell


def verify_cells(cells: Sequence[Cell], results: Path) -> None:
    """Run each cell under independent instruments; exit status 1 where one contradicts, or a cell ended badly."""
    from harness.cli.views.verify import show_tolerance, show_verified
    from harness.execution.preparation import Preparations
    from harness.execution.sweep import exclusive_lock
    from harness.machine.describe import describe_machine
    from harness.workflows.verify import verify_cell

    here, found = describe_machine(), []
    try:
        with exclusive_lock(results), tempfile.TemporaryDirectory(prefix="harness-data-") as folder:
            preparations = Preparations(Path(folder))
            for cell in cells:
                found.append(verify_cell(cell, preparations.prepare, here))
                show_verified(console.out, found[-1])
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    show_tolerance(console.out)
    if not all(one.agrees and one.outcome in ("ok", "not run", "unsupported") for one in found):
        raise typer.Exit(EXIT_CRASHED)
