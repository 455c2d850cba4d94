"""`harness export`, read by the real `pytest-benchmark compare`."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from harness.cli import main as cli
from harness.errors import UserError
from harness.store.record_files import save_record
from tests.make_records import MIB, make_baseline, make_machine, make_record

CELL = "b16-s64-fp32-cpu-longest-all"


def export(*args):
    result = CliRunner().invoke(cli.app, ["export", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def save(folder, step_s, **fields):
    """Save a record with 3 warm-up steps of 100 s before the given steps."""
    return save_record(
        make_record(training={"seconds": [100.0] * 3 + step_s} | fields.pop("training", {}), **fields), folder
    )


def compare(folder, *args):
    command = [sys.executable, "-m", "pytest_benchmark", "compare", *map(str, args), f"--csv={folder / 'table.csv'}"]
    completed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    with (folder / "table.csv").open(newline="") as file:
        return completed.stdout, list(csv.DictReader(file))


@pytest.fixture
def results(tmp_path):
    save(tmp_path / "r", [1.0] * 30 + [2.0] * 10)
    save(tmp_path / "r", [3.0] * 40, repeat=1, minutes=2)
    save(
        tmp_path / "r",
        [0.5] * 40,
        axes={"batch_size": 8},
        training={"accuracy": 0.75, "peaks": [(0, "rss", 500 * MIB)]},
    )
    save_record(make_baseline(), tmp_path / "r")
    save_record(make_record(outcome="oom", reason="killed", axes={"batch_size": 64}), tmp_path / "r")
    return tmp_path / "r"


def test_pytest_benchmark_reads_each_cells_measured_steps(results, tmp_path):
    result = export("--format", "pytest-benchmark", "--results", results, "-o", tmp_path / "now.json")
    assert "2 cells" in result.stdout
    assert {line.split(": ")[1] for line in result.stderr.splitlines()} == {
        "study/baseline-tfidf",
        "study/b64-s64-fp32-cpu-longest-all",
    }
    printed, rows = compare(tmp_path, tmp_path / "now.json")
    assert "benchmark 'study': 2 tests" in printed
    by_name = {row["name"]: row for row in rows}
    both_runs = by_name[f"study::{CELL}"]
    assert int(both_runs["rounds"]) == 80  # warm-up left out
    assert float(both_runs["mean"]) == pytest.approx((30 * 1 + 10 * 2 + 40 * 3) / 80)
    assert (float(both_runs["min"]), float(both_runs["max"])) == (1.0, 3.0)
    assert float(both_runs["median"]) == 2.5
    assert (both_runs["param:batch_size"], both_runs["param:precision"]) == ("16", "fp32")
    eight = by_name["study::b8-s64-fp32-cpu-longest-all"]
    assert float(eight["ops"]) == pytest.approx(2.0)


def test_two_exports_are_compared_cell_by_cell(results, tmp_path):
    export("--results", results, "-o", tmp_path / "before.json")
    save(tmp_path / "later", [0.25] * 40, axes={"batch_size": 8})
    export("--results", tmp_path / "later", "-o", tmp_path / "later.json")
    printed, _ = compare(tmp_path, tmp_path / "before.json", tmp_path / "later.json", "--between=mean")
    (line,) = (line for line in printed.splitlines() if line.startswith("b8-s64"))
    assert line.split()[-1] == "-50.0%"


def test_a_benchmark_carries_the_other_figures_and_the_machine(results):
    fields = json.loads(export("--results", results).stdout)
    eight = next(benchmark for benchmark in fields["benchmarks"] if benchmark["name"].startswith("b8"))["extra_info"]
    assert eight["samples_per_s"]["value"] == pytest.approx(16)
    assert eight["accuracy"]["value"] == 0.75
    assert eight["accuracy"]["low"] < 0.75 < eight["accuracy"]["high"]
    assert (eight["peak_memory_bytes"], eight["peak_memory_source"]) == (500 * MIB, "rss")
    assert eight["is_made_up"] is True
    sixteen = next(benchmark for benchmark in fields["benchmarks"] if benchmark["name"].startswith("b16"))["extra_info"]
    assert sixteen["step_s_mean_by_run"] == [1.25, 3.0]
    assert fields["machine_info"]["cpu"] == {"brand_raw": "AMD EPYC 7763", "count": 4, "flags": ["avx", "avx2", "fma"]}
    assert fields["commit_info"]["id"] == "unversioned"


def test_cells_of_one_name_and_two_configurations_get_distinct_names(tmp_path):
    for minutes, rate in enumerate((1e-4, 2e-4)):
        save(tmp_path, [1.0] * 10, sections={"training": {"lr": rate}}, minutes=minutes)
    names = [benchmark["name"] for benchmark in json.loads(export("--results", tmp_path).stdout)["benchmarks"]]
    assert len(set(names)) == 2
    assert {name.split("[")[0] for name in names} == {CELL}


def test_a_file_holds_one_machine(tmp_path):
    for machine_id in ("epyc-2c", "xeon-2c"):
        save(tmp_path, [1.0] * 10, machine=make_machine(machine_id=machine_id))
    with pytest.raises(UserError, match="choose with --machine: epyc-2c, xeon-2c"):
        export("--results", tmp_path)
    fields = json.loads(export("--results", tmp_path, "--machine", "xeon").stdout)
    assert fields["machine_info"]["node"] == "xeon-2c"
    with pytest.raises(UserError, match="matches 0 machines"):
        export("--results", tmp_path, "--machine", "power")


def test_a_baseline_alone_has_nothing_to_export(tmp_path):
    save_record(make_baseline(), tmp_path)
    with pytest.raises(UserError, match="no cell has a measured step"):
        export("--results", tmp_path)
