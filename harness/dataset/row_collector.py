"""Collect a source's rows while they are read: check them, number their labels, and drop duplicate texts."""

from __future__ import annotations

import contextlib
import shutil
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.dataset.arrow_texts import TextWriter
from harness.dataset.cache import Cache
from harness.dataset.duplicates import first_occurrences, hash_texts
from harness.dataset.label_numbers import LabelNumbers
from harness.dataset.loading import ANY, RowBatch, RowSource
from harness.dataset.row_checks import (
    EMPTY,
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
from harness.dataset.similar_labels import merged_kind
from harness.errors import UserError
from harness.schema.settings import DataSettings
from harness.shipped import how_to_install

LARGE_ROWS = 100_000  # larger sources keep their texts on disk and their rows in the cache
_SEGMENT_SEPARATOR = "\x1f"  # ASCII unit separator, between the two segments of a pair when they are hashed


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
        label_numbers: The labels read so far; `labels` holds their numbers.
        folder: Folder of the texts on disk; None while the texts are in memory.
    """

    settings: DataSettings
    cache: Cache
    rejected: RejectedRows = field(default_factory=RejectedRows)
    validator: RowValidator = field(default_factory=RowValidator)
    num_read: int = 0
    label_numbers: LabelNumbers = field(init=False)
    hashes: array[int] = field(default_factory=lambda: array("Q"))
    labels: array[int] = field(default_factory=lambda: array("H"))
    groups: array[int] = field(default_factory=lambda: array("Q"))
    times: array[float] = field(default_factory=lambda: array("d"))
    assigned_split: array[int] = field(default_factory=lambda: array("B"))
    folder: Path | None = None

    def __post_init__(self) -> None:
        settings = self.settings
        self.label_numbers = LabelNumbers(settings.label, settings.clean_labels)
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
        check_labels(self.label_numbers.numbers, self.settings.label, source.where)

    def finish(self, sources: Sequence[RowSource], key: str) -> Rows:
        """Drop duplicate texts, sort the labels by name, and return the rows.

        Raises:
            UserError: If there were bad rows and `on_bad_row` is `stop`, or if no row is usable.
        """
        if not self.labels or (self.rejected.counts and self.settings.on_bad_row == "stop"):
            raise self._bad_rows_error(sources)
        self.texts.close()
        assigned_split, labels_as_read = np.asarray(self.assigned_split), np.asarray(self.labels)
        labels = self.label_numbers.merge(labels_as_read)
        kept, kept_row_of = first_occurrences(np.asarray(self.hashes), assigned_split)
        sorted_labels = self.label_numbers.sort(labels_as_read[kept], labels[kept])
        facts = RowFacts(
            source=sources[0].name,
            sha256=None if sources[0].hub else sources[0].fingerprint,
            split_by=self.settings.group_by or self.settings.time_by,
            num_duplicates_dropped=len(labels) - len(kept),
            num_conflicting_duplicates=int((labels != labels[kept_row_of]).sum()),
            num_leaks_dropped=int((assigned_split != assigned_split[kept_row_of]).sum()),
            bad_rows=dict(self.rejected.counts),
            similar_labels=[group.model_dump(mode="json") for group in sorted_labels.similar],
            null_like_labels=sorted_labels.null_like,
            hub={source.key: source.hub.model_dump() for source in sources if source.hub},
        )
        rows = Rows(
            texts=(),
            pairs=None,
            labels=sorted_labels.labels,
            label_names=sorted_labels.names,
            groups=np.asarray(self.groups)[kept] if self.settings.group_by else None,
            times=np.asarray(self.times)[kept] if self.settings.time_by else None,
            assigned_split=assigned_split[kept],
            facts=facts,
        )
        if self.folder is not None:
            save_rows(self.folder, rows, kept, has_pairs=bool(self.settings.pair))
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
            validator.check(settings.label, merged_kind(label, kind) if settings.clean_labels else kind)
        group = parse_group(columns[settings.group_by][index], settings.group_by) if settings.group_by else None
        time = None
        if settings.time_by:
            time, kind = parse_time(columns[settings.time_by][index], settings.time_by)
            validator.check(settings.time_by, kind)
        number = self.label_numbers.number(label, source.where, is_new_allowed=source.assigned_split == ANY)
        return _ParsedRow(text, pair, number, group, time)

    def _bad_rows_error(self, sources: Sequence[RowSource]) -> UserError:
        where = " and ".join(source.where for source in sources)
        if not self.num_read:
            return UserError(f"{where}: the file has no rows; export it again")
        num_bad = sum(self.rejected.counts.values())
        head = f"{where}: {num_bad:,} of {self.num_read:,} rows can't be used"
        fix = "fix them"
        if self.labels:
            fix += ', or leave them out with data.on_bad_row = "skip": the record then counts them by kind'
        return UserError("\n  ".join([head, *self.rejected.lines(), fix]))

    def _move_to_disk(self, where: str) -> None:
        folder = self.cache.create_staging_folder()
        try:
            self.texts.move_to(folder / "texts.arrow")
        except ModuleNotFoundError:
            raise UserError(f"{where}: more than {LARGE_ROWS:,} rows need pyarrow: {how_to_install('train')}") from None
        finally:
            self.folder = folder
