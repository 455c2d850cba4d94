"""`harness run --cluster`: a study on the nodes of a Ray cluster."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from harness.cli import console
from harness.cli.console import EXIT_CRASHED, EXIT_INTERRUPTED
from harness.cli.lookups import MachineOptions
from harness.errors import Unavailable, UserError

if TYPE_CHECKING:
    from harness.execution.jobs import Environment
    from harness.schema.cells import Cell

_SECONDS_PER_MINUTE = 60
_REACH_S = 120.0
_LOOK_EVERY_S = 0.2


def run_on_nodes(
    address: str,
    study: Path,
    overrides: Sequence[str] | None,
    cells: Sequence[Cell],
    results: Path,
    options: MachineOptions,
    *,
    skip: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Run cells on every kind of machine of a cluster, and print what happens.

    Args:
        address: The cluster: HOST:PORT of its head, or `auto`.
        study: The study's file, which may name kinds of machines.
        overrides: Other values for the study's keys.
        cells: The cells.
        results: Folder for the records.
        options: How machines are described and priced.
        skip: Skip cells larger than one that ran out of memory.
        force: Run cells that are done, too.
        as_json: Print the new records' figures as JSON.

    Raises:
        UserError: If the options or the study don't suit a cluster, or no cell can run.
    """
    from harness.cli.views.cluster import ClusterView
    from harness.cli.views.record import run_fields
    from harness.cluster.cluster_options import ClusterOptions
    from harness.cluster.cluster_run import run_on_cluster
    from harness.cluster.connection import connect
    from harness.execution.sweep import exclusive_lock
    from harness.schema.cells import FineTuneConfig

    if options.instance is not None:
        raise UserError("--cluster: not with --instance; nodes are asked what they are, or say it by a label of Ray's")
    if any(isinstance(cell.config, FineTuneConfig) and cell.config.training.keep_model for cell in cells):
        raise UserError(
            "--cluster: models stay on no node; set training.keep_model=false, and train the chosen cell later"
        )
    limits = cells[0].config.limits
    chosen = ClusterOptions(
        results=results,
        machines=_machines(study, overrides),
        detect="never" if options.offline else "everywhere" if options.detect else "firmware",
        price=lambda environment: _usd_per_hour(options, environment),
        budget_usd=limits.budget_usd,
        deadline_s=None if limits.budget_minutes is None else limits.budget_minutes * _SECONDS_PER_MINUTE,
        skip=skip,
        force=force,
    )
    view = ClusterView(console.screen(as_json=as_json), budget_usd=limits.budget_usd)
    was_stopped = False
    console.print_text(view.console, escape(f"{len(cells)} cells of {study}, on the cluster {address}"))
    with exclusive_lock(results), connect(address) as cluster, view:
        try:
            run_on_cluster(cluster, cells, chosen, view)
        except KeyboardInterrupt:
            was_stopped = True
    for record, _ in view.saved:
        if record.outcome not in ("ok", "interrupted"):
            console.print_failure(record.outcome, record.cell, record.reason)
    if as_json:
        console.print_json([run_fields(record, path) for record, path in view.saved])
    if was_stopped:
        console.print_text(view.console, "Stopped. What is finished is kept; the same command goes on.")
        raise typer.Exit(EXIT_INTERRUPTED)
    if any(record.outcome == "crashed" for record, _ in view.saved):
        raise typer.Exit(EXIT_CRASHED)


def _machines(study: Path, overrides: Sequence[str] | None) -> tuple[str, ...] | None:
    from harness.schema.study_file import load_study

    return None if study.suffix == ".json" else load_study(study, overrides or ()).cluster.machines


def _usd_per_hour(options: MachineOptions, environment: Environment) -> float | None:
    price = options.price(environment.machine, detected=environment.detected)
    return None if isinstance(price, Unavailable) else price.usd_per_hour


def detach(results: Path) -> None:
    """Begin this command again in the background, and return when it has reached the cluster.

    Args:
        results: Folder for the records, and for the log of what the command prints.

    Raises:
        UserError: If it ended before.
    """
    from harness.cluster.run_status import LOG_FILE, read_status

    results.mkdir(parents=True, exist_ok=True)
    log = results / LOG_FILE
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", *(argument for argument in sys.argv[1:] if argument != "--detach")],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    ends_at = time.monotonic() + _REACH_S
    while time.monotonic() < ends_at and process.poll() is None:
        if (status := read_status(results)) is not None and status.pid == process.pid:
            break
        time.sleep(_LOOK_EVERY_S)
    if process.poll() is not None:
        raise UserError(f"the run ended with status {process.returncode}: {log.read_text(errors='replace').strip()}")
    console.print_text(
        console.out,
        escape(f"Process {process.pid} goes on in the background and writes {log}; `harness cluster status` shows it."),
    )
