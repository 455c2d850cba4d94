"""Temporary folders that only their user can read, and that the next command removes if their owner was killed.

Each folder has a lock file beside it, on which its owner holds a flock. The kernel releases the lock when the owner
ends, however it ends; a lock that can be taken therefore shows that the folder is abandoned.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.files import lock_if_free, lock_new_file

_LOCK_SUFFIX = ".lock"


@contextlib.contextmanager
def private_folder(purpose: str) -> Iterator[Path]:
    """Provide an empty folder below TMPDIR, and remove it at the end.

    Args:
        purpose: Beginning of the folder's name.

    Raises:
        OSError: No folder can be created.
    """
    root = user_root()
    folder = root / f"{purpose}-{secrets.token_hex(4)}"
    lock_file = root / f"{folder.name}{_LOCK_SUFFIX}"
    with lock_file.open("xb") as lock:
        try:
            lock_new_file(lock.fileno())
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock_file.unlink(missing_ok=True)


def remove_abandoned_folders() -> int:
    """Remove the folders of commands that were killed, and return their number. Ignores file-system errors."""
    num_removed = 0
    with contextlib.suppress(OSError):
        for lock_file in sorted(_root_path().glob(f"*{_LOCK_SUFFIX}")):
            with contextlib.suppress(OSError), lock_file.open("rb") as lock:
                if lock_if_free(lock.fileno()):
                    shutil.rmtree(lock_file.with_suffix(""), ignore_errors=True)
                    lock_file.unlink(missing_ok=True)
                    num_removed += 1
    return num_removed


def user_root() -> Path:
    """Return this user's folder below TMPDIR, which no other user can read; it is created if missing.

    Raises:
        OSError: It can't be created, or another user made a file or folder of this name.
    """
    root = _root_path()
    with contextlib.suppress(FileExistsError):
        root.mkdir(mode=0o700)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(1, "is not a folder of this user; remove it, or set TMPDIR to another folder", str(root))
    root.chmod(0o700)
    return root


def _root_path() -> Path:
    return Path(tempfile.gettempdir()) / f"harness-{os.getuid()}"
