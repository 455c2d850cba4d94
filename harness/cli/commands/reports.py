"""The commands that judge records: a report of them, a choice among them, two sets held against each other."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from harness.cli import console
from harness.cli.console import EXIT_NOTHING_FITS, EXIT_SLOWER
from harness.cli.lookups import load_cells, parse_key_value, price_records, require_positive
from harness.cli.options import AsJson, Deadline, Overrides, OwnPrices, PriceAs, RecordPaths, UsdPerHour
from harness.errors import UserError

app = typer.Typer()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Look for no cycles: what a report is made of lives to its end, and to walk it again and again takes a tenth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


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
    from harness.decision.differences import require_same
    from harness.decision.elsewhere import price_elsewhere as look_elsewhere
    from harness.decision.requirements import parse_duration
    from harness.report import write_report

    if invoice is not None and not math.isfinite(invoice):
        raise UserError(f"--invoice: found {invoice:g}; allowed: an amount in USD, 0 or more")
    deadline_s = None if deadline is None else parse_duration(deadline, "--deadline")
    wanted = frozenset(cell.config_hash for cell in load_cells(study, overrides)) if study is not None else None
    with _no_collection():
        found = price_records(paths, prices, value, instance, usd_per_hour, wanted)
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
    console.out.print(
        f"{len(found.records)} records, {len(found.cells)} cells: {page}", highlight=False, soft_wrap=True
    )


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
    from harness.cli.views.recommend import describe_recommendation, recommendation_fields
    from harness.decision.recommend import recommend as choose
    from harness.decision.requirements import Requirements, parse_duration
    from harness.report.formatting import MoneyFormat

    asked = Requirements(
        target_accuracy=target_accuracy or None,
        deadline_s=None if deadline is None else parse_duration(deadline, "--deadline"),
        budget_usd=require_positive(budget, "--budget"),
        gpu_memory_bytes=None if gpu_memory is None else (require_positive(gpu_memory, "--gpu-memory") or 0.0) * 2**30,
    )
    found = price_records(paths, prices, None, instance, usd_per_hour)
    advice = choose(found.cells, asked, found.assumed)
    if as_json:
        console.print_json(recommendation_fields(advice, found.cells))
    else:
        describe_recommendation(console.out, advice, found.cells, MoneyFormat(found.assumed.prices.currency))
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
    from harness.cli.views import compare as screen
    from harness.decision.compare import CompareOptions
    from harness.decision.differences import describe_difference
    from harness.report.formatting import MoneyFormat

    asked = CompareOptions(
        margin=screen.read_fraction(margin, "--margin") or 0.0,
        accuracy_margin=screen.read_fraction(accuracy_margin, "--accuracy-margin") or 0.0,
        run_spread=screen.read_fraction(run_spread, "--run-spread"),
        fail_above=screen.read_fraction(fail_above, "--fail-above"),
    )
    sides = (screen.read_side(a, machine_a, "--machine-a"), screen.read_side(b, machine_b, "--machine-b"))
    found, read = screen.load_comparison(
        sides, asked, prices=prices, instances=parse_key_value(instance or []), usd_per_hour=usd_per_hour, strict=strict
    )
    console.print_problems([problem for one in read for problem in one.unreadable])
    for difference in found.pairing.differences:
        console.err.print(
            f"[yellow]differs:[/] {escape(describe_difference(difference))}", soft_wrap=True, highlight=False
        )
    money = MoneyFormat(read[0].assumed.prices.currency)
    if markdown is not None:
        markdown.write_text(screen.to_markdown(found, money), encoding="utf-8")
    if as_json:
        console.print_json(screen.comparison_fields(found))
    else:
        screen.show_comparison(console.out, found, money)
    if found.failed:
        raise typer.Exit(EXIT_SLOWER)
