"""Let multiprocessing put its socket into a folder whose path is short enough for one.

Source: unix(7): `sun_path` has 108 bytes on Linux (104 on macOS). Python 3.14 looks for a shorter folder itself:
https://github.com/python/cpython/issues/132124
"""

from __future__ import annotations

import contextlib
import multiprocessing.util
import os
import tempfile

from harness.errors import UserError

_MAX_PATH_BYTES = 103
# What multiprocessing appends to the folder: /pymp-xxxxxxxx/listener-xxxxxxxx.
_APPENDED_BYTES = len("/pymp-") + 8 + len("/listener-") + 8
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "~")  # noqa: S108 - multiprocessing makes a private folder in it


def choose_socket_folder() -> None:
    """Make multiprocessing's temporary folder in a folder with a short path if that of TMPDIR is too long.

    Call this before the first process starts: multiprocessing keeps its folder.

    Raises:
        UserError: If no folder with a short path can be written.
    """
    folder = tempfile.gettempdir()
    if _fits(folder):
        return
    try:
        for short in filter(_fits, map(os.path.expanduser, _SHORT_FOLDERS)):
            tempfile.tempdir = short
            with contextlib.suppress(OSError):  # a folder that can't be written
                multiprocessing.util.get_temp_dir()
                return
    finally:
        tempfile.tempdir = folder
    raise UserError(
        f"TMPDIR: {folder} has {len(os.fsencode(folder))} bytes, too many for a socket's path; set TMPDIR to a folder of at "
        f"most {_MAX_PATH_BYTES - _APPENDED_BYTES}"
    )


def _fits(folder: str) -> bool:
    return len(os.fsencode(folder)) + _APPENDED_BYTES <= _MAX_PATH_BYTES
