"""The command line, put together of its commands."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

from harness import __version__
from harness.cli import console
from harness.cli.commands import inspect_dataset as sources
from harness.cli.commands import machines, records, reports, studies
from harness.cli.commands import predict as predictions
from harness.cli.commands import profile_cell as profiles
from harness.cli.commands import train as trainings
from harness.cli.console import EXIT_CODES, EXIT_OK, EXIT_USER_ERROR
from harness.errors import UserError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="What fine-tuning BERT costs on this machine: run a study, and report it.",
    epilog=EXIT_CODES,
)
for commands in (studies, trainings, predictions, profiles, reports, records, sources, machines):
    app.add_typer(commands.app)  # without a name: its commands stand beside the others


def main() -> NoReturn:
    """Run the command line; the one place where a user's mistake becomes an exit status."""
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
