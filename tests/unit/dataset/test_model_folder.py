from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from harness.dataset.model_folder import check_model_folder, hash_weights, weight_files
from harness.errors import UserError
from harness.files import sha256_file

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 440449768\n"


def safetensors(num_bytes: int = 8) -> bytes:
    header = json.dumps(
        {"__metadata__": {}, "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, num_bytes]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(num_bytes)


def write(folder: Path, **files: bytes) -> Path:
    for name, data in {"config.json": b'{"model_type": "bert"}', **files}.items():
        (folder / name).write_bytes(data)
    return folder


def check(folder: Path, *, weights: bool = True) -> str:
    """Return the message without its prefix; empty if the folder is good."""
    try:
        check_model_folder(folder, "model 'x'", weights=weights, cure="copy it again")
    except UserError as error:
        return str(error).removeprefix("model 'x': ")
    return ""


def test_a_good_folder_passes(tmp_path):
    write(tmp_path, **{"model.safetensors": safetensors(), "tokenizer_config.json": b"{}"})
    assert check(tmp_path) == ""
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"]
    assert hash_weights(tmp_path) == sha256_file(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        # It was `SafetensorError: Error while deserializing header: HeaderTooLarge`, after the cell had begun.
        (POINTER, "model.safetensors is a pointer of Git LFS, not the weights: `git lfs install`, then `git lfs pull`"),
        (safetensors()[:-1], "model.safetensors is damaged: 96 bytes of 97: copy it again"),
        (safetensors() + b"more", "model.safetensors is damaged: 101 bytes of 97: copy it again"),
        (safetensors()[:20], "model.safetensors is damaged: 20 bytes of 89: copy it again"),
        (b"", "model.safetensors is damaged: 0 bytes of 8: copy it again"),
        (struct.pack("<Q", 99_999) + b"[" * 99_999, "model.safetensors is not a safetensors file: copy it again"),
        (b"<!DOCTYPE html><html></html>", "model.safetensors is not a safetensors file: copy it again"),
        (struct.pack("<Q", 2) + b"[]", "model.safetensors is not a safetensors file: copy it again"),
    ],
    ids=["pointer", "truncated", "too long", "truncated header", "empty", "nested", "a web page", "a list"],
)
def test_weights_that_are_not_whole_are_told_before_a_cell_begins(tmp_path, data, message):
    folder = write(tmp_path, **{"model.safetensors": data})
    assert check(folder) == message
    assert check(folder, weights=False) == ""


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": b"{"}, "config.json is damaged (JSONDecodeError): copy it again"),
        ({"config.json": b"[" * 99_999}, "config.json is damaged (RecursionError): copy it again"),
        ({"config.json": b"[]"}, "config.json is damaged (no object): copy it again"),
        ({"config.json": b'{"model_type": null}'}, 'config.json names no model_type: add it (for BERT, "model_type": "bert")'),
        ({"config.json": b'{"auto_map": {"AutoModel": "m.M"}, "model_type": "bert"}'}, "it needs code of its own (auto_map in"),
        ({"tokenizer_config.json": b'{"auto_map": {"AutoTokenizer": ["t.T", null]}}'}, "it needs code of its own (auto_map in"),
        ({"pytorch_model.bin": b"x"}, "no model.safetensors but pytorch_model.bin, which can run code when it is read"),
        ({"model.safetensors.index.json": b"{}"}, "model.safetensors.index.json has no weight_map: get it again"),
    ],
)  # fmt: skip
def test_other_faults_are_one_line_each(tmp_path, files, message):
    found = check(write(tmp_path, **files)).removeprefix(f"{tmp_path.name} has ")
    assert found.startswith(message)


def test_shards_are_those_that_the_index_names(tmp_path):
    index = {"weight_map": {"a": "model-00002-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"}}
    write(tmp_path, **{"model.safetensors.index.json": json.dumps(index).encode()})
    write(tmp_path, **{"model-00001-of-00002.safetensors": safetensors()})
    assert check(tmp_path) == "1 of 2 shards are missing, the first is model-00002-of-00002.safetensors: get them again"
    write(tmp_path, **{"model-00002-of-00002.safetensors": safetensors(16)})
    assert check(tmp_path) == ""
    assert [path.name[:11] for path in weight_files(tmp_path)] == ["model-00001", "model-00002"]


def test_an_index_leads_to_no_other_folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "other.safetensors").write_bytes(safetensors())
    index = json.dumps({"weight_map": {"a": "../other.safetensors"}}).encode()
    folder = write(tmp_path / "model", **{"model.safetensors.index.json": index})
    assert check(folder) == "1 of 1 shards are missing, the first is ../other.safetensors: get them again"
