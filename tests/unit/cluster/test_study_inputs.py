"""The files that a study names are packed, and a node that has only the copies reads the same."""

from __future__ import annotations

import pytest

from harness import files
from harness.cluster.study_inputs import describe_hub_inputs, pack_inputs, unpack_input
from harness.dataset.file_formats import find_files
from harness.errors import UserError
from harness.files import expand_user, read_from_copies
from harness.schema.expansion import expand
from harness.schema.study_file import parse_study


@pytest.fixture(autouse=True)
def no_copies(monkeypatch):
    monkeypatch.setattr(files, "_copies", {})


def cells_with(source, model="hub-owner/hub-model"):
    study = {"name": "s", "baselines": False, "model": {"name": str(model)}, "data": {"source": str(source)}}
    return expand(parse_study(study, "test"))


def move(inputs, folder):
    read_from_copies(
        {
            each.name: unpack_input(each.name, each.inside, each.archive, folder / str(index))
            for index, each in enumerate(inputs)
        }
    )


@pytest.mark.parametrize("name", ["data/a.csv", "data", "data/*.csv", "data/a [1].csv"])
def test_a_file_a_folder_and_a_glob_are_the_same_on_a_node(name, tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "data").mkdir(parents=True)
    for file in ("a.csv", "b.csv", "a [1].csv"):
        (here / "data" / file).write_text(f"text,label\n{file},x\n")
    monkeypatch.chdir(here)
    cells = cells_with(name)
    before = {file.path.name: file.path.read_bytes() for file in find_files(name, "w")}
    inputs = pack_inputs(cells)
    there.mkdir()
    monkeypatch.chdir(there)
    move(inputs, there)
    after = find_files(name, "w")
    assert {file.path.name: file.path.read_bytes() for file in after} == before
    assert all(file.path.is_relative_to(there) for file in after)


def test_each_input_is_packed_once_and_the_hubs_are_not(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nx,y\n")
    cells = cells_with(tmp_path / "a.csv") * 3
    inputs = pack_inputs(cells)
    assert len(inputs) == 1
    assert describe_hub_inputs(cells, inputs) == ["hub-owner/hub-model"]


def test_a_missing_file_is_said_before_anything_is_sent(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        pack_inputs(cells_with(tmp_path / "none.csv"))


def test_without_copies_names_stay_as_they_are(tmp_path):
    assert expand_user("data/a.csv").as_posix() == "data/a.csv"
    read_from_copies({"data/a.csv": tmp_path})
    assert expand_user("data/a.csv") == tmp_path
