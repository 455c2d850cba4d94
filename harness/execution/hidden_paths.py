"""Hide users' names in the paths that a record's configuration and data facts contain."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from typing import Any

from harness.schema.record import Record

# A home of any user: the study's own user's is `~/` already, see `harness.schema.settings`.
_HOME = re.compile(r"(?:/private)?/(?:home|Users|var/home)/[^/]+/.*|/root/.*", re.DOTALL)


def hide_homes(record: Record) -> Record:
    """Return a record whose paths below homes are `[hash]/name`; its `config_hash` stays that of the cell.

    Equal paths get equal hashes, so that records of one source remain comparable.
    """
    config: Any = record.config
    data = config.data.model_copy(
        update={
            key: hide_home(value)
            for key in ("source", "val_source", "test_source")
            if (value := getattr(config.data, key))
        }
    )
    changed = {"data": data}
    if config.model is not None:
        changed["model"] = config.model.model_copy(update={"name": hide_home(config.model.name)})
    update: dict[str, Any] = {"config": config.model_copy(update=changed)}
    if record.data is not None:
        update["data"] = record.data.model_copy(update={"source": hide_home(record.data.source)})
    return record.model_copy(update=update)


def hide_home(path: str) -> str:
    """Replace the folder of a path below a home by 8 hex digits of its SHA-256, and keep the last name."""
    if not _HOME.fullmatch(path):
        return path
    pure = PurePosixPath(path)
    return f"[{hashlib.sha256(str(pure.parent).encode()).hexdigest()[:8]}]/{pure.name}"
