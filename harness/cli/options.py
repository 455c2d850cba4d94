"""Options that several commands share. The first long name is the documented one; further ones are older names of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.shipped import find_study


def _keep_offline(offline: bool) -> bool:
    """Keep the hub's libraries offline too, here and in child processes; they read the variable when imported."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    return offline


def _find_study(path: Path | None) -> Path | None:
    return None if path is None else find_study(path)


StudyPath = Annotated[
    Path,
    typer.Argument(
        metavar="STUDY",
        help="A study's file or name (see `harness studies`); or a record to repeat.",
        callback=_find_study,
        show_default=False,
    ),
]
StudyOption = Annotated[
    Path | None, typer.Option("--study", metavar="STUDY", help="Only the cells of this study.", callback=_find_study)
]
ResultsPath = Annotated[Path, typer.Option("--results", metavar="DIR", help="Folder of records.")]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="KEY=VALUE", help="Only these cells, as seq_len=128 (repeatable)."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Another value: matrix.seq_len=[512] (repeatable)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Instance = Annotated[
    str | None, typer.Option("--instance", metavar="NAME", help="This machine's instance type, for its price.")
]
Region = Annotated[str | None, typer.Option("--region", metavar="NAME", help="This machine's region.")]
UsdPerHour = Annotated[
    float | None,
    typer.Option("--usd-per-hour", metavar="USD", min=0, help="Hourly price; overrides all other prices."),
]
OwnPrices = Annotated[
    Path | None,
    typer.Option("--prices", metavar="FILE", help="Your rates (see `harness studies prices.example`)."),
]
Value = Annotated[
    Path | None,
    typer.Option("--value", metavar="FILE", help="Your values (see `harness studies value.example`)."),
]
Detect = Annotated[bool, typer.Option("--detect", help="Ask the metadata services of EC2, GCE and Azure.")]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        help="Ask no metadata service; take hub files from cache.",
        callback=_keep_offline,
    ),
]
RecordPaths = Annotated[
    list[Path] | None,
    typer.Option(
        "--results",
        metavar="PATH",
        help="Folder, file or .tar.gz of records (repeatable).",
        show_default=False,
    ),
]
# The older way to name the records.
RecordArguments = Annotated[list[Path] | None, typer.Argument(hidden=True)]
PriceAs = Annotated[
    list[str] | None,
    typer.Option(
        "--price-as", "--instance", metavar="MACHINE=NAME", help="Price a machine as this instance (repeatable)."
    ),
]
Deadline = Annotated[
    str | None,
    typer.Option("--deadline", metavar="TIME", help="Longest time from order to end: 2h, 90min, 45s."),
]
RunSpread = Annotated[
    str | None,
    typer.Option("--run-spread", metavar="PERCENT", help="Assumed SD between runs, where there are under 3."),
]
Metric = Annotated[
    Literal["accuracy", "macro_f1"],
    typer.Option("--metric", help="The score that counts."),
]
FailAbove = Annotated[
    str | None,
    typer.Option("--fail-above", metavar="PERCENT", help="Exit with status 1 if a cell is slower by more."),
]
Markdown = Annotated[
    Path | None, typer.Option("--markdown", metavar="FILE", help="Write the comparison as Markdown too.")
]
DEFAULT_RESULTS = Path("results")
