"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def _keep_offline(offline: bool) -> bool:
    """Keep the hub's libraries offline too, here and in child processes; they read the variable when imported."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    return offline


StudyPath = Annotated[
    Path,
    typer.Argument(help="A study file (.toml), or a record (.json) to run its cell again.", show_default=False),
]
ResultsPath = Annotated[Path, typer.Option("--results", help="Folder with records.")]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="KEY=VALUE", help="Only cells with this value, e.g. seq_len=128 (repeatable)."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a study key, e.g. matrix.seq_len=[512] (repeatable).",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Instance = Annotated[
    str | None,
    typer.Option(help="This machine's instance type, as in the price table; stored in records."),
]
Region = Annotated[str | None, typer.Option(help="This machine's region.")]
UsdPerHour = Annotated[
    float | None,
    typer.Option("--usd-per-hour", min=0, help="Hourly price of the machine; overrides all other prices."),
]
OwnPrices = Annotated[
    Path | None,
    typer.Option(
        "--prices", help="File with your rates, discounts, currency and hardware (see bench/prices.example.toml)."
    ),
]
Detect = Annotated[
    bool,
    typer.Option(
        "--detect",
        help="Query the metadata services of EC2, GCE and Azure (0.3 s in total); by default only the one that the "
        "firmware names is queried.",
    ),
]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        help="Query no metadata service, and take models and datasets of the hub from its cache.",
        callback=_keep_offline,
    ),
]
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
    typer.Option(metavar="TIME", help="Time limit from ordering a machine to the end of a run: 2h, 90min, 45s."),
]
RunSpread = Annotated[
    str | None,
    typer.Option(
        "--run-spread",
        metavar="PERCENT",
        help="Spread (SD) between runs of a cell, for cells with fewer than 3 runs; `report` and `recommend` otherwise "
        "measure it over the machine's repeats, or assume 10%.",
    ),
]
DEFAULT_RESULTS = Path("results")
