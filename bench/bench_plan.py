"""Time of planning a study of 10,000 cells; the goal is 1 s.

Run: .venv/bin/pytest bench/bench_plan.py -s
`harness plan` runs in this process, from reading the study file to the last printed line: as JSON, as a table, and with 1,000
made-up records. It also runs in a process of its own, with Python's start and imports included.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.cli import main as cli
from harness.machine.describe import describe_machine
from harness.schema.record import to_json
from harness.store.record_files import record_folder
from tests.make_records import make_record

NUM_CELLS = 10_000
ROUNDS = 5
STUDY = f"""
baselines = false
[matrix]
batch_size = {list(range(1, 51))}
seq_len = [16, 32, 64, 128, 256]
padding = ["longest", "grouped"]
"training.lr" = {[round(1e-5 * step, 6) for step in range(1, 21)]}
"""


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "many.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture
def records(tmp_path):
    """Write 1,000 records of this machine, so that `plan` reads them; none is of the study's cells."""
    here = describe_machine()
    for index in range(1000):
        record = make_record(axes={"batch_size": 51 + index}, minutes=index, machine=here)
        folder = record_folder(record, tmp_path / "records")
        folder.mkdir(parents=True)
        (folder / "0.json").write_text(to_json(record), encoding="utf-8")
    return tmp_path / "records"


def plan(*arguments):
    done = CliRunner().invoke(cli.app, ["plan", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_as_json(benchmark, study, tmp_path):
    told = benchmark.pedantic(lambda: plan(study, "--results", tmp_path / "none", "--json"), rounds=ROUNDS)
    assert len(json.loads(told)) == NUM_CELLS


def test_as_a_table(benchmark, study, tmp_path):
    told = benchmark.pedantic(lambda: plan(study, "--results", tmp_path / "none"), rounds=ROUNDS)
    assert f"{NUM_CELLS} cells: {NUM_CELLS} to do" in told


def test_beside_a_thousand_records(benchmark, study, records):
    told = benchmark.pedantic(lambda: plan(study, "--results", records, "--json"), rounds=ROUNDS)
    assert {row["state"] for row in json.loads(told)} == {"to do"}


def test_as_a_process(benchmark, study, tmp_path):
    command = [sys.executable, "-m", "harness", "plan", study, "--results", tmp_path / "none", "--json"]
    told = benchmark.pedantic(lambda: subprocess.run(command, capture_output=True, check=True).stdout, rounds=ROUNDS)
    assert len(json.loads(told)) == NUM_CELLS
