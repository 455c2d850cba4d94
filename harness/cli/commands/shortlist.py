"""The command `shortlist`, which estimates a study on machines that nobody rented."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import console
from harness.cli.command import JUDGE, command
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


@command(
    app,
    JUDGE,
    epilog="Example: harness shortlist gpu --provider aws --deadline 2h --max-usd 5 --samples 1000000",
)
def shortlist(  # noqa: PLR0913 - one parameter per option
    study: StudyPath,
    *,
    deadline: Deadline = None,
    budget: Annotated[
        float | None, typer.Option("--max-usd", "--budget", metavar="USD", min=0, help="Largest bill of one run.")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Rows trained on, repetitions included (default: the study's most)."),
    ] = None,
    provider: Annotated[str | None, typer.Option(metavar="NAME", help="Only of aws, gcp, azure, ...")] = None,
    region: Annotated[str | None, typer.Option(metavar="NAME", help="Only in this region.")] = None,
    gpu: Annotated[str | None, typer.Option(metavar="NAME", help="Only with this GPU, as A100, or none.")] = None,
    max_usd: Annotated[
        float | None, typer.Option("--max-usd-per-hour", metavar="USD", min=0, help="Largest hourly price.")
    ] = None,
    results: ResultsPath = DEFAULT_RESULTS,
    only: Only = None,
    overrides: Overrides = None,
    prices: OwnPrices = None,
    show_all: Annotated[bool, typer.Option("--all", help="Every machine, not the cheapest ten.")] = False,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the list as Markdown too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Estimate time and bill on every machine of the price table. The three to measure first are named.

    Where nothing was measured, a GPU's speed is estimated from its datasheet.
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
        budget_usd=require_positive(budget, "--max-usd"),
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
