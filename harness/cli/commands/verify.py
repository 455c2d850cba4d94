"""`harness run --verify`: run cells under independent instruments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from harness.cli import console
from harness.cli.console import EXIT_CRASHED, EXIT_INTERRUPTED

if TYPE_CHECKING:
    from harness.schema.cells import Cell


def verify_cells(cells: Sequence[Cell], results: Path) -> None:
    """Run each cell under independent instruments; exit with status 1 if one disagrees or a cell failed."""
    from harness.cli.views.verify import show_tolerance, show_verified
    from harness.execution.preparation import Preparations
    from harness.execution.sweep import exclusive_lock
    from harness.machine.describe import describe_machine
    from harness.machine.private_folders import private_folder
    from harness.workflows.verify import VerifiedCell, verify_cell

    machine = describe_machine()
    verified: list[VerifiedCell] = []
    try:
        with exclusive_lock(results), private_folder("data") as folder:
            preparations = Preparations(folder)
            for cell in cells:
                verified.append(verify_cell(cell, preparations.prepare, machine))
                show_verified(console.out, verified[-1])
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    show_tolerance(console.out)
    if not all(cell.agrees and cell.outcome in ("ok", "not run", "unsupported") for cell in verified):
        raise typer.Exit(EXIT_CRASHED)
