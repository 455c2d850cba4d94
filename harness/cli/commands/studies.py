"""The commands that take a study: what it holds, running it, and the largest batch of one of its cells."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from harness.cli import console
from harness.cli.commands.interleaving import cells_to_run, compare_turns, read_limit
from harness.cli.commands.verify import verify_cells
from harness.cli.console import EXIT_CODES, EXIT_CRASHED, EXIT_INTERRUPTED, EXIT_SLOWER
from harness.cli.lookups import choose_cells, cloud_detector, find_price, load_cells, read_stated
from harness.cli.options import (
    DEFAULT_RESULTS,
    AsJson,
    Detect,
    Instance,
    Offline,
    Only,
    Overrides,
    OwnPrices,
    Region,
    ResultsPath,
    StudyPath,
    UsdPerHour,
)
from harness.errors import Unavailable, UserError

if TYPE_CHECKING:
    from harness.execution.sweep import Budget
    from harness.pricing.prices import Price
    from harness.schema.cells import Cell
    from harness.schema.record import Record

app = typer.Typer()


@app.command(epilog="Example: harness plan bench/default.toml")
def plan(
    study: StudyPath,
    *,
    results: ResultsPath = DEFAULT_RESULTS,
    only: Only = None,
    overrides: Overrides = None,
    instance: Instance = None,
    region: Region = None,
    prices: OwnPrices = None,
    usd_per_hour: UsdPerHour = None,
    as_json: AsJson = False,
) -> None:
    """List every cell: what is done, stale, to do or unsupported here, and what it is expected to take."""
    from harness.execution.completed import find_all_done
    from harness.machine.describe import describe_machine
    from harness.machine.support import unsupported_reason
    from harness.pricing.formulas import usd_of_seconds
    from harness.store.record_files import own_records

    cells, machine = choose_cells(load_cells(study, overrides), only), describe_machine()
    records = own_records(results, machine).records
    price = find_price(machine, prices, usd_per_hour=usd_per_hour, stated=read_stated(instance, region, prices))
    hourly = None if isinstance(price, Unavailable) else price.usd_per_hour
    rows = []
    for cell, (state, last) in zip(cells, find_all_done(cells, records, machine), strict=True):
        reason = unsupported_reason(cell.config, machine)
        expected_s = last.duration_s if last else None
        rows.append(
            {
                "cell": cell.name,
                "repeat": cell.repeat,
                "seed": getattr(cell.config, "seed", None),
                "state": "unsupported" if reason else state,
                "reason": reason,
                "expected_s": None if reason else expected_s,
                "expected_usd": usd_of_seconds(hourly, expected_s) if hourly and not reason else None,
                "config_hash": cell.config_hash,
            }
        )
    if as_json:
        console.print_json(rows)
    else:
        _print_plan(rows, [cell.label for cell in cells])


@app.command(
    epilog="Examples: harness run bench/default.toml --instance g5.xlarge --region us-east-1; harness run bench/smoke.toml "
    f"--interleave training.compile=false training.compile=true --fail-above 3%\n\n{EXIT_CODES} 1 also where "
    "--fail-above failed."
)
def run(  # noqa: PLR0913 - each is an option of the command
    study: StudyPath,
    *,
    results: ResultsPath = DEFAULT_RESULTS,
    instance: Instance = None,
    region: Region = None,
    only: Only = None,
    overrides: Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Measure again what is done.")] = False,
    no_skip: Annotated[
        bool, typer.Option("--no-skip", help="Try cells too that are larger than one that ran out of memory.")
    ] = False,
    interleave: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B",
            help="Run every cell under two settings (KEY=VALUE) in turns, A B B A, and compare them.",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=2, help="With --interleave: rounds of A B B A (default: 3).", show_default=False)
    ] = None,
    fail_above: Annotated[
        str | None, typer.Option(help="With --interleave: exit status 1 if a cell is certainly slower under B by more.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="With --interleave: write the comparison as a table.")] = None,
    usd_per_hour: UsdPerHour = None,
    prices: OwnPrices = None,
    detect: Detect = False,
    offline: Offline = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Run cells under a stopwatch, `time -v` and nvidia-smi, print the differences, save nothing.",
        ),
    ] = False,
) -> None:
    """Run a study's cells that are not done yet; each record is saved as its cell ends."""
    from harness.cli.views.progress import ProgressView
    from harness.execution.completed import find_all_done, find_oom_records
    from harness.execution.sweep import describe_environment, run_cells
    from harness.store.record_files import own_records
    from harness.workflows.model_card import card_writer

    stated, ask = read_stated(instance, region, prices), cloud_detector(detect=detect, offline=offline)
    limit = read_limit(fail_above)
    if interleave is None and (rounds or fail_above or markdown):
        raise UserError("--rounds, --fail-above and --markdown of `harness run` need --interleave A B")
    turns, cells = cells_to_run(study, overrides, only, interleave, rounds)
    if verify:
        verify_cells(cells, results)
        return
    around = describe_environment(stated, ask)
    known = own_records(results, around.machine)
    console.print_problems(known.unreadable)
    # Runs made at another time are no turns: of an interleaved study only its own count.
    mine = [record for record in known.records if turns is None or record.study == turns.study]
    states = find_all_done(cells, mine, around.machine, skip=not no_skip)
    to_do = [cell for cell, (state, _) in zip(cells, states, strict=True) if force or state != "done"]
    if not to_do:
        console.out.print(f"All {len(cells)} cells are done; nothing to run (--force measures again).", highlight=False)
        if compare_turns(turns, cells, mine, prices, usd_per_hour, limit, markdown):
            raise typer.Exit(EXIT_SLOWER)
        return
    if len(to_do) < len(cells):
        console.out.print(
            f"{len(cells) - len(to_do)} of {len(cells)} cells are done; {len(to_do)} to run.", highlight=False
        )
    price = find_price(
        around.machine, prices, usd_per_hour=usd_per_hour, stated=around.stated, detected=around.detected
    )
    budget = _budget(to_do[0], price)
    known_s = {record.config_hash: record.duration_s for record in known.records if record.outcome == "ok"}
    with ProgressView(console.out, to_do) as screen:
        records = run_cells(
            to_do, results, around, screen, previous_s=known_s, budget=budget,
            skip=not no_skip, known_oom=find_oom_records(known.records, around.machine), write_card=card_writer(price),
        )  # fmt: skip
    _print_failures(records)
    if any(record.outcome == "interrupted" for record in records):
        console.out.print("Stopped. What is finished is kept; the same command goes on.", highlight=False)
        raise typer.Exit(EXIT_INTERRUPTED)
    failed = compare_turns(turns, cells, [*mine, *records], prices, usd_per_hour, limit, markdown)
    if failed or any(record.outcome == "crashed" for record in records):
        raise typer.Exit(EXIT_CRASHED)


@app.command(epilog="Example: harness fit bench/default.toml --seq-len 512 --memory-gib 4 --predict")
def fit(
    study: StudyPath,
    *,
    seq_len: Annotated[int | None, typer.Option(min=4, help="Replaces the study's.", show_default=False)] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, tf32, bf16 or fp16; replaces the study's.")] = None,
    memory_gib: Annotated[float | None, typer.Option(min=0.1, help="Memory to fit, in GiB.")] = None,
    machine: Annotated[
        str | None, typer.Option(help="Fit this instance type of the price table (a GPU cell: one of its GPUs).")
    ] = None,
    predict: Annotated[bool, typer.Option("--predict", help="Only predict; run nothing.")] = False,
    only: Only = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Find the largest batch size that fits in memory: predict it, then confirm it by running real training steps."""
    from harness.cli.views.fit import FitView
    from harness.machine.describe import describe_machine
    from harness.workflows.fit import BatchSizeSearch, choose_cell, find_fit, predict_fit
    from harness.workflows.memory_budget import choose_budget

    here = describe_machine()
    cell = choose_cell(choose_cells(load_cells(study, overrides), only), seq_len, precision)
    search = BatchSizeSearch(cell, here)
    budget = choose_budget(on_gpu=cell.config.on_gpu, machine=here, memory_gib=memory_gib, instance=machine)
    view = FitView(None if as_json else console.out)
    view.begin(search, budget)
    result = predict_fit(search, budget) if predict else find_fit(search, budget, view.on_attempt)
    if as_json:
        console.print_json(result.as_fields())
    else:
        view.end(result)


@app.command(epilog="Example: harness keys")
def keys() -> None:
    """List every key of a study file, with its default, as a table in Markdown."""
    from harness.schema.settings import describe_keys

    sys.stdout.write(describe_keys())


def _budget(cell: Cell, price: Price | Unavailable) -> Budget | None:
    """The stricter of a study's two budgets, in seconds."""
    from harness.execution.sweep import Budget

    limits, budgets = cell.config.limits, []
    if limits.budget_minutes is not None:
        budgets.append(Budget(limits.budget_minutes * 60, f"limits.budget_minutes = {limits.budget_minutes:g}"))
    if limits.budget_usd is not None:
        if isinstance(price, Unavailable):
            raise UserError(f"limits.budget_usd can't be held: {price.reason}")
        seconds = limits.budget_usd / price.usd_per_hour * 3600
        words = f"limits.budget_usd = {limits.budget_usd:g} at {price.usd_per_hour:g} USD an hour ({price.basis})"
        budgets.append(Budget(seconds, words))
    return min(budgets, key=lambda budget: budget.seconds, default=None)


def _print_plan(rows: list[dict[str, Any]], labels: list[str]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("cell", "state", "minutes", "USD"):
        table.add_column(
            name,
            justify="right" if name in ("minutes", "USD") else "left",
            no_wrap=name != "state",
            overflow="fold",
        )
    for label, row in zip(labels, rows, strict=True):
        minutes = "" if row["expected_s"] is None else f"{row['expected_s'] / 60:.1f}"
        dollars = "" if row["expected_usd"] is None else f"{row['expected_usd']:.4f}"
        state = f"{row['state']}: {row['reason']}" if row["reason"] else row["state"]
        table.add_row(escape(label), escape(state), minutes, dollars)
    console.out.print(table, highlight=False)
    states = [row["state"] for row in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    console.out.print(
        f"\n{len(rows)} cells: {counts}. Minutes and dollars are those of the last run, where there is one.",
        highlight=False,
    )


def _print_failures(records: Sequence[Record]) -> None:
    for record in records:
        if record.outcome not in ("ok", "interrupted"):
            console.err.print(
                f"{record.outcome:>12}  {escape(record.cell)}: {escape(record.reason or '')}",
                highlight=False,
                soft_wrap=True,
            )
