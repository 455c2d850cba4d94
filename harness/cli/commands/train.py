"""The command that trains one cell in pieces: for so long, and on from there another time or elsewhere."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from harness.cli import console
from harness.cli.console import EXIT_CRASHED, EXIT_GO_ON, EXIT_INTERRUPTED
from harness.cli.lookups import cloud_detector, find_price, load_cells, read_stated, require_positive
from harness.cli.options import (
    DEFAULT_RESULTS,
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
    from harness.execution.resumable import StopLimits
    from harness.pricing.prices import Price
    from harness.schema.record import Record
    from harness.store.checkpoint_files import ResumePoint

app = typer.Typer()


@app.command(
    epilog="Example: harness train bench/default.toml --cell b16-s64-fp32-cpu-longest-all --max-minutes 30\n\n"
    "Exit status: 0 trained to its end; 75 stopped with a checkpoint: the same command goes on; 130 the same by Ctrl-C; "
    "1 it failed; 2 a mistake in what was asked."
)
def train(  # noqa: PLR0913 - each is an option of the command
    study: StudyPath,
    *,
    cell: Annotated[
        str | None,
        typer.Option(
            "--cell", metavar="NAME", help="Which cell, by its name or a part of it; of a study with one: that."
        ),
    ] = None,
    max_minutes: Annotated[
        float | None, typer.Option(help="Stop at the first step after so many minutes, loading included.")
    ] = None,
    max_usd: Annotated[float | None, typer.Option(help="The same in dollars, at the machine's price.")] = None,
    max_rows: Annotated[
        int | None, typer.Option(min=1, help="Stop at the first step that has trained on so many rows this time.")
    ] = None,
    results: ResultsPath = DEFAULT_RESULTS,
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            help="Folder of this training's checkpoints (default: in RESULTS/checkpoints).", show_default=False
        ),
    ] = None,
    overrides: Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Train again what is done.")] = False,
    instance: Instance = None,
    region: Region = None,
    usd_per_hour: UsdPerHour = None,
    prices: OwnPrices = None,
    detect: Detect = False,
    offline: Offline = False,
) -> None:
    """Train one cell in pieces: stop in time with a checkpoint, and go on with the next call, here or elsewhere.

    Ctrl-C, SIGTERM and a cloud's notice that it takes the machine back stop it likewise. The end is an ordinary record.
    """
    from harness.cli.views.progress import ProgressView
    from harness.execution.completed import find_done
    from harness.execution.resumable import checkpoints_folder, choose_cell, train_until_limit
    from harness.execution.stop_flag import StopReason
    from harness.execution.sweep import describe_environment
    from harness.machine.cloud_metadata import preemption_notice
    from harness.store.record_files import own_records
    from harness.workflows.model_card import card_writer

    runs = choose_cell(load_cells(study, overrides), cell)
    stated, ask = read_stated(instance, region, prices), cloud_detector(detect=detect, offline=offline)
    around = describe_environment(stated, ask)
    known = own_records(results, around.machine)
    console.print_problems(known.unreadable)
    # One that timed out is not done: here it can go on.
    trained = [record for record in known.records if record.outcome != "timeout"]
    to_do = [run for run in runs if force or find_done(run, trained, around.machine)[0] != "done"]
    if not to_do:
        console.out.print(f"{runs[0].name} is trained; nothing to do (--force trains again).", highlight=False)
        return
    chosen = to_do[0]
    if len(runs) > 1:
        console.out.print(f"{len(to_do)} of {len(runs)} runs to train; now {chosen.label}.", highlight=False)
    price = find_price(
        around.machine, prices, usd_per_hour=usd_per_hour, stated=around.stated, detected=around.detected
    )
    seen, bounds = around.detected, _bounds(max_minutes, max_usd, max_rows, price)
    if not offline and seen is not None and seen.is_spot is not False:
        bounds = replace(bounds, preemption_notice=partial(preemption_notice, seen.vendor))
    folder = checkpoints or checkpoints_folder(chosen, results)
    with ProgressView(console.out, [chosen]) as screen:
        record, stop_reason = train_until_limit(
            chosen, results, around, screen, folder=folder, limits=bounds, on_resume_point=_print_found,
            write_card=card_writer(price),
        )  # fmt: skip
    _print_end(record, folder)
    if record.outcome in ("interrupted", "preempted"):
        raise typer.Exit(EXIT_INTERRUPTED if stop_reason is StopReason.USER else EXIT_GO_ON)
    if record.outcome != "ok":
        raise typer.Exit(EXIT_CRASHED)


def _bounds(
    max_minutes: float | None, max_usd: float | None, max_rows: int | None, price: Price | Unavailable
) -> StopLimits:
    """The stricter of minutes and dollars, and rows."""
    from harness.execution.resumable import StopLimits

    limits: list[tuple[float, str]] = []
    if require_positive(max_minutes, "--max-minutes") is not None and max_minutes is not None:
        limits.append((max_minutes * 60, f"--max-minutes {max_minutes:g}"))
    if require_positive(max_usd, "--max-usd") is not None and max_usd is not None:
        if isinstance(price, Unavailable):
            raise UserError(f"--max-usd can't be held: {price.reason}")
        seconds = max_usd / price.usd_per_hour * 3600
        limits.append((seconds, f"--max-usd {max_usd:g} at {price.usd_per_hour:g} USD an hour ({price.basis})"))
    max_s, words = min(limits, default=(None, ""))
    return StopLimits(max_s=max_s, max_s_text=words, max_rows=max_rows)


def _print_found(found: ResumePoint) -> None:
    for refused in found.refused:
        console.err.print(f"[yellow]refused:[/] {escape(refused)}", soft_wrap=True, highlight=False)
    if found.manifest is not None:
        done, planned = found.manifest.num_updates, found.manifest.num_updates_planned
        console.out.print(
            f"Going on from {escape(str(found.path))}: {done} of {planned} updates are done.",
            soft_wrap=True,
            highlight=False,
        )


def _print_end(record: Record, folder: Path) -> None:
    if record.outcome == "ok":
        return
    console.err.print(
        f"{record.outcome:>12}  {escape(record.cell)}: {escape(record.reason or '')}", highlight=False, soft_wrap=True
    )
    pieces = record.training.pieces if record.training else ()
    if record.outcome in ("interrupted", "preempted") and pieces and pieces[-1].checkpoints:
        written = pieces[-1].checkpoints[-1]
        took = "" if written.seconds is None else f" in {written.seconds:.1f} s"
        console.out.print(
            f"Checkpoint written{took} ({written.num_bytes / 2**20:,.0f} MiB) to {escape(str(folder))}; "
            "the same command goes on.",
            highlight=False,
            soft_wrap=True,
        )
