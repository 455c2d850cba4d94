"""The commands."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness import __version__
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.matrix import Cell
    from harness.prices import Price
    from harness.record import Gpu, Machine, Record, Stated
    from harness.sweep import Budget

EXIT_OK, EXIT_CRASHED, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130
_EXIT_CODES = "Exit status: 0 done; 1 a cell crashed; 2 a mistake in what was asked; 130 stopped by Ctrl-C."

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="What fine-tuning BERT costs on this machine: run a study, and report it.",
    epilog=_EXIT_CODES,
)
_out, _err = Console(), Console(stderr=True)

StudyPath = Annotated[
    Path,
    typer.Argument(help="A study file (.toml), or a record (.json) whose cell is run again.", show_default=False),
]
ResultsPath = Annotated[Path, typer.Option("--results", help="Folder of the records.")]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="KEY=VALUE", help="Cells with this value alone, e.g. seq_len=128 (repeatable)."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the study, e.g. matrix.seq_len=[512] (repeatable).",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
Instance = Annotated[
    str | None,
    typer.Option(help="This machine's instance type, as in the price table (kept in the record as a fact)."),
]
Region = Annotated[str | None, typer.Option(help="Its region.")]
UsdPerHour = Annotated[
    float | None,
    typer.Option("--usd-per-hour", min=0, help="What an hour of the machine costs; overrides every price."),
]
DEFAULT_RESULTS = Path("results")


def main() -> NoReturn:
    """Run the command line; the one place where a user's mistake becomes an exit status."""
    try:
        app()
    except UserError as error:
        _err.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(EXIT_USER_ERROR)
    sys.exit(EXIT_OK)


@app.callback(invoke_without_command=True)
def _root(*, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        _out.print(f"harness {__version__}", highlight=False)
        raise typer.Exit


@app.command(epilog="Example: harness plan bench/default.toml")
def plan(
    study: StudyPath,
    *,
    results: ResultsPath = DEFAULT_RESULTS,
    only: Only = None,
    overrides: Overrides = None,
    usd_per_hour: UsdPerHour = None,
    as_json: AsJson = False,
) -> None:
    """List every cell: what is done, stale, to do or unsupported here, and what it is expected to take."""
    from harness.cost import usd_of_seconds
    from harness.machine import describe_machine, unsupported_reason
    from harness.store import find_done, own_records

    cells, machine = _choose(_load_cells(study, overrides), only), describe_machine()
    records = own_records(results, machine).records
    price = _find_price(machine, usd_per_hour)
    hourly = None if isinstance(price, str) else price.usd_per_hour
    rows = []
    for cell in cells:
        reason = unsupported_reason(cell.config, machine)
        state, last = find_done(cell, records, machine)
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
        _print_json(rows)
    else:
        _print_plan(rows, [cell.label for cell in cells])


@app.command(epilog=f"Example: harness run bench/default.toml --instance g5.xlarge --region us-east-1\n\n{_EXIT_CODES}")
def run(
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
    usd_per_hour: UsdPerHour = None,
) -> None:
    """Run a study's cells that are not done yet; each record is saved as its cell ends."""
    from harness.record import Stated
    from harness.screen import Screen
    from harness.store import find_done, own_records, ran_out
    from harness.sweep import look_around, run_cells

    if instance is not None:
        _check_instance(instance, region)
    elif region is not None:
        raise UserError("--region needs --instance too")
    cells = _choose(_load_cells(study, overrides), only)
    around = look_around(Stated(instance=instance, region=region) if instance else None)
    known = own_records(results, around.machine)
    for problem in known.unreadable:
        _err.print(f"[yellow]left aside:[/] {escape(problem)}", soft_wrap=True, highlight=False)
    to_do = [
        cell for cell in cells if force or find_done(cell, known.records, around.machine, skip=not no_skip)[0] != "done"
    ]
    if not to_do:
        _out.print(f"All {len(cells)} cells are done; nothing to run (--force measures again).", highlight=False)
        return
    if len(to_do) < len(cells):
        _out.print(f"{len(cells) - len(to_do)} of {len(cells)} cells are done; {len(to_do)} to run.", highlight=False)
    budget = _budget(to_do[0], _find_price(around.machine, usd_per_hour, around.stated))
    known_s = {record.config_hash: record.duration_s for record in known.records if record.outcome == "ok"}
    with Screen(_out, to_do) as screen:
        records = run_cells(
            to_do, results, around, screen, known_s=known_s, budget=budget,
            skip=not no_skip, known_oom=ran_out(known.records, around.machine),
        )  # fmt: skip
    _print_failures(records)
    if any(record.outcome == "interrupted" for record in records):
        _out.print("Stopped. What is finished is kept; the same command goes on.", highlight=False)
        raise typer.Exit(EXIT_INTERRUPTED)
    if any(record.outcome == "crashed" for record in records):
        raise typer.Exit(EXIT_CRASHED)


@app.command(epilog="Example: harness report results --instance intel-xeon-2c-24g-b47fd4=m7i.xlarge --out /tmp/report")
def report(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RESULTS]...", help="Folders or files of records (default: results).", show_default=False
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="Where report.html, summary.md and cells.csv are written.")] = Path(
        "results/report"
    ),
    study: Annotated[Path | None, typer.Option(help="Only the cells of this study file.")] = None,
    overrides: Overrides = None,
    instance: Annotated[
        list[str] | None,
        typer.Option(metavar="MACHINE=NAME", help="Price a machine as this instance type (repeatable)."),
    ] = None,
    usd_per_hour: UsdPerHour = None,
    prices: Annotated[
        Path | None, typer.Option(help="Your own rates, discounts, currency and hardware (prices.toml).")
    ] = None,
    value: Annotated[Path | None, typer.Option(help="What a right label is worth to you (value.toml).")] = None,
    invoice: Annotated[
        float | None, typer.Option(min=0, metavar="USD", help="What measuring was invoiced: held against the estimate.")
    ] = None,
) -> None:
    """Write the report: one HTML page, a summary for a pull request, and a table."""
    from harness.assumptions import load_assumptions
    from harness.cost import price
    from harness.prices import gpu_peak_flops, load_prices, price_finder
    from harness.report import write_report
    from harness.statistics import summarise, with_mfu
    from harness.store import load_records
    from harness.tariff import pay

    if invoice is not None and not math.isfinite(invoice):
        raise UserError(f"--invoice: found {invoice:g}; allowed: an amount in USD, 0 or more")
    assumed = load_assumptions(prices, value)
    found = load_records(paths or ([DEFAULT_RESULTS] if DEFAULT_RESULTS.is_dir() else []))
    for problem in found.unreadable:
        _err.print(f"[yellow]left aside:[/] {escape(problem)}", soft_wrap=True, highlight=False)
    records: Sequence[Record] = found.records
    if study is not None:
        wanted = {cell.config_hash for cell in _load_cells(study, overrides)}
        records = [record for record in records if record.config_hash in wanted]
    table = load_prices()
    summaries = with_mfu(summarise(records), lambda gpu, precision: gpu_peak_flops(table, gpu, precision))
    finder = price_finder(table, summaries, instances=_pairs(instance or []), usd_per_hour=usd_per_hour)
    priced = price(summaries, pay(finder, assumed.prices), assumed)
    page = write_report(
        priced, out, generated_at=datetime.now(UTC), assumptions=assumed, records=records, invoice_usd=invoice
    )
    _out.print(f"{len(records)} records, {len(priced)} cells: {page}", highlight=False, soft_wrap=True)


@app.command("import", epilog="Example: harness import gpu-check.tar.gz")
def import_(
    archive: Annotated[Path, typer.Argument(help="An archive of records, as `make gpu-check` writes it.")],
    *,
    results: ResultsPath = DEFAULT_RESULTS,
) -> None:
    """Put the records of another machine's archive into the results; none that is there is overwritten."""
    from harness.archive import unpack_records

    found = unpack_records(archive, results)
    for problem in found.refused:
        _err.print(f"[yellow]left out:[/] {escape(problem)}", soft_wrap=True, highlight=False)
    known = f", {found.known} were there already" if found.known else ""
    _out.print(f"{len(found.new)} records imported into {results}{known}.", highlight=False, soft_wrap=True)


@app.command(epilog="Example: harness machine --json")
def machine(*, instance: Instance = None, region: Region = None, as_json: AsJson = False) -> None:
    """Say what this computer is, what it would be priced as, and why."""
    from harness.machine import describe_machine, package_version
    from harness.record import Stated

    here = describe_machine()
    found = _find_price(here, stated=Stated(instance=instance, region=region) if instance else None)
    versions = {name: package_version(name) for name in ("torch", "transformers")}
    if as_json:
        price = found if isinstance(found, str) else vars(found)
        _print_json(here.model_dump(mode="json") | {"price": price, "versions": versions})
        return
    table = Table.grid(padding=(0, 2))
    gib = 2**30
    limit = f", limited to {here.memory_limit_bytes / gib:.1f} GiB" if here.memory_limit_bytes else ""
    rows = {
        "machine": here.id,
        "CPU": f"{here.cpu.model}: {here.cpu.num_usable} of {here.cpu.num_logical} logical CPUs usable",
        "instructions": " ".join(here.cpu.flags) or "not known",
        "memory": f"{here.memory_bytes / gib:.1f} GiB{limit}",
        "GPUs": "\n".join(_gpu_line(gpu) for gpu in here.gpus) or f"none ({here.gpu_note})",
        "cloud": f"{here.cloud_vendor} {here.cloud_product}" if here.cloud_vendor else "not detected",
        "system": f"{here.system} {here.kernel}, Python {here.python}, {here.allocator}",
        "packages": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "priced as": _price_line(found),
    }
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", escape(value))
    _out.print(table, highlight=False)


@app.command(epilog="Example: harness fit bench/default.toml --seq-len 512 --memory-gib 4 --predict")
def fit(
    study: StudyPath,
    *,
    seq_len: Annotated[int | None, typer.Option(min=4, help="Instead of the study's.", show_default=False)] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, tf32, bf16 or fp16, instead of the study's.")] = None,
    memory_gib: Annotated[float | None, typer.Option(min=0.1, help="The memory that is to be fitted.")] = None,
    machine: Annotated[
        str | None, typer.Option(help="Fit this instance type of the price table (its GPU, for a cell on a GPU).")
    ] = None,
    predict: Annotated[bool, typer.Option("--predict", help="Predict alone: run nothing.")] = False,
    only: Only = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Find the largest batch size that fits a memory: predicted, then confirmed by steps that are really run."""
    from harness import fit_screen
    from harness.fit import Question, choose_cell, choose_limit, find_fit, predict_fit
    from harness.machine import describe_machine

    here = describe_machine()
    cell = choose_cell(_choose(_load_cells(study, overrides), only), seq_len, precision)
    question = Question(cell, here)
    limit = choose_limit(question.config(1), here, memory_gib, machine)
    screen = fit_screen.FitScreen(None if as_json else _out)
    screen.begin(question, limit)
    found = predict_fit(question, limit) if predict else find_fit(question, limit, screen.tried)
    if as_json:
        _print_json(found.as_fields())
    else:
        screen.end(found)


@app.command(epilog="Example: harness keys")
def keys() -> None:
    """List every key of a study file, with its default, as a table in Markdown."""
    from harness.settings import describe_keys

    sys.stdout.write(describe_keys())


@app.command(epilog="Example: harness show b16-s64-fp32-cpu-longest-all")
def show(
    cell: Annotated[str, typer.Argument(help="A cell's name or a part of it, or a record's file.", show_default=False)],
    *,
    results: ResultsPath = DEFAULT_RESULTS,
    as_json: AsJson = False,
    command: Annotated[bool, typer.Option("--command", help="Print only the command that repeats it.")] = False,
) -> None:
    """Show the newest record of a cell: figures, loss curve, an example as the model sees it, last lines of stderr."""
    from harness.record import to_json
    from harness.statistics import summarise
    from harness.store import find_record, load_record

    path = Path(cell) if cell.endswith(".json") else find_record(cell, results)
    record = load_record(path)
    if command:
        _out.print(f"harness run {path} --force", highlight=False, soft_wrap=True)
    elif as_json:
        sys.stdout.write(to_json(record))
    else:
        from harness.screen import describe_record

        describe_record(_out, record, summarise([record])[0], path)


def _load_cells(path: Path, overrides: Sequence[str] | None = None) -> list[Cell]:
    """A study's cells; or the one cell of a record, to be run again."""
    from harness.matrix import Cell, expand
    from harness.store import load_record
    from harness.study import load_study

    if path.suffix == ".json":
        record = load_record(path)
        return [Cell(study=record.study, name=record.cell, repeat=record.repeat, config=record.config)]
    return expand(load_study(path, overrides or ()))


def _choose(cells: list[Cell], only: list[str] | None) -> list[Cell]:
    """Keep the cells that have every `KEY=VALUE[,VALUE]`; keys are as in a study, or `cell` for the name."""
    for key, values in ((part.partition("=")[0], part.partition("=")[2].split(",")) for part in only or []):
        kept = [cell for cell in cells if _value_of(cell, key) in values]
        if not kept:
            seen = sorted({value for cell in cells if (value := _value_of(cell, key)) is not None})
            allowed = f"its values here: {', '.join(seen)}" if seen else "no cell has this key"
            raise UserError(f"--only {key}={','.join(values)}: no cell is left; {allowed}")
        cells = kept
    return cells


def _value_of(cell: Cell, key: str) -> str | None:
    value: Any = {"cell": cell.name, "repeat": cell.repeat}.get(key)
    if value is None:
        value = cell.config.model_dump()
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    return None if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _find_price(machine: Machine, usd_per_hour: float | None = None, stated: Stated | None = None) -> Price | str:
    from harness.prices import load_prices, price_machine

    return price_machine(load_prices(), machine, stated=stated, usd_per_hour=usd_per_hour)


def _check_instance(instance: str, region: str | None) -> None:
    from harness.prices import find_instance, load_prices

    found = find_instance(load_prices(), instance, region)
    if isinstance(found, str):
        raise UserError(f"--instance {instance}: {found}")


def _budget(cell: Cell, price: Price | str) -> Budget | None:
    """The stricter of a study's two budgets, in seconds."""
    from harness.sweep import Budget

    limits, budgets = cell.config.limits, []
    if limits.budget_minutes is not None:
        budgets.append(Budget(limits.budget_minutes * 60, f"limits.budget_minutes = {limits.budget_minutes:g}"))
    if limits.budget_usd is not None:
        if isinstance(price, str):
            raise UserError(f"limits.budget_usd can't be held: {price}")
        seconds = limits.budget_usd / price.usd_per_hour * 3600
        words = f"limits.budget_usd = {limits.budget_usd:g} at {price.usd_per_hour:g} USD an hour ({price.basis})"
        budgets.append(Budget(seconds, words))
    return min(budgets, key=lambda budget: budget.seconds, default=None)


def _pairs(options: list[str]) -> dict[str, str]:
    pairs = dict(option.partition("=")[::2] for option in options)
    if wrong := [option for option in options if "=" not in option]:
        raise UserError(f"--instance {wrong[0]}: MACHINE=NAME is needed (`harness machine` prints the machine's name)")
    return pairs


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
    _out.print(table, highlight=False)
    states = [row["state"] for row in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    _out.print(
        f"\n{len(rows)} cells: {counts}. Minutes and dollars are those of the last run, where there is one.",
        highlight=False,
    )


def _gpu_line(gpu: Gpu) -> str:
    memory = f", {gpu.memory_bytes / 2**30:.1f} GiB" if gpu.memory_bytes else ""
    return f"{gpu.name}{memory}, driver {gpu.driver or 'not known'}"


def _price_line(found: Price | str) -> str:
    if isinstance(found, str):
        return f"no price: {found}"
    where = f"{found.provider} {found.instance} in {found.region}, " if found.instance else ""
    note = f"\n{found.note}" if found.note else ""
    return f"{where}{found.usd_per_hour:g} USD an hour, {found.basis} ({found.as_of or 'now'}; {found.source}){note}"


def _print_failures(records: Sequence[Record]) -> None:
    for record in records:
        if record.outcome not in ("ok", "interrupted"):
            _err.print(
                f"{record.outcome:>12}  {escape(record.cell)}: {escape(record.reason or '')}",
                highlight=False,
                soft_wrap=True,
            )


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
