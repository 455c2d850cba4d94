"""A record that can't be saved among the results is kept elsewhere."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from harness.errors import UnsavedRecordError
from harness.store.record_files import load_record, load_records, own_records
from harness.store.unsaved_records import save_or_keep
from tests.small_disk import fill, remount_read_only, small_disk


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path / "state"


def test_a_full_disk_keeps_the_record_elsewhere_and_says_how_to_bring_it_in(ok_record, state, tmp_path):
    with small_disk(tmp_path / "results", "size=64k") as results:
        fill(results)
        with pytest.raises(UnsavedRecordError) as kept:  # was OSError, with the record lost
            save_or_keep(ok_record, results)
        assert kept.value.line is None
        source, target = re.search(r"cp -r (\S+)/\. (\S+)/", str(kept.value)).groups()
        (results / "filler").unlink()
        shutil.copytree(source, target, dirs_exist_ok=True)
        assert own_records(results, ok_record.machine).records == (ok_record,)


@pytest.mark.parametrize("fault", ["read-only", "a file"])
def test_other_faults_of_the_results_folder_keep_the_record_too(ok_record, state, tmp_path, fault):
    with small_disk(tmp_path / "disk", "size=64k") as disk:
        results = disk / "results"
        if fault == "a file":
            results.touch()
        else:
            remount_read_only(disk)
        with pytest.raises(UnsavedRecordError):
            save_or_keep(ok_record, results)
    assert load_records([state]).records == (ok_record,)


def test_where_no_folder_takes_it_the_record_is_one_line(ok_record, state, tmp_path, monkeypatch):
    for name in ("results", "state"):
        (tmp_path / name).touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "results"))  # a file
    with pytest.raises(UnsavedRecordError) as kept:
        save_or_keep(ok_record, tmp_path / "results")
    assert "\n" not in kept.value.line and json.loads(kept.value.line)["cell"] == ok_record.cell
    (tmp_path / "line.json").write_text(kept.value.line)
    assert load_record(tmp_path / "line.json") == ok_record
