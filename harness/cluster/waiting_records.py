"""Records that wait on a node until the computer that planned the run has saved them.

They lie in a folder of the user's own, one for each results folder, and outlive the processes of the run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from harness.files import remove_partial_files
from harness.machine.private_folders import user_root
from harness.schema.record import Record
from harness.store.record_files import save_record


def results_key(results: Path, host: str | None) -> str:
    """Return the name under which records for a results folder wait; no path can be read from it."""
    return hashlib.sha256(f"{host} {results.resolve()}".encode()).hexdigest()[:16]


def waiting_folder(key: str) -> Path:
    """Return the folder of the records that wait for a results folder (XDG Base Directory Specification 0.8).

    It is below TMPDIR where the user has no home folder that can be written.
    """
    state = Path(os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state"))  # noqa: PTH111 - may have no home
    folder = state / "bert-cost-harness" / "cluster" / key
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        folder = user_root() / f"waiting-{key}"
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def keep_waiting(record: Record, key: str) -> str:
    """Save a record among those that wait, and return its name.

    Raises:
        OSError: If it can't be saved.
    """
    return save_record(record, waiting_folder(key)).name


def read_waiting(key: str) -> list[tuple[str, bytes]]:
    """Return name and content of each record that waits, oldest first."""
    folder = waiting_folder(key)
    remove_partial_files(folder, subfolders=True)
    return [(path.name, path.read_bytes()) for path in sorted(folder.rglob("*.json"), key=lambda path: path.name)]


def forget_waiting(key: str, names: Iterable[str]) -> None:
    """Remove records that were saved elsewhere, and the folders that this empties."""
    folder, wanted = waiting_folder(key), set(names)
    for path in list(folder.rglob("*.json")):
        if path.name in wanted:
            path.unlink(missing_ok=True)
    for parent in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        try:
            parent.rmdir()
        except OSError:  # it has other records
            continue
