"""The commands `report`, `recommend` and `compare`, which analyze records."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import console
from harness.cli.command import JUDGE, command
from harness.cli.console import EXIT_NOTHING_FITS, EXIT_SLOWER
from harness.cli.lookups import (
    load_cells,
    parse_instances,
    price_records,
    print_differences,
    read_fraction,
    require_positive,
)
from harness.cli.options import (
    AsJson,
    Deadline,
    FailAbove,
    Markdown,
    Metric,
    Overrides,
    OwnPrices,
    PriceAs,
    RecordArguments,
    RecordPaths,
    RunSpread,
    StudyOption,
    UsdPerHour,
    Value,
)
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.decision.shortlist import Shortlist
    from harness.schema.cells import Cell
    from harness.schema.record import Record

app = typer.Typer()


@contextlib.contextmanager
def _gc_disabled() -> Iterator[None]:
    """Disable the garbage collector: a report's objects live to its end, and scanning them takes a tenth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@command(app, JUDGE, epilog="Example: harness report --results here.tar.gz --results there.tar.gz --out /tmp/report")
def report(  # noqa: PLR0913 - one parameter per option
    paths: RecordArguments = None,
    *,
    results: RecordPaths = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the report.")] = Path(
        "results/report"
    ),
    study: StudyOption = None,
    overrides: Overrides = None,
    instance: PriceAs = None,
    usd_per_hour: UsdPerHour = None,
    prices: OwnPrices = None,
    value: Value = None,
    invoice: Annotated[
        float | None,
        typer.Option(min=0, metavar="USD", help="What measuring cost, to compare estimates with."),
    ] = None,
    deadline: Deadline = None,
    elsewhere: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Price a GPU's times there too (repeatable)."),
    ] = None,
    run_spread: RunSpread = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse records of other data, model or packages.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write report.html, summary.md and cells.csv from records."""
    from harness.decision.differences import require_same
    from harness.decision.elsewhere import price_elsewhere
    from harness.decision.requirements import parse_duration
    from harness.report import write_report
    from harness.workflows.priced_records import PriceOptions

    if invoice is not None and not math.isfinite(invoice):
        raise UserError(f"--invoice {invoice:g}: expected an amount in USD, 0 or more")
    deadline_s = None if deadline is None else parse_duration(deadline, "--deadline")
    planned = load_cells(study, overrides) if study is not None else []
    config_hashes = frozenset(cell.config_hash for cell in planned) if study is not None else None
    with _gc_disabled():
        options = PriceOptions(
            prices, value, usd_per_hour, parse_instances(instance), read_fraction(run_spread, "--run-spread")
        )
        priced = price_records([*(results or ()), *(paths or ())], options, config_hashes)
        if strict:
            require_same(priced.differences)
        page = write_report(
            priced.cells,
            out,
            generated_at=datetime.now(UTC),
            assumptions=priced.assumed,
            choices=priced.choices,
            records=priced.records,
            invoice_usd=invoice,
            differences=priced.differences,
            elsewhere=price_elsewhere(priced.cells, priced.table, priced.assumed, elsewhere),
            shortlist=_shortlist(planned, priced.records, prices, deadline_s),
            deadline_s=deadline_s,
        )
    console.print_result(
        f"{len(priced.records)} records, {len(priced.cells)} cells: {page}",
        {"page": str(page), "num_records": len(priced.records), "num_cells": len(priced.cells)},
        as_json=as_json,
    )


def _shortlist(
    cells: Sequence[Cell], records: Sequence[Record], prices: Path | None, deadline_s: float | None
) -> Shortlist | None:
    """Return which machines to measure next; None without a study, or if its models or data can't be read here."""
    from harness.pricing.price_search import PriceQuery
    from harness.workflows.shortlist import ShortlistOptions, make_shortlist

    try:
        options = ShortlistOptions(PriceQuery(), deadline_s=deadline_s, prices=prices)
        return make_shortlist(cells, options, records) if cells else None
    except UserError:
        return None


@command(app, JUDGE, epilog="Example: harness recommend --results here.tar.gz --target 78% --deadline 2h --max-usd 5")
def recommend(  # noqa: PLR0913 - one parameter per option
    paths: RecordArguments = None,
    *,
    results: RecordPaths = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "--target-accuracy",
            metavar="SCORE",
            help="Score to reach, as 0.78 or 78%.",
        ),
    ] = None,
    tolerance: Annotated[str, typer.Option(metavar="POINTS", help="Accepted loss against the best.")] = "1",
    metric: Metric = "accuracy",
    deadline: Deadline = None,
    budget: Annotated[
        float | None, typer.Option("--max-usd", "--budget", metavar="USD", min=0, help="Highest bill of one run.")
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option("--max-gpu-memory-gib", "--gpu-memory", metavar="GIB", min=0, help="Memory of the largest GPU."),
    ] = None,
    prices: OwnPrices = None,
    value: Value = None,
    usd_per_hour: UsdPerHour = None,
    instance: PriceAs = None,
    run_spread: RunSpread = None,
    as_json: AsJson = False,
) -> None:
    """Say which measured way to use, or what to measure next. Exit status 1 if none meets the requirements."""
    from harness.cli.views.recommend import recommendation_fields, show_recommendation
    from harness.decision.choice import Goal, choose
    from harness.decision.requirements import (
        Requirements,
        parse_duration,
        parse_points,
        qualifier,
        read_share,
        unmet_requirements,
    )
    from harness.report.formatting import MoneyFormat
    from harness.workflows.priced_records import PriceOptions

    goal = Goal(
        metric, parse_points(tolerance, "--tolerance"), None if target is None else read_share(target, "--target")
    )
    requirements = Requirements(
        deadline_s=None if deadline is None else parse_duration(deadline, "--deadline"),
        budget_usd=require_positive(budget, "--max-usd"),
        gpu_memory_bytes=None
        if gpu_memory is None
        else (require_positive(gpu_memory, "--max-gpu-memory-gib") or 0.0) * 2**30,
    )
    options = PriceOptions(
        prices, value, usd_per_hour, parse_instances(instance), read_fraction(run_spread, "--run-spread")
    )
    priced = price_records([*(results or ()), *(paths or ())], options)
    choice = choose(priced.cells, priced.assumed, goal, qualifier(requirements, priced.assumed))
    unmet = unmet_requirements(choice.measured, requirements, priced.assumed)
    if as_json:
        console.print_json(recommendation_fields(choice, requirements, unmet, priced.cells))
    else:
        show_recommendation(console.out, choice, unmet, priced.cells, MoneyFormat(priced.assumed.prices.currency))
    if choice.way is None:
        raise typer.Exit(EXIT_NOTHING_FITS)


@command(
    app,
    JUDGE,
    epilog="Examples: harness compare before after --fail-above 3%; harness compare results:xeon results:epyc\n\n"
    "Exit status: 0 success; 1 --fail-above failed; 2 usage error, or --strict refused.",
)
def compare(  # noqa: PLR0913 - one parameter per option
    a: Annotated[str, typer.Argument(metavar="A", help="Folder, file or archive, or PATH:MACHINE.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The same; ratios are B / A.")],
    *,
    machine_a: Annotated[
        str | None, typer.Option(metavar="ID", help="Machine of A, if A has several: a part of its id.")
    ] = None,
    machine_b: Annotated[str | None, typer.Option(metavar="ID", help="Machine of B.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Show what did not change too.")] = False,
    margin: Annotated[str, typer.Option(metavar="PERCENT", help="Ratios nearer to 1 are no difference.")] = "3%",
    accuracy_margin: Annotated[str, typer.Option(metavar="PERCENT", help="The same for differences of scores.")] = "1%",
    metric: Metric = "accuracy",
    run_spread: RunSpread = None,
    fail_above: FailAbove = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse sides of other data, model or packages.")] = False,
    markdown: Markdown = None,
    prices: OwnPrices = None,
    usd_per_hour: UsdPerHour = None,
    instance: PriceAs = None,
    as_json: AsJson = False,
) -> None:
    """Compare two sets of records: what became faster, cheaper or better.

    Of more than 12 figures, those that changed are shown and the rest is counted; --all shows it. Ratios are B / A, differences of scores B - A.
    """
    from harness.cli.views import compare as view
    from harness.decision.compare import CompareOptions
    from harness.files import atomic_write_text
    from harness.report.formatting import MoneyFormat
    from harness.workflows.priced_records import PriceOptions

    options = CompareOptions(
        margin=read_fraction(margin, "--margin") or 0.0,
        accuracy_margin=read_fraction(accuracy_margin, "--accuracy-margin") or 0.0,
        run_spread=read_fraction(run_spread, "--run-spread"),
        fail_above=read_fraction(fail_above, "--fail-above"),
        metric=metric,
    )
    sides = (view.read_side(a, machine_a, "--machine-a"), view.read_side(b, machine_b, "--machine-b"))
    price_options = PriceOptions(prices, usd_per_hour=usd_per_hour, instances=parse_instances(instance))
    comparison, priced_sides = view.load_comparison(sides, options, price_options, strict=strict)
    console.print_problems([problem for side in priced_sides for problem in side.unreadable])
    print_differences(comparison.pairing.differences)
    money = MoneyFormat(priced_sides[0].assumed.prices.currency)
    if markdown is not None:
        atomic_write_text(markdown, view.to_markdown(comparison, money, every=every))
    if as_json:
        console.print_json(view.comparison_fields(comparison))
    else:
        view.show_comparison(console.out, comparison, money, every=every)
    if comparison.failed:
        raise typer.Exit(EXIT_SLOWER)
