"""The command `harness predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli import console
from harness.cli.command import DATA, command
from harness.cli.console import EXIT_INTERRUPTED
from harness.cli.lookups import MachineOptions
from harness.cli.options import AsJson, Detect, Instance, Offline, OwnPrices, Region, UsdPerHour
from harness.errors import UserError

app = typer.Typer()


@command(
    app, DATA, epilog="Example: harness predict results/models/default/MODEL reviews.csv -o labelled.csv --with id"
)
def predict(  # noqa: PLR0913 - one parameter per option
    model: Annotated[
        str,
        typer.Argument(help="A model folder, as in results/models, or a hub id.", show_default=False),
    ],
    file: Annotated[
        Path,
        typer.Argument(help="CSV, TSV, JSON Lines, Parquet or Arrow, of any size.", show_default=False),
    ],
    *,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Output, required: .csv, .tsv, .jsonl or .parquet.", show_default=False
        ),
    ],
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Column of the text (default: as trained)."),
    ] = None,
    pair: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of a pair's second text.")] = None,
    with_: Annotated[
        list[str] | None, typer.Option("--with", metavar="COLUMN", help="Column to copy (repeatable).")
    ] = None,
    precision: Annotated[
        Literal["fp32", "tf32", "bf16", "fp16"], typer.Option(help="tf32 and fp16 need a GPU.")
    ] = "fp32",
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Texts per batch, of similar length.")] = 32,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="CPU threads (default: all usable cores).")
    ] = None,
    seq_len: Annotated[
        int | None,
        typer.Option(metavar="N", min=4, help="Maximum tokens (default: as trained, else 128)."),
    ] = None,
    device: Annotated[
        Literal["cpu", "gpu"] | None, typer.Option(help="Where to compute (default: a GPU, if any).")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Start over, replacing existing output.")] = False,
    instance: Instance = None,
    region: Region = None,
    prices: OwnPrices = None,
    usd_per_hour: UsdPerHour = None,
    detect: Detect = False,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Predict the label of every row of a file, with probabilities.

    The same command continues a run that was stopped. The output has one row per input row, in the same order: `row` (from 0), the columns of --with, `predicted`, and a column
    `p:LABEL` per label. A row without text gets no label.
    """
    from harness.cli.views.predict import PredictView, show_predicted
    from harness.machine.describe import describe_machine
    from harness.schema import predict_job
    from harness.workflows.predict_file import PredictOptions, plan_job, predict_file

    machine = describe_machine()
    machine_options = MachineOptions(instance, region, prices, usd_per_hour, detect, offline)
    detector, stated = machine_options.detector(), machine_options.stated_instance()
    options = PredictOptions(
        model, file, out, text=text, pair=pair, carried=with_ or (), precision=precision, batch_size=batch_size,
        seq_len=seq_len, threads=threads, device=device,
    )  # fmt: skip
    job = plan_job(options, machine)
    price = machine_options.price(machine, stated=stated, detected=detector(machine))
    if restart:
        predict_job.restart(out)
    elif out.exists() and not predict_job.progress_paths(out)[1].exists():
        raise UserError(f"-o {out} exists; --restart replaces it")
    try:
        with PredictView(None if console.verbosity.quiet else console.err) as view:
            predicted = predict_file(job, machine, price, view.on_message)
    except KeyboardInterrupt:
        console.print_note("Stopped. What is written is kept; the same command goes on.")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if as_json:
        console.print_json(predicted.as_fields())
    else:
        show_predicted(console.out, predicted)
