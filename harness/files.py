"""Atomic writes and checksums of files."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

# The folder harness/. Its parent is the checkout's root, or site-packages when installed from a wheel.
PACKAGE_FOLDER = Path(__file__).resolve().parent
_PARTIAL_PREFIX, _PARTIAL_SUFFIX = ".writing-", ".partial"


def atomic_write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 in one step, with its line endings unchanged; see `atomic_write_bytes`.

    Raises:
        OSError: When the file can't be written; an existing file then keeps its content, and no partial file is left.
    """
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step: a concurrent reader sees the old content or the new one, never a part.

    The parent folder must exist. The writer holds a lock on its partial file, so that `remove_partial_files` recognizes
    those of killed processes. A device or pipe, such as /dev/stdout, is written to directly.

    Raises:
        OSError: When the file can't be written; an existing file then keeps its content, and no partial file is left.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    descriptor, name = tempfile.mkstemp(prefix=_PARTIAL_PREFIX, suffix=_PARTIAL_SUFFIX, dir=path.parent)
    try:
        with naming(path):
            lock_new_file(descriptor)
            _write_all(descriptor, content)
            os.fsync(descriptor)
            os.fchmod(descriptor, 0o644)  # mkstemp makes files that only their owner can read
            os.replace(name, path)  # noqa: PTH105 - while the lock is held
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)  # noqa: PTH108
        raise
    finally:
        with contextlib.suppress(OSError):  # everything is written: fsync reported the errors
            os.close(descriptor)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the path in an OSError that names no file, such as a full disk's, or a partial file and its target."""
    try:
        yield
    except OSError as error:
        if error.filename is None or error.filename2 is not None:
            error.filename, error.filename2 = str(path), None
        raise


def remove_partial_files(folder: Path, *, subfolders: bool = False) -> int:
    """Remove the partial files that killed processes left in a folder, and return their number."""
    num_removed, pattern = 0, f"{_PARTIAL_PREFIX}*{_PARTIAL_SUFFIX}"
    for path in folder.rglob(pattern) if subfolders else folder.glob(pattern):
        with contextlib.suppress(OSError), path.open("rb") as file:
            if lock_if_free(file.fileno()):
                path.unlink(missing_ok=True)
                num_removed += 1
    return num_removed


def lock_new_file(descriptor: int) -> None:
    """Hold the lock of a file that this process has just created; some network file systems have no locks.

    Raises:
        FileNotFoundError: A cleaning process took the new file for an abandoned one, in the moment before it was locked.
    """
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    if os.fstat(descriptor).st_nlink == 0:
        raise FileNotFoundError(2, "removed by another process that was cleaning up; try again")


def lock_if_free(descriptor: int) -> bool:
    """Take the lock of a file, and return whether no process held it; False if the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


_copies: dict[str, Path] = {}  # by the name that a study has for them


def read_from_copies(copies: Mapping[str, Path]) -> None:
    """Let this process read files and folders that a study names from copies elsewhere: all that a cluster's node has.

    Args:
        copies: Paths by the study's name of each; that of a glob is another glob.
    """
    _copies.update(copies)


def copy_of(name: str) -> Path | None:
    """Return the copy that stands for a file or folder here; None if there is none."""
    return _copies.get(name)


def expand_user(name: str) -> Path:
    """Return a path with `~` expanded; it stays as it is where there is no such user or no home folder.

    The path of its copy is returned if there is one, see `read_from_copies`.
    """
    if (copy := copy_of(name)) is not None:
        return copy
    return Path(os.path.expanduser(name))  # noqa: PTH111 - Path.expanduser raises a RuntimeError instead


@functools.lru_cache(maxsize=16)
def cached_sha256(path: Path) -> str:
    """Return a file's SHA-256, hashed once per process: files are expected not to change while a study runs."""
    return sha256_file(path)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's current content, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
