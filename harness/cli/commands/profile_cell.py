"""The command `harness profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import console
from harness.cli.command import MEASURE, command
from harness.cli.console import EXIT_INTERRUPTED
from harness.cli.lookups import choose_cells, load_cells
from harness.cli.options import DEFAULT_RESULTS, AsJson, Only, Overrides, StudyPath

app = typer.Typer()


@command(app, MEASURE, epilog="Example: harness profile default --only batch_size=16 --only precision=bf16")
def profile(
    study: StudyPath,
    *,
    only: Only = None,
    overrides: Overrides = None,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Number of profiled steps.")] = 5,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the trace.")] = DEFAULT_RESULTS
    / "profiles",
    as_json: AsJson = False,
) -> None:
    """Show where the time of a training step goes, by torch.profiler.

    A trace for Perfetto is written too. Uses the first cell that trains; choose another with `--only cell=NAME`. No record is saved.
    """
    from harness.cli.views.profile_cell import show_profile
    from harness.execution.sweep import describe_environment
    from harness.workflows.profile_cell import first_trained_cell, profile_cell

    cell = first_trained_cell(choose_cells(load_cells(study, overrides), only))
    try:
        result = profile_cell(cell, describe_environment(None), steps, out)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if as_json:
        console.print_json(result.as_fields())
    else:
        show_profile(console.out, result)
