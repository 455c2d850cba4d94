"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
