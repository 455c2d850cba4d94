"""What all commands share: groups, --json, --quiet and --verbose, older names of options; and `show` with several matches."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from harness.cli import main as cli
from harness.cli.command import GROUPS
from harness.errors import UserError
from harness.store.record_files import load_record, save_record
from tests.make_records import make_record

ROOT = Path(__file__).parents[3]


def leaves(group, prefix=""):
    """Yield every command with its full name, those of groups too."""
    for name, command in group.commands.items():
        yield from leaves(command, f"{name} ") if hasattr(command, "commands") else [(prefix + name, command)]


COMMANDS = dict(leaves(typer.main.get_group(cli.app)))
# What an export prints is JSON anyway, or goes to a file.
WITHOUT_JSON = {"export"}


def invoke(*args):
    done = CliRunner().invoke(cli.app, [str(arg) for arg in args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def options(command):
    return {name for param in command.params for name in param.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_group_and_the_shared_options(name):
    found = options(COMMANDS[name])
    assert COMMANDS[name].rich_help_panel in GROUPS
    assert {"-q", "--quiet", "-v", "--verbose"} <= found
    assert ("--json" in found) == (name not in WITHOUT_JSON)


def test_an_option_names_one_thing_with_one_kind_of_value():
    metavars: dict[str, set[str]] = {}
    for command in COMMANDS.values():
        for param in command.params:
            name = next((name for name in param.opts if name.startswith("--")), None)
            if name in (None, "--out", "--results", "--precision"):  # a file or folder; one name or several
                continue
            metavars.setdefault(name, set()).add(param.metavar)
    assert {name: found for name, found in metavars.items() if len(found) > 1} == {}


def test_older_names_are_accepted_but_not_shown():
    shown = invoke("recommend", "--help").stdout
    assert "--max-usd" in shown and "--max-gpu-memory-gib" in shown and "--price-as" in shown
    assert not [name for name in ("--budget", "--gpu-memory ", "--instance", "--target-accuracy") if name in shown]
    assert {"--budget", "--gpu-memory", "--instance", "--target-accuracy"} <= options(COMMANDS["recommend"])
    assert {"--machine"} <= options(COMMANDS["fit"]) and {"--all"} <= options(COMMANDS["pack"])
    assert {"--max-usd", "--cpus", "--memory-gib"} <= options(COMMANDS["prices"])


@pytest.fixture
def results(tmp_path):
    for minutes, study in enumerate(("one", "two")):
        save_record(make_record(study=study, cell="b16-s64", minutes=minutes), tmp_path / "results")
    return tmp_path / "results"


def test_records_are_named_by_option_or_as_before_by_position(results, tmp_path):
    by_option = invoke("recommend", "--results", results, "--usd-per-hour", 1, "--json").stdout
    assert invoke("recommend", results, "--usd-per-hour", 1, "--json").stdout == by_option
    both = invoke("report", "--results", results, results, "--out", tmp_path / "r", "--json").stdout
    assert json.loads(both) == {"page": str(tmp_path / "r" / "report.html"), "num_records": 2, "num_cells": 1}


def test_quiet_leaves_remarks_out_and_verbose_adds_details(results):
    (results / "broken.json").write_text("{")
    plain = invoke("recommend", "--results", results, "--usd-per-hour", 1)
    quiet = invoke("recommend", "--results", results, "--usd-per-hour", 1, "-q")
    verbose = invoke("recommend", "--results", results, "--usd-per-hour", 1, "-v")
    assert "left aside: " in plain.stderr and "2 records from" not in plain.stderr
    assert quiet.stderr == "" and quiet.stdout == plain.stdout == verbose.stdout
    assert f"2 records from {results}" in " ".join(verbose.stderr.split())
    with pytest.raises(UserError, match="--quiet and --verbose: give only one of them"):
        invoke("recommend", "--results", results, "-q", "-v")


@pytest.mark.parametrize("option", [[], ["--verbose"]])
def test_only_verbose_shows_the_traceback_of_an_error(option):
    done = subprocess.run(
        [sys.executable, "-m", "harness", "plan", "nowhere.toml", *option],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert ("Traceback" in done.stderr) == bool(option)


def test_keys_and_pack_print_json(results, tmp_path):
    keys = {row["key"]: row["default"] for row in json.loads(invoke("keys", "--json").stdout)}
    assert (keys["limits.wait_for_quiet_s"], keys["matrix.seq_len"], keys["repeats"]) == (0, [64], 1)
    archive = tmp_path / "all.tar.gz"
    packed = invoke("pack", "--results", results, "--all-machines", "-o", archive, "--json")
    assert json.loads(packed.stdout) == {"archive": str(archive), "num_records": 2}
    imported = json.loads(invoke("import", archive, "--results", tmp_path / "home", "--json").stdout)
    assert (len(imported["new"]), imported["num_known"], imported["refused"]) == (2, 0, [])


def test_show_lists_the_whole_paths_of_several_matches(results):
    paths = sorted(map(str, results.rglob("2*.json")))
    with pytest.raises(UserError) as refused:
        invoke("show", "b16", "--results", results)
    first, *rest = str(refused.value).splitlines()
    assert first == "'b16': 2 cells match; name one of these records:"
    assert [line.strip() for line in rest] == paths


def test_show_asks_in_a_terminal_which_of_several_is_meant(results):
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "harness", "show", "b16", "--results", str(results)],
        stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, cwd=ROOT, env=os.environ | {"TERM": "dumb"},
    )  # fmt: skip
    os.close(theirs)
    asked = b""
    while b"1 to 2:" not in asked:
        asked += os.read(ours, 1000)
    os.write(ours, b"3\n2\n")  # asks again after a number that is not listed
    shown = child.communicate()[0].decode()
    os.close(ours)
    (two,) = (path for path in results.rglob("2*.json") if load_record(path).study == "two")
    assert child.returncode == 0
    assert "/two/b16-s64" in asked.decode()
    assert str(two) in shown
