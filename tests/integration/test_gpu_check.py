"""`make gpu-check`: nothing is checked without a GPU, and says so; what needs none is tried here, on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.dataset.sources import DATA_VARIABLE, locate_data, locate_model
from harness.errors import UserError
from harness.execution.jobs import Environment
from harness.execution.sweep import describe_environment
from harness.machine.describe import describe_machine, package_version
from harness.schema.settings import PACKAGED_MODEL
from harness.store.archive import unpack_records
from harness.store.record_files import load_records
from harness.workflows.gpu_check import __main__ as gpu_check
from harness.workflows.gpu_check.__main__ import NEVER_HERE, main, run_checks
from harness.workflows.gpu_check.checks import CHECKS, PRECISIONS, CheckRun
from harness.workflows.gpu_check.verdicts import GpuCheckVerdict
from tests.make_records import make_machine

HERE = Path(__file__).parent
no_gpu = pytest.mark.skipif(bool(describe_machine().gpus), reason="this machine has a GPU: tests/gpu runs the checks")


@no_gpu
def test_without_a_gpu_the_status_is_0_and_each_check_is_said_not_to_be_done(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "harness.workflows.gpu_check", "--results", str(tmp_path / "results")],
        cwd=HERE.parent.parent, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == len(CHECKS) + len(NEVER_HERE) + 1
    for name, line in zip(CHECKS, lines, strict=False):
        assert line.startswith(f"NOT CHECKED {name}: no NVIDIA GPU here (")
    assert all(line.startswith("NOT CHECKED") for line in lines[:-1])
    assert lines[-1] == "0 passed, 0 failed: nothing was checked"
    assert not (tmp_path / "results").exists()


@pytest.fixture(scope="module")
def checked(tmp_path_factory, reviews):
    """The checks that need no GPU, run on the CPU from another folder by a parent that lacks what cells do not need."""
    results = tmp_path_factory.mktemp("checked") / "results"
    script = str(HERE / "bare_parent.py")
    done = subprocess.run(
        [sys.executable, script, str(results), PACKAGED_MODEL, str(reviews), "5"],
        cwd=results.parent, env=os.environ | {"PYTHONPATH": str(HERE.parent.parent)},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    return results, done


@pytest.mark.alone
@pytest.mark.slow
def test_what_needs_no_gpu_passes_on_a_cpu_with_nothing_installed_but_what_cells_need(checked):
    _, done = checked
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    wanted = [
        "PASS throughput agrees with an independent stopwatch: ",
        "PASS the steps' events fill the wall clock of training (perf_counter): ",
        "PASS peak memory: rss ",
        "PASS fp32 on the embedded model: first loss differs by at most 0 ",
        "NOT CHECKED tf32 on the embedded model: unsupported: ",
        "PASS cpu-ddp with one rank on gloo: 20 losses differ by at most ",
        "PASS two ranks over gloo: 20 losses differ by at most ",
        "PASS 6 records in gpu-check.tar.gz: ",
    ]
    assert [line[: len(start)] for line, start in zip(lines, wanted, strict=True)] == wanted


@pytest.mark.alone
@pytest.mark.slow
def test_the_archive_holds_every_record_and_is_imported_elsewhere(checked, tmp_path):
    results, _ = checked
    found = unpack_records(results / gpu_check.ARCHIVE, tmp_path / "results")
    assert (len(found.new), found.refused) == (6, ())
    assert load_records([tmp_path / "results"]).records == load_records([results]).records


def test_a_check_that_fails_itself_and_one_without_time_cost_the_others_nothing(bench, tmp_path, capsys):
    def broken(_):
        raise ValueError("its own mistake")

    def fine(_):
        yield GpuCheckVerdict(True, "fine", "well")

    run = CheckRun("cpu", tmp_path, bench.runner, bench.preparations, bench.environment, {}, {})
    found = run_checks(run, {"broken": (broken, False), "fine": (fine, False)})
    assert [verdict.passed for verdict in found] == [False, True]
    assert capsys.readouterr().out.splitlines() == [
        "FAIL broken: the check itself failed: ValueError: its own mistake",
        "PASS fine: well",
    ]
    (late,) = run_checks(run, {"fine": (fine, False)}, budget_s=-1.0)
    assert str(late) == "NOT CHECKED fine: no time was left of -1 s"


def test_every_cell_of_the_checks_is_one_that_a_gpu_can_be_asked_for(bench, tmp_path, monkeypatch):
    """The cells are made, and those of each check are listed; no GPU runs them here."""
    asked, named = [], []

    def run(self, **raw):
        cell = self.cell(**raw)
        asked.append(cell.config)
        named.append((cell.name, cell.config))
        return bench.records[0]

    bench.records.append(bench.run(training={"max_steps": 1}))
    machine = make_machine(gpus=["NVIDIA H100 80GB HBM3"])
    around = Environment(machine, None, None, {})
    base = gpu_check.base_tables(None, None, tmp_path)
    checks = CheckRun("gpu", tmp_path, bench.runner, bench.preparations, around, base)
    monkeypatch.setattr(CheckRun, "run", run)
    monkeypatch.setattr(CheckRun, "run_sharing", run)
    for name, (check, _) in CHECKS.items():
        if "smi" not in name:
            list(check(checks))
    assert {(config.model.shape, config.precision) for config in asked} >= {
        (shape, precision) for shape in (None, "bert-base", "bert-large") for precision in PRECISIONS
    }
    assert {config.device for config in asked} == {"gpu", "gpu-ddp1", "gpu-ddp2"}
    assert len({name for name, _ in named}) == len({config.model_dump_json() for _, config in named})
    assert any("shape=bert_large" in name for name, _ in named) and any("compile=True" in name for name, _ in named)
    loaded = [config for config in asked if config.model.shape == "bert-large" and config.precision == "bf16"]
    assert {(config.seq_len, config.batch_size) for config in loaded} == {(128, 8), (384, 8), (512, 8)}  # of 24 GiB
    assert any(config.training.compile for config in asked)
    assert any(config.batch_size == 4096 and config.data.num_train == 4096 for config in asked)
    # The two ranks share the batches of the one.
    assert len({config.global_batch(int(config.device[-1]) if "ddp" in config.device else 1)
                for config in asked if "ddp" in config.device}) == 1  # fmt: skip


def test_a_local_model_is_told_by_a_name_and_not_by_its_place(tmp_path):
    folder = locate_model(PACKAGED_MODEL, weights=False).folder
    base = gpu_check.base_tables(folder, None, tmp_path)
    assert base["model"]["name"] == f"local-{folder.name}"
    assert (tmp_path / base["model"]["name"] / "model.safetensors").is_file()
    assert str(tmp_path) not in json.dumps(base)


@no_gpu
@pytest.mark.slow
def test_the_whole_command_goes_through_and_packs_what_it_has_where_torch_can_run_nothing(
    tiny_bert, tmp_path, monkeypatch, capsys
):
    """A GPU is made up, and torch is a CPU build: each cell's record says so, and no check fails for it."""
    if "+cpu" not in package_version("torch"):
        pytest.skip("this torch is a CUDA build, which would start processes to find no GPU")
    around = replace(describe_environment(None), machine=make_machine(gpus=["NVIDIA A10G"]))
    monkeypatch.setattr(gpu_check, "describe_environment", lambda _: around)
    monkeypatch.setattr(gpu_check, "package_version", lambda _: "2.11.0")
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv(DATA_VARIABLE, "")
    before = Path.cwd()
    arguments = ["--results", str(tmp_path / "out"), "--model", str(tiny_bert), "--data", str(locate_data())]
    assert main(arguments) == 0
    assert Path.cwd() == before
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if line.startswith("FAIL")]
    num_records = len(list((tmp_path / "out").rglob("*.json")))
    assert f"PASS {num_records} records in gpu-check.tar.gz: `harness import` unpacks it elsewhere" in lines
    assert (
        f"NOT CHECKED out of memory is an outcome: unsupported: torch {package_version('torch')} is a CPU build"
        in "\n".join(lines)
    )
    assert lines[-1].startswith("1 passed, 0 failed, ") and lines[-1].endswith("not checked; NVIDIA A10G")
    found = unpack_records(tmp_path / "out" / gpu_check.ARCHIVE, tmp_path / "home")
    assert len(found.new) == num_records >= 15
    texts = "".join(path.read_text() for path in found.new)
    assert f"local-{tiny_bert.name}" in texts
    assert str(tiny_bert.parent) not in texts and str(tmp_path) not in texts


@pytest.mark.parametrize("option", ["--model", "--data"])
def test_what_is_not_there_is_a_users_mistake(option, tmp_path, monkeypatch):
    around = Environment(make_machine(gpus=["NVIDIA A10G"]), None, None, {})
    monkeypatch.setattr(gpu_check, "describe_environment", lambda _: around)
    monkeypatch.setattr(gpu_check, "package_version", lambda _: "2.11.0")
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv(DATA_VARIABLE, "")
    with pytest.raises(UserError, match=f"{option} .*none: no such file"):
        main(["--results", str(tmp_path), option, str(tmp_path / "none")])
