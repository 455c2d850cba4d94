"""Files that are there whole or not at all."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from pathlib import Path

# harness/ itself: in a checkout its parent is the root, in a wheel site-packages.
PACKAGE_FOLDER = Path(__file__).resolve().parent


def atomic_write_text(path: Path, text: str) -> None:
    """Put a text under a name in one step: whoever reads it meanwhile has the old one or the new one, never half.

    Its folder must be there. Line ends are written as they stand.

    Raises:
        OSError: When it can't be written; what was there is left as it was.
    """
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", newline="", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        temporary = Path(file.name)
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            file.close()
            temporary.unlink()
            raise
    temporary.chmod(0o644)  # a temporary file is its owner's alone, what is written here is to be shared
    temporary.replace(path)


@functools.lru_cache(maxsize=16)
def cached_sha256(path: Path) -> str:
    """Hash a file; once a process, for no file is expected to change while a study runs."""
    return sha256_file(path)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file as it is now."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
