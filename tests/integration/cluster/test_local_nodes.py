"""A study on two local Ray nodes: its records, how it continues, and how it ends."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from conftest import (
    LARGE,
    SMALL,
    has_rank,
    interrupt,
    measuring_processes,
    records_of,
    wait_until,
    waiting_in,
)

from harness.cluster.code_package import code_sha256
from harness.machine.describe import describe_machine

NEVER_ENDS = '[matrix]\nseq_len = [24]\nthreads = [1]\n"training.max_steps" = [3, 100000000]\n'
# What another run of the same cell on the same machine has otherwise.
MEASURED = {
    "started_at",
    "duration_s",
    "phases",
    "load",
    "marks",
    "energy",
    "stderr_tail",
    "training",
    "predicted",
    "cluster",
    "held_bytes",
}

pytestmark = pytest.mark.alone


def test_a_study_runs_on_each_kind_and_a_second_run_has_nothing_to_do(cluster, study_file, tmp_path, state_home):
    study, results = study_file("[matrix]\nseq_len = [24]\nthreads = [1]\n", baselines=True), tmp_path / "r"
    text = cluster.run(study, results)
    records = records_of(results)
    assert len(records) == 8, text
    assert {record.outcome for record in records} == {"ok"}
    assert {record.machine.cpu.num_usable for record in records} == {1, describe_machine().cpu.num_usable}
    assert {record.cluster.code_sha256 for record in records} == {code_sha256()}
    assert {record.cluster.attempt for record in records} == {1}
    assert len({record.cluster.run for record in records}) == 1
    assert len({record.cluster.node for record in records}) == 2
    assert waiting_in(state_home) == []
    assert f"ok  {SMALL}: " in text and f"ok  {LARGE}: " in text
    again = cluster.run(study, results)
    assert "8 of 8 cells are done" in again
    assert len(records_of(results)) == 8
    assert wait_until(lambda: measuring_processes() == [])


def test_a_record_made_over_ray_is_the_record_that_run_makes(cluster, study_file, tmp_path):
    study = study_file('[matrix]\nseq_len = [24]\nthreads = [1]\n[cluster]\nmachines = ["large"]\n')
    cluster.run(study, tmp_path / "ray")
    subprocess.run([sys.executable, "-m", "harness", "run", study, "--results", tmp_path / "here"], check=True)
    (over_ray,), (here,) = records_of(tmp_path / "ray"), records_of(tmp_path / "here")
    assert over_ray.model_dump(exclude=MEASURED) == here.model_dump(exclude=MEASURED)
    assert over_ray.training.steps.loss == here.training.steps.loss
    assert over_ray.test.predictions == here.test.predictions
    assert over_ray.training.cpus == here.training.cpus
    assert here.cluster is None and over_ray.cluster.attempt == 1


def test_a_machine_that_is_not_there_is_named_with_those_that_are(cluster, study_file, tmp_path):
    study = study_file('[cluster]\nmachines = ["g5.xlarge"]\n')
    command = cluster.start("run", study, "--cluster", cluster.local.address, "--results", tmp_path / "r")
    status, text = command.end()
    assert status == 2, text
    assert "cluster.machines: not in the cluster: g5.xlarge; there is: large; small" in text


def test_ctrl_c_ends_cells_everywhere_within_15_s_and_keeps_what_is_finished(cluster, study_file, tmp_path, state_home):
    study, results = study_file(NEVER_ENDS, training="eval_every = 1000000"), tmp_path / "r"
    command = cluster.start("run", study, "--cluster", cluster.local.address, "--results", results)
    command.wait_for("max_steps=100000000 ...")
    assert wait_until(has_rank)
    began = time.monotonic()
    interrupt(command)
    status, text = command.end()
    assert status == 130, text
    assert time.monotonic() - began < 15
    assert "Stopped. What is finished is kept; the same command goes on." in text and "Traceback" not in text
    assert "interrupted" in {record.outcome for record in records_of(results)}
    assert waiting_in(state_home) == []
    assert wait_until(lambda: measuring_processes() == [], 15 - (time.monotonic() - began))


def test_a_driver_that_is_killed_loses_no_record(cluster, study_file, tmp_path, state_home):
    """Its running cells end, their records wait on the nodes, and come with the next run of the same command."""
    study, results = study_file(NEVER_ENDS, training="eval_every = 1000000"), tmp_path / "r"
    command = cluster.start("run", study, "--cluster", cluster.local.address, "--results", results)
    command.wait_for("max_steps=100000000 ...")
    assert wait_until(has_rank)
    command.process.kill()
    command.process.wait()
    assert wait_until(lambda: measuring_processes() == [], 15)
    waiting = [path.name for path in waiting_in(state_home)]
    assert waiting
    text = cluster.run(study, results, "--set", "limits.timeout_s=3")
    records = records_of(results)
    ended = [record for record in records if record.outcome in ("ok", "timeout")]
    assert sorted(record.outcome for record in ended) == ["ok", "ok", "timeout", "timeout"], text
    names = [path.name for path in results.rglob("*.json")]
    assert set(waiting) <= set(names) and len(names) == len(set(names))
    assert waiting_in(state_home) == []
