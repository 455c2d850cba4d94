"""The harness's own code as one archive, which a command sends to the nodes of a cluster.

The archive is the same, byte for byte, wherever the same code lies: in a checkout, in a wheel or on a node. A node can
therefore show by its hash that it runs the code that was sent.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from harness.files import PACKAGE_FOLDER
from harness.shipped import tables_folder

_NO_TIME = (1980, 1, 1, 0, 0, 0)  # the oldest that a zip archive can hold
_TABLES = "tables"


def pack_code() -> bytes:
    """Return an archive of the package `harness` with its tables, as a wheel has them, without compiled files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, path in sorted(_files()):
            archive.writestr(zipfile.ZipInfo(name, _NO_TIME), path.read_bytes())
    return packed.getvalue()


def code_sha256() -> str:
    """Return the SHA-256 of this process's code, packed."""
    return hashlib.sha256(pack_code()).hexdigest()


def unpack_code(archive: bytes, folder: Path) -> Path:
    """Unpack the code below a folder, and return the folder of the package `harness`."""
    with zipfile.ZipFile(io.BytesIO(archive)) as packed:
        packed.extractall(folder)
    return folder / PACKAGE_FOLDER.name


def _files() -> Iterator[tuple[str, Path]]:
    """Yield name and path of each file."""
    root = PACKAGE_FOLDER.name
    for path in PACKAGE_FOLDER.rglob("*"):
        inside = path.relative_to(PACKAGE_FOLDER)
        if path.is_file() and "__pycache__" not in inside.parts and inside.parts[0] != _TABLES:
            yield f"{root}/{inside.as_posix()}", path
    for path in tables_folder().iterdir():
        if path.suffix in (".toml", ".csv"):
            yield f"{root}/{_TABLES}/{path.name}", path
