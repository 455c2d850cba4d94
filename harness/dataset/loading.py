"""Where a study's rows come from: its source and files of validation and test rows, on disk or on the hub."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from harness.dataset.cache import digest
from harness.dataset.file_formats import FilePart, SourceFile, find_files, hash_files, read_parts
from harness.errors import UserError
from harness.schema.settings import PACKAGED_DATA, DataSettings

# What rows serve alone: those that a source, or a file of their own, sets aside.
ANY, VAL, TEST = 0, 1, 2
_ASIDE = {"source": ANY, "val_source": VAL, "test_source": TEST}
_HUB_ROWS = 5_000


class RowBatch(NamedTuple):
    """Some rows, the words before a place among them (`line`, `b.parquet row`), and what they serve."""

    place: str
    assigned_split: int
    part: FilePart


class RowSource(NamedTuple):
    """One of the places that rows come from.

    Attributes:
        where: Begins what is said of it.
        set_aside: What all its rows serve; ANY of the source itself, a hub's test rows among them.
        read: From wanted columns to rows.
        fingerprint: Tells its content from any other: a hash of files, a hub's word; None where nothing does.
        is_on_hub: Whether it is no file.
    """

    where: str
    assigned_split: int
    read: Callable[[Sequence[str]], Iterator[RowBatch]]
    fingerprint: str | None
    is_on_hub: bool


def find_row_sources(settings: DataSettings) -> list[RowSource]:
    """Where the rows of a source are, and those of its validation and test files.

    Raises:
        UserError: When one is not to be had.
    """
    return [_find(settings, key) for key in _ASIDE if getattr(settings, key)]


def _find(settings: DataSettings, key: str) -> RowSource:
    source: str = getattr(settings, key)
    where, aside = f"data.{key} {source!r}", _ASIDE[key]
    files = find_files(source, where)
    if files is not None:
        read = functools.partial(_read_files, files, where, aside)
        return RowSource(where, aside, read, hash_files(files, where), is_on_hub=False)
    dataset = _load_hub(source, where)
    splits = [name for name in ("train", "test") if name in dataset and (aside == ANY or name == "train")]
    # What `datasets` tells a cached split by.
    prints = [getattr(dataset[name], "_fingerprint", None) for name in splits]
    hub = functools.partial(_read_hub, {name: dataset[name] for name in splits}, settings.label, where, aside)
    return RowSource(where, aside, hub, None if None in prints else digest(prints), is_on_hub=True)


def _read_files(files: Sequence[SourceFile], where: str, aside: int, columns: Sequence[str]) -> Iterator[RowBatch]:
    for file in files:
        place, named = ("line" if file.is_text else "row"), where
        if len(files) > 1:
            place, named = f"{file.path.name} {place}", f"{where}: {file.path.name}"
        for part in read_parts(file, columns, named):
            yield RowBatch(place, aside, part)


def _load_hub(source: str, where: str) -> dict[str, Any]:
    try:
        from datasets import load_dataset

        return load_dataset(source)  # type: ignore[no-any-return]
    except Exception as error:  # noqa: BLE001 - the hub client raises of many families
        raise UserError(
            f"{where}: no file and not to be had from the hub: {type(error).__name__}; use the packaged default "
            f"(data.source = {PACKAGED_DATA!r}), or files of your own"
        ) from None


def _read_hub(splits: dict[str, Any], label: str, where: str, aside: int, columns: Sequence[str]) -> Iterator[RowBatch]:
    """Labelled rows of a hub dataset: its `train` split, and its `test` split for testing where it has labels."""
    is_labelled = False
    for name, rows in splits.items():
        if missing := set(columns) - set(rows.column_names):
            raise UserError(f"{where}: no column {sorted(missing)}; it has {rows.column_names}")
        if all(value == -1 for value in rows[:100][label]):
            continue  # the hub's convention for labels held back
        is_labelled, begin, feature = True, 1, rows.features[label]
        for some in rows.select_columns(list(columns)).iter(batch_size=_HUB_ROWS):
            if hasattr(feature, "int2str"):
                some[label] = [None if at is None or at < 0 else feature.int2str(at) for at in some[label]]
            num_rows = len(some[label])
            part = FilePart(dict(some), list(range(begin, begin + num_rows)))
            yield RowBatch(f"{name} row", TEST if name == "test" else aside, part)
            begin += num_rows
    if not is_labelled:
        raise UserError(f"{where}: no labelled split named train")
