"""Secrets, home folders, the user's name and texts are planted, and looked for in everything that is written or printed."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from tiny import write_checkpoint

from harness.store.record_files import load_records

USER = "margarethe"
SECRETS = {
    "HF_TOKEN": "hf_QxKanarieTokenOfTheHubZyXwVuTsRqP",
    "AWS_SECRET_ACCESS_KEY": "kAnArIe/K7MDENG+bPxRfiCYzEXw9Rk3vTq2LmN",
    "PGPASSWORD": "kanarie-of-postgres",
    "DB_URL": "postgresql://someone:kanarie-in-a-url@db.example.org/reviews",
}
TEXTS = ("zebrakanarie", "fuchskanarie", "dachskanarie")  # one in every text, and in no vocabulary


def write_texts(path: Path) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        for row in range(420):
            writer.writerow((f"{TEXTS[row % 3]} number {row} {'superb' if row % 2 else 'dreadful'}", f"class{row % 2}"))
    return path


@pytest.fixture
def planted(tmp_path):
    """A home with data and models, another user's home with data if one can be made, and a study of both."""
    home, work = tmp_path / "homes" / USER, tmp_path / "work"
    (home / "customers").mkdir(parents=True)
    for name in ("temporary", "r"):
        (work / name).mkdir(parents=True)
    write_texts(home / "customers" / "mails.csv")
    write_checkpoint(home / "models" / "tiny", "bert")
    # The name of a function that does not exist stands in the error of the cell, in the midst of what must not.
    broken = write_checkpoint(home / "models" / "broken", "bert")
    config = json.loads((broken / "config.json").read_text())
    environment = " ".join(f"{name}={value}" for name, value in SECRETS.items())
    config["hidden_act"] = f"{home}/activations {USER} {environment}"
    (broken / "config.json").write_text(json.dumps(config))
    return home, work


@pytest.fixture
def harness(planted):
    """Run a command as the planted user; what it prints is added to a file."""
    home, work = planted
    environment = os.environ | SECRETS | {
        "HOME": str(home), "USER": USER, "LOGNAME": USER, "TMPDIR": str(work / "temporary"), "COLUMNS": "200",
        "HARNESS_CACHE": str(work / "cache"), "XDG_STATE_HOME": str(work / "state"), "PYTHONPATH": str(Path.cwd()),
    }  # fmt: skip

    def run(*arguments: object, status: int = 0) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "harness", *map(str, arguments)], cwd=work, env=environment, capture_output=True,
            text=True, check=False, timeout=300,
        )  # fmt: skip
        with (work / "screen.txt").open("a") as screen:
            screen.write(done.stdout + done.stderr)
        assert done.returncode == status, done.stdout + done.stderr

    return run


@pytest.fixture
def other_home():
    """A home of another user, whose folder has the name of the canary."""
    home = Path("/home") / f"{USER}-of-a-test"
    try:
        home.mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"no home can be made: {error}")
    yield home
    shutil.rmtree(home)


def write_study(work: Path, model: str, source: str, training: str = "max_steps = 8\nkeep_model = true") -> Path:
    path = work / "study.toml"
    path.write_text(
        f"# {SECRETS['HF_TOKEN']}\n"
        f'[model]\nname = "{model}"\n[data]\nsource = "{source}"\nstore_texts = false\n'
        f"num_train = 200\nnum_val = 64\nnum_test = 64\n[training]\n{training}\n[matrix]\nseq_len = [24]\nthreads = [1]\n"
    )
    return path


def canaries_in(work: Path) -> list[str]:
    """Return where a canary stands: in a file's path or content, in a packed archive's members, or on the screen."""
    canaries = (USER, "kanarie")
    found = []
    for path in work.rglob("*"):
        contents = {str(path.relative_to(work)): path.read_bytes() if path.is_file() else b""}
        if path.name.endswith(".tar.gz"):
            with tarfile.open(path) as archive:
                contents |= {member.name: archive.extractfile(member).read() for member in archive}
        for name, content in contents.items():
            text = name + content.decode(errors="replace")
            found += [f"{name}: {canary}" for canary in canaries if canary in text.lower() and name != "study.toml"]
    return found


def test_no_canary_is_written_or_printed(planted, harness):
    home, work = planted
    study = write_study(work, f"{home}/models/tiny", f"{home}/customers/mails.csv")
    harness("run", study, "--results", "r")
    (model,) = work.glob("r/models/*/*")
    assert "mails.csv" in (model / "README.md").read_text()
    harness("predict", model, f"{home}/customers/mails.csv", "-o", "predicted.csv")
    harness("train", study, "--results", "r", "--set", "training.max_steps=200", "--max-rows", 64, status=75)
    assert list(work.glob("r/checkpoints/**/update-*"))
    # A cell whose error tells everything that must not be told.
    harness("run", write_study(work, f"{home}/models/broken", "~/customers/mails.csv"), "--results", "r", status=1)
    harness("plan", study, "--results", "r")
    harness("report", "r", "--out", "report")
    harness("recommend", "r")
    harness("export", "--results", "r", "-o", "exported.json")
    harness("pack", "r", "--all", "--out", "all.tar.gz")
    for record in (work / "r").rglob("2*.json"):
        harness("show", record)
    records = load_records([work / "r"]).records
    assert {record.outcome for record in records} >= {"ok", "interrupted", "crashed"}
    crashed = next(record for record in records if record.outcome == "crashed")
    assert "activations" in f"{crashed.reason}{crashed.stderr_tail}"  # what surrounds the canaries is there
    assert canaries_in(work) == []


def test_the_home_of_another_user_is_neither_in_records_nor_in_checkpoints(planted, harness, other_home):
    home, work = planted
    write_texts(other_home / "mails.csv")
    shutil.copytree(home / "models" / "tiny", other_home / "tiny")
    study = write_study(work, f"{other_home}/tiny", f"{other_home}/mails.csv")
    harness("run", study, "--results", "r")
    harness("train", study, "--results", "r", "--set", "training.max_steps=200", "--max-rows", 64, status=75)
    harness("report", "r", "--out", "report")
    harness("pack", "r", "--all", "--out", "all.tar.gz")
    assert canaries_in(work) == []
