"""Studies, options and files that are odd on purpose end in one line and a status, not in a traceback or without end."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from harness.cli import main as cli
from harness.errors import UserError

DIGITS = "9" * 5000
STUDIES = {
    # Each was a traceback, or filled memory, before.
    "nested": ("x = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
    "digits": (f"repeats = {DIGITS}", "not TOML"),
    "repeats": ("repeats = 1000000000", "1,000,000,000 runs"),
    "cells": (f"[matrix]\nbatch_size={[*range(1, 101)]}\nseq_len={[*range(4, 104)]}\nthreads={[*range(1, 101)]}", "1,000,000 runs"),
    "seeds": (f"[training]\nseeds = {[*range(200_000)]}", "200,000 runs"),
    "long key": ("[data]\n" + "k" * 100_000 + " = 1", "unknown key"),
    "large": ("#" * 5_000_000, "more than 4,194,304 bytes"),
    "date": ("[data]\nsource = 0001-01-01T00:00:00+23:59", "allowed: a valid string"),
}  # fmt: skip


def failure(*args):
    result = CliRunner().invoke(cli.app, [str(arg) for arg in args])
    assert isinstance(result.exception, UserError), result.exception
    text = str(result.exception)
    assert len(text) < 2000
    return text


@pytest.mark.parametrize("kind", STUDIES)
def test_an_odd_study_is_one_message(kind, tmp_path):
    content, words = STUDIES[kind]
    (tmp_path / "s.toml").write_text(content)
    assert words in failure("plan", tmp_path / "s.toml", "--results", tmp_path)


@pytest.mark.parametrize(
    ("override", "words"), [(f"repeats={DIGITS}", "repeats: found"), ("x=" + "[" * 3000, "unknown key")]
)
def test_an_odd_override_is_one_message(override, words, tmp_path):
    (tmp_path / "s.toml").write_text("")
    assert words in failure("plan", tmp_path / "s.toml", "--set", override)


def test_the_limit_on_runs_can_be_raised(tmp_path):
    (tmp_path / "s.toml").write_text("baselines = false\nmax_runs = 5\n[training]\nseeds = [1, 2, 3, 4, 5, 6]")
    assert "--set max_runs=6" in failure("plan", tmp_path / "s.toml", "--results", tmp_path)
    args = ["plan", tmp_path / "s.toml", "--results", tmp_path, "--set", "max_runs=6"]
    assert CliRunner().invoke(cli.app, [str(arg) for arg in args]).exit_code == 0


@pytest.mark.parametrize("option", ["--prices", "--value"])
def test_an_odd_file_of_prices_is_one_message(option, tmp_path):
    (tmp_path / "v.toml").write_text("x = " + "[" * 5000 + "]" * 5000)
    assert "nested too deeply" in failure("recommend", tmp_path, option, tmp_path / "v.toml")


def test_a_path_below_a_file_or_of_too_many_characters_is_one_message(tmp_path):
    (tmp_path / "s.toml").write_text("")
    assert "can't be read" in failure("plan", tmp_path / "s.toml" / "x.toml")
    assert "can't be read" in failure("plan", tmp_path / ("a" * 300))
    assert "no such file" in failure("inspect", tmp_path / "s.toml" / "x.csv")


def test_the_home_of_nobody_is_one_message():
    """A RuntimeError of pathlib."""
    assert "no such file" in failure("inspect", "~nouser-of-this-name/x.csv")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[" * 100_000 + "]" * 100_000, "JSON"),
        ('{"text": "a b", "label": ' + DIGITS + "}", "not JSON Lines"),
        ('{"text": "' + "a " * 9_000_000 + '", "label": "x"}', "a line is longer than 16 MiB"),
        ('{"text": "a \\ud800 b", "label": "x\\udfff"}', "not UTF-8"),
    ],
    ids=["nesting", "digits", "length", "surrogates"],
)
def test_an_odd_json_line_is_one_message(line, words, tmp_path):
    (tmp_path / "d.jsonl").write_text(line + "\n")
    assert words in failure("inspect", tmp_path / "d.jsonl")


@pytest.mark.parametrize("at", ["1" + "0" * 24, '"9999-12-31T23:59:59-12:00"', '"0001-01-01T00:00:00+14:00"', "-1e300"])
def test_times_beyond_those_of_datetime_are_no_traceback(at, tmp_path):
    lines = [f'{{"text": "a b {i}", "label": "{"xy"[i % 2]}", "at": {at}}}\n' for i in range(40)]
    (tmp_path / "d.jsonl").write_text("".join(lines))
    result = CliRunner().invoke(cli.app, ["inspect", str(tmp_path / "d.jsonl")])
    assert result.exception is None or isinstance(result.exception, SystemExit | UserError)
