"""The command `harness train`: a resumable training of one cell."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from harness.cli import console
from harness.cli.command import MEASURE, command
from harness.cli.console import EXIT_CRASHED, EXIT_FILE_ERROR, EXIT_INTERRUPTED, EXIT_OK, EXIT_RESUMABLE
from harness.cli.lookups import MachineOptions, load_cells, require_positive
from harness.cli.options import (
    DEFAULT_RESULTS,
    AsJson,
    Detect,
    Instance,
    Offline,
    Overrides,
    OwnPrices,
    Region,
    ResultsPath,
    StudyPath,
    UsdPerHour,
)
from harness.errors import Unavailable, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from harness.execution.resumable import StopLimits
    from harness.execution.stop_flag import StopReason
    from harness.pricing.prices import Price
    from harness.schema.record import Record
    from harness.store.checkpoint_files import ResumePoint

app = typer.Typer()


@command(
    app,
    MEASURE,
    epilog="Example: harness train default --cell b16-s64-fp32-cpu-longest-all --max-minutes 30\n\n"
    "Exit status: 0 training finished; 75 stopped with a checkpoint (the same command resumes); 130 the same after Ctrl-C; "
    "1 training failed; 2 usage error; 74 stopped and no checkpoint could be written (full or read-only disk).",
)
def train(  # noqa: PLR0913 - one parameter per option
    study: StudyPath,
    *,
    cell: Annotated[
        str | None,
        typer.Option("--cell", metavar="NAME", help="Its name or a part of it, if there are several."),
    ] = None,
    max_minutes: Annotated[
        float | None, typer.Option(metavar="N", help="Stop after this long, loading included.")
    ] = None,
    max_usd: Annotated[
        float | None, typer.Option(metavar="USD", help="Stop after this cost, at the machine's price.")
    ] = None,
    max_rows: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Stop after this many rows in this call.")
    ] = None,
    results: ResultsPath = DEFAULT_RESULTS,
    checkpoints: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of checkpoints (default: in --results)."),
    ] = None,
    overrides: Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Train again even if the cell is done.")] = False,
    instance: Instance = None,
    region: Region = None,
    usd_per_hour: UsdPerHour = None,
    prices: OwnPrices = None,
    detect: Detect = False,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Train one cell with checkpoints; the same command resumes.

    It resumes on another machine too. Ctrl-C, SIGTERM, SIGHUP and a spot preemption notice also stop it with a checkpoint. A finished training is an ordinary record.
    """
    from harness.cli.views.progress import ProgressView
    from harness.cli.views.record import run_fields
    from harness.execution.completed import find_done
    from harness.execution.resumable import checkpoints_folder, choose_cell, train_until_limit
    from harness.execution.sweep import describe_environment
    from harness.machine.cloud_metadata import preemption_notice
    from harness.store.record_files import own_records
    from harness.workflows.model_card import card_writer

    screen, runs = console.screen(as_json=as_json), choose_cell(load_cells(study, overrides), cell)
    options = MachineOptions(instance, region, prices, usd_per_hour, detect, offline)
    stated, detector = options.stated_instance(), options.detector()
    environment = describe_environment(stated, detector)
    stored = own_records(results, environment.machine)
    console.print_problems(stored.unreadable)
    # A run that timed out doesn't count as done, because this command can resume it.
    finished = [record for record in stored.records if record.outcome != "timeout"]
    to_do = [run for run in runs if force or find_done(run, finished, environment.machine)[0] != "done"]
    if not to_do:
        text = f"{runs[0].name} is trained; nothing to do (--force trains again)."
        console.print_result(text, {"cell": runs[0].name, "outcome": "done"}, as_json=as_json)
        return
    run = to_do[0]
    if len(runs) > 1:
        console.print_text(screen, escape(f"{len(to_do)} of {len(runs)} runs to train; now {run.label}."))
    detected = environment.detected
    price = options.price(environment.machine, stated=environment.stated, detected=detected)
    limits = stop_limits(max_minutes, max_usd, max_rows, price)
    if not offline and detected is not None and detected.is_spot is not False:
        limits = replace(limits, preemption_notice=partial(preemption_notice, detected.vendor))
    folder = checkpoints or checkpoints_folder(run, results)
    view = ProgressView(
        screen, [run], machine=environment.machine,
        usd_per_hour=None if isinstance(price, Unavailable) else price.usd_per_hour, earlier=stored.records,
    )  # fmt: skip
    with view:
        record, stop_reason = train_until_limit(
            run, results, environment, view, folder=folder, limits=limits, on_resume_point=partial(_print_resume_point, screen),
            write_card=card_writer(price),
        )  # fmt: skip
    _print_end(screen, record, folder)
    if as_json:
        console.print_json(run_fields(*view.saved[-1]))
    if (status := _status(record, stop_reason)) != EXIT_OK:
        raise typer.Exit(status)


def _status(record: Record, stop_reason: StopReason | None) -> int:
    """Return the exit status of a training that ended with this record."""
    from harness.execution.stop_flag import StopReason
    from harness.store.saved_models import is_model_missing

    if record.outcome in ("interrupted", "preempted"):
        if not _is_all_kept(record):
            return EXIT_FILE_ERROR
        return EXIT_INTERRUPTED if stop_reason is StopReason.USER else EXIT_RESUMABLE
    if record.outcome != "ok":
        return EXIT_CRASHED
    return EXIT_FILE_ERROR if is_model_missing(record) else EXIT_OK


def stop_limits(
    max_minutes: float | None, max_usd: float | None, max_rows: int | None, price: Price | Unavailable
) -> StopLimits:
    """Return the limits of a training: the rows, and the stricter of minutes and dollars.

    Args:
        max_minutes: Value of `--max-minutes`.
        max_usd: Value of `--max-usd`.
        max_rows: Value of `--max-rows`.
        price: The machine's price.

    Raises:
        UserError: If a limit is not positive, or is in dollars and the price is unknown.
    """
    from harness.execution.resumable import StopLimits

    limits: list[tuple[float, str]] = []
    if (minutes := require_positive(max_minutes, "--max-minutes")) is not None:
        limits.append((minutes * 60, f"--max-minutes {minutes:g}"))
    if (usd := require_positive(max_usd, "--max-usd")) is not None:
        if isinstance(price, Unavailable):
            raise UserError(f"--max-usd needs a price: {price.reason}")
        text = f"--max-usd {usd:g} at {price.usd_per_hour:g} USD an hour ({price.basis_word} price)"
        limits.append((usd / price.usd_per_hour * 3600, text))
    max_s, max_s_text = min(limits, default=(None, ""))
    return StopLimits(max_s=max_s, max_s_text=max_s_text, max_rows=max_rows)


def _print_resume_point(screen: Console, point: ResumePoint) -> None:
    for refused in point.refused:
        console.print_note(escape(refused), label="refused")
    if point.manifest is not None:
        done, planned = point.manifest.num_updates, point.manifest.num_updates_planned
        console.print_text(screen, f"Going on from {escape(str(point.path))}: {done} of {planned} updates are done.")


def _is_all_kept(record: Record) -> bool:
    """Return whether the last checkpoint of a stopped training has all its updates."""
    segments = record.training.pieces if record.training else ()
    if not segments or not segments[-1].checkpoints:
        return not segments or segments[-1].num_updates == 0
    last = segments[-1]
    return last.checkpoints[-1].num_updates == last.first_update + last.num_updates


def _print_end(screen: Console, record: Record, folder: Path) -> None:
    from harness.cli.views.record import hub_lines

    for line in hub_lines([record]):
        console.print_text(screen, escape(line))
    if record.outcome == "ok":
        return
    console.print_failure(record.outcome, record.cell, record.reason)
    pieces = record.training.pieces if record.training else ()
    if record.outcome in ("interrupted", "preempted") and pieces and pieces[-1].checkpoints and _is_all_kept(record):
        written = pieces[-1].checkpoints[-1]
        took = "" if written.seconds is None else f" in {written.seconds:.1f} s"
        console.print_text(
            screen,
            f"Checkpoint written{took} ({written.num_bytes / 2**20:,.0f} MiB) to {escape(str(folder))}; "
            "the same command goes on.",
        )
