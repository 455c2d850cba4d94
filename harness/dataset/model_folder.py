"""Check the files of a model's folder before anything is built from them; no code of a repository is ever run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.files import cached_sha256

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
WEIGHTS_INDEX = f"{WEIGHTS_FILE}.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
PICKLE_ADVICE = (
    ", which can run code when it is read and is not loaded: name a revision with safetensors (the hub's bot offers one "
    "as @refs/pr/N), or convert it: https://huggingface.co/spaces/safetensors/convert"
)
TOKENIZER_SETTINGS = "tokenizer_config.json"
_LENGTH_BYTES = 8  # a safetensors file begins with the length of its JSON header, little-endian
_MAX_HEADER_BYTES = 25_000_000  # the format's own limit; the first bytes of other files make larger numbers
_POINTER = b"version https://git-lfs"


def check_model_folder(folder: Path, what: str, *, weights: bool, cure: str) -> None:
    """Check configuration and, if they are needed, weights.

    Args:
        folder: The model's folder.
        what: Prefix of messages, e.g. `model 'x'`.
        weights: Whether weights are needed.
        cure: What to do about a damaged file.

    Raises:
        UserError: If a file is missing or damaged, or the model needs code of its own.
    """
    if not (folder / CONFIG_FILE).is_file():
        no_weights = f" and no {WEIGHTS_FILE}" if weights and not weight_files(folder, what) else ""
        raise UserError(f"{what}: {folder.name} has no {CONFIG_FILE}{no_weights}: {cure}")
    config = _read_json(folder / CONFIG_FILE, what, cure)
    settings = folder / TOKENIZER_SETTINGS
    for path, fields in (
        (CONFIG_FILE, config),
        (settings.name, _read_json(settings, what, cure) if settings.is_file() else {}),
    ):
        if fields.get("auto_map"):
            raise UserError(
                f"{what}: it needs code of its own (auto_map in {path}), which is never run here; use a model whose "
                "architecture is in transformers, e.g. google-bert/bert-base-uncased"
            )
    if not isinstance(config.get("model_type"), str):
        raise UserError(
            f'{what}: {CONFIG_FILE} names no model_type: add it (for BERT, "model_type": "bert"), or use another model'
        )
    if weights:
        files = weight_files(folder, what)
        if not files:
            pickle = next((name for name in PICKLES if (folder / name).is_file()), None)
            advice = f" but {pickle}{PICKLE_ADVICE}" if pickle else f": {cure}"
            raise UserError(f"{what}: {folder.name} has no {WEIGHTS_FILE}{advice}")
        for file in files:
            _check_safetensors(file, what, cure)


def weight_files(folder: Path, what: str = "model") -> list[Path]:
    """Return the safetensors file, or the shards that the index names, in order; empty without weights.

    Raises:
        UserError: If a shard is missing, or the index is damaged.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if not (folder / WEIGHTS_INDEX).is_file():
        return []
    index = _read_json(folder / WEIGHTS_INDEX, what, "get it again")
    try:
        names = sorted(set(index["weight_map"].values()))
    except (KeyError, AttributeError, TypeError):
        raise UserError(f"{what}: {WEIGHTS_INDEX} has no weight_map: get it again") from None
    # Only names: a path could lead out of the folder.
    if missing := [name for name in names if Path(name).name != name or not (folder / name).is_file()]:
        raise UserError(
            f"{what}: {len(missing)} of {len(names)} shards are missing, the first is {missing[0]}: get them again"
        )
    return [folder / name for name in names]


def hash_weights(folder: Path) -> str:
    """Return the SHA-256 of the weights file; of shards, the SHA-256 of their hashes in order."""
    hashes = [cached_sha256(file) for file in weight_files(folder)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _read_json(path: Path, what: str, cure: str) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{what}: {path.name} is damaged ({type(error).__name__}): {cure}") from None
    if not isinstance(fields, dict):
        raise UserError(f"{what}: {path.name} is damaged (no object): {cure}")
    return fields


def _check_safetensors(path: Path, what: str, cure: str) -> None:
    """Compare a file's size with what its header says, because a truncated file fails only when a cell has begun.

    Raises:
        UserError: If they differ, or the file is not of this format.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(len(_POINTER))
        if head == _POINTER:
            raise UserError(
                f"{what}: {path.name} is a pointer of Git LFS, not the weights: `git lfs install`, then `git lfs pull`"
            )
        file.seek(_LENGTH_BYTES)
        length = int.from_bytes(head[:_LENGTH_BYTES], "little")
        try:
            if length > _MAX_HEADER_BYTES:
                raise ValueError
            header = json.loads(file.read(length)) if length < size else {}
            header.pop("__metadata__", None)
            needed = _LENGTH_BYTES + length + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
        except (ValueError, AttributeError, KeyError, TypeError, IndexError, RecursionError):
            raise UserError(f"{what}: {path.name} is not a safetensors file: {cure}") from None
    if size != needed:
        raise UserError(f"{what}: {path.name} is damaged: {size:,} bytes of {needed:,}: {cure}")
