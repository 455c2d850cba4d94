"""The commands `pack`, `export`, `import` and `show`, which print or copy records unchanged."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from harness.cli import console
from harness.cli.command import DATA, JUDGE, command
from harness.cli.options import DEFAULT_RESULTS, AsJson, ResultsPath
from harness.errors import UnwritableError, UserError

app = typer.Typer()


@command(app, DATA, epilog="Example: harness pack --out here.tar.gz")
def pack(
    folder: Annotated[Path | None, typer.Argument(hidden=True)] = None,
    *,
    results: ResultsPath = DEFAULT_RESULTS,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Archive to write (default: records-MACHINE.tar.gz)."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all-machines", "--all", help="Pack the records of other machines too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Pack this machine's records into one archive."""
    from harness.machine.describe import describe_machine
    from harness.store.archive import pack_records, packable_files

    machine_id = None if every else describe_machine().id
    source = folder or results
    files, problems = packable_files(source, machine_id)
    console.print_problems(problems)
    archive = out or Path(f"records-{machine_id}.tar.gz" if machine_id else "records.tar.gz")
    pack_records(files, source, archive)
    fields = {"archive": str(archive), "num_records": len(files)}
    console.print_result(f"{len(files)} records: {archive}", fields, as_json=as_json)


@command(app, JUDGE, epilog="Example: harness export -o now.json && pytest-benchmark compare before.json now.json")
def export(
    *,
    results: Annotated[
        Path, typer.Option("--results", metavar="PATH", help="Folder, file or .tar.gz of records.")
    ] = DEFAULT_RESULTS,
    format_: Annotated[
        Literal["pytest-benchmark"], typer.Option("--format", help="Output format.")
    ] = "pytest-benchmark",
    machine: Annotated[
        str | None, typer.Option(metavar="ID", help="Machine, if there are several: its id or a part of it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="File to write (default: standard output).")
    ] = None,
) -> None:
    """Export cells as benchmarks for another tool, in JSON.

    A benchmark has a cell's measured step times, and its other figures as extra fields.
    """
    from harness.files import atomic_write_text
    from harness.store.archive import read_records
    from harness.workflows.benchmark_export import export_benchmarks

    loaded = read_records([results])
    console.print_problems(loaded.unreadable)
    exported = export_benchmarks(loaded.records, machine)
    for cell in exported.skipped:
        console.print_note(f"{escape(cell)}: no measured step", label="left out")
    text = json.dumps(exported.fields, indent=1, allow_nan=False) + "\n"
    if out is None:
        console.print_json_text(text)
        return
    try:
        atomic_write_text(out, text)
    except OSError as error:
        raise UnwritableError(f"--out {out}: can't be written: {error.strerror}") from None
    console.print_text(console.out, escape(f"{exported.num_benchmarks} cells: {out} ({format_})"))


@command(app, DATA, name="import", epilog="Example: harness import gpu-check.tar.gz")
def import_(
    archive: Annotated[Path, typer.Argument(metavar="FILE", help="An archive of `harness pack` or `make gpu-check`.")],
    *,
    results: ResultsPath = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Unpack an archive of records into the results folder.

    Existing records are never overwritten.
    """
    from harness.store.archive import unpack_records

    unpacked = unpack_records(archive, results)
    for problem in unpacked.refused:
        console.print_note(escape(problem), label="left out")
    known = f", {unpacked.num_known} were there already" if unpacked.num_known else ""
    console.print_result(
        f"{len(unpacked.new)} records imported into {results}{known}.",
        {"new": list(map(str, unpacked.new)), "num_known": unpacked.num_known, "refused": list(unpacked.refused)},
        as_json=as_json,
    )


@command(app, JUDGE, epilog="Example: harness show b16-s64-fp32-cpu-longest-all")
def show(
    cell: Annotated[str, typer.Argument(help="A cell's name or a part of it, or a record file.", show_default=False)],
    *,
    results: ResultsPath = DEFAULT_RESULTS,
    as_json: AsJson = False,
    only_command: Annotated[
        bool, typer.Option("--command", help="Print only the command that runs the cell again.")
    ] = False,
) -> None:
    """Show the newest record of a cell.

    Its figures, loss curve, a tokenized example, its most confident mistakes, and the end of stderr. Where several cells
    match, a terminal asks which; otherwise they are listed, with exit status 2.
    """
    from harness.analysis.summarize import summarize
    from harness.schema.record import to_json
    from harness.store.record_files import load_record

    path = Path(cell) if cell.endswith(".json") else _choose_record(cell, results)
    record = load_record(path)
    if only_command:
        console.print_text(console.out, escape(f"harness run {path} --force"))
    elif as_json:
        console.print_json_text(to_json(record))
    else:
        from harness.cli.views.record import show_mistakes, show_record

        show_record(console.out, record, summarize([record])[0], path)
        show_mistakes(console.out, record)


def _choose_record(cell: str, results: Path) -> Path:
    """Return the newest record of the matching cell; of several, ask which in a terminal.

    Raises:
        UserError: No cell matches, or several do and nobody can be asked.
    """
    from harness.store.record_files import find_newest_records

    paths = find_newest_records(cell, results)
    if len(paths) == 1:
        return paths[0]
    if not (sys.stdin.isatty() and console.err.is_terminal):
        listed = "\n".join(f"  {path}" for path in paths)
        raise UserError(f"{cell!r}: {len(paths)} cells match; name one of these records:\n{listed}")
    folders = [path.parent.relative_to(results) for path in paths]
    console.print_facts(console.err, [(f"{index:>3}", escape(str(folder))) for index, folder in enumerate(folders, 1)])
    number = 0
    while not 1 <= number <= len(paths):
        number = typer.prompt(f"{len(paths)} cells match. Which one, 1 to {len(paths)}", type=int, err=True)
    return paths[number - 1]
