"""The command that labels a file by a model that was kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli import console
from harness.cli.console import EXIT_INTERRUPTED
from harness.cli.lookups import cloud_detector, find_price, read_stated
from harness.cli.options import AsJson, Detect, Instance, Offline, OwnPrices, Region, UsdPerHour
from harness.errors import UserError

app = typer.Typer()


@app.command(epilog="Example: harness predict results/models/default/MODEL reviews.csv -o labelled.csv --with id")
def predict(  # noqa: PLR0913 - each is an option of the command
    model: Annotated[
        str,
        typer.Argument(help="A folder under results/models, another model's folder, or a hub id.", show_default=False),
    ],
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV, TSV, JSON Lines (also .gz, .bz2), Parquet or Arrow, of any size.", show_default=False
        ),
    ],
    *,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where labels go: .csv, .tsv, .jsonl or .parquet.", show_default=False)
    ],
    text: Annotated[
        list[str] | None, typer.Option(help="The text's column (default: as trained); repeated, they are joined.")
    ] = None,
    pair: Annotated[str | None, typer.Option(help="Column of a second text (default: as trained).")] = None,
    with_: Annotated[
        list[str] | None, typer.Option("--with", help="A column that is copied to the output (repeatable).")
    ] = None,
    precision: Annotated[
        Literal["fp32", "tf32", "bf16", "fp16"], typer.Option(help="tf32 and fp16 on GPUs alone.")
    ] = "fp32",
    batch_size: Annotated[int, typer.Option(min=1, help="Texts of like length at a time.")] = 32,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads (default: all usable cores).", show_default=False)
    ] = None,
    seq_len: Annotated[
        int | None, typer.Option(min=4, help="Tokens at most (default: as trained, else 128).", show_default=False)
    ] = None,
    device: Annotated[
        Literal["cpu", "gpu"] | None, typer.Option(help="Default: a GPU where there is one.", show_default=False)
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew, whatever is there of the output.")] = False,
    instance: Instance = None,
    region: Region = None,
    prices: OwnPrices = None,
    usd_per_hour: UsdPerHour = None,
    detect: Detect = False,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Label a file of any size by a model, with the probability of each label; a run that was ended goes on.

    The output has a row for each of the file's, in its order: `row` (from 0), the columns of --with, `predicted`, and a column
    `p:LABEL` for each label. A row without a text has no label.
    """
    from harness.cli.views.predict import PredictView, show_predicted
    from harness.machine.describe import describe_machine
    from harness.schema.predict_job import progress_paths
    from harness.schema.predict_job import restart as forget
    from harness.workflows.predict_file import PredictOptions, plan_job, predict_file

    machine, ask = describe_machine(), cloud_detector(detect=detect, offline=offline)
    stated = read_stated(instance, region, prices)
    asked = PredictOptions(
        model, file, out, text=text, pair=pair, carried=with_ or (), precision=precision, batch_size=batch_size,
        seq_len=seq_len, threads=threads, device=device,
    )  # fmt: skip
    job = plan_job(asked, machine)
    price = find_price(machine, prices, usd_per_hour=usd_per_hour, stated=stated, detected=ask(machine))
    if restart:
        forget(out)
    elif out.exists() and not progress_paths(out)[1].exists():
        raise UserError(f"-o {out}: it is there already; --restart makes it anew")
    try:
        with PredictView(console.err) as screen:
            found = predict_file(job, machine, price, screen.hear)
    except KeyboardInterrupt:
        console.err.print("Stopped. What is written is kept; the same command goes on.", highlight=False)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if as_json:
        console.print_json(found.as_fields())
    else:
        show_predicted(console.out, found)
