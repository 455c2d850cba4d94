"""Atomic writes and checksums of files."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from pathlib import Path

# The folder harness/. Its parent is the checkout's root, or site-packages when installed from a wheel.
PACKAGE_FOLDER = Path(__file__).resolve().parent


def atomic_write_text(path: Path, text: str) -> None:
    """Write a text file in one step: a concurrent reader sees the old content or the new one, never a part.

    The parent folder must exist. Line endings are written unchanged.

    Raises:
        OSError: When the file can't be written; an existing file then keeps its content.
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
    temporary.chmod(0o644)  # NamedTemporaryFile makes files that only their owner can read
    temporary.replace(path)


@functools.lru_cache(maxsize=16)
def cached_sha256(path: Path) -> str:
    """Return a file's SHA-256, hashed once per process: files are expected not to change while a study runs."""
    return sha256_file(path)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's current content, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
