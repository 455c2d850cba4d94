"""Every command that prints, on shipped records: no line is longer than the terminal, and no word or figure is cut."""

from __future__ import annotations

import csv
import io
import re
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from harness.cli import console
from harness.cli import main as cli
from harness.cli.console import SafeConsole
from harness.errors import UserError

ROOT = Path(__file__).parents[3]
REFERENCE = "results/reference"
AMD, INTEL = f"{REFERENCE}/amd-epyc-2c-24g-dbbbf2", f"{REFERENCE}/intel-xeon-2c-24g-b47fd4"
(CELL,) = (
    path.relative_to(ROOT).as_posix() for path in ROOT.glob(f"{AMD}/default/b16-s64-bf16-cpu-grouped-all/*.json")
)
(TFIDF,) = (path.relative_to(ROOT).as_posix() for path in ROOT.glob(f"{AMD}/default/baseline-tfidf/*.json"))
FAILED = "tests/fixtures/records/v5/crashed.json"

COMMANDS = [
    ["plan", "bench/default.toml"],
    ["plan", "bench/ladder.toml", "--set", "limits.wait_for_quiet_s=60"],
    ["keys"],
    ["studies"],
    ["fit", "bench/default.toml", "--seq-len", "512", "--memory-gib", "4", "--predict"],
    ["recommend", "--results", f"{AMD}/default", "--target", "78%", "--max-usd", "5"],
    ["recommend", "--results", INTEL, "--target", "99.9%"],
    ["compare", f"{AMD}/default", f"{INTEL}/default", "--run-spread", "5%"],
    ["compare", f"{AMD}/ddp", f"{INTEL}/ddp", "--all"],
    ["show", CELL],
    ["show", TFIDF],
    ["show", FAILED],
    ["show", CELL, "--command"],
    ["show", "b16-s64-bf16", "--results", REFERENCE],
    ["shortlist", "bench/gpu.toml"],
    ["machine", "--offline", "--instance", "m7i.2xlarge"],
    ["prices"],
    ["prices", "--gpu", "H100"],
    ["prices", "g5.xlarge"],
    ["cache", "list"],
    ["inspect", "SHEET.csv"],
    ["report", "--results", f"{INTEL}/ddp", "--out", "OUT"],
    ["pack", "--results", INTEL, "--all-machines", "--out", "OUT/all.tar.gz"],
    ["export", "--results", f"{INTEL}/ddp", "--out", "OUT/now.json"],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the results and studies of the repository, and a sheet of reviews."""
    folder = tmp_path_factory.mktemp("columns")
    for name in ("results", "bench", "tests"):
        (folder / name).symlink_to(ROOT / name)
    with (folder / "SHEET.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [
            (
                f"a {('lovely', 'dull')[row % 2]} film, number {row}, " + "and so on " * (row % 9),
                ("good", "bad")[row % 2],
            )
            for row in range(60)
        ]
        csv.writer(file).writerows([("text", "label"), *rows])
    return folder


def shown(monkeypatch, command, width):
    """Run a command in a terminal of a width, or with a pipe; return the lines of both outputs."""
    streams = [
        SafeConsole(file=io.StringIO(), force_terminal=width is not None, width=width, color_system=None)
        for _ in range(2)
    ]
    monkeypatch.setattr(console, "out", streams[0])
    monkeypatch.setattr(console, "err", streams[1])
    shutil.rmtree("OUT", ignore_errors=True)
    Path("OUT").mkdir()
    try:
        done = CliRunner().invoke(cli.app, command, catch_exceptions=False)
        assert done.exit_code in (0, 1), done.output
        output = done.stdout
    except UserError as error:
        console.print_text(console.err, str(error))
        output = ""
    return [line for text in (output, *(stream.file.getvalue() for stream in streams)) for line in text.splitlines()]


def words(lines):
    # Seconds of a fit differ from one run to the next.
    return set(re.sub(r"rows in \S+ s", "", " ".join(" ".join(lines).split())).split())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command)[:60])
def test_no_line_is_longer_than_80_columns_and_no_word_is_cut(monkeypatch, folder, command):
    monkeypatch.chdir(folder)
    narrow, wide = (shown(monkeypatch, command, width) for width in (80, 300))
    assert narrow
    too_long = [line for line in narrow if len(line) > 80 and len(line.split()) > 1]
    assert not too_long, too_long[0]
    assert words(wide) - words(narrow) == set()


@pytest.mark.parametrize(
    "command", [COMMANDS[0], *(command for command in COMMANDS if command[0] in ("show", "prices"))]
)
def test_a_pipe_gets_every_line_whole(monkeypatch, folder, command):
    monkeypatch.chdir(folder)
    assert shown(monkeypatch, command, None) == shown(monkeypatch, command, 2000)


@pytest.mark.parametrize("name", ["", *typer.main.get_group(cli.app).commands, "cluster template"])
def test_help_fits_a_screen(monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    command = [*name.split(), "-h"]
    lines = shown(monkeypatch, command, 80)
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 40
    assert words(shown(monkeypatch, command, 300)) - words(lines) == set()
    assert shown(monkeypatch, [*command[:-1], "--help"], 80) == lines
