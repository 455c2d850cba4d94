"""Records to results/ and back, and which cells are done."""

from __future__ import annotations

import json
import shutil

import pytest

from harness.errors import UserError
from harness.execution import completed
from harness.execution.completed import find_done
from harness.schema.cells import Cell
from harness.schema.record import MEASURING_VERSION, SCHEMA_VERSION, to_json
from harness.store import record_files as store
from harness.store.record_files import find_record, load_record, load_records, own_records, save_record
from tests.unit.frozen import RECORDS


@pytest.fixture
def cell(ok_record):
    return Cell(study=ok_record.study, name=ok_record.cell, repeat=ok_record.repeat, config=ok_record.config)


@pytest.fixture(autouse=True)
def same_versions(monkeypatch, ok_record):
    """The fixture's torch and transformers, whatever is installed where this runs."""
    monkeypatch.setattr(completed, "package_version", lambda name: ok_record.packages.get(name, "not installed"))


def fresh(record, **changes):
    return record.model_copy(update={"measuring_version": MEASURING_VERSION} | changes)


def test_a_saved_record_is_found_again_where_the_layout_says(ok_record, tmp_path):
    path = save_record(ok_record, tmp_path)
    assert path.parent == tmp_path / ok_record.machine.id / ok_record.study / ok_record.cell
    assert path.name.startswith(f"{ok_record.started_at:%Y%m%dT%H%M%SZ}-")
    assert load_record(path) == ok_record
    assert own_records(tmp_path, ok_record.machine).records == (ok_record,)
    assert [file.name for file in tmp_path.rglob("*.*")] == [path.name]  # no partial file is left


def test_nothing_is_overwritten_even_if_names_collide(ok_record, tmp_path, monkeypatch):
    tokens = iter(["aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr(store.secrets, "token_hex", lambda _: next(tokens))
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
    found = load_records([tmp_path])
    assert found.records == (ok_record,)
    assert sorted(problem.partition(".json")[0].rpartition("/")[2] for problem in found.unreadable) == [
        "binary",
        "field",
        "list",
        "torn",
    ]
    assert "outcome" in next(problem for problem in found.unreadable if "field.json" in problem)


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


def test_reference_report_and_peers_are_not_this_machines_records(ok_record, cell, tmp_path):
    for place in ("reference", "report", "peers"):
        save_record(ok_record, tmp_path / place)
    assert load_records([tmp_path]).records == ()
    assert own_records(tmp_path, ok_record.machine).records == ()
    assert load_records([tmp_path / "reference"]).records == (ok_record,)  # when it is named


@pytest.mark.parametrize("name", ["reference", "report", "peers"])
def test_a_study_may_be_named_as_those(ok_record, tmp_path, name):
    save_record(ok_record.model_copy(update={"study": name}), tmp_path)
    assert len(own_records(tmp_path, ok_record.machine).records) == 1


def test_done_when_machine_host_versions_and_measuring_code_are_the_same(ok_record, cell):
    assert find_done(cell, [], ok_record.machine) == ("to do", None)
    record = fresh(ok_record)
    assert find_done(cell, [record], ok_record.machine) == ("done", record)


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_another_version_of_what_measures_makes_it_stale(ok_record, cell, monkeypatch, package):
    def version(name):
        return "0.0.1" if name == package else ok_record.packages[name]

    monkeypatch.setattr(completed, "package_version", version)
    assert find_done(cell, [fresh(ok_record)], ok_record.machine)[0] == "stale"


@pytest.mark.parametrize("field", ["host", "id"])
def test_another_machine_makes_it_stale(ok_record, cell, field):
    other = ok_record.machine.model_copy(update={field: "another"})
    assert find_done(cell, [fresh(ok_record)], other)[0] == "stale"


def test_another_measuring_code_makes_it_stale(ok_record, cell):
    assert find_done(cell, [fresh(ok_record, measuring_version=MEASURING_VERSION - 1)], ok_record.machine)[0] == "stale"


def test_a_fresh_record_outweighs_stale_ones_before_and_after_it(ok_record, cell):
    done = fresh(ok_record)
    stale = fresh(ok_record, measuring_version=MEASURING_VERSION - 1)
    assert find_done(cell, [stale, done, stale], ok_record.machine) == ("done", done)


@pytest.mark.parametrize("outcome", ["crashed", "interrupted", "skipped", "preempted"])
def test_what_did_not_finish_is_to_do(ok_record, cell, outcome):
    assert find_done(cell, [fresh(ok_record, outcome=outcome)], ok_record.machine) == ("to do", None)


@pytest.mark.parametrize("outcome", ["oom", "diverged", "unsupported", "timeout"])
def test_what_would_end_so_again_is_done(ok_record, cell, outcome):
    assert find_done(cell, [fresh(ok_record, outcome=outcome)], ok_record.machine)[0] == "done"


@pytest.mark.parametrize(("factor", "state"), [(0.5, "done"), (1, "done"), (2, "to do")])
def test_a_timeout_is_tried_again_once_it_is_raised(ok_record, cell, factor, state):
    limits = cell.config.limits
    config = cell.config.model_copy(
        update={"limits": limits.model_copy(update={"timeout_s": limits.timeout_s * factor})}
    )
    other = cell.model_copy(update={"config": config})
    assert other.config_hash == cell.config_hash
    assert find_done(other, [fresh(ok_record, outcome="timeout")], ok_record.machine)[0] == state


def test_another_configuration_or_repeat_is_not_done(ok_record, cell):
    record = fresh(ok_record)
    assert find_done(cell.model_copy(update={"repeat": 1}), [record], ok_record.machine)[0] == "to do"
    other = cell.model_copy(update={"config": cell.config.model_copy(update={"batch_size": 99})})
    assert find_done(other, [record], ok_record.machine)[0] == "to do"
    assert (
        find_done(cell.model_copy(update={"study": "another", "name": "x"}), [record], ok_record.machine)[0] == "done"
    )


def test_a_cell_is_found_by_a_part_of_its_name_that_no_other_has(ok_record, tmp_path):
    older = save_record(ok_record, tmp_path)
    newer = save_record(ok_record.model_copy(update={"started_at": ok_record.started_at.replace(year=2099)}), tmp_path)
    assert older.parent == newer.parent
    assert find_record("ddp2", tmp_path) == newer
    save_record(ok_record.model_copy(update={"cell": ok_record.cell + "-lr=1"}), tmp_path)
    assert find_record(ok_record.cell, tmp_path) == newer  # whole names first
    with pytest.raises(UserError, match="2 cells have this in their name"):
        find_record("ddp2", tmp_path)
    with pytest.raises(UserError, match="no such cell"):
        find_record("tpu", tmp_path)


def test_a_cells_name_is_a_folder_whatever_it_holds(ok_record, tmp_path):
    path = save_record(ok_record.model_copy(update={"cell": "../../up:a b"}), tmp_path)
    assert path.resolve().is_relative_to(tmp_path / ok_record.machine.id / ok_record.study)


def test_the_frozen_records_are_readable_as_a_folder(tmp_path):
    shutil.copytree(RECORDS / "v1", tmp_path / "v1")
    found = load_records([tmp_path])
    assert found.unreadable == ()
    assert len(found.records) == len(list((RECORDS / "v1").glob("*.json")))
