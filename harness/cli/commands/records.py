"""The commands `pack`, `export`, `import` and `show`, which print or copy records unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from harness.cli import console
from harness.cli.options import DEFAULT_RESULTS, AsJson, ResultsPath
from harness.errors import UnwritableError

app = typer.Typer()


@app.command(epilog="Example: harness pack --out here.tar.gz")
def pack(
    results: Annotated[Path, typer.Argument(help="Folder with records.")] = DEFAULT_RESULTS,
    *,
    out: Annotated[
        Path | None, typer.Option(help="Archive to write (default: records-MACHINE.tar.gz).", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Include records of other machines in the folder.")] = False,
) -> None:
    """Pack this machine's records into one archive, for a report on another machine."""
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
    results: Annotated[Path, typer.Option("--results", help="Folder, file or archive of records.")] = DEFAULT_RESULTS,
    format_: Annotated[
        Literal["pytest-benchmark"], typer.Option("--format", help="Output format.")
    ] = "pytest-benchmark",
    machine: Annotated[
        str | None, typer.Option(help="Machine id or a part of it, if there are several machines.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write (default: standard output).")] = None,
) -> None:
    """Export cells as benchmarks for another tool: measured step times, with the other figures as extra fields."""
    from harness.files import atomic_write_text
    from harness.store.archive import read_records
    from harness.workflows.benchmark_export import export_benchmarks

    loaded = read_records([results])
    console.print_problems(loaded.unreadable)
    exported = export_benchmarks(loaded.records, machine)
    for cell in exported.skipped:
        console.err.print(f"[yellow]left out:[/] {escape(cell)}: no measured step", soft_wrap=True, highlight=False)
    text = json.dumps(exported.fields, indent=1, allow_nan=False) + "\n"
    if out is None:
        console.print_json_text(text)
        return
    try:
        atomic_write_text(out, text)
    except OSError as error:
        raise UnwritableError(f"--out {out}: can't be written: {error.strerror}") from None
    console.out.print(f"{exported.num_benchmarks} cells: {out} ({format_})", highlight=False, soft_wrap=True)


@app.command("import", epilog="Example: harness import gpu-check.tar.gz")
def import_(
    archive: Annotated[Path, typer.Argument(help="Archive written by `harness pack` or `make gpu-check`.")],
    *,
    results: ResultsPath = DEFAULT_RESULTS,
) -> None:
    """Unpack an archive of records into the results folder; existing records are never overwritten."""
    from harness.store.archive import unpack_records

    unpacked = unpack_records(archive, results)
    for problem in unpacked.refused:
        console.err.print(f"[yellow]left out:[/] {escape(problem)}", soft_wrap=True, highlight=False)
    known = f", {unpacked.num_known} were there already" if unpacked.num_known else ""
    console.out.print(f"{len(unpacked.new)} records imported into {results}{known}.", highlight=False, soft_wrap=True)


@app.command(epilog="Example: harness show b16-s64-fp32-cpu-longest-all")
def show(
    cell: Annotated[str, typer.Argument(help="Cell name or a part of it, or a record file.", show_default=False)],
    *,
    results: ResultsPath = DEFAULT_RESULTS,
    as_json: AsJson = False,
    command: Annotated[
        bool, typer.Option("--command", help="Print only the command that runs the cell again.")
    ] = False,
) -> None:
    """Show the newest record of a cell: figures, loss curve, a tokenized example, its mistakes, and the end of stderr."""
    from harness.analysis.summarize import summarize
    from harness.schema.record import to_json
    from harness.store.record_files import find_record, load_record

    path = Path(cell) if cell.endswith(".json") else find_record(cell, results)
    record = load_record(path)
    if command:
        console.out.print(f"harness run {path} --force", highlight=False, soft_wrap=True)
    elif as_json:
        console.print_json_text(to_json(record))
    else:
        from harness.cli.views.record import show_mistakes, show_record

        show_record(console.out, record, summarize([record])[0], path)
        show_mistakes(console.out, record)
