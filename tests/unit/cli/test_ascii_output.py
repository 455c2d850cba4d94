"""Commands write to pipes and terminals of any encoding: signs that it lacks are replaced."""

from __future__ import annotations

import contextlib
import csv
import io
import shutil
import sys

import pytest

from harness.cli import main as cli
from tests.unit.frozen import RECORDS


def run(*arguments, encoding):
    """Run a command with output to strict pipes; return its exit status and what it wrote."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, write_through=True) for _ in range(2))
    before, sys.argv = sys.argv, ["harness", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        sys.argv = before
    return ended.value.code, *(stream.buffer.getvalue().decode(encoding) for stream in (out, err))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with records, a table of accented texts, and a study of it."""
    folder = tmp_path_factory.mktemp("ascii")
    shutil.copytree(RECORDS / "v5", folder / "results")
    with (folder / "né.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(f"très bon film 漢字 – {row}", ("bon", "raté")[row % 2]) for row in range(40)]
        csv.writer(file).writerows([("text", "étiquette"), *rows])
    (folder / "né.toml").write_text(f'[data]\nsource = "{folder}/né.csv"\nlabel = "étiquette"\n', encoding="utf-8")
    return folder


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"], ["run", "--help"], ["keys"], ["doctor", "--help"], ["plan", "né.toml"], ["inspect", "né.csv", "--text", "text"],
        ["inspect", "né.csv", "--json"], ["inspect", "niño.csv"], ["show", "results/ok.json"], ["compare", "results", "results"],
        ["report", "results", "--out", "page"], ["recommend", "results"], ["prices", "list"], ["cache", "list"], ["run", "né.txt"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_command_fails_at_a_sign(folder, monkeypatch, arguments, encoding):
    """Once "UnicodeEncodeError: 'ascii' codec can't encode characters in position 0-39" at the first bar of `inspect`."""
    monkeypatch.chdir(folder)
    shutil.rmtree(folder / "page", ignore_errors=True)
    status, out, err = run(*arguments, encoding=encoding)
    assert status in (0, 1, 2)
    assert "Traceback" not in out + err and (out or err)


def test_signs_of_tables_become_similar_ones_and_those_of_texts_escapes(folder, monkeypatch):
    monkeypatch.chdir(folder)
    _, out, _ = run("inspect", "né.csv", "--text", "text", encoding="ascii")
    assert r"rat\xe9     20  50.0%  ####################" in out
    assert r"tres bon film \u6f22 [UNK] -" in out
    _, out, _ = run("inspect", "né.csv", "--text", "text", encoding="utf-8")
    assert "raté     20  50.0%  ████████████████████" in out
