"""Variables that bind threads or slow products: real cells in a process whose environment has them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from harness.analysis.summarize import summarize
from harness.machine.describe import describe_machine
from harness.schema.host_record import BF16_FLAGS
from harness.schema.record import Record
from harness.schema.variables import REMOVED
from harness.store.record_files import load_records

CPUS = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()
needs_two_cpus = pytest.mark.skipif(len(CPUS) < 2, reason="on one CPU, all threads share it anyway")
needs_bf16 = pytest.mark.skipif(
    not BF16_FLAGS & set(describe_machine().cpu.flags), reason="this CPU has no instructions for bf16"
)
# Prints the variables that reach a rank, and the CPUs that it may use; a rank takes the same way as a cell's.
PRINT_RANK = """
import json, multiprocessing, os, sys, tempfile
from pathlib import Path
from harness.execution.rank_process import start_rank
from harness.execution.runner import Runner
sys.path.insert(0, {folder!r})
import odd_workers
with Runner(sys.argv[1], preload=("odd_workers",)) as runner, tempfile.TemporaryDirectory() as folder:
    rank = start_rank(runner._context, odd_workers.tells_its_environment, None, Path(folder) / "log")
    print(json.dumps(rank.pipe.recv()))
    rank.process.join()
"""


def run_study(study, results, *options, **variables):
    """Run a study with some environment variables, and return its newest record."""
    command = [sys.executable, "-m", "harness", "run", str(study), "--results", str(results), *options]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return max(load_records([results]).records, key=lambda record: record.started_at)


def cell(study_file, **matrix):
    lines = "".join(f"{key} = {json.dumps([value])}\n" for key, value in matrix.items())
    return study_file(f"[matrix]\nseq_len = [24]\n{lines}", training="max_steps = 3\neval_every = 100.0")


def warnings_of(record: Record):
    (summary,) = summarize([record])
    return [warning for warning in summary.warnings if "Environment variables" in warning or "to run on" in warning]


@needs_two_cpus
@pytest.mark.parametrize(
    ("name", "value"), [("OMP_PROC_BIND", "true"), ("OMP_PLACES", "cores"), ("GOMP_CPU_AFFINITY", str(CPUS[:1])[1:-2])]
)
def test_ranks_are_not_bound_to_one_cpu(study_file, tmp_path, name, value):
    """Before, all threads of both ranks ran on the first CPU: steps of 4.7 s instead of 1.8 s, and outcome `ok`."""
    study = cell(study_file, device="cpu-ddp2", threads=2)
    record = run_study(study, tmp_path / "r", **{name: value})
    assert record.outcome == "ok", record.reason
    assert record.training.cpus == (CPUS, CPUS)  # before: ((first,), (first,))
    assert record.machine.environment[name] == value
    assert warnings_of(record) == [
        f"Environment variables: {name}={value} did not reach the cell's processes. Unset {name}, and run it with --force."
    ]


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_no_rank_gets_a_variable_that_binds_or_limits_threads(start_method):
    """Before, OMP_THREAD_LIMIT=1 let one thread work where the record said `threads_per_rank` 2."""
    code = PRINT_RANK.format(folder=os.path.dirname(__file__))  # noqa: PTH120
    wanted = dict.fromkeys(REMOVED, "1") | {"OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(
        [sys.executable, "-c", code, start_method], env=os.environ | wanted, capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    assert [name for name in wanted if name in told["variables"]] == ["OMP_WAIT_POLICY"]
    assert tuple(told["cpus"]) == CPUS


@needs_bf16
def test_bf16_that_oneDNN_may_not_accelerate_is_unsupported(study_file, tmp_path):
    """Before, the CPU's flags alone were asked: outcome `ok`, with steps of 16.9 s instead of 2.3 s (packaged model, 8 x 64)."""
    study, results = cell(study_file, precision="bf16", threads=1), tmp_path / "r"
    slow = run_study(study, results, ONEDNN_MAX_CPU_ISA="AVX2")
    assert slow.outcome == "unsupported"
    assert slow.reason.startswith("bf16 is not accelerated in this process")
    assert "under ONEDNN_MAX_CPU_ISA=AVX2 (unset it)" in slow.reason
    # Without the variable the cell is measured, although it has a finished record.
    fast = run_study(study, results)
    assert (fast.outcome, fast.machine.environment.get("ONEDNN_MAX_CPU_ISA")) == ("ok", None)
    assert warnings_of(fast) == []


@needs_bf16
def test_a_slow_bf16_runs_where_the_study_wants_it_and_the_record_says_why(study_file, tmp_path):
    study = cell(study_file, precision="bf16", threads=1, **{'"training.allow_slow_precision"': True})
    record = run_study(study, tmp_path / "r", ONEDNN_MAX_CPU_ISA="AVX2")
    assert record.outcome == "ok"
    assert record.machine.environment["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert [warning.partition(" keeps ")[0] for warning in warnings_of(record)] == [
        "Environment variables: ONEDNN_MAX_CPU_ISA=AVX2"
    ]


def test_the_doctor_names_each_variable():
    command = [sys.executable, "-m", "harness", "doctor", "--quick", "--json"]
    variables = {"OMP_PROC_BIND": "true", "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    findings = {one["name"]: one for one in json.loads(done.stdout)["findings"] if one["name"].startswith("variable")}
    assert set(findings) == {"variable OMP_PROC_BIND", "variable ONEDNN_MAX_CPU_ISA"}  # before: none
    assert {one["verdict"] for one in findings.values()} == {"warn"}


def test_fp32_is_computed_in_fp32_here():
    import torch

    from harness.worker.accelerated import computes_fp32, require_precision

    assert computes_fp32(torch.device("cpu"))
    require_precision("fp32", torch.device("cpu"), allow_slow=False)
