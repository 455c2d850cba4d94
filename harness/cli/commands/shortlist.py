"""The command `shortlist`, which estimates a study on machines that nobody rented."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import console
from harness.cli.lookups import choose_cells, load_cells, require_positive
from harness.cli.options import (
    DEFAULT_RESULTS,
    AsJson,
    Deadline,
    Only,
    Overrides,
    OwnPrices,
    ResultsPath,
    StudyPath,
)

app = typer.Typer()


@app.command(
    epilog="Example: harness shortlist bench/gpu.toml --provider aws --deadline 2h --budget 5 --samples 1000000"
)
def shortlist(  # noqa: PLR0913 - one parameter per option
    study: StudyPath,
    *,
    deadline: Deadline = None,
    budget: Annotated[float | None, typer.Option(min=0, help="Maximum billed cost of one run, in USD.")] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1, help="Training rows, repetitions included, that every bill is for (default: the study's most)."
        ),
    ] = None,
    provider: Annotated[str | None, typer.Option(help="aws, gcp, azure, ...")] = None,
    region: Annotated[str | None, typer.Option(help="Only this region.")] = None,
    gpu: Annotated[str | None, typer.Option(help="GPU, such as A100; `none` for machines without GPU.")] = None,
    max_usd: Annotated[float | None, typer.Option(min=0, help="Maximum USD per hour.")] = None,
    results: ResultsPath = DEFAULT_RESULTS,
    only: Only = None,
    overrides: Overrides = None,
    prices: OwnPrices = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show every machine, not the cheapest ten.")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Also write the list as Markdown.")] = None,
    as_json: AsJson = False,
) -> None:
    """Estimate a study's time and bill on every machine of the price table, and say which three to measure first.

    Where nothing was measured, a GPU's speed is estimated from its datasheet, by constants fitted to published runs.
    """
    from harness.cli.views.shortlist import shortlist_fields, shortlist_markdown, show_shortlist
    from harness.decision.requirements import parse_duration
    from harness.files import atomic_write_text
    from harness.pricing.price_search import PriceQuery
    from harness.report.formatting import MoneyFormat
    from harness.schema.assumptions import load_assumptions
    from harness.workflows.shortlist import ShortlistOptions, make_shortlist

    options = ShortlistOptions(
        PriceQuery(gpu=gpu, max_usd_per_hour=max_usd, provider=provider, region=region),
        num_samples=samples,
        deadline_s=None if deadline is None else parse_duration(deadline, "--deadline"),
        budget_usd=require_positive(budget, "--budget"),
        prices=prices,
        results=(results, results / "reference"),
    )
    found = make_shortlist(choose_cells(load_cells(study, overrides), only), options)
    console.print_problems(found.unreadable)
    money = MoneyFormat(load_assumptions(prices).prices.currency)
    if markdown is not None:
        atomic_write_text(markdown, shortlist_markdown(found, money, show_all=show_all))
    if as_json:
        console.print_json(shortlist_fields(found))
    else:
        show_shortlist(console.out, found, money, show_all=show_all)
