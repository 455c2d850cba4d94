"""`harness run --interleave` as a user has it: in turns, gone on with, and compared."""

from __future__ import annotations

from typer.testing import CliRunner

from harness.analysis.significance import find_abba_rounds
from harness.cli import main as cli
from harness.store.record_files import load_records

SETTINGS = ("training.grad_accum=1", "training.grad_accum=2")
MATRIX = "[matrix]\nbatch_size = [8]\nseq_len = [24]\nthreads = [1]\n"


def harness(*arguments):
    """In this process, whose forkserver is warm."""
    return CliRunner().invoke(cli.app, [*map(str, arguments)], catch_exceptions=False)


def accums(records):
    return "".join("AB"[record.config.training.grad_accum - 1] for record in records)


def test_cells_take_turns_and_are_gone_on_with_and_compared(study_file, tmp_path, warm_runner):
    study, results, table = study_file(MATRIX, training="max_steps = 12"), tmp_path / "r", tmp_path / "table.md"
    asked = ("run", study, "--results", results, "--interleave", *SETTINGS, "--rounds", "2")
    plain = harness("run", study, "--results", results, "--set", "training.grad_accum=1")
    assert plain.exit_code == 0, plain.output
    done = harness(*asked)
    assert done.exit_code == 0, done.output
    # That A was measured once before, alone, makes it no part of the turns.
    records = [one for one in load_records([results]).records if "-vs-" in one.study]
    assert accums(records) == "ABBAABBA"
    assert [one.repeat for one in records] == [0, 0, 1, 1, 2, 2, 3, 3]
    sides = [[one for one in records if one.config.training.grad_accum == num] for num in (1, 2)]
    assert len(find_abba_rounds(*sides)) == 2
    assert "A: training.grad_accum=1; B: training.grad_accum=2" in done.stdout
    assert "Speed of 1 cell on both sides: 1 " in done.stdout
    assert "grad_accum=1 against b8-s24-fp32-cpu-longest-all-t1-grad_accum=2" in done.stdout
    # One that is missing is run again, alone; the comparison is made all the same.
    missing = next(path for path in results.rglob("*.json") if "grad_accum=2" in str(path))
    missing.unlink()
    again = harness(*asked, "--markdown", table)
    assert again.exit_code == 0, again.output
    assert "7 of 8 cells are done; 1 to run." in again.stdout
    assert "| samples/s |" in table.read_text() and table.read_text().startswith("A: training.grad_accum=1; B: ")
    idle = harness(*asked, "--fail-above", "0%")
    assert "All 8 cells are done" in idle.stdout and "Speed of 1 cell on both sides" in idle.stdout
    assert "--fail-above 0%: " in idle.stdout
    assert idle.exit_code == (1 if "FAILED" in idle.stdout else 0)
