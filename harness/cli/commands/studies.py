"""The commands `plan`, `run` and `fit`, which take a study, and `studies` and `keys`, which say what there is."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from harness.cli import console
from harness.cli.command import MEASURE, command
from harness.cli.commands.cluster_runs import detach, run_on_nodes
from harness.cli.commands.interleaving import InterleaveOptions, plan_cells
from harness.cli.commands.local_runs import run_here
from harness.cli.commands.verify import verify_cells
from harness.cli.console import EXIT_CODES, EXIT_INTERRUPTED
from harness.cli.layout import columns
from harness.cli.lookups import MachineOptions, choose_cells, load_cells
from harness.cli.options import (
    DEFAULT_RESULTS,
    AsJson,
    Detect,
    FailAbove,
    Instance,
    Markdown,
    Offline,
    Only,
    Overrides,
    OwnPrices,
    Region,
    ResultsPath,
    StudyPath,
    UsdPerHour,
)
from harness.errors import Unavailable, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from harness.execution.probing import StudyPrediction
    from harness.schema.cells import Cell
    from harness.schema.host_record import StatedInstance
    from harness.store.record_files import LoadedRecords

app = typer.Typer()


@command(app, MEASURE, epilog="Examples: harness plan default; harness plan default --probe")
def plan(  # noqa: PLR0913 - one parameter per option
    study: StudyPath,
    *,
    probe: Annotated[
        bool, typer.Option("--probe", help="Time a few steps, up to 40 s, to predict cells that never ran.")
    ] = False,
    results: ResultsPath = DEFAULT_RESULTS,
    only: Only = None,
    overrides: Overrides = None,
    instance: Instance = None,
    region: Region = None,
    prices: OwnPrices = None,
    usd_per_hour: UsdPerHour = None,
    as_json: AsJson = False,
) -> None:
    """List the cells of a study, with state, expected time and cost.

    A state is done, stale (measured with other packages or code), to do, or unsupported here.
    """
    from harness.cli.views.plan import print_plan
    from harness.machine.describe import describe_machine
    from harness.schema.assumptions import load_assumptions
    from harness.store.record_files import own_records
    from harness.workflows.plan_study import plan_rows

    options = MachineOptions(instance, region, prices, usd_per_hour)
    cells, machine = choose_cells(load_cells(study, overrides), only), describe_machine()
    stated, stored = options.stated_instance(), own_records(results, machine)
    price = options.price(machine, stated=stated)
    prediction = _probe(cells, stored, results, stated, console.screen(as_json=as_json)) if probe else None
    known_price = None if isinstance(price, Unavailable) else price
    rows = plan_rows(cells, stored, machine, known_price, load_assumptions(prices).prices, prediction)
    if as_json:
        console.print_json([row.as_fields() for row in rows])
    else:
        print_plan(rows, cells)


def _probe(
    cells: Sequence[Cell], stored: LoadedRecords, results: Path, stated: StatedInstance | None, screen: Console
) -> StudyPrediction:
    """Probe a study and print how probes failed; exit if Ctrl-C ended one."""
    from harness.execution.sweep import describe_environment
    from harness.workflows.plan_study import probe_study

    def on_probe(cell: Cell) -> None:
        console.print_text(screen, escape(f"timing {cell.name}"))

    try:
        probed = probe_study(cells, stored, results, describe_environment(stated), on_probe)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    for record in probed.failed:
        console.print_failure(record.outcome, record.cell, record.reason)
    return probed.prediction


@command(
    app,
    MEASURE,
    epilog="Examples: harness run default --instance g5.xlarge; harness run smoke --interleave "
    f"training.compile=false training.compile=true\n\n{EXIT_CODES} 1 also if --fail-above failed.",
)
def run(  # noqa: PLR0913 - one parameter per option
    study: StudyPath,
    *,
    results: ResultsPath = DEFAULT_RESULTS,
    instance: Instance = None,
    region: Region = None,
    only: Only = None,
    overrides: Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Measure cells again that are done.")] = False,
    no_skip: Annotated[bool, typer.Option("--no-skip", help="Run cells larger than one out of memory too.")] = False,
    no_probe: Annotated[bool, typer.Option("--no-probe", help="Predict from earlier runs only.")] = False,
    interleave: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B",
            help="Compare two settings KEY=VALUE, as A B B A.",
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="With --interleave: rounds (default: 3).")
    ] = None,
    fail_above: FailAbove = None,
    markdown: Markdown = None,
    usd_per_hour: UsdPerHour = None,
    prices: OwnPrices = None,
    detect: Detect = False,
    offline: Offline = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Check figures by other instruments; save nothing.",
        ),
    ] = False,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster", metavar="ADDRESS", help="Run on every kind of machine of a Ray cluster: HOST:PORT, or auto."
        ),
    ] = None,
    background: Annotated[bool, typer.Option("--detach", help="With --cluster: go on in the background.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the cells of a study that are not done yet."""
    options = MachineOptions(instance, region, prices, usd_per_hour, detect, offline)
    if cluster is not None:
        if interleave or verify:
            raise UserError("--cluster: not with --interleave or --verify")
        if background:
            detach(results)
            return
        cells = choose_cells(load_cells(study, overrides), only)
        run_on_nodes(cluster, study, overrides, cells, results, options, skip=not no_skip, force=force, as_json=as_json)
        return
    if background:
        raise UserError("--detach needs --cluster")
    options.stated_instance()
    options.detector()  # what is wrong is said at once
    interleave_options = InterleaveOptions.parse(interleave, rounds, fail_above, markdown)
    interleaved, cells = plan_cells(study, overrides, only, interleave_options)
    if verify:
        verify_cells(cells, results)
        return
    console.print_text(
        console.screen(as_json=as_json), escape(f"{len(cells)} cell{'' if len(cells) == 1 else 's'} of {study}")
    )
    run_here(
        cells, interleaved, results, options, interleave_options, force=force, skip=not no_skip, probe=not no_probe,
        as_json=as_json,
    )  # fmt: skip


@command(app, MEASURE, epilog="Example: harness fit default --seq-len 512 --memory-gib 4 --predict")
def fit(
    study: StudyPath,
    *,
    seq_len: Annotated[
        int | None, typer.Option(metavar="N", min=4, help="Maximum tokens of a text, instead of the study's.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="NAME", help="fp32, tf32, bf16 or fp16, instead of the study's.")
    ] = None,
    memory_gib: Annotated[
        float | None, typer.Option(metavar="GIB", min=0.1, help="Memory to fit (default: this machine's).")
    ] = None,
    instance: Annotated[
        str | None,
        typer.Option("--instance", "--machine", metavar="NAME", help="Fit this instance type, or one of its GPUs."),
    ] = None,
    predict: Annotated[bool, typer.Option("--predict", help="Only predict; run nothing.")] = False,
    only: Only = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Find the largest batch size that fits in memory."""
    from harness.cli.views.fit import FitView
    from harness.machine.describe import describe_machine
    from harness.workflows.fit import BatchSizeSearch, choose_cell, find_fit, predict_fit
    from harness.workflows.memory_budget import choose_budget

    here = describe_machine()
    cell = choose_cell(choose_cells(load_cells(study, overrides), only), seq_len, precision)
    search = BatchSizeSearch(cell, here)
    budget = choose_budget(on_gpu=cell.config.on_gpu, machine=here, memory_gib=memory_gib, instance=instance)
    view = FitView(None if as_json else console.out)
    view.begin(search, budget)
    result = predict_fit(search, budget) if predict else find_fit(search, budget, view.on_attempt)
    if as_json:
        console.print_json(result.as_fields())
    else:
        view.end(result)


@command(app, MEASURE, epilog="Examples: harness studies; harness studies default > mine.toml")
def studies(
    name: Annotated[str | None, typer.Argument(help="Print this file, to be changed.", show_default=False)] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List the studies that come with the harness, or print one.

    Templates of price and value files are listed and printed, too.
    """
    from harness.shipped import describe_file, shipped_files

    groups = {"study": shipped_files(templates=False), "template": shipped_files(templates=True)}
    if name is not None:
        sys.stdout.write(_find_file(name, groups["study"] | groups["template"]).read_text(encoding="utf-8"))
        return
    rows = [
        {"name": file, "kind": kind, "description": describe_file(path)}
        for kind, files in groups.items()
        for file, path in files.items()
    ]
    if as_json:
        console.print_json(rows)
        return
    texts = [(escape(row["name"]), escape(row["description"])) for row in rows]
    console.print_table(console.out, columns(["name", "what it is for"]), texts)
    console.print_note("harness run NAME runs a study; harness studies NAME prints a file.")


def _find_file(name: str, files: Mapping[str, Path]) -> Path:
    """Return a shipped file.

    Raises:
        UserError: If there is none of this name.
    """
    if name not in files:
        near = difflib.get_close_matches(name, files, n=1)
        raise UserError(f"{name}: not among these: {', '.join(files)}" + (f"; did you mean {near[0]}?" if near else ""))
    return files[name]


@command(app, MEASURE, epilog="Example: harness keys")
def keys(*, as_json: AsJson = False) -> None:
    """List the keys of a study file with their defaults.

    A pipe gets a Markdown table.
    """
    from harness.schema.study_file import describe_keys, key_fields, key_rows

    if as_json:
        console.print_json(key_fields())
    elif console.out.is_terminal:
        console.print_table(
            console.out, columns(["key", "default", "meaning"]), [tuple(map(escape, row)) for row in key_rows()]
        )
    else:
        sys.stdout.write(describe_keys())
