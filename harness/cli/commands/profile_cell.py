"""The command that shows where a step's time goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import console
from harness.cli.console import EXIT_INTERRUPTED
from harness.cli.lookups import choose_cells, load_cells
from harness.cli.options import DEFAULT_RESULTS, AsJson, Only, Overrides, StudyPath

app = typer.Typer()


@app.command(epilog="Example: harness profile bench/default.toml --only batch_size=16 --only precision=bf16")
def profile(
    study: StudyPath,
    *,
    only: Only = None,
    overrides: Overrides = None,
    steps: Annotated[int, typer.Option(min=1, help="How many are profiled.")] = 5,
    out: Annotated[Path, typer.Option(help="Folder of the trace.")] = DEFAULT_RESULTS / "profiles",
    as_json: AsJson = False,
) -> None:
    """Show where a step's time goes, by torch.profiler on a few steps that no figure holds; writes a trace for Perfetto.

    Of several cells the first that trains is taken; `--only cell=NAME` names another.
    """
    from harness.cli.views.profile_cell import show_profile
    from harness.execution.sweep import describe_environment
    from harness.workflows.profile_cell import choose_trained, profile_cell

    cell = choose_trained(choose_cells(load_cells(study, overrides), only))
    try:
        found = profile_cell(cell, describe_environment(None), steps, out)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if as_json:
        console.print_json(found.as_fields())
    else:
        show_profile(console.out, found)
