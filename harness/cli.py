"""The commands."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness import __version__
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.matrix import Cell
    from harness.prices import Price
    from harness.pricing import Priceable
    from harness.record import Detected, Gpu, Machine, Record, Stated
    from harness.sweep import Budget

EXIT_OK, EXIT_CRASHED, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130
EXIT_NOTHING_FITS = EXIT_SPOILT = EXIT_SLOWER = 1
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
OwnPrices = Annotated[
    Path | None,
    typer.Option("--prices", help="Your own rates, discounts, currency and hardware (as bench/prices.example.toml)."),
]
Detect = Annotated[
    bool,
    typer.Option(
        "--detect",
        help="Ask the metadata services of EC2, GCE and Azure (0.3 s in all) what this machine is; without it only the "
        "one that the firmware names is asked.",
    ),
]
Offline = Annotated[bool, typer.Option("--offline", help="Ask no metadata service at all.")]
RecordPaths = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[RESULTS]...",
        help="Folders, files or archives (.tar.gz) of records (default: results).",
        show_default=False,
    ),
]
PriceAs = Annotated[
    list[str] | None,
    typer.Option("--instance", metavar="MACHINE=NAME", help="Price a machine as this instance type (repeatable)."),
]
Deadline = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="From the order of a machine to the end of a run: 2h, 90min, 45s."),
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
    instance: Instance = None,
    region: Region = None,
    prices: OwnPrices = None,
    usd_per_hour: UsdPerHour = None,
    as_json: AsJson = False,
) -> None:
    """List every cell: what is done, stale, to do or unsupported here, and what it is expected to take."""
    from harness.cost import usd_of_seconds
    from harness.machine import describe_machine, unsupported_reason
    from harness.store import find_all_done, own_records

    cells, machine = _choose(_load_cells(study, overrides), only), describe_machine()
    records = own_records(results, machine).records
    price = _find_price(machine, prices, usd_per_hour=usd_per_hour, stated=_stated(instance, region, prices))
    hourly = None if isinstance(price, str) else price.usd_per_hour
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
        _print_json(rows)
    else:
        _print_plan(rows, [cell.label for cell in cells])


@app.command(epilog=f"Example: harness run bench/default.toml --instance g5.xlarge --region us-east-1\n\n{_EXIT_CODES}")
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
    from harness.screen import Screen
    from harness.store import find_all_done, own_records, ran_out
    from harness.sweep import look_around, run_cells

    stated, ask = _stated(instance, region, prices), _asker(detect=detect, offline=offline)
    cells = _choose(_load_cells(study, overrides), only)
    if verify:
        _verify(cells, results)
        return
    around = look_around(stated, ask)
    known = own_records(results, around.machine)
    _print_problems(known.unreadable)
    states = find_all_done(cells, known.records, around.machine, skip=not no_skip)
    to_do = [cell for cell, (state, _) in zip(cells, states, strict=True) if force or state != "done"]
    if not to_do:
        _out.print(f"All {len(cells)} cells are done; nothing to run (--force measures again).", highlight=False)
        return
    if len(to_do) < len(cells):
        _out.print(f"{len(cells) - len(to_do)} of {len(cells)} cells are done; {len(to_do)} to run.", highlight=False)
    price = _find_price(
        around.machine, prices, usd_per_hour=usd_per_hour, stated=around.stated, detected=around.detected
    )
    budget = _budget(to_do[0], price)
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


@app.command(epilog="Example: harness report here.tar.gz there.tar.gz --deadline 2h --out /tmp/report")
def report(  # noqa: PLR0913 - each is an option
    paths: RecordPaths = None,
    *,
    out: Annotated[Path, typer.Option(help="Where report.html, summary.md and cells.csv are written.")] = Path(
        "results/report"
    ),
    study: Annotated[Path | None, typer.Option(help="Only the cells of this study file.")] = None,
    overrides: Overrides = None,
    instance: PriceAs = None,
    usd_per_hour: UsdPerHour = None,
    prices: OwnPrices = None,
    value: Annotated[
        Path | None, typer.Option(help="What a right label is worth to you (as bench/value.example.toml).")
    ] = None,
    invoice: Annotated[
        float | None, typer.Option(min=0, metavar="USD", help="What measuring was invoiced: held against the estimate.")
    ] = None,
    deadline: Deadline = None,
    elsewhere: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Show a GPU machine's seconds at this instance type's price (repeatable)."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse records that differ in data, model, packages or configuration.")
    ] = False,
) -> None:
    """Write the report: one HTML page, a summary for a pull request, and a table."""
    from harness.comparison import require_same
    from harness.demands import parse_duration
    from harness.elsewhere import elsewhere as look_elsewhere
    from harness.report import write_report

    if invoice is not None and not math.isfinite(invoice):
        raise UserError(f"--invoice: found {invoice:g}; allowed: an amount in USD, 0 or more")
    deadline_s = None if deadline is None else parse_duration(deadline, "--deadline")
    wanted = frozenset(cell.config_hash for cell in _load_cells(study, overrides)) if study is not None else None
    found = _load_priced(paths, prices, value, instance, usd_per_hour, wanted)
    if strict:
        require_same(found.differences)
    page = write_report(
        found.cells,
        out,
        generated_at=datetime.now(UTC),
        assumptions=found.assumed,
        choices=found.choices,
        records=found.records,
        invoice_usd=invoice,
        differences=found.differences,
        elsewhere=look_elsewhere(found.cells, found.table, found.assumed, elsewhere),
        deadline_s=deadline_s,
    )
    _out.print(f"{len(found.records)} records, {len(found.cells)} cells: {page}", highlight=False, soft_wrap=True)


@app.command(
    epilog="Example: harness recommend here.tar.gz there.tar.gz --target-accuracy 0.78 --deadline 2h --budget 5"
)
def recommend(
    paths: RecordPaths = None,
    *,
    target_accuracy: Annotated[float | None, typer.Option(min=0, max=1, help="At least this test accuracy.")] = None,
    deadline: Deadline = None,
    budget: Annotated[float | None, typer.Option(min=0, help="At most so many USD for one run, as billed.")] = None,
    gpu_memory: Annotated[float | None, typer.Option(min=0, help="At most so many GiB of one GPU.")] = None,
    prices: OwnPrices = None,
    usd_per_hour: UsdPerHour = None,
    instance: PriceAs = None,
    as_json: AsJson = False,
) -> None:
    """Choose by what was measured: the cheapest, the fastest and a balanced configuration. Exit status 1 if none will do."""
    from harness.advice import advice_fields, describe_advice
    from harness.demands import Asked, parse_duration
    from harness.recommend import recommend as choose
    from harness.report.wording import shown_in

    asked = Asked(
        target_accuracy=target_accuracy or None,
        deadline_s=None if deadline is None else parse_duration(deadline, "--deadline"),
        budget_usd=_above_0(budget, "--budget"),
        gpu_memory_bytes=None if gpu_memory is None else (_above_0(gpu_memory, "--gpu-memory") or 0.0) * 2**30,
    )
    found = _load_priced(paths, prices, None, instance, usd_per_hour)
    advice = choose(found.cells, asked, found.assumed)
    if as_json:
        _print_json(advice_fields(advice, found.cells))
    else:
        with shown_in(found.assumed.prices.currency):
            describe_advice(_out, advice, found.cells)
    if not advice.choices:
        raise typer.Exit(EXIT_NOTHING_FITS)


@app.command(
    epilog="Examples: harness compare before after --fail-above 3%; harness compare results:xeon results:epyc\n\n"
    "Exit status: 0 done; 1 --fail-above failed; 2 a mistake in what was asked, or --strict refused."
)
def compare(  # noqa: PLR0913 - each is an option
    a: Annotated[str, typer.Argument(metavar="A", help="Folder, file or archive of records, or PATH:MACHINE.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The same; ratios are B / A.")],
    *,
    machine_a: Annotated[
        str | None, typer.Option(help="A's machine, where it holds several: its id or a part.")
    ] = None,
    machine_b: Annotated[str | None, typer.Option(help="B's machine.")] = None,
    margin: Annotated[str, typer.Option(help="No difference: the interval lies within this much of 1.")] = "3%",
    accuracy_margin: Annotated[str, typer.Option(help="The same for accuracies, of 0.")] = "1%",
    run_spread: Annotated[
        str | None,
        typer.Option(help="Assume that runs of a cell differ by this (SD) where there are fewer than 3 a side."),
    ] = None,
    fail_above: Annotated[
        str | None,
        typer.Option(help="Exit status 1 if a cell is certainly slower by more than this, or no longer runs."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse sides that differ in machine, data, model, packages or settings.")
    ] = False,
    markdown: Annotated[Path | None, typer.Option(help="Write a table for a pull request.")] = None,
    prices: OwnPrices = None,
    usd_per_hour: UsdPerHour = None,
    instance: PriceAs = None,
    as_json: AsJson = False,
) -> None:
    """Say which cells of B are faster or slower than A's, by how much, and how certain that is."""
    from harness import compare_screen as screen
    from harness.compare import Asked
    from harness.comparison import words
    from harness.report.wording import shown_in

    asked = Asked(
        margin=screen.read_fraction(margin, "--margin") or 0.0,
        accuracy_margin=screen.read_fraction(accuracy_margin, "--accuracy-margin") or 0.0,
        run_spread=screen.read_fraction(run_spread, "--run-spread"),
        fail_above=screen.read_fraction(fail_above, "--fail-above"),
    )
    sides = (screen.read_side(a, machine_a, "--machine-a"), screen.read_side(b, machine_b, "--machine-b"))
    found, read = screen.load_comparison(
        sides, asked, prices=prices, instances=_pairs(instance or []), usd_per_hour=usd_per_hour, strict=strict
    )
    _print_problems([problem for one in read for problem in one.unreadable])
    for difference in found.pairing.differences:
        _err.print(f"[yellow]differs:[/] {escape(words(difference))}", soft_wrap=True, highlight=False)
    with shown_in(read[0].assumed.prices.currency):
        if markdown is not None:
            markdown.write_text(screen.to_markdown(found), encoding="utf-8")
        if as_json:
            _print_json(screen.comparison_fields(found))
        else:
            screen.describe_comparison(_out, found)
    if found.failed:
        raise typer.Exit(EXIT_SLOWER)


@app.command(epilog="Example: harness pack --out here.tar.gz")
def pack(
    results: Annotated[Path, typer.Argument(help="Folder of the records.")] = DEFAULT_RESULTS,
    *,
    out: Annotated[
        Path | None, typer.Option(help="The archive (default: records-MACHINE.tar.gz).", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Those of other machines in the folder too.")] = False,
) -> None:
    """Pack this machine's records into one archive, for a report elsewhere."""
    from harness.archive import pack_records, packable_files
    from harness.machine import describe_machine

    machine_id = None if every else describe_machine().id
    files, problems = packable_files(results, machine_id)
    _print_problems(problems)
    archive = out or Path(f"records-{machine_id}.tar.gz" if machine_id else "records.tar.gz")
    pack_records(files, results, archive)
    _out.print(f"{len(files)} records: {archive}", highlight=False, soft_wrap=True)


@app.command(epilog="Example: harness export -o now.json && pytest-benchmark compare before.json now.json")
def export(
    *,
    results: Annotated[
        Path, typer.Option("--results", help="Folder, file or archive of the records.")
    ] = DEFAULT_RESULTS,
    format_: Annotated[
        Literal["pytest-benchmark"], typer.Option("--format", help="What is to read it.")
    ] = "pytest-benchmark",
    machine: Annotated[
        str | None, typer.Option(help="Where there are several: a machine's id or a part of it.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file (default: to the terminal).")] = None,
) -> None:
    """Write cells as benchmarks of another tool: the seconds of their measured steps, and what else was measured."""
    from harness.archive import read_records
    from harness.benchmark_export import export_benchmarks
    from harness.whole_file import write_whole

    found = read_records([results])
    _print_problems(found.unreadable)
    exported = export_benchmarks(found.records, machine)
    for cell in exported.left_out:
        _err.print(f"[yellow]left out:[/] {escape(cell)}: no measured step", soft_wrap=True, highlight=False)
    text = json.dumps(exported.fields, indent=1, allow_nan=False) + "\n"
    if out is None:
        sys.stdout.write(text)
        return
    try:
        write_whole(out, text)
    except OSError as error:
        raise UserError(f"--out {out}: can't be written: {error.strerror}") from None
    num_cells = len(exported.fields["benchmarks"])
    _out.print(f"{num_cells} cells: {out} ({format_})", highlight=False, soft_wrap=True)


@app.command("import", epilog="Example: harness import gpu-check.tar.gz")
def import_(
    archive: Annotated[
        Path, typer.Argument(help="An archive of records, as `make pack` and `make gpu-check` write it.")
    ],
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
def machine(
    *,
    instance: Instance = None,
    region: Region = None,
    prices: OwnPrices = None,
    detect: Detect = False,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Say what this computer is, what it would be priced as, and why."""
    from harness.machine import describe_machine, package_version

    stated, ask = _stated(instance, region, prices), _asker(detect=detect, offline=offline)
    here = describe_machine()
    detected = ask(here)
    found = _find_price(here, prices, stated=stated, detected=detected)
    versions = {name: package_version(name) for name in ("torch", "transformers")}
    if as_json:
        price = found if isinstance(found, str) else vars(found) | {"age_days": found.age_days}
        told = None if detected is None else detected.model_dump()
        _print_json(here.model_dump(mode="json") | {"price": price, "detected": told, "versions": versions})
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
        "metadata": _detected_line(detected),
        "system": f"{here.system} {here.kernel}, Python {here.python}, {here.allocator}",
        "packages": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "priced as": _price_line(found),
    }
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", escape(value))
    _out.print(table, highlight=False)


@app.command(epilog="Example: harness doctor --quick || exit 1")
def doctor(
    *,
    results: ResultsPath = DEFAULT_RESULTS,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the calibration of 20 seconds.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what of this machine would spoil a benchmark, and how to mend it. Exit status 1 if anything is `bad`."""
    from harness import doctor_screen
    from harness.doctor import examine

    found = examine(results, calibrated=not quick)
    if as_json:
        _print_json(found.as_fields())
    else:
        doctor_screen.show_diagnosis(_out, found)
    if found.verdict == "bad":
        raise typer.Exit(EXIT_SPOILT)


@app.command(epilog="Examples: harness prices --gpu A100 --max-usd 3; harness prices g5.xlarge; harness prices refresh")
def prices(
    instance: Annotated[
        str | None,
        typer.Argument(
            metavar="[INSTANCE|refresh]",
            help="All that is known of one instance type; or `refresh`: put the live prices that the filters let through "
            "into your own table, by gpuhunt (extra `prices`; needs a network, and no key).",
            show_default=False,
        ),
    ] = None,
    *,
    gpu: Annotated[str | None, typer.Option(help="A GPU, such as A100; `none`: machines without.")] = None,
    max_usd: Annotated[float | None, typer.Option(min=0, help="At most so many USD an hour.")] = None,
    provider: Annotated[str | None, typer.Option(help="aws, gcp, azure, ...")] = None,
    region: Annotated[str | None, typer.Option(help="One region alone.")] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="At least so many logical CPUs.")] = None,
    memory_gib: Annotated[float | None, typer.Option(min=0, help="At least so much main memory.")] = None,
    spot: Annotated[bool, typer.Option("--spot", help="By the spot price, where one is known.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the price table, cheapest first.

    Your own table (same columns as bench/prices.csv) stands beside the shipped one; the newer of two rows counts. It is
    the file that HARNESS_PRICES names, else ~/.config/bert-cost-harness/prices.csv.
    """
    from harness import price_screen
    from harness.price_search import Wanted, find_instance, search
    from harness.price_table import load_prices, own_table_path

    table = load_prices()
    named = None if instance == "refresh" else instance
    wanted = Wanted(named, gpu, max_usd, provider, region, cpus, memory_gib, spot)
    if instance == "refresh":
        from harness.price_catalog import refresh

        done = refresh(own_table_path(), table, wanted.takes)
        for complaint in done.complaints:
            _err.print(f"[yellow]gpuhunt:[/] {escape(complaint)}", soft_wrap=True, highlight=False)
        _out.print(
            f"{done.num_new} prices of today in {done.path}; {done.num_kept} older rows kept, "
            f"{done.num_left_out} instance types without an on-demand price or a size left out.",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        return
    if instance is not None and isinstance(found := find_instance(table, instance), str):
        raise UserError(found)
    rows = search(table, wanted)
    if as_json:
        _print_json(price_screen.as_fields(rows, table))
    elif instance is None:
        price_screen.list_prices(_out, rows, wanted, table)
    else:
        price_screen.show_prices(_out, rows, table)


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
    from harness.profile_run import choose_trained, profile_cell
    from harness.profile_screen import show_profile
    from harness.sweep import look_around

    cell = choose_trained(_choose(_load_cells(study, overrides), only))
    try:
        found = profile_cell(cell, look_around(None), steps, out)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if as_json:
        _print_json(found.as_fields())
    else:
        show_profile(_out, found)


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


def _verify(cells: Sequence[Cell], results: Path) -> None:
    """Run each cell under independent instruments; exit status 1 where one contradicts, or a cell ended badly."""
    import tempfile

    from harness.machine import describe_machine
    from harness.sweep import Preparations, alone
    from harness.verify import verify_cell
    from harness.verify_screen import show_tolerance, show_verified

    here, found = describe_machine(), []
    try:
        with alone(results), tempfile.TemporaryDirectory(prefix="harness-data-") as folder:
            preparations = Preparations(Path(folder))
            for cell in cells:
                found.append(verify_cell(cell, preparations.prepare, here))
                show_verified(_out, found[-1])
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    show_tolerance(_out)
    if not all(one.agrees and one.outcome in ("ok", "not run", "unsupported") for one in found):
        raise typer.Exit(EXIT_CRASHED)


def _load_priced(
    paths: Sequence[Path] | None,
    prices: Path | None,
    value: Path | None,
    instance: list[str] | None,
    usd_per_hour: float | None,
    config_hashes: frozenset[str] | None = None,
) -> Priceable:
    """Read and price, and say on stderr what was left aside, and in what the records differ."""
    from harness.comparison import words
    from harness.pricing import load_priced

    found = load_priced(
        paths or ([DEFAULT_RESULTS] if DEFAULT_RESULTS.is_dir() else []),
        prices=prices,
        value=value,
        instances=_pairs(instance or []),
        usd_per_hour=usd_per_hour,
        config_hashes=config_hashes,
    )
    _print_problems(found.unreadable)
    for difference in found.differences:
        _err.print(f"[yellow]differs:[/] {escape(words(difference))}", soft_wrap=True, highlight=False)
    return found


def _print_problems(problems: Sequence[str]) -> None:
    for problem in problems:
        _err.print(f"[yellow]left aside:[/] {escape(problem)}", soft_wrap=True, highlight=False)


def _above_0(value: float | None, option: str) -> float | None:
    if value is not None and value <= 0:
        raise UserError(f"{option} {value:g}: a number above 0 is needed")
    return value


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


def _find_price(
    machine: Machine,
    prices: Path | None = None,
    *,
    usd_per_hour: float | None = None,
    stated: Stated | None = None,
    detected: Detected | None = None,
) -> Price | str:
    from harness.assumptions import load_assumptions
    from harness.prices import load_prices, price_machine
    from harness.tariff import pay_for

    book = load_assumptions(prices).prices
    found = price_machine(
        load_prices(), machine, stated=stated, detected=detected, usd_per_hour=usd_per_hour, book=book
    )
    return pay_for(found, book, machine.id)


def _stated(instance: str | None, region: str | None, prices: Path | None) -> Stated | None:
    """What the user says of the machine, refused before anything runs where neither table nor own rates know it."""
    from harness.assumptions import load_assumptions
    from harness.prices import find_instance, load_prices
    from harness.record import Stated

    if instance is None:
        if region is not None:
            raise UserError("--region needs --instance too")
        return None
    found = find_instance(load_prices(), instance, region)
    if isinstance(found, str) and all(rate.instance != instance for rate in load_assumptions(prices).prices.rate):
        raise UserError(f"--instance {instance}: {found}")
    return Stated(instance=instance, region=region)


def _asker(*, detect: bool, offline: bool) -> Callable[[Machine], Detected | None]:
    """What asks the metadata service of a machine's cloud, or nobody."""
    from harness import cloud

    if detect and offline:
        raise UserError("--detect and --offline: give one of them")
    return lambda machine: None if offline else cloud.detect(machine.cloud_vendor, everywhere=detect)


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
    from harness.price_rows import age_words

    if isinstance(found, str):
        return f"no price: {found}"
    place = " ".join(part for part in (found.provider, found.instance) if part)
    region = f" in {found.region}" if found.region else ""
    where = f"{place}{region}, " if found.instance else ""
    dated = "; ".join(part for part in (found.as_of or "now", age_words(found.age_days), found.source) if part)
    more = "".join(f"\n{line}" for line in (found.paid, found.note) if line)
    return f"{where}{found.usd_per_hour:g} USD an hour, {found.basis} ({dated}){more}"


def _detected_line(detected: Detected | None) -> str:
    if detected is None:
        return "nothing told (--detect asks the services of EC2, GCE and Azure)"
    kind = {True: ", spot", False: ", on demand", None: ""}[detected.is_spot]
    return f"{detected.vendor} {detected.instance}" + (f" in {detected.region}" if detected.region else "") + kind


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
