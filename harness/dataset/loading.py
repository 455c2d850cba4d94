"""Find where a study's rows come from (files or a hub dataset, plus validation and test files) and read them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.dataset.cache import digest
from harness.dataset.file_formats import SourceFile, find_files, hash_files
from harness.dataset.file_readers import FilePart, read_parts
from harness.dataset.hub import parse_hub_id
from harness.dataset.hub_datasets import load_hub_dataset
from harness.errors import UserError
from harness.files import expand_user
from harness.schema.inputs_record import HubSource
from harness.schema.settings import DataSettings

if TYPE_CHECKING:
    from datasets import Dataset

# The split to which a row's file or hub split assigns the row; rows with ANY may be drawn for any split.
ANY, VAL, TEST = 0, 1, 2
_ASSIGNED_SPLITS = {"source": ANY, "val_source": VAL, "test_source": TEST}
_HUB_BATCH_ROWS = 5_000


class RowBatch(NamedTuple):
    """Some rows of a source.

    Attributes:
        location: Text before a row's number in messages, e.g. `line` or `b.parquet row`.
        assigned_split: Split to which all these rows are assigned: ANY, VAL or TEST.
    """

    location: str
    assigned_split: int
    part: FilePart


class RowSource(NamedTuple):
    """One of the study's sources: `data.source`, `data.val_source` or `data.test_source`.

    Attributes:
        where: Prefix of error messages.
        assigned_split: Split of all the source's rows; ANY for `data.source`, even if a hub dataset has test rows.
        read: Function that takes the wanted columns and yields batches of rows.
        fingerprint: Hash of the files, or of the hub dataset's commit and config.
        key: The study's key, e.g. `source`.
        name: Name for records: the file's, or the hub dataset's.
        hub: The hub dataset; None for files.
    """

    where: str
    assigned_split: int
    read: Callable[[Sequence[str]], Iterator[RowBatch]]
    fingerprint: str
    key: str
    name: str
    hub: HubSource | None = None


def find_row_sources(settings: DataSettings) -> list[RowSource]:
    """Find the study's source and its validation and test files.

    Raises:
        UserError: If a source doesn't exist or can't be loaded.
    """
    return [_find_source(settings, key) for key in _ASSIGNED_SPLITS if getattr(settings, key)]


def _find_source(settings: DataSettings, key: str) -> RowSource:
    name: str = getattr(settings, key)
    where, assigned_split = f"data.{key} {name!r}", _ASSIGNED_SPLITS[key]
    # os.path, because Path.exists raises an OSError for a name that is too long.
    hub_id = None if os.path.exists(expand_user(name)) else parse_hub_id(name)  # noqa: PTH110
    files = None if hub_id and hub_id.is_qualified else find_files(name, where)
    if files is not None:
        read_files = functools.partial(_read_files, files, where, assigned_split)
        return RowSource(where, assigned_split, read_files, hash_files(files, where), key, Path(name).name)
    dataset, hub = load_hub_dataset(name, where)
    used = ("train", "test") if assigned_split == ANY else ("train",)
    splits = {split: dataset[split] for split in used if split in dataset}
    read_hub = functools.partial(_read_hub, splits, settings.label, where, assigned_split)
    return RowSource(where, assigned_split, read_hub, digest(hub.model_dump()), key, name, hub)


def _read_files(
    files: Sequence[SourceFile], where: str, assigned_split: int, columns: Sequence[str]
) -> Iterator[RowBatch]:
    """Read all files of a source in order.

    Args:
        files: The files, in order.
        where: Prefix of error messages.
        assigned_split: Split of all rows.
        columns: Columns to read.
    """
    for file in files:
        location, where_in_source = ("line" if file.is_text else "row"), where
        if len(files) > 1:
            location, where_in_source = f"{file.path.name} {location}", f"{where}: {file.path.name}"
        for part in read_parts(file, columns, where_in_source):
            yield RowBatch(location, assigned_split, part)


def _read_hub(
    splits: Mapping[str, Dataset], label: str, where: str, assigned_split: int, columns: Sequence[str]
) -> Iterator[RowBatch]:
    """Read the labelled splits of a hub dataset; rows of its `test` split are assigned to TEST.

    Args:
        splits: The `train` split, and the `test` split if there is one.
        label: The label column.
        where: Prefix of error messages.
        assigned_split: Split of the `train` rows.
        columns: Columns to read.

    Raises:
        UserError: If a column is missing, or no split has labels.
    """
    has_labels = False
    for name, rows in splits.items():
        if missing := set(columns) - set(rows.column_names):
            raise UserError(f"{where}: no column {sorted(missing)}; it has {rows.column_names}")
        if all(value == -1 for value in rows[:100][label]):
            continue  # by the hub's convention, -1 marks labels that are withheld
        has_labels, first_row, feature = True, 1, rows.features[label]
        for batch in rows.select_columns(list(columns)).iter(batch_size=_HUB_BATCH_ROWS):
            if hasattr(feature, "int2str"):
                batch[label] = [None if id_ is None or id_ < 0 else feature.int2str(id_) for id_ in batch[label]]
            num_rows = len(batch[label])
            part = FilePart(dict(batch), list(range(first_row, first_row + num_rows)))
            yield RowBatch(f"{name} row", TEST if name == "test" else assigned_split, part)
            first_row += num_rows
    if not has_labels:
        raise UserError(f"{where}: no labelled split named train")
