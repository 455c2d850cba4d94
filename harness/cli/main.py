"""Entry point of the command line."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer
from rich.markup import escape
from rich.text import Text

from harness import __version__
from harness.cli import console
from harness.cli.command import CommandGroup
from harness.cli.commands import (
    cluster,
    inspect_dataset,
    machines,
    predict,
    profile_cell,
    records,
    reports,
    shortlist,
    studies,
    train,
)
from harness.cli.console import EXIT_CODES, EXIT_FILE_ERROR, EXIT_INTERRUPTED, EXIT_OK, EXIT_USER_ERROR
from harness.cli.signals import exit_status, handle_signals, stop_handling, was_interrupted
from harness.errors import UnsavedRecordError, UnwritableError, UserError
from harness.machine.private_folders import remove_abandoned_folders

app = typer.Typer(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Measure what fine-tuning BERT costs. `harness COMMAND -h` shows its options.",
    epilog=EXIT_CODES,
)
for commands in (
    studies,
    train,
    predict,
    profile_cell,
    reports,
    records,
    inspect_dataset,
    machines,
    shortlist,
    cluster,
):
    app.add_typer(commands.app)  # no name, so that the commands are not nested

_NO_THREADS = "no more threads or processes are allowed here: raise `ulimit -u`, or pids.max of the control group"
_HINTS = {
    errno.ENOSPC: "free some room, or name another folder; TMPDIR is the folder of temporary files",
    errno.EDQUOT: "free some of your quota, or name another folder; TMPDIR is the folder of temporary files",
    errno.EROFS: "name a folder that can be written",
    errno.EACCES: "name a folder that you can write",
    errno.EEXIST: "a file has the name of a folder that is needed",
    errno.ENOTDIR: "a file has the name of a folder that is needed",
    errno.EAGAIN: _NO_THREADS,
    errno.EFBIG: "larger than `ulimit -f` or the file system allows",
}


def main() -> NoReturn:
    """Run the command line; the only place that turns a UserError or OSError into an exit status."""
    console.replace_unprintable_signs()
    handle_signals()
    status = EXIT_OK
    try:
        app()
    except UnwritableError as error:
        status = _fail(str(error), EXIT_FILE_ERROR)
        if isinstance(error, UnsavedRecordError) and error.line is not None:
            _print_record(error.line)
    except UserError as error:
        status = _fail(str(error), EXIT_USER_ERROR)
        _print_traceback(error)
    except OSError as error:
        status = _fail(describe_os_error(error), EXIT_FILE_ERROR)
        _print_traceback(error)
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else EXIT_OK
    except BaseException as error:
        if _is_thread_refused(error):
            status = _fail(_NO_THREADS, EXIT_USER_ERROR)
        elif was_interrupted():
            status = _fail(f"stopped, {type(error).__name__}: {' '.join(str(error).split())}", EXIT_INTERRUPTED)
        else:
            raise
    stop_handling()
    sys.exit(_flush_output(exit_status(status)))


def _is_thread_refused(error: BaseException) -> bool:
    """Return whether the system refused a thread: to Python, or to the Rust code of the tokenizers, which panics then."""
    return "can't start new thread" in str(error) or "ThreadPoolBuildError" in str(error)


def describe_os_error(error: OSError) -> str:
    """Return one line for an error of the file system: the path, what is wrong, and what helps."""
    where = f"{error.filename}: " if error.filename else ""
    what = error.strerror or " ".join(str(error).split()) or type(error).__name__
    hint = _HINTS.get(error.errno or 0)
    return f"{where}{what}" + (f" ({hint})" if hint else "")


def _fail(message: str, status: int) -> int:
    with contextlib.suppress(OSError):  # the terminal may be gone
        console.print_text(console.err, f"[red]error:[/] {escape(message)}", hang=2)
    return status


def _print_traceback(error: Exception) -> None:
    with contextlib.suppress(OSError):
        console.print_detail(Text("".join(traceback.format_exception(error)).rstrip()))


def _print_record(line: str) -> None:
    """Write a record that no folder took to standard output or, if that fails too, to standard error."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.write(f"{line}\n")
            stream.flush()
            return


def _flush_output(status: int) -> int:
    """Flush standard output, so that a full disk behind it is one line here and not a traceback at Python's end."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:
            return _fail(f"standard output: {error.strerror}", EXIT_FILE_ERROR)
    return status


@app.callback(invoke_without_command=True)
def _root(*, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    remove_abandoned_folders()
    if version:
        console.print_text(console.out, f"harness {__version__}")
        raise typer.Exit


if __name__ == "__main__":
    main()
