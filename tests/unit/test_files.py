"""Atomic writes on file systems that are full, and what killed writers leave."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from harness.files import atomic_write_text, naming, remove_partial_files
from tests.small_disk import fill, small_disk

# Writes its partial file, says so, and waits to be killed.
WAITING_WRITER = """
import sys
from pathlib import Path
import harness.files
harness.files._write_all = lambda *_: (print("writing", flush=True), sys.stdin.read())
harness.files.atomic_write_text(Path(sys.argv[1]), "new")
"""


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_full_disk_keeps_the_old_content_and_leaves_no_partial_file(tmp_path):
    with small_disk(tmp_path / "disk", "size=64k") as disk:
        atomic_write_text(disk / "a.json", "old")
        fill(disk)
        with pytest.raises(OSError, match="No space left") as failed:
            atomic_write_text(disk / "a.json", "new" * 9999)
        assert failed.value.errno == errno.ENOSPC
        assert failed.value.filename == str(disk / "a.json")  # was None: a write has a descriptor only
        # Was ["a.json", ".a.json.x7d0q1kf", "filler"]: closing the file raised once more, before its removal.
        assert names_in(disk) == ["a.json", "filler"]
        assert (disk / "a.json").read_text() == "old"


def test_a_failed_rename_names_the_file_and_not_its_partial_one(tmp_path):
    (tmp_path / "folder" / "entry").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError) as failed, naming(tmp_path / "a.json"):
        (tmp_path / "pipe").replace(tmp_path / "folder")
    assert (failed.value.filename, failed.value.filename2) == (str(tmp_path / "a.json"), None)


def test_no_inodes_leave_no_partial_file(tmp_path):
    with small_disk(tmp_path / "disk", "nr_inodes=3") as disk:
        (disk / "a").touch()
        (disk / "b").touch()
        with pytest.raises(OSError, match="No space left"):
            atomic_write_text(disk / "c", "new")
        assert names_in(disk) == ["a", "b"]


def test_the_partial_file_of_a_killed_writer_is_removed_and_that_of_a_live_one_stays(tmp_path):
    writer = subprocess.Popen(
        [sys.executable, "-c", WAITING_WRITER, tmp_path / "a.json"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with writer:
        assert writer.stdout.readline() == "writing\n"
        (partial,) = tmp_path.iterdir()
        assert remove_partial_files(tmp_path) == 0 and partial.exists()
        writer.kill()
        writer.wait()
    assert partial.exists()  # was left for ever
    (tmp_path / "mine.partial").touch()  # not of this harness
    assert remove_partial_files(tmp_path) == 1
    assert names_in(tmp_path) == ["mine.partial"]


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True)
    atomic_write_text(pipe, "text")
    assert reader.communicate(timeout=30)[0] == "text"
    assert pipe.is_fifo()  # was replaced by a plain file
