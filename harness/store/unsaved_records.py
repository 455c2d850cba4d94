"""Keep a record that can't be saved among the results: the disk is full, read-only or gone."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from harness.errors import UnsavedRecordError
from harness.machine.private_folders import user_root
from harness.schema.record import Record, to_json
from harness.store.record_files import record_folder, save_record


def save_or_keep(record: Record, results: Path) -> Path:
    """Save a record below `results`; if that fails, keep it elsewhere and raise.

    Raises:
        UnsavedRecordError: The record is in another folder, or is the exception's `line` if no folder took it.
    """
    try:
        return save_record(record, results)
    except OSError as error:
        reason = f"{results}: the record of cell {record.cell} can't be saved: {error.strerror or error}"
    for folder in _other_folders():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            save_record(record, folder)
        except OSError:
            continue
        raise UnsavedRecordError(
            f"{reason}; it is kept in {folder}. Once there is room: cp -r {folder}/. {results}/ "
            "(the run ends here; the same command then continues)"
        )
    target = record_folder(record, results) / f"{record.started_at:%Y%m%dT%H%M%SZ}-0000.json"
    raise UnsavedRecordError(
        f"{reason}, and no other folder took it: it is the line on standard output. Once there is room, save that line "
        f"as {target} (the run ends here; the same command then continues)",
        line=json.dumps(json.loads(to_json(record))),
    )


def _other_folders() -> list[Path]:
    """Return the folders to try: the user's state folder (XDG Base Directory Specification 0.8), then TMPDIR."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111 - may have no home
    folders = [Path(state) / "bert-cost-harness" / "unsaved"]
    with contextlib.suppress(OSError):
        folders.append(user_root() / "unsaved")
    return [folder for folder in folders if folder.is_absolute()]
