"""Names from studies and records are folder names that every file system has, and that mean nothing else."""

from __future__ import annotations

import json

import pytest

from harness.errors import UserError
from harness.schema.expansion import expand
from harness.schema.study_file import load_study, parse_study
from harness.store.archive import unpack_records
from harness.store.record_files import folder_name, iter_record_files, save_record
from tests.make_archives import record_archive
from tests.make_records import make_machine, make_record

RESERVED = (
    ".lock", "report", "models", "reference", "checkpoints", "peers", "README.md", "Report", "calibration.json",
    "con", "NUL.txt", "com1", "name.", "name...", ".", "..", "", ".hidden",
)  # fmt: skip


@pytest.mark.parametrize("name", RESERVED)
def test_a_reserved_name_becomes_another_folder(name, tmp_path):
    """Records of a machine called `report` were hidden; one called `.lock` stood in place of the lock."""
    assert folder_name(name).casefold() != name.casefold()
    assert not folder_name(name).startswith(".") and not folder_name(name).endswith(".")
    for record in (
        make_record(machine=make_machine(machine_id=name)), make_record(study=name), make_record(cell=name or "_"),
    ):  # fmt: skip
        path = save_record(record, tmp_path)
        assert path in list(iter_record_files(tmp_path))


@pytest.mark.parametrize("name", ["b16-s64-fp32-cpu-longest-all", "a" * 200, "xeon-2c-8g-000002", "lr=0.0001"])
def test_other_names_stay(name):
    assert folder_name(name) == name


def test_a_long_name_is_cut_and_told_apart_by_its_hash(tmp_path):
    """Five keys swept with long values made a name of over 255 bytes: the cell was trained and could not be saved."""
    one, two = "n" * 300 + "1", "n" * 300 + "2"
    assert folder_name(one) != folder_name(two)
    assert len(folder_name(one)) < 200 and folder_name(one).startswith("n" * 180)
    for cell in (one, two):
        save_record(make_record(cell=cell, study=cell, machine=make_machine(machine_id=cell)), tmp_path)
    assert len(list(iter_record_files(tmp_path))) == 2


def test_cells_of_long_swept_values_can_be_saved(tmp_path):
    columns = {f"data.{key}": [key + "x" * 60] for key in ("text", "pair", "label", "group_by", "source")}
    columns |= {"data.val_source": ["v" * 60], "data.test_source": ["t" * 60]}
    cells = expand(parse_study({"name": "s", "baselines": False, "matrix": columns}, "test"))
    assert len(cells[0].name) > 255
    assert save_record(make_record(cell=cells[0].name), tmp_path).is_file()


@pytest.mark.parametrize("name", ["report", "Models", "README.md", "nul", "x.", "n" * 201])
def test_a_study_with_such_a_name_is_refused_at_the_door(name):
    with pytest.raises(UserError, match="name: found"):
        parse_study({"name": name}, "test")


def test_a_study_file_with_a_long_name_has_a_short_one(tmp_path):
    path = tmp_path / ("n" * 240 + ".toml")
    path.write_text("")
    assert load_study(path).name == "n" * 200


def test_a_name_that_differs_only_in_case_is_not_imported(tmp_path):
    archive = tmp_path / "a.tar.gz"
    save_record(make_record(study="Mine"), tmp_path / "results")
    content = make_record(study="mine").model_dump(mode="json")
    archive.write_bytes(record_archive(json.dumps(content).encode()))
    (problem,) = unpack_records(archive, tmp_path / "results").refused
    assert "only in case" in problem
