"""Full disks, read-only folders and signals: nothing measured is lost, no text is left, one line says what is wrong."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from harness.store.record_files import load_records
from tests.small_disk import fill, remount_read_only, small_disk

HARNESS = [sys.executable, "-m", "harness"]
NEVER_ENDS = '[matrix]\nseq_len = [24]\nthreads = [1]\n"training.max_steps" = [3, 100000000]\n'
LONG_TRAINING = '[matrix]\nseq_len = [24]\nthreads = [1]\n"training.max_steps" = [100000000]\n'
NO_EVALUATIONS = "eval_every = 1000000"


@pytest.fixture
def environment(tmp_path):
    """Variables that keep temporary files and the fallback folder in `tmp_path`."""
    (tmp_path / "temporary").mkdir()
    return os.environ | {
        "PYTHONUNBUFFERED": "1", "COLUMNS": "200",
        "TMPDIR": str(tmp_path / "temporary"), "XDG_STATE_HOME": str(tmp_path / "state"),
    }  # fmt: skip


@pytest.fixture
def harness(environment):
    def run(*arguments, **variables):
        return subprocess.run(
            [*HARNESS, *map(str, arguments)], env=environment | variables, capture_output=True, text=True, check=False,
            timeout=120,
        )  # fmt: skip

    return run


@pytest.fixture
def start(environment):
    """Start a command and wait until it has printed a text."""
    started = []

    def begin(*arguments, until):
        process = subprocess.Popen(
            [*HARNESS, *map(str, arguments)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        printed = []
        for line in process.stdout:
            printed.append(line)
            if until in line:
                return process
        pytest.fail(f"{until!r} was not printed, only {printed} {process.stderr.read()}")

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def left_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_record_that_a_full_disk_refuses_is_kept_and_brought_in_as_the_words_say(harness, study_file, tmp_path):
    study = study_file('[matrix]\nseq_len = [24]\nthreads = [1]\n"training.max_steps" = [3]\n', training=NO_EVALUATIONS)
    with small_disk(tmp_path / "r", "size=8k") as results:  # room for the folders, not for the record
        done = harness("run", study, "--results", results)
        # Was status 1 with the traceback of an OSError; the measured cell was lost.
        assert done.returncode == 74, done.stdout + done.stderr
        assert "Traceback" not in done.stderr and "No space left on device" in done.stderr
        assert not [path for path in left_in(results) if path.name != ".lock"]
        source = re.search(r"cp -r (\S+)/\. ", done.stderr)[1]
    shutil.copytree(source, tmp_path / "r", dirs_exist_ok=True)
    assert "All 1 cells are done" in harness("run", study, "--results", tmp_path / "r").stdout


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_run_as_ctrl_c_does_and_leaves_no_text(start, study_file, tmp_path, number, status):
    study = study_file(NEVER_ENDS, training=NO_EVALUATIONS, baselines=True)
    run = start("run", study, "--results", tmp_path / "r", until="max_steps=100000000")
    assert any("texts" in str(path) for path in left_in(tmp_path / "temporary"))
    run.send_signal(number)
    _, err = run.communicate(timeout=60)
    assert (run.returncode, "Traceback" in err) == (status, False), err
    assert left_in(tmp_path / "temporary") == []  # was texts0/train.json with every text in clear
    assert {record.outcome for record in load_records([tmp_path / "r"]).records} <= {"ok", "interrupted"}
    assert "ok" in {record.outcome for record in load_records([tmp_path / "r"]).records}


# As `python -m harness`, but SIGTERM comes when the cell has ended and before its record is saved.
SIGTERM_BEFORE_SAVING = """
import os, signal
from harness.execution import sweep
from harness.__main__ import main
save = sweep.save_or_keep
def save_after_signal(record, results):
    os.kill(os.getpid(), signal.SIGTERM)
    return save(record, results)
sweep.save_or_keep = save_after_signal
main()
"""


def test_a_signal_between_a_cells_end_and_its_record_waits(environment, study_file, tmp_path):
    study = study_file(NEVER_ENDS.replace("100000000", "4"), training=NO_EVALUATIONS)
    done = subprocess.run(
        [sys.executable, "-c", SIGTERM_BEFORE_SAVING, "run", study, "--results", tmp_path / "r"],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (143, False), done.stderr
    (record,) = load_records([tmp_path / "r"]).records  # was lost
    assert record.outcome == "ok"


# Ctrl-C comes while the command line is being loaded.
INTERRUPTED_WHILE_LOADING = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
signal.signal(signal.SIGINT, signal.default_int_handler)
from harness.__main__ import main
main()
"""


def test_ctrl_c_while_the_command_line_is_loaded_ends_without_a_traceback():
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_WHILE_LOADING, "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")  # was the traceback of an import


# SIGTERM comes during an import, and the library turns the KeyboardInterrupt into an error of its own, as pydantic does.
INTERRUPTED_IMPORT = """
import os, signal, typer
from harness.cli import main as cli
app = typer.Typer()
@app.command()
def load():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        raise ImportError("cannot import name 'AliasChoices' from partially initialized module") from None
cli.app = app
cli.main()
"""


def test_an_interrupted_import_is_no_traceback():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (143, 1), done.stderr  # was 1, with a traceback
    assert done.stderr.startswith("error: stopped, ImportError: cannot import name")


# The system refuses the second thread of the command line, as with `ulimit -u` or a control group of few processes.
WITHOUT_THREADS = """
import typer
from harness.cli import main as cli
app = typer.Typer()
@app.command()
def start_thread():
    raise RuntimeError("can't start new thread")
cli.app = app
cli.main()
"""


def test_a_refused_thread_is_one_line():
    done = subprocess.run([sys.executable, "-c", WITHOUT_THREADS], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr  # was 1 with a traceback
    assert done.stderr.startswith("error: no more threads or processes are allowed here: raise `ulimit -u`")


def test_texts_that_sigkill_leaves_are_removed_by_the_next_command(harness, start, study_file, tmp_path):
    study = study_file(NEVER_ENDS, training=NO_EVALUATIONS, baselines=True)
    run = start("run", study, "--results", tmp_path / "r", until="max_steps=100000000")
    run.kill()
    run.communicate(timeout=60)
    assert left_in(tmp_path / "temporary")
    assert harness("plan", study, "--results", tmp_path / "r").returncode == 0
    assert left_in(tmp_path / "temporary") == []  # stayed for ever


def test_without_a_baseline_no_text_is_on_the_disk(start, study_file, tmp_path):
    study = study_file(NEVER_ENDS, training=NO_EVALUATIONS)
    start("run", study, "--results", tmp_path / "r", "--set", "data.store_texts=false", until="max_steps=100000000")
    contents = b"".join(path.read_bytes() for path in left_in(tmp_path / "temporary"))
    assert contents and b"zeppelin" not in contents  # every text was in texts0/


def test_a_full_checkpoint_disk_is_said_at_once_and_sigterm_does_not_promise_a_checkpoint(start, study_file, tmp_path):
    study = study_file(LONG_TRAINING, training=f"{NO_EVALUATIONS}\ncheckpoint_every_s = 1")
    with small_disk(tmp_path / "c", "size=64k") as disk:
        train = start(
            "train",
            study,
            "--results",
            tmp_path / "r",
            "--checkpoints",
            disk / "t",
            until="no checkpoint could be written",
        )  # fmt: skip - was silent
        train.send_signal(signal.SIGTERM)
        out, err = train.communicate(timeout=60)
        assert train.returncode == 74, out + err  # was 75, "stopped with a checkpoint"
        assert "no checkpoint could be written" in err and "Checkpoint written" not in out
        assert [path.name for path in left_in(disk)] == [".lock"]  # no half of a checkpoint


def test_a_model_that_cannot_be_saved_is_said_and_is_no_success(harness, study_file, tmp_path):
    study = study_file(NEVER_ENDS.replace("3, 100000000", "3"), training="keep_model = true")
    with small_disk(tmp_path / "r", "size=2m") as results:  # room for the record, not for the model of 4 MB
        done = harness("run", study, "--results", results)
        # Was status 0 and not a word.
        assert done.returncode == 74, done.stdout + done.stderr
        assert "the model can't be saved: No space left on device" in done.stdout + done.stderr
        assert [record.outcome for record in load_records([results]).records] == ["ok"]
        assert not list(results.rglob("*.safetensors*"))


def test_sighup_stops_a_training_with_a_checkpoint(harness, start, study_file, tmp_path):
    study = study_file(LONG_TRAINING, training=f"{NO_EVALUATIONS}\ncheckpoint_every_s = 1")
    train = start("train", study, "--results", tmp_path / "r", until="[1/1]")
    while not list((tmp_path / "r").glob("checkpoints/*/*/update-*")):
        assert train.poll() is None
    train.send_signal(signal.SIGHUP)
    out, err = train.communicate(timeout=60)
    assert train.returncode == 75, out + err  # was -1: killed, without a checkpoint
    assert "Checkpoint written" in out
    assert "SIGHUP" in err


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("report", "full"), ("report", "read-only"), ("report", "a file"), ("pack", "full"), ("export", "read-only"),
        ("import", "full"), ("run", "read-only"), ("run", "a file"), ("predict", "full"), ("predict", "read-only"),
    ],
)  # fmt: skip
def test_a_fault_of_the_file_system_is_one_line_with_its_status(
    harness, study_file, tmp_path, tiny_bert, reviews, command, fault
):
    study, records = study_file(), "results/reference/amd-epyc-1c-24g-1d0db1/default"
    with small_disk(tmp_path / "d", "size=64k") as disk:
        target = disk / "out"
        archive = tmp_path / "records.tar.gz"
        if command == "import":
            assert harness("pack", records, "--all", "--out", archive).returncode == 0
        if fault == "a file":
            target.touch()
            if command in ("pack", "export"):
                target /= "below"
        elif fault == "full":
            fill(disk)
        else:
            remount_read_only(disk)
        arguments = {
            "report": ["report", records, "--out", target],
            "pack": ["pack", records, "--all", "--out", target],
            "export": ["export", "--results", "tests/fixtures/records/v5/ok.json", "-o", target],
            "import": ["import", archive, "--results", target],
            "run": ["run", study, "--results", target],
            "predict": ["predict", tiny_bert, reviews, "-o", disk / "out.csv"],
        }[command]
        done = harness(*arguments)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 74, done.stdout + done.stderr  # was 1, "a cell crashed"
    assert str(disk) in done.stderr  # a full disk's error did not name the file
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_cheap_part_of_the_bench_of_faults_finds_nothing_lost_left_or_wrong():
    kinds = "(full disk|a file where a folder should be|ENOSPC from (write|fsync)|signals) (pack|import)$"
    done = subprocess.run(
        [sys.executable, "bench/bench_faults.py", "--quick", "--only", kinds],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^8 kinds: 0 with something lost, left or wrong", done.stdout, re.MULTILINE), done.stdout
