"""Checkpoints are complete or absent, the last two are kept, and damaged or foreign ones are refused with the reason."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from harness.errors import UserError
from harness.schema.training_record import Checkpoint, Segment
from harness.store.checkpoint_files import (
    FORMAT_VERSION,
    IncompatibleCheckpoint,
    Manifest,
    TrainingIdentity,
    begin,
    commit,
    delete_all,
    digest_file,
    earlier_segments,
    find_newest,
    list_checkpoints,
    verify,
    write_save_time,
    writing_folder,
)

IDENTITY = TrainingIdentity(
    config={"seed": 0, "training": {"lr": 1e-4}},
    config_hash="0123456789ab",
    repeat=0,
    world_size=1,
    model_sha256="m",
    tokenizer_sha256="t",
    splits={"train": "a", "val": "b", "test": "c"},
)
BEGAN = datetime(2026, 10, 1, 8, tzinfo=UTC)


def manifest_of(num_updates, files, identity=IDENTITY):
    segment = Segment(
        first_update=0, num_updates=num_updates, started_at=BEGAN, machine="m", host=None, torch_build="2",
        start_s=0.1, load_s=0.2, restore_s=None,
        checkpoints=(Checkpoint(num_updates=num_updates, seconds=None, num_bytes=7),),
    )  # fmt: skip
    return Manifest(
        format_version=FORMAT_VERSION, harness_version="0", versions={}, written_at=BEGAN, identity=identity,
        num_updates=num_updates, num_updates_planned=100, segments=(segment,), files=files,
    )  # fmt: skip


def write(folder, num_updates, identity=IDENTITY):
    writing = begin(folder, num_updates)
    (writing / "model.safetensors").write_bytes(b"weights of %d" % num_updates)
    files = {"model.safetensors": digest_file(writing / "model.safetensors")}
    return commit(folder, manifest_of(num_updates, files, identity))


def test_the_last_two_are_kept_and_the_newest_is_found(tmp_path):
    assert find_newest(tmp_path / "none", IDENTITY).path is None
    for num_updates in (5, 40, 300):
        write(tmp_path, num_updates)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["update-00000040", "update-00000300"]
    found = find_newest(tmp_path, IDENTITY)
    assert (found.path, found.manifest.num_updates, found.refused) == (tmp_path / "update-00000300", 300, ())
    delete_all(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_incomplete_checkpoint_of_a_killed_process_is_ignored_and_deleted(tmp_path):
    write(tmp_path, 5)
    half = begin(tmp_path, 6)
    (half / "model.safetensors").write_bytes(b"half")
    assert find_newest(tmp_path, IDENTITY).manifest.num_updates == 5
    begin(tmp_path, 7)
    assert not half.exists() and writing_folder(tmp_path, 7).is_dir()


def corrupt(path):
    (path / "model.safetensors").write_bytes(b"Weights of 9")


def truncate(path):
    (path / "model.safetensors").write_bytes(b"weights")


def remove_file(path):
    (path / "model.safetensors").unlink()


def remove_manifest(path):
    (path / "manifest.json").unlink()


def truncate_manifest(path):
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text[: len(text) // 2])


def edit(**changes):
    def do(path):
        fields = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps(fields | changes))

    return do


DAMAGES = {
    "changed": (corrupt, "it is damaged: model.safetensors has changed since it was written (sha256)"),
    "truncated": (truncate, "it is damaged: model.safetensors has 7 bytes, 12 were written"),
    "missing file": (remove_file, "it is damaged: model.safetensors is missing"),
    "missing manifest": (remove_manifest, "it is damaged: manifest.json is missing"),
    "truncated manifest": (truncate_manifest, "it is damaged: manifest.json can't be read: "),
    "a newer format": (
        edit(format_version=FORMAT_VERSION + 1, harness_version="9.9"),
        f"its format version is {FORMAT_VERSION + 1}, this harness reads {FORMAT_VERSION}; harness 9.9 wrote it",
    ),
    "no object in the manifest": (
        lambda path: (path / "manifest.json").write_text("[1]"),
        "its format version is None",
    ),
    "wrong type": (edit(num_updates="many"), "it is damaged: manifest.json: num_updates: "),
    "a path outside": (
        edit(files={"../model.safetensors": {"sha256": "", "num_bytes": 0}}),
        "it is damaged: ../model.safetensors is missing",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_refused_with_the_reason_and_the_one_before_it_is_used(name, tmp_path):
    damage, reason = DAMAGES[name]
    before, newest = write(tmp_path, 8), write(tmp_path, 9)
    damage(newest)
    found = find_newest(tmp_path, IDENTITY)
    assert found.path == before
    (refused,) = found.refused
    assert refused.startswith(f"{newest}: {reason}")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"config_hash": "other", "config": {"seed": 0, "training": {"lr": 3e-4}}},
            "training.lr = 0.0001 there, 0.0003 here",
        ),
        ({"config_hash": "other", "config": {"seed": 1, "training": {"lr": 1e-4}}}, "seed = 0 there, 1 here"),
        ({"splits": IDENTITY.splits | {"val": "x"}}, "its data is not the same (val)"),
        ({"world_size": 2}, "world_size = 1 there, 2 here"),
        ({"model_sha256": None}, "model_sha256 = m there, None here"),
        ({"repeat": 1}, "repeat = 0 there, 1 here"),
    ],
)
def test_a_foreign_checkpoint_is_refused_and_not_overwritten(changes, reason, tmp_path):
    path = write(tmp_path, 5)
    with pytest.raises(IncompatibleCheckpoint) as refused:
        verify(path, IDENTITY.model_copy(update=changes))
    assert str(refused.value) == f"it is of another training: {reason}"
    with pytest.raises(UserError, match="training can't resume from any of its checkpoints"):
        find_newest(tmp_path, IDENTITY.model_copy(update=changes))
    assert path.is_dir()


def test_a_refused_checkpoint_is_replaced_at_its_update_and_newer_ones_stay(tmp_path):
    write(tmp_path, 8)
    corrupt(write(tmp_path, 9))
    write(tmp_path, 9)
    assert find_newest(tmp_path, IDENTITY).refused == ()
    corrupt(write(tmp_path, 30))
    write(tmp_path, 20)
    assert [int(path.name[-8:]) for path in list_checkpoints(tmp_path)] == [9, 20, 30]
    assert find_newest(tmp_path, IDENTITY).manifest.num_updates == 20


def test_a_full_disk_leaves_earlier_checkpoints_unchanged(tmp_path, monkeypatch):
    write(tmp_path, 5)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, 6)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["update-00000005"]
    assert find_newest(tmp_path, IDENTITY).manifest.num_updates == 5


def test_the_next_segment_knows_how_long_a_checkpoint_took(tmp_path):
    path = write(tmp_path, 5)
    assert earlier_segments(path)[0].checkpoints[0].seconds is None
    write_save_time(path, 1.25)
    assert earlier_segments(path)[0].checkpoints == (Checkpoint(num_updates=5, seconds=1.25, num_bytes=7),)
    assert verify(path, IDENTITY).num_updates == 5  # it is not among the verified files
