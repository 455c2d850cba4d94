"""How a command is declared, and how its help is laid out."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.text import Text
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from harness.cli import console
from harness.cli.layout import fact_lines, wrap
from harness.errors import UserError

# The groups of commands in `harness --help`, in this order.
MEASURE, JUDGE, DATA, MACHINE = "Measure", "Judge", "Data", "Machine"
GROUPS = (MEASURE, JUDGE, DATA, MACHINE)

# Columns of the names of options and commands; the text of a longer name begins in the next line.
_OPTION_WIDTH, _COMMAND_WIDTH = 22, 10
_VERBOSITY = {
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")],
    "verbose": Annotated[bool, typer.Option("--verbose", "-v", help="Print details too, and tracebacks of errors.")],
}

Function = Callable[..., None]


def command(app: typer.Typer, group: str, *, epilog: str, name: str | None = None) -> Callable[[Function], Function]:
    """Return a decorator that adds a function to an app as a command, with the options `--quiet` and `--verbose`.

    Args:
        app: The app.
        group: One of `GROUPS`.
        epilog: Last paragraphs of the help: examples, exit statuses.
        name: The command's name; None for the function's.
    """

    def register(function: Function) -> Function:
        app.command(name, cls=Command, rich_help_panel=group, epilog=epilog)(_with_verbosity(function))
        return function

    return register


def _with_verbosity(function: Function) -> Function:
    @functools.wraps(function)
    def run(*args: object, quiet: bool, verbose: bool, **options: object) -> None:
        if quiet and verbose:
            raise UserError("--quiet and --verbose: give only one of them")
        console.verbosity.quiet, console.verbosity.verbose = quiet, verbose
        function(*args, **options)

    signature = inspect.signature(function, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in _VERBOSITY.items()
    ]
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
    return run


class Command(TyperCommand):
    """A command whose help names each option once: by its first long name; further long names are older ones."""

    def get_usage(self, ctx: Any) -> str:  # noqa: ANN401 - typer's own type of contexts is private
        """Return the usage that errors show."""
        return "\n".join(line.plain for line in _usage(self, ctx))

    def get_help(self, ctx: Any) -> str:  # noqa: ANN401 - as above
        """Return the text of `--help`."""
        return _captured(
            [
                *_usage(self, ctx),
                *_paragraphs(self.help),
                *_section("", (_argument_row(param) for param in _shown(self, ctx, TyperArgument))),
                *_section("Options", (_option_row(param, ctx) for param in _shown(self, ctx, TyperOption))),
                *_paragraphs(self.epilog),
            ]
        )


class CommandGroup(TyperGroup):
    """The program itself; its help lists the commands by group, each with the first sentence of its own help."""

    def get_usage(self, ctx: Any) -> str:  # noqa: ANN401 - as above
        """Return the usage that errors show."""
        return "\n".join(line.plain for line in _usage(self, ctx))

    def get_help(self, ctx: Any) -> str:  # noqa: ANN401 - as above
        """Return the text of `--help`."""
        lines = [*_usage(self, ctx), *_paragraphs(self.help)]
        for group in GROUPS:
            lines += _section(group, self._rows(group), _COMMAND_WIDTH)
        options = (_option_row(param, ctx) for param in _shown(self, ctx, TyperOption))
        return _captured([*lines, *_section("Options", options), *_paragraphs(self.epilog)])

    def _rows(self, group: str) -> Iterator[tuple[str, str]]:
        for name, listed in self.commands.items():
            if getattr(listed, "rich_help_panel", None) == group:
                yield name, (listed.help or "").partition("\n\n")[0].partition(". ")[0].rstrip(".")


def _captured(lines: Iterable[Text]) -> str:
    with console.out.capture() as captured:
        console.print_lines(console.out, lines)
    return captured.get().rstrip("\n")


def _usage(shown: Command | CommandGroup, ctx: Any) -> list[Text]:  # noqa: ANN401 - as above
    names = [_argument_name(param) for param in _shown(shown, ctx, TyperArgument)]
    if isinstance(shown, CommandGroup):
        names = ["COMMAND", *names]
    return wrap(Text(f"Usage: {' '.join([ctx.command_path, '[OPTIONS]', *names])}"), _width(), hang=2)


def _shown(shown: Command | CommandGroup, ctx: Any, kind: type) -> list[Any]:  # noqa: ANN401 - as above
    return [param for param in shown.get_params(ctx) if isinstance(param, kind) and not param.hidden]  # type: ignore[attr-defined]


def _argument_name(param: TyperArgument) -> str:
    name = param.metavar or param.name.upper()
    return name if param.required else f"[{name}]"


def _argument_row(param: TyperArgument) -> tuple[str, str]:
    return _argument_name(param), _with_default(param)


def _option_row(param: TyperOption, ctx: Any) -> tuple[str, str]:  # noqa: ANN401 - as above
    long_name = next(name for name in param.opts if name.startswith("--"))
    names = [*(name for name in param.opts if not name.startswith("--")), long_name]
    value = "" if param.is_flag else f" {param.metavar or param.display_type(ctx).strip('<>')}"
    return f"{', '.join(names)}{value}", _with_default(param)


def _with_default(param: TyperArgument | TyperOption) -> str:
    text = " ".join((param.help or "").split())
    if not param.show_default or param.default in (None, False, ()):
        return text
    return f"{text.rstrip('.')} (default: {param.default})."


def _section(heading: str, rows: Iterable[tuple[str, str]], name_width: int = _OPTION_WIDTH) -> list[Text]:
    """Return a heading and rows below it; nothing without rows."""
    lines: list[Text] = []
    for name, text in rows:
        shown: Sequence[Text] = fact_lines([(f"  {name:{name_width}}", escape(text))], _width())
        if len(name) > name_width:
            shown = [Text(f"  {name}", "bold"), *fact_lines([(" " * (name_width + 2), escape(text))], _width())]
        lines += shown
    if not lines:
        return []
    return [Text(), *([Text(f"{heading}:", style="underline")] if heading else []), *lines]


def _paragraphs(text: str | None) -> list[Text]:
    lines = []
    for paragraph in inspect.cleandoc(text or "").split("\n\n"):
        if words := " ".join(paragraph.split()):
            lines += [Text(), *wrap(Text(words), _width())]
    return lines


def _width() -> int | None:
    return console.layout_width(console.out)
