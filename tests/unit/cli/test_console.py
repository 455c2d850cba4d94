"""What others wrote reaches the terminal as text, and a pull request as words."""

from __future__ import annotations

import io
import json

import pytest
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

from harness.cli import main as cli
from harness.cli.console import SafeConsole
from harness.errors import UserError
from harness.printable import printable, printable_json
from harness.store.record_files import save_record
from tests.make_records import make_machine, make_record

# Clears the screen, names the window, copies to the clipboard, and reverses the order of the text.
ESCAPES = "\x1b[2J\x1b]0;root\x07\x9b31m\x1b]52;c;cm0=\x07\u202egnp\u2066"
OBEYED = set("\x1b\x07\x9b\u202e\u2066")


@pytest.mark.parametrize(
    "renderable",
    [escape(ESCAPES), Text(ESCAPES), Text("styled " + ESCAPES, style="bold red")],
    ids=["str", "Text", "styled"],
)
@pytest.mark.parametrize("is_terminal", [True, False])
def test_text_never_reaches_the_terminal_as_a_command(renderable, is_terminal):
    out = io.StringIO()
    console = SafeConsole(file=out, force_terminal=is_terminal, width=200)
    table = Table(title=ESCAPES)
    table.add_column(escape(ESCAPES))
    table.add_row(renderable)
    console.print(renderable, soft_wrap=True)
    console.print(table)
    shown = out.getvalue()
    assert "\N{REPLACEMENT CHARACTER}[2J" in shown
    assert not OBEYED - {"\x1b"} & set(shown)
    assert "\x1b[2J" not in shown and "\x1b]" not in shown


def test_printable_keeps_lines_and_letters_of_all_scripts():
    assert printable("a\tb\nשלום é\U0001f600") == "a\tb\nשלום é\U0001f600"
    assert json.loads(printable_json(json.dumps({"a": ESCAPES}, ensure_ascii=False))) == {"a": ESCAPES}
    assert not OBEYED & set(printable_json(json.dumps(ESCAPES, ensure_ascii=False)))


@pytest.fixture
def results(tmp_path):
    there = make_machine(machine_id=f"m{ESCAPES}", product=ESCAPES, vendor="aws")
    for seed in range(2):
        save_record(
            make_record(machine=there, cell=f"c{ESCAPES}", study=f"s{ESCAPES}", seed=seed), tmp_path / "results"
        )
    save_record(
        make_record(machine=there, cell="d", outcome="crashed", reason=ESCAPES, stderr_tail=[[ESCAPES]]),
        tmp_path / "results",
    )
    (tmp_path / "results" / f"bad{ESCAPES}.json").write_text("{")
    return tmp_path / "results"


def commands(results, tmp_path):
    study = tmp_path / "s.toml"
    study.write_text("[matrix]\nbatch_size = [8]\n")
    for record in sorted(results.rglob("2*.json")):
        yield ["show", record]
        yield ["show", record, "--json"]
    yield ["report", results, "--out", tmp_path / "out"]
    yield ["recommend", results]
    yield ["plan", study, "--results", results]
    yield ["compare", results, results]
    yield ["export", "--results", results]


def test_no_command_lets_an_escape_through(results, tmp_path):
    """show, recommend, plan, compare, report and error messages did."""
    for command in commands(results, tmp_path):
        result = CliRunner().invoke(cli.app, [str(part) for part in command])
        assert result.exception is None or isinstance(result.exception, SystemExit | UserError)
        assert not OBEYED & set(result.output + result.stderr), command


def test_no_html_or_markdown_gets_into_a_pull_request(tmp_path):
    """`<img src=x onerror=...>` and links in a cell's name stood in the table as they were."""
    for seed in range(2):
        record = make_record(cell="<img src=x>[click](https://evil.example)@all|`x`", seed=seed)
        save_record(record, tmp_path / "results")
    CliRunner().invoke(
        cli.app, ["compare", str(tmp_path / "results"), str(tmp_path / "results"), "--markdown", str(tmp_path / "a.md")]
    )
    written = (tmp_path / "a.md").read_text()
    assert "img src" in written
    assert not any(mark in written for mark in ("<img", "[click](", "://", "@all"))
