"""Hide users' names in the paths that a record's or checkpoint's configuration contains."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from typing import Any, TypeVar

from harness.schema.cells import BaselineConfig, FineTuneConfig
from harness.schema.record import Record

Config = TypeVar("Config", FineTuneConfig, BaselineConfig, FineTuneConfig | BaselineConfig)

# A home of any user: the study's own user's is `~/` already, see `harness.schema.settings`.
_HOME = re.compile(r"(?:/private)?/(?:home|Users|var/home)/[^/]+/.*|/root/.*", re.DOTALL)


def hide_homes(record: Record) -> Record:
    """Return a record whose paths below homes are `[hash]/name`; its `config_hash` stays that of the cell.

    Equal paths get equal hashes, so that records of one source remain comparable.
    """
    update: dict[str, Any] = {"config": hide_homes_of_config(record.config)}
    if record.data is not None:
        update["data"] = record.data.model_copy(update={"source": hide_home(record.data.source)})
    if record.model is not None:
        update["model"] = record.model.model_copy(update={"name": hide_home(record.model.name)})
    return record.model_copy(update=update)


def hide_homes_of_config(config: Config) -> Config:
    """Return a configuration with the same paths hidden."""
    data = config.data.model_copy(
        update={
            key: hide_home(value)
            for key in ("source", "val_source", "test_source")
            if (value := getattr(config.data, key))
        }
    )
    model = config.model and config.model.model_copy(update={"name": hide_home(config.model.name)})
    return config.model_copy(update={"data": data, "model": model})


def hide_home(path: str) -> str:
    """Replace the folder of a path below a home by 8 hex digits of its SHA-256, and keep the last name."""
    if not _HOME.fullmatch(path):
        return path
    pure = PurePosixPath(path)
    return f"[{hashlib.sha256(str(pure.parent).encode()).hexdigest()[:8]}]/{pure.name}"
