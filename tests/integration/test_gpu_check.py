"""`make gpu-check`: without a GPU it lists every check as not checked; checks that need none run here on the CPU."""

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
from harness.workflows.gpu_check.__main__ import ARCHIVE, NEVER_CHECKED, base_tables, main, run_checks
from harness.workflows.gpu_check.checks import CHECKS, PRECISIONS, CheckRun
from harness.workflows.gpu_check.verdicts import GpuCheckVerdict
from tests.make_records import make_machine

HERE = Path(__file__).parent
no_gpu = pytest.mark.skipif(bool(describe_machine().gpus), reason="this machine has a GPU: tests/gpu runs the checks")


@no_gpu
def test_without_a_gpu_the_status_is_0_and_every_check_is_not_checked(tmp_path):
    completed = subprocess.run(
        [sys.executable, "-m", "harness.workflows.gpu_check", "--results", str(tmp_path / "results")],
        cwd=HERE.parent.parent, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (completed.returncode, completed.stderr) == (0, "")
    lines = completed.stdout.splitlines()
    assert len(lines) == len(CHECKS) + len(NEVER_CHECKED) + 1
    for name, line in zip(CHECKS, lines, strict=False):
        assert line.startswith(f"NOT CHECKED {name}: no NVIDIA GPU here (")
    assert all(line.startswith("NOT CHECKED") for line in lines[:-1])
    assert lines[-1] == "0 passed, 0 failed: nothing was checked"
    assert not (tmp_path / "results").exists()


@pytest.fixture(scope="module")
def checked(tmp_path_factory, reviews):
    """Run the checks that need no GPU, from another folder, in a parent without the packages that only reports need."""
    results = tmp_path_factory.mktemp("checked") / "results"
    script = str(HERE / "bare_parent.py")
    completed = subprocess.run(
        [sys.executable, script, str(results), PACKAGED_MODEL, str(reviews), "5"],
        cwd=results.parent, env=os.environ | {"PYTHONPATH": str(HERE.parent.parent)},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    return results, completed


@pytest.mark.alone
@pytest.mark.slow
def test_checks_without_a_gpu_pass_on_a_cpu_with_only_the_packages_of_a_cell(checked):
    _, completed = checked
    assert completed.returncode == 0, completed.stdout + completed.stderr
    lines = completed.stdout.splitlines()
    expected = [
        "PASS throughput agrees with an independent stopwatch: ",
        "PASS the steps' events fill the wall clock of training (perf_counter): ",
        "PASS peak memory: rss ",
        "PASS fp32 on the embedded model: first loss differs by at most 0 ",
        "NOT CHECKED tf32 on the embedded model: unsupported: ",
        "PASS cpu-ddp with one rank on gloo: 20 losses differ by at most ",
        "PASS two ranks over gloo: 20 losses differ by at most ",
        "PASS 6 records in gpu-check.tar.gz: ",
    ]
    assert [line[: len(start)] for line, start in zip(lines, expected, strict=True)] == expected


@pytest.mark.alone
@pytest.mark.slow
def test_the_archive_holds_every_record_and_can_be_imported_elsewhere(checked, tmp_path):
    results, _ = checked
    unpacked = unpack_records(results / ARCHIVE, tmp_path / "results")
    assert (len(unpacked.new), unpacked.refused) == (6, ())
    assert load_records([tmp_path / "results"]).records == load_records([results]).records


def test_a_broken_check_and_an_exhausted_budget_leave_the_other_verdicts(bench, tmp_path, capsys):
    def broken(_):
        raise ValueError("a bug")

    def fine(_):
        yield GpuCheckVerdict(True, "fine", "well")

    run = CheckRun("cpu", tmp_path, bench.runner, bench.preparations, bench.environment, {}, {})
    verdicts = run_checks(run, {"broken": (broken, False), "fine": (fine, False)})
    assert [verdict.passed for verdict in verdicts] == [False, True]
    assert capsys.readouterr().out.splitlines() == [
        "FAIL broken: the check itself failed: ValueError: a bug",
        "PASS fine: well",
    ]
    (late,) = run_checks(run, {"fine": (fine, False)}, budget_s=-1.0)
    assert str(late) == "NOT CHECKED fine: no time was left of -1 s"


def test_the_checks_ask_for_valid_gpu_cells(bench, tmp_path, monkeypatch):
    """Build every check's cells without running them."""
    configs, named = [], []

    def run(self, **raw):
        cell = self.cell(**raw)
        configs.append(cell.config)
        named.append((cell.name, cell.config))
        return bench.records[0]

    bench.records.append(bench.run(training={"max_steps": 1}))
    machine = make_machine(gpus=["NVIDIA H100 80GB HBM3"])
    environment = Environment(machine, None, None, {})
    base = base_tables(None, None, tmp_path)
    checks = CheckRun("gpu", tmp_path, bench.runner, bench.preparations, environment, base)
    monkeypatch.setattr(CheckRun, "run", run)
    monkeypatch.setattr(CheckRun, "run_on_shared_gpu", run)
    for name, (check, _) in CHECKS.items():
        if "smi" not in name:
            list(check(checks))
    assert {(config.model.shape, config.precision) for config in configs} >= {
        (shape, precision) for shape in (None, "bert-base", "bert-large") for precision in PRECISIONS
    }
    assert {config.device for config in configs} == {"gpu", "gpu-ddp1", "gpu-ddp2"}
    assert len({name for name, _ in named}) == len({config.model_dump_json() for _, config in named})
    assert any("shape=bert_large" in name for name, _ in named) and any("compile=True" in name for name, _ in named)
    large_bf16 = [config for config in configs if config.model.shape == "bert-large" and config.precision == "bf16"]
    assert {(config.seq_len, config.batch_size) for config in large_bf16} == {(128, 8), (384, 8), (512, 8)}  # of 24 GiB
    assert any(config.training.compile for config in configs)
    assert any(config.batch_size == 4096 and config.data.num_train == 4096 for config in configs)
    # Two ranks get the same global batch as one.
    assert len({config.global_batch(int(config.device[-1]) if "ddp" in config.device else 1)
                for config in configs if "ddp" in config.device}) == 1  # fmt: skip


def test_a_local_model_is_recorded_by_name_without_its_path(tmp_path):
    folder = locate_model(PACKAGED_MODEL, weights=False).folder
    base = base_tables(folder, None, tmp_path)
    assert base["model"]["name"] == f"local-{folder.name}"
    assert (tmp_path / base["model"]["name"] / "model.safetensors").is_file()
    assert str(tmp_path) not in json.dumps(base)


@no_gpu
@pytest.mark.slow
def test_the_command_packs_all_records_when_torch_supports_no_cell(tiny_bert, tmp_path, monkeypatch, capsys):
    """Pretend that there is a GPU while torch is a CPU build: every cell is unsupported, and no check fails."""
    if "+cpu" not in package_version("torch"):
        pytest.skip("this torch is a CUDA build, which would start processes to find no GPU")
    environment = replace(describe_environment(None), machine=make_machine(gpus=["NVIDIA A10G"]))
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv(DATA_VARIABLE, "")
    before = Path.cwd()
    arguments = ["--results", str(tmp_path / "out"), "--model", str(tiny_bert), "--data", str(locate_data())]
    assert main(arguments, environment=environment, torch_version="2.11.0") == 0
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
    unpacked = unpack_records(tmp_path / "out" / ARCHIVE, tmp_path / "home")
    assert len(unpacked.new) == num_records >= 15
    texts = "".join(path.read_text() for path in unpacked.new)
    assert f"local-{tiny_bert.name}" in texts
    assert str(tiny_bert.parent) not in texts and str(tmp_path) not in texts


@pytest.mark.parametrize("option", ["--model", "--data"])
def test_a_missing_path_is_a_user_error(option, tmp_path, monkeypatch):
    environment = Environment(make_machine(gpus=["NVIDIA A10G"]), None, None, {})
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv(DATA_VARIABLE, "")
    with pytest.raises(UserError, match=f"{option} .*none: no such file"):
        main(
            ["--results", str(tmp_path), option, str(tmp_path / "none")],
            environment=environment,
            torch_version="2.11.0",
        )
