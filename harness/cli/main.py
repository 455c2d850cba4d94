"""Entry point of the command line."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

from harness import __version__
from harness.cli import console
from harness.cli.commands import inspect_dataset, machines, predict, profile_cell, records, reports, studies, train
from harness.cli.console import EXIT_CODES, EXIT_OK, EXIT_USER_ERROR
from harness.errors import UserError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Measure what fine-tuning BERT costs on this machine: run studies and report them.",
    epilog=EXIT_CODES,
)
for commands in (studies, train, predict, profile_cell, reports, records, inspect_dataset, machines):
    app.add_typer(commands.app)  # no name, so that the commands are not nested


def main() -> NoReturn:
    """Run the command line; the only place that turns a UserError into an exit status."""
    console.replace_unprintable_signs()
    try:
        app()
    except UserError as error:
        console.err.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(EXIT_USER_ERROR)
    sys.exit(EXIT_OK)


@app.callback(invoke_without_command=True)
def _root(*, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        console.out.print(f"harness {__version__}", highlight=False)
        raise typer.Exit


if __name__ == "__main__":
    main()
