"""The guide's recipe for many machines: pack records on each, and make one report of the archives, without torch."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

from harness.machine.describe import describe_machine
from harness.store.record_files import load_records, save_record
from tests.make_records import make_machine, make_record

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def harness(*args, cwd, status=0):
    command = [sys.executable, str(HERE / "without_torch.py"), *map(str, args)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/bin:/usr/bin"},
    )
    assert done.returncode == status, done.stderr
    return done


def fill(results, machine, step_s):
    """Save two cells of a study, and one that ran out of memory."""
    for seq_len in (32, 64):
        seconds = [step_s * (1 + 0.01 * (step % 3)) for step in range(40)]
        save_record(
            make_record(
                machine=machine, axes={"seq_len": seq_len}, training={"seconds": seconds},
                phases={"train_s": sum(seconds)}, stated={"instance": "m7i.2xlarge", "region": "us-east-1"}
                if step_s > 0.9 else {"instance": "c7i.4xlarge", "region": "us-east-1"},
            ),
            results,
        )  # fmt: skip
    save_record(make_record(machine=machine, outcome="oom", reason="killed", axes={"batch_size": 512}), results)


def test_archives_give_the_same_report_as_their_folders(tmp_path):
    one, two, home = (tmp_path / name for name in ("one", "two", "home"))
    for folder in (one, two, home):
        folder.mkdir()
    # The first folder is this computer's, which packs its own records; the second is packed with --all.
    fill(one / "results", describe_machine(), 1.0)
    fill(one / "results", make_machine(machine_id="not-mine"), 3.0)
    fill(two / "results", make_machine(machine_id="xeon-4c-16g-00000b", host="host-b"), 0.5)
    assert "3 records" in harness("pack", cwd=one).stdout
    (packed,) = one.glob("records-*.tar.gz")
    assert packed.name == f"records-{describe_machine().id}.tar.gz"
    packed.rename(home / "one.tar.gz")
    assert "3 records" in harness("pack", "--all", "--out", home / "two.tar.gz", cwd=two).stdout
    before = sorted(path.name for path in home.iterdir())

    harness("report", "one.tar.gz", "two.tar.gz", "--out", "of-archives", cwd=home)
    folders = [one / "results" / describe_machine().id, two / "results"]
    harness("report", *folders, "--out", "of-folders", cwd=home)
    assert sorted(path.name for path in home.iterdir()) == sorted([*before, "of-archives", "of-folders"])
    tables = [(home / name / "cells.csv").read_text(encoding="utf-8") for name in ("of-archives", "of-folders")]
    assert tables[0] == tables[1]
    rows = list(csv.DictReader(tables[0].splitlines()))
    assert {row["instance"] for row in rows} == {"m7i.2xlarge", "c7i.4xlarge"}
    assert len(rows) == 6 and sum(row["outcome"] == "oom" for row in rows) == 2
    page = (home / "of-archives" / "report.html").read_text(encoding="utf-8")
    assert "c7i.4xlarge trains fastest" in page

    chosen = harness("recommend", "one.tar.gz", "two.tar.gz", "--deadline", "1h", "--target-accuracy", "0.78", cwd=home)
    assert "So far the choice is" in chosen.stdout and "m7i.2xlarge" in chosen.stdout
    harness("recommend", "one.tar.gz", "--target-accuracy", "0.99", cwd=home, status=1)
    assert "cannot tell" in harness("compare", "one.tar.gz", "two.tar.gz", cwd=home).stdout
    assert "error: " in harness("recommend", "one.tar.gz", "--deadline", "soon", cwd=home, status=2).stderr


def test_the_guide_describes_this_recipe():
    lines = (ROOT / "docs" / "GUIDE.md").read_text(encoding="utf-8").splitlines()
    first = lines.index("## Many machines, one report") + 3
    commands = [line.partition("#")[0].strip() for line in lines[first : first + 5]]
    assert commands[1:3] == ["make bench INSTANCE=g5.xlarge", "make pack"]
    assert commands[4] == "harness report records-*.tar.gz"
    assert "harness pack" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_strict_refuses_different_versions_and_a_bad_archive_is_a_user_error(tmp_path):
    for name, version in (("one", "2.12.0+cpu"), ("two", "2.13.0+cpu")):
        save_record(make_record(machine=make_machine(machine_id=name), packages={"torch": version}), tmp_path / name)
        harness("pack", name, "--all", "--out", f"{name}.tar.gz", cwd=tmp_path)
    both = ("one.tar.gz", "two.tar.gz")
    assert "torch: 2.12.0 on one; 2.13.0 on two" in harness("report", *both, "--out", "r", cwd=tmp_path).stderr
    refused = harness("report", *both, "--strict", "--out", "s", cwd=tmp_path, status=2)
    assert "torch: 2.12.0 on one; 2.13.0 on two" in refused.stderr
    (tmp_path / "bad.tar.gz").write_bytes(b"no archive")
    bad = harness("report", "bad.tar.gz", "--out", "t", cwd=tmp_path, status=2)
    assert "bad.tar.gz: not a readable .tar.gz archive" in bad.stderr and "Traceback" not in bad.stderr
    assert len(load_records([tmp_path / "one"]).records) == 1


def test_a_shortlist_needs_no_torch(tmp_path):
    found = json.loads(harness("shortlist", ROOT / "bench" / "gpu.toml", "--json", cwd=tmp_path).stdout)
    assert len(found["rows"]) > 80
    assert len(found["measure_first"]) == 3
    # Without tokenizers the rows' lengths can't be counted, and the shortlist says so.
    padded = json.loads(harness("shortlist", ROOT / "bench" / "default.toml", "--json", cwd=tmp_path).stdout)
    assert padded["batches"].startswith("every row counts as padded to seq_len")
