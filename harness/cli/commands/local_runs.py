"""`harness run` on this machine: cells that are not done yet, within the study's budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from harness.cli import console
from harness.cli.commands.interleaving import InterleaveOptions, show_interleaved
from harness.cli.console import EXIT_CRASHED, EXIT_FILE_ERROR, EXIT_INTERRUPTED, EXIT_OK, EXIT_SLOWER
from harness.cli.lookups import MachineOptions
from harness.errors import Unavailable, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from harness.execution.jobs import Environment
    from harness.execution.sweep import Budget
    from harness.pricing.prices import Price
    from harness.schema.cells import Cell
    from harness.schema.interleaving import InterleavedRuns
    from harness.schema.record import Record
    from harness.store.record_files import LoadedRecords
    from harness.workflows.priced_records import PriceOptions


def run_here(
    cells: Sequence[Cell],
    interleaved: InterleavedRuns | None,
    results: Path,
    options: MachineOptions,
    interleave_options: InterleaveOptions,
    *,
    force: bool,
    skip: bool,
    probe: bool,
    as_json: bool,
) -> None:
    """Run cells on this machine, and print what they show; exit with another status than 0 if a cell crashed.

    Args:
        cells: The cells.
        interleaved: The runs of an interleaved comparison; None for other runs.
        results: Folder for the records.
        options: How this machine is described and priced.
        interleave_options: Options of the comparison.
        force: Run cells that are done, too.
        skip: Skip cells larger than one that ran out of memory.
        probe: Time a few steps before a long study that can't be predicted from earlier runs.
        as_json: Print the records' figures as JSON.
    """
    # Imported after the first line is printed, because these modules and the records take a moment.
    from harness.cli.views.record import run_fields
    from harness.execution.completed import find_all_done
    from harness.execution.sweep import describe_environment
    from harness.store.record_files import own_records
    from harness.workflows.priced_records import PriceOptions

    screen = console.screen(as_json=as_json)
    environment = describe_environment(options.stated_instance(), options.detector())
    stored = own_records(results, environment.machine)
    console.print_problems(stored.unreadable)
    # Only records of the interleaved study count as done, because runs made outside the interleaving are not comparable.
    counted = [record for record in stored.records if interleaved is None or record.study == interleaved.study]
    states = find_all_done(cells, counted, environment.machine, skip=skip)
    to_do = [cell for cell, (state, _) in zip(cells, states, strict=True) if force or state != "done"]
    saved: list[tuple[Record, Path | None]] = []
    records: list[Record] = []
    if to_do:
        if len(to_do) < len(cells):
            num_done = len(cells) - len(to_do)
            console.print_text(screen, f"{num_done} of {len(cells)} cells are done; {len(to_do)} to run.")
        saved = _run_cells(to_do, results, environment, stored, options, screen, skip=skip, probe=probe)
        records = [record for record, _ in saved]
    else:
        console.print_text(screen, f"All {len(cells)} cells are done; nothing to run (--force measures again).")
    price_options = PriceOptions(prices=options.prices, usd_per_hour=options.usd_per_hour)
    has_failed = show_interleaved(interleaved, cells, [*counted, *records], price_options, interleave_options)
    if as_json:
        console.print_json([run_fields(record, path) for record, path in saved])
    elif interleaved is None:
        _print_speed_line(cells, [*counted, *records], price_options)
    if has_failed:
        raise typer.Exit(EXIT_SLOWER)
    if (status := _status(records)) != EXIT_OK:
        raise typer.Exit(status)


def _status(records: Sequence[Record]) -> int:
    """Return the exit status of a run that ended with these records."""
    from harness.store.saved_models import is_model_missing

    if any(record.outcome == "crashed" for record in records):
        return EXIT_CRASHED
    return EXIT_FILE_ERROR if any(map(is_model_missing, records)) else EXIT_OK


def _run_cells(
    cells: Sequence[Cell],
    results: Path,
    environment: Environment,
    stored: LoadedRecords,
    options: MachineOptions,
    screen: Console,
    *,
    skip: bool,
    probe: bool,
) -> list[tuple[Record, Path | None]]:
    """Run cells within the study's budget and print failures; exit if Ctrl-C stopped the sweep.

    Args:
        cells: The runs, in order.
        results: Folder for the records.
        environment: This machine and its software.
        stored: Records of earlier runs, for expected times and out-of-memory bounds.
        options: How this machine is priced.
        screen: Where to show the run.
        skip: Skip cells larger than one that ran out of memory.
        probe: Time a few steps before a long study that can't be predicted from earlier runs.

    Returns:
        The records with their files.
    """
    from harness.cli.views.progress import ProgressView
    from harness.cli.views.record import hub_lines
    from harness.execution.completed import find_oom_records
    from harness.execution.sweep import run_cells
    from harness.workflows.model_card import card_writer

    price = options.price(environment.machine, stated=environment.stated, detected=environment.detected)
    previous_s = {record.config_hash: record.duration_s for record in stored.records if record.outcome == "ok"}
    budget = study_budget(cells[0], price)
    view = ProgressView(
        screen, cells, machine=environment.machine,
        usd_per_hour=None if isinstance(price, Unavailable) else price.usd_per_hour, earlier=stored.records,
    )  # fmt: skip
    was_stopped = False
    with view:
        try:
            run_cells(
                cells, results, environment, view, previous_s=previous_s, budget=budget, skip=skip,
                known_oom=find_oom_records(stored.records, environment.machine), write_card=card_writer(price),
                known=[*stored.probes, *stored.records], probe=probe,
            )  # fmt: skip
        except KeyboardInterrupt:  # between two cells
            was_stopped = True
    records = [record for record, _ in view.saved]
    for line in hub_lines(records):
        console.print_text(screen, escape(line))
    for record in records:
        if record.outcome not in ("ok", "interrupted"):
            console.print_failure(record.outcome, record.cell, record.reason)
    if was_stopped or any(record.outcome == "interrupted" for record in records):
        console.print_text(screen, "Stopped. What is finished is kept; the same command goes on.")
        raise typer.Exit(EXIT_INTERRUPTED)
    return view.saved


def _print_speed_line(cells: Sequence[Cell], records: Sequence[Record], options: PriceOptions) -> None:
    from harness.cli.views.speed_line import print_speed_line
    from harness.workflows.priced_records import price_records

    hashes = {cell.config_hash for cell in cells}
    print_speed_line(
        console.out, price_records([record for record in records if record.config_hash in hashes], options).cells
    )


def study_budget(cell: Cell, price: Price | Unavailable) -> Budget | None:
    """Return the stricter of a study's two budgets, in seconds; None without a budget.

    Raises:
        UserError: If the budget is in dollars and the price is unknown.
    """
    from harness.execution.sweep import Budget

    limits, budgets = cell.config.limits, []
    if limits.budget_minutes is not None:
        budgets.append(Budget(limits.budget_minutes * 60, f"limits.budget_minutes = {limits.budget_minutes:g}"))
    if limits.budget_usd is not None:
        if isinstance(price, Unavailable):
            raise UserError(f"limits.budget_usd needs a price: {price.reason}")
        seconds = limits.budget_usd / price.usd_per_hour * 3600
        text = f"limits.budget_usd = {limits.budget_usd:g} at {price.usd_per_hour:g} USD an hour ({price.basis_word} price)"
        budgets.append(Budget(seconds, text))
    return min(budgets, key=lambda budget: budget.seconds, default=None)
