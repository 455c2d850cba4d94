"""The commands that hand records on as they are: shown, packed, imported."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from harness.cli import console
from harness.cli.options import DEFAULT_RESULTS, AsJson, ResultsPath
from harness.errors import UserError

app = typer.Typer()


@app.command(epilog="Example: harness pack --out here.tar.gz")
def pack(
    results: Annotated[Path, typer.Argument(help="Folder of the records.")] = DEFAULT_RESULTS,
    *,
    out: Annotated[
        Path | None, typer.Option(help="The archive (default: records-MACHINE.tar.gz).", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Those of other machines in the folder too.")] = False,
) -> None:
    """Pack this machine's records into one archive, for a report elsewhere."""
    from harness.machine.describe import describe_machine
    from harness.store.archive import pack_records, packable_files

    machine_id = None if every else describe_machine().id
    files, problems = packable_files(results, machine_id)
    console.print_problems(problems)
    archive = out or Path(f"records-{machine_id}.tar.gz" if machine_id else "records.tar.gz")
    pack_records(files, results, archive)
    console.out.print(f"{len(files)} records: {archive}", highlight=False, soft_wrap=True)


@app.command(epilog="Example: harness export -o now.json && pytest-benchmark compare before.json now.json")
def export(
    *,
    results: Annotated[
        Path, typer.Option("--results", help="Folder, file or archive of the records.")
    ] = DEFAULT_RESULTS,
    format_: Annotated[
        Literal["pytest-benchmark"], typer.Option("--format", help="What is to read it.")
    ] = "pytest-benchmark",
    machine: Annotated[
        str | None, typer.Option(help="Where there are several: a machine's id or a part of it.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file (default: to the terminal).")] = None,
) -> None:
    """Write cells as benchmarks of another tool: the seconds of their measured steps, and what else was measured."""
    from harness.files import atomic_write_text
    from harness.store.archive import read_records
    from harness.workflows.benchmark_export import export_benchmarks

    found = read_records([results])
    console.print_problems(found.unreadable)
    exported = export_benchmarks(found.records, machine)
    for cell in exported.left_out:
        console.err.print(f"[yellow]left out:[/] {escape(cell)}: no measured step", soft_wrap=True, highlight=False)
    text = json.dumps(exported.fields, indent=1, allow_nan=False) + "\n"
    if out is None:
        sys.stdout.write(text)
        return
    try:
        atomic_write_text(out, text)
    except OSError as error:
        raise UserError(f"--out {out}: can't be written: {error.strerror}") from None
    num_cells = len(exported.fields["benchmarks"])
    console.out.print(f"{num_cells} cells: {out} ({format_})", highlight=False, soft_wrap=True)


@app.command("import", epilog="Example: harness import gpu-check.tar.gz")
def import_(
    archive: Annotated[
        Path, typer.Argument(help="An archive of records, as `make pack` and `make gpu-check` write it.")
    ],
    *,
    results: ResultsPath = DEFAULT_RESULTS,
) -> None:
    """Put the records of another machine's archive into the results; none that is there is overwritten."""
    from harness.store.archive import unpack_records

    found = unpack_records(archive, results)
    for problem in found.refused:
        console.err.print(f"[yellow]left out:[/] {escape(problem)}", soft_wrap=True, highlight=False)
    known = f", {found.num_known} were there already" if found.num_known else ""
    console.out.print(f"{len(found.new)} records imported into {results}{known}.", highlight=False, soft_wrap=True)


@app.command(epilog="Example: harness show b16-s64-fp32-cpu-longest-all")
def show(
    cell: Annotated[str, typer.Argument(help="A cell's name or a part of it, or a record's file.", show_default=False)],
    *,
    results: ResultsPath = DEFAULT_RESULTS,
    as_json: AsJson = False,
    command: Annotated[bool, typer.Option("--command", help="Print only the command that repeats it.")] = False,
) -> None:
    """Show the newest record of a cell: figures, loss curve, an example as the model sees it, what it got wrong, last lines of stderr."""
    from harness.analysis.summarize import summarize
    from harness.schema.record import to_json
    from harness.store.record_files import find_record, load_record

    path = Path(cell) if cell.endswith(".json") else find_record(cell, results)
    record = load_record(path)
    if command:
        console.out.print(f"harness run {path} --force", highlight=False, soft_wrap=True)
    elif as_json:
        sys.stdout.write(to_json(record))
    else:
        from harness.cli.views.mistakes import describe_mistakes
        from harness.cli.views.progress import describe_record

        describe_record(console.out, record, summarize([record])[0], path)
        describe_mistakes(console.out, record)
