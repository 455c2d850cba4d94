"""Temporary folders of killed commands are removed, those of running ones stay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.machine.private_folders import private_folder, remove_abandoned_folders, user_root

OWNER = """
import sys
from harness.machine.private_folders import private_folder
with private_folder("data") as folder:
    (folder / "texts.json").write_text("my secret text")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def test_a_folder_is_private_and_gone_at_the_end(temporary):
    with private_folder("data") as folder:
        assert folder.parent == user_root() and folder.parent.parent == temporary
        assert [path.stat().st_mode & 0o777 for path in (folder, folder.parent)] == [0o700, 0o700]
        assert remove_abandoned_folders() == 0 and folder.is_dir()
    assert list(user_root().iterdir()) == []


def test_the_texts_of_a_killed_command_are_removed_by_the_next_one(temporary):
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with owner:
        texts = Path(owner.stdout.readline().strip()) / "texts.json"
        assert remove_abandoned_folders() == 0 and texts.is_file()
        owner.kill()
        owner.wait()
    assert texts.is_file()  # stayed until the machine was started anew
    assert remove_abandoned_folders() == 1
    assert list(user_root().iterdir()) == []


def test_a_link_or_file_of_that_name_is_refused(temporary):
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (temporary / f"harness-{os.getuid()}").symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="not a folder of this user"), private_folder("data"):
        pass
    assert list(elsewhere.iterdir()) == []
