"""All usable rows of a source, and their files in the cache."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.dataset.array_files import save_array
from harness.dataset.arrow_texts import ArrowTextColumn

_ARRAYS = ("labels", "groups", "times", "assigned_split")


@dataclass(frozen=True)
class RowFacts:
    """Facts about a source's rows that every record stores; see `DataFacts`.

    Attributes:
        similar_labels: Fields of `SimilarLabels`, as in JSON.
    """

    source: str
    sha256: str | None
    split_by: str | None
    num_duplicates_dropped: int
    num_conflicting_duplicates: int
    num_leaks_dropped: int
    bad_rows: dict[str, int]
    similar_labels: Sequence[dict[str, Any]] = ()
    null_like_labels: dict[str, int] = field(default_factory=dict)
    hub: dict[str, dict[str, str | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """All usable rows of a source in file order, without duplicates; rows of validation and test files come last.

    Attributes:
        texts: First segments: a list, or a column on disk.
        pairs: Second segments; None for single-segment data.
        labels: Label of each row as index into `label_names`, shape `(num_rows,)`.
        label_names: All labels, sorted.
        groups: Group of each row, shape `(num_rows,)`; rows of a group stay in one split. None if each row is a group.
        times: Time of each row as a number that grows with time, shape `(num_rows,)`; None if not split by time.
        assigned_split: Split to which each row is assigned: `loading.ANY`, `VAL` or `TEST`, shape `(num_rows,)`.
        cache_key: Key of these rows in the cache; None for small sources, which are not cached.
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
        """Return the first and second segments of the given rows, in the order given."""
        return _take_texts(self.texts, rows), None if self.pairs is None else _take_texts(self.pairs, rows)


def save_rows(folder: Path, rows: Rows, kept: np.ndarray, *, has_pairs: bool) -> None:
    """Write rows to a folder that already holds their texts.

    Args:
        folder: The folder with `texts.arrow`.
        rows: The rows without their texts.
        kept: Position of each row's text in `texts.arrow`, shape `(num_rows,)`.
        has_pairs: Whether `texts.arrow` has second segments.
    """
    arrays = {name: values for name in _ARRAYS if (values := getattr(rows, name)) is not None}
    index = {
        "label_names": rows.label_names,
        "facts": vars(rows.facts),
        "arrays": list(arrays),
        "has_pairs": has_pairs,
    }
    (folder / "rows.json").write_text(json.dumps(index), encoding="utf-8")
    for name, values in {**arrays, "kept": kept}.items():
        save_array(folder / f"{name}.npy", values)


def open_rows(folder: Path, key: str) -> Rows:
    """Open the rows that `save_rows` wrote; `key` is their key in the cache."""
    index = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    # Mapped from disk, because arrays of millions of rows take much memory.
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in index["arrays"]}
    kept = np.load(folder / "kept.npy", mmap_mode="r")
    texts, pairs = (ArrowTextColumn(folder / "texts.arrow", name, kept) for name in ("text", "pair"))
    return Rows(
        texts=texts,
        pairs=pairs if index["has_pairs"] else None,
        labels=arrays["labels"],
        label_names=tuple(index["label_names"]),
        groups=arrays.get("groups"),
        times=arrays.get("times"),
        assigned_split=arrays["assigned_split"],
        facts=RowFacts(**index["facts"]),
        cache_key=key,
    )


def _take_texts(texts: Sequence[str], rows: np.ndarray) -> Sequence[str]:
    if isinstance(texts, ArrowTextColumn):
        return ArrowTextColumn(texts.path, texts.column, texts.indices[rows])
    return [texts[row] for row in rows.tolist()]
