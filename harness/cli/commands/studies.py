"""The commands `plan`, `run`, `fit` and `keys`, which take a study."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from harness.cli import console
from harness.cli.commands.interleaving import InterleaveOptions, plan_cells, show_interleaved
from harness.cli.commands.verify import verify_cells
from harness.cli.console import EXIT_CODES, EXIT_CRASHED, EXIT_INTERRUPTED, EXIT_SLOWER
from harness.cli.lookups import MachineOptions, choose_cells, load_cells
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
    from harness.execution.jobs import Environment
    from harness.execution.sweep import Budget
    from harness.pricing.prices import Price
    from harness.schema.cells import Cell
    from harness.schema.host_record import Machine
    from harness.schema.record import Record
    from harness.store.record_files import LoadedRecords

app = typer.Typer()


@dataclass(frozen=True)
class _PlanRow:
    """One cell of `harness plan`; expected figures are those of the cell's last run, or None without a run."""

    cell: str
    repeat: int
    seed: int | None
    state: str
    reason: str | None
    expected_s: float | None
    expected_usd: float | None
    config_hash: str


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
    """List every cell with its state (done, stale, to do, unsupported here) and expected time and cost."""
    from harness.machine.describe import describe_machine

    options = MachineOptions(instance, region, prices, usd_per_hour)
    cells, machine = choose_cells(load_cells(study, overrides), only), describe_machine()
    price = options.price(machine, stated=options.stated_instance())
    rows = _plan_rows(cells, results, machine, None if isinstance(price, Unavailable) else price.usd_per_hour)
    if as_json:
        console.print_json([vars(row) for row in rows])
    else:
        _print_plan(rows, [cell.label for cell in cells])


def _plan_rows(cells: Sequence[Cell], results: Path, machine: Machine, usd_per_hour: float | None) -> list[_PlanRow]:
    from harness.execution.completed import find_all_done
    from harness.machine.support import unsupported_reason
    from harness.pricing.formulas import usd_of_seconds
    from harness.store.record_files import own_records
    from harness.workflows.model_support import refused_by_model

    rows = []
    records = own_records(results, machine).records
    for cell, (state, last) in zip(cells, find_all_done(cells, records, machine), strict=True):
        reason = unsupported_reason(cell.config, machine) or refused_by_model(cell.config)
        last_s = last.duration_s if last else None
        rows.append(
            _PlanRow(
                cell=cell.name,
                repeat=cell.repeat,
                seed=getattr(cell.config, "seed", None),
                state="unsupported" if reason else state,
                reason=reason,
                expected_s=None if reason else last_s,
                expected_usd=usd_of_seconds(usd_per_hour, last_s) if usd_per_hour and not reason else None,
                config_hash=cell.config_hash,
            )
        )
    return rows


@app.command(
    epilog="Examples: harness run bench/default.toml --instance g5.xlarge --region us-east-1; harness run bench/smoke.toml "
    f"--interleave training.compile=false training.compile=true --fail-above 3%\n\n{EXIT_CODES} 1 also if "
    "--fail-above failed."
)
def run(  # noqa: PLR0913 - one parameter per option
    study: StudyPath,
    *,
    results: ResultsPath = DEFAULT_RESULTS,
    instance: Instance = None,
    region: Region = None,
    only: Only = None,
    overrides: Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Run cells that are done again.")] = False,
    no_skip: Annotated[
        bool, typer.Option("--no-skip", help="Also run cells that are larger than one that ran out of memory.")
    ] = False,
    interleave: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B",
            help="Run every cell under two settings (KEY=VALUE), interleaved as A B B A, and compare them.",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=2, help="With --interleave: rounds of A B B A (default: 3).", show_default=False)
    ] = None,
    fail_above: Annotated[
        str | None,
        typer.Option(help="With --interleave: exit with status 1 if a cell is certainly slower under B by more."),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="With --interleave: write the comparison as a Markdown table.")
    ] = None,
    usd_per_hour: UsdPerHour = None,
    prices: OwnPrices = None,
    detect: Detect = False,
    offline: Offline = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Run cells under a stopwatch, `time -v` and nvidia-smi; print the differences and save nothing.",
        ),
    ] = False,
) -> None:
    """Run the cells of a study that are not done yet, saving each record as its cell ends."""
    from harness.execution.completed import find_all_done
    from harness.execution.sweep import describe_environment
    from harness.store.record_files import own_records
    from harness.workflows.priced_records import PriceOptions

    options = MachineOptions(instance, region, prices, usd_per_hour, detect, offline)
    stated, detector = options.stated_instance(), options.detector()
    interleave_options = InterleaveOptions.parse(interleave, rounds, fail_above, markdown)
    interleaved, cells = plan_cells(study, overrides, only, interleave_options)
    if verify:
        verify_cells(cells, results)
        return
    environment = describe_environment(stated, detector)
    stored = own_records(results, environment.machine)
    console.print_problems(stored.unreadable)
    # Only records of the interleaved study count as done, because runs made outside the interleaving are not comparable.
    counted = [record for record in stored.records if interleaved is None or record.study == interleaved.study]
    states = find_all_done(cells, counted, environment.machine, skip=not no_skip)
    to_do = [cell for cell, (state, _) in zip(cells, states, strict=True) if force or state != "done"]
    records: list[Record] = []
    if to_do:
        if len(to_do) < len(cells):
            num_done = len(cells) - len(to_do)
            console.out.print(f"{num_done} of {len(cells)} cells are done; {len(to_do)} to run.", highlight=False)
        records = _run_cells(to_do, results, environment, stored, options, skip=not no_skip)
    else:
        console.out.print(f"All {len(cells)} cells are done; nothing to run (--force measures again).", highlight=False)
    price_options = PriceOptions(prices=prices, usd_per_hour=usd_per_hour)
    if show_interleaved(interleaved, cells, [*counted, *records], price_options, interleave_options):
        raise typer.Exit(EXIT_SLOWER)
    if any(record.outcome == "crashed" for record in records):
        raise typer.Exit(EXIT_CRASHED)


def _run_cells(
    cells: Sequence[Cell],
    results: Path,
    environment: Environment,
    stored: LoadedRecords,
    options: MachineOptions,
    *,
    skip: bool,
) -> list[Record]:
    """Run cells within the study's budget and print failures; exit if Ctrl-C stopped the sweep.

    Args:
        cells: The runs, in order.
        results: Folder for the records.
        environment: This machine and its software.
        stored: Records of earlier runs, for expected times and out-of-memory bounds.
        options: How this machine is priced.
        skip: Skip cells larger than one that ran out of memory.
    """
    from harness.cli.views.progress import ProgressView
    from harness.cli.views.record import hub_lines
    from harness.execution.completed import find_oom_records
    from harness.execution.sweep import run_cells
    from harness.workflows.model_card import card_writer

    price = options.price(environment.machine, stated=environment.stated, detected=environment.detected)
    previous_s = {record.config_hash: record.duration_s for record in stored.records if record.outcome == "ok"}
    budget = study_budget(cells[0], price)
    with ProgressView(console.out, cells) as view:
        records = run_cells(
            cells, results, environment, view, previous_s=previous_s, budget=budget, skip=skip,
            known_oom=find_oom_records(stored.records, environment.machine), write_card=card_writer(price),
        )  # fmt: skip
    for line in hub_lines(records):
        console.out.print(escape(line), highlight=False, soft_wrap=True)
    _print_failures(records)
    if any(record.outcome == "interrupted" for record in records):
        console.out.print("Stopped. What is finished is kept; the same command goes on.", highlight=False)
        raise typer.Exit(EXIT_INTERRUPTED)
    return list(records)


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
    """Print every study key with its default as a Markdown table."""
    from harness.schema.study_file import describe_keys

    sys.stdout.write(describe_keys())


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


def _print_plan(rows: Sequence[_PlanRow], labels: list[str]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("cell", "state", "minutes", "USD"):
        table.add_column(
            name,
            justify="right" if name in ("minutes", "USD") else "left",
            no_wrap=name != "state",
            overflow="fold",
        )
    for label, row in zip(labels, rows, strict=True):
        minutes = "" if row.expected_s is None else f"{row.expected_s / 60:.1f}"
        dollars = "" if row.expected_usd is None else f"{row.expected_usd:.4f}"
        state = f"{row.state}: {row.reason}" if row.reason else row.state
        table.add_row(escape(label), escape(state), minutes, dollars)
    console.out.print(table, highlight=False)
    states = [row.state for row in rows]
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
