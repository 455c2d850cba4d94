"""Records are written to results/ and read back."""

from __future__ import annotations

import json
import shutil

import pytest

from harness.errors import UserError
from harness.schema.record import SCHEMA_VERSION, to_json
from harness.store.record_files import find_newest_records, load_record, load_records, own_records, save_record
from tests.unit.frozen import RECORDS


def test_a_record_is_saved_where_the_layout_says_and_read_back(ok_record, tmp_path):
    path = save_record(ok_record, tmp_path)
    assert path.parent == tmp_path / ok_record.machine.id / ok_record.study / ok_record.cell
    assert path.name.startswith(f"{ok_record.started_at:%Y%m%dT%H%M%SZ}-")
    assert load_record(path) == ok_record
    assert own_records(tmp_path, ok_record.machine).records == (ok_record,)
    assert [file.name for file in tmp_path.rglob("*.*")] == [path.name]  # no partial file is left


def test_a_name_that_exists_is_never_overwritten(ok_record, tmp_path, monkeypatch):
    tokens = iter(["aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr("secrets.token_hex", lambda _: next(tokens))
    first = save_record(ok_record, tmp_path)
    second = save_record(ok_record.model_copy(update={"duration_s": 1.0}), tmp_path)
    assert (first.stem[-4:], second.stem[-4:]) == ("aaaa", "bbbb")
    assert load_record(first) == ok_record
    assert len(list(first.parent.iterdir())) == 2


def test_a_write_that_fails_leaves_no_record(ok_record, tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("harness.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_record(ok_record, tmp_path)
    assert load_records([tmp_path]).records == ()
    assert load_records([tmp_path]).unreadable == ()


def test_a_half_written_partial_is_ignored_and_a_broken_record_is_named(ok_record, tmp_path):
    path = save_record(ok_record, tmp_path)
    path.with_name("half.partial").write_text(to_json(ok_record)[:500])
    path.with_name("torn.json").write_text(to_json(ok_record)[:500])
    path.with_name("list.json").write_text("[]")
    path.with_name("binary.json").write_bytes(b"\xff\xfe\x00")
    fields = json.loads(to_json(ok_record))
    path.with_name("field.json").write_text(json.dumps(fields | {"outcome": "fine"}))
    loaded = load_records([tmp_path])
    assert loaded.records == (ok_record,)
    assert sorted(problem.partition(".json")[0].rpartition("/")[2] for problem in loaded.unreadable) == [
        "binary",
        "field",
        "list",
        "torn",
    ]
    assert "outcome" in next(problem for problem in loaded.unreadable if "field.json" in problem)


def test_a_newer_schema_is_refused_with_what_to_install(ok_record, tmp_path):
    path = tmp_path / "new.json"
    path.write_text(
        json.dumps(json.loads(to_json(ok_record)) | {"schema_version": SCHEMA_VERSION + 1, "harness_version": "9.1"})
    )
    with pytest.raises(UserError, match=rf"schema_version {SCHEMA_VERSION + 1}.*install harness 9\.1 or newer"):
        load_record(path)


def test_records_come_oldest_first_and_once(ok_record, tmp_path):
    later = ok_record.model_copy(update={"started_at": ok_record.started_at.replace(year=2099)})
    paths = [save_record(record, tmp_path) for record in (later, ok_record)]
    assert load_records([tmp_path, *paths]).records == (ok_record, later)
    with pytest.raises(UserError, match="no such record"):
        load_records([tmp_path / "none"])


def test_reference_report_and_peers_are_not_records_of_this_machine(ok_record, tmp_path):
    for place in ("reference", "report", "peers"):
        save_record(ok_record, tmp_path / place)
    assert load_records([tmp_path]).records == ()
    assert own_records(tmp_path, ok_record.machine).records == ()
    assert load_records([tmp_path / "reference"]).records == (ok_record,)  # when it is named


@pytest.mark.parametrize("name", ["reference", "report", "peers"])
def test_a_study_may_have_such_a_name(ok_record, tmp_path, name):
    save_record(ok_record.model_copy(update={"study": name}), tmp_path)
    assert len(own_records(tmp_path, ok_record.machine).records) == 1


def test_a_cell_is_found_by_its_name_or_a_part_of_its_folder(ok_record, tmp_path):
    older = save_record(ok_record, tmp_path)
    newer = save_record(ok_record.model_copy(update={"started_at": ok_record.started_at.replace(year=2099)}), tmp_path)
    assert older.parent == newer.parent
    assert find_newest_records("ddp2", tmp_path) == [newer]
    other = save_record(ok_record.model_copy(update={"cell": ok_record.cell + "-lr=1"}), tmp_path)
    assert find_newest_records(ok_record.cell, tmp_path) == [newer]  # whole names first
    assert find_newest_records("ddp2", tmp_path) == [newer, other]
    elsewhere = save_record(ok_record.model_copy(update={"study": "elsewhere"}), tmp_path)
    assert set(find_newest_records(ok_record.cell, tmp_path)) == {newer, elsewhere}
    assert find_newest_records(f"elsewhere/{ok_record.cell}", tmp_path) == [elsewhere]
    with pytest.raises(UserError, match="no such cell"):
        find_newest_records("tpu", tmp_path)


def test_any_cell_name_becomes_one_folder(ok_record, tmp_path):
    path = save_record(ok_record.model_copy(update={"cell": "../../up:a b"}), tmp_path)
    assert path.resolve().is_relative_to(tmp_path / ok_record.machine.id / ok_record.study)


def test_the_frozen_records_are_readable_as_a_folder(tmp_path):
    shutil.copytree(RECORDS / "v1", tmp_path / "v1")
    loaded = load_records([tmp_path])
    assert loaded.unreadable == ()
    assert len(loaded.records) == len(list((RECORDS / "v1").glob("*.json")))
