"""The files that a study names, as archives that a command sends to the nodes of a cluster.

Nodes share no disk with the computer that plans the run. Models and data sets of the hub are not sent: each node
downloads them itself, or has them in its cache.
"""

from __future__ import annotations

import glob
import io
import os
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.dataset.file_formats import find_files
from harness.dataset.hub import parse_hub_id
from harness.dataset.sources import locate_data, locate_model
from harness.errors import UserError
from harness.files import expand_user
from harness.schema.cells import Cell, FineTuneConfig
from harness.schema.settings import PACKAGED_DATA, PACKAGED_MODEL, DataSettings

# Weights in other formats than safetensors, which the harness never reads.
_UNREAD = frozenset({".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".ckpt"})


@dataclass(frozen=True)
class StudyInput:
    """A file or folder that a study names.

    Attributes:
        name: The study's name for it.
        inside: The path or glob that stands for it in the unpacked archive.
        archive: An uncompressed tar archive.
    """

    name: str
    inside: str
    archive: bytes


def pack_inputs(cells: Iterable[Cell]) -> list[StudyInput]:
    """Pack each file and folder that the cells need once.

    Raises:
        UserError: If one is missing.
    """
    inputs: dict[str, StudyInput] = {}
    for cell in cells:
        for key in ("source", "val_source", "test_source"):
            name = getattr(cell.config.data, key)
            if name and name not in inputs and (packed := _pack_source(name, key)) is not None:
                inputs[name] = packed
        model = cell.config.model
        if model is not None and model.name not in inputs:
            needs_weights = not isinstance(cell.config, FineTuneConfig) or model.init == "pretrained"
            if (packed := _pack_model(model.name, needs_weights=needs_weights)) is not None:
                inputs[model.name] = packed
    return list(inputs.values())


def unpack_input(name: str, inside: str, archive: bytes, folder: Path) -> Path:
    """Unpack an input into a new folder, and return the path or glob that stands for it.

    Args:
        name: The study's name, for the error.
        inside: As in `StudyInput`.
        archive: As in `StudyInput`.
        folder: The folder to create.

    Raises:
        UserError: If the disk is full or can't be written.
    """
    try:
        folder.mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
    except OSError as error:
        raise UserError(f"{name}: can't be copied to the node: {error.strerror or error}") from None
    return folder / inside


def _pack_source(name: str, key: str) -> StudyInput | None:
    if name == PACKAGED_DATA and key == "source":
        path = locate_data()
        return StudyInput(name, path.name, _tar([(path.name, path)]))
    path = expand_user(name)
    hub_id = None if os.path.exists(path) else parse_hub_id(name)  # noqa: PTH110 - the name may be too long for a path
    files = None if hub_id and hub_id.is_qualified else find_files(name, f"data.{key} {name!r}")
    if files is None:
        return None
    if path.is_dir():
        base, inside = path.parent, path.name
    elif glob.has_magic(name) and not path.exists():
        base = _fixed_folder(path)
        inside = path.relative_to(base).as_posix()
    else:
        base, inside = path.parent, path.name
    return StudyInput(name, inside, _tar([(file.path.relative_to(base).as_posix(), file.path) for file in files]))


def _pack_model(name: str, *, needs_weights: bool) -> StudyInput | None:
    if name != PACKAGED_MODEL and not expand_user(name).is_dir():
        return None
    files = locate_model(name, weights=needs_weights)
    if files.hub is not None:
        return None
    members = [
        (f"model/{path.name}", path)
        for path in sorted(files.folder.iterdir())
        if path.is_file() and path.suffix not in _UNREAD and (needs_weights or path.suffix != ".safetensors")
    ]
    return StudyInput(name, "model", _tar(members))


def _fixed_folder(pattern: Path) -> Path:
    """Return the folder of a glob that has no wildcard."""
    return next(parent for parent in pattern.parents if not glob.has_magic(str(parent)))


def _tar(members: Sequence[tuple[str, Path]]) -> bytes:
    packed = io.BytesIO()
    # Files behind links, as the hub's cache has them, are packed themselves.
    with tarfile.open(fileobj=packed, mode="w", dereference=True) as tar:
        for name, path in members:
            member = tarfile.TarInfo(name)
            member.size = path.stat().st_size
            with path.open("rb") as file:
                tar.addfile(member, file)
    return packed.getvalue()


def describe_hub_inputs(cells: Iterable[Cell], inputs: Sequence[StudyInput]) -> list[str]:
    """Return the names that each node has to download from the hub itself."""
    sent = {each.name for each in inputs}
    names = {name for cell in cells for name in _names(cell.config.data)}
    names |= {cell.config.model.name for cell in cells if cell.config.model is not None}
    return sorted(names - sent)


def _names(data: DataSettings) -> list[str]:
    return [name for name in (data.source, data.val_source, data.test_source) if name]
