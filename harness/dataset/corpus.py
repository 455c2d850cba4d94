"""Draw leak-free splits from a source's rows, and write their texts for the baselines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.dataset.array_files import save_array
from harness.dataset.arrow_texts import ArrowTextColumn, ConcatTexts
from harness.dataset.cache import digest
from harness.dataset.duplicates import count_near_duplicates
from harness.dataset.row_checks import CURES
from harness.dataset.row_storage import Rows
from harness.dataset.rows import read_rows
from harness.dataset.splits import draw_splits
from harness.errors import UserError
from harness.files import naming
from harness.schema.inputs_record import DataFacts, Split
from harness.schema.settings import DataSettings

SPLITS = ("train", "val", "test")
RARE_ROWS = 10
_SPLIT_TITLES = {"train": "training", "val": "validation", "test": "test"}
_MAX_SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class Corpus:
    """The rows of each split.

    Attributes:
        texts: First segments by split: lists, or columns on disk for a large source.
        labels: Indices into `facts.labels` by split, each of shape `(num_rows,)`.
        pairs: Second segments by split; None for single-segment data.
        cache_key: Identifies these splits in the cache; None for a small source, whose tokens are not cached.
    """

    facts: DataFacts
    texts: dict[str, Sequence[str]]
    labels: dict[str, np.ndarray]
    pairs: dict[str, Sequence[str]] | None = None
    cache_key: str | None = None


def load_corpus(settings: DataSettings, rows: Rows | None = None) -> Corpus:
    """Read a source, unless its rows are given, and draw its splits, which are the same for equal settings.

    Raises:
        UserError: If the source can't be read, or has too few usable rows or labels.
    """
    rows = rows or read_rows(settings)
    require_two_labels(rows, settings)
    drawn = draw_splits(rows, settings)
    segments = {name: rows.take(drawn.rows[name]) for name in SPLITS}
    texts = {name: first for name, (first, _) in segments.items()}
    pairs = {name: second for name, (_, second) in segments.items() if second is not None} or None
    labels = {name: np.asarray(rows.labels[drawn.rows[name]]) for name in SPLITS}
    joined = {name: ConcatTexts(texts[name], None if pairs is None else pairs[name]) for name in SPLITS}
    num_near, num_checked = count_near_duplicates(joined["train"], [joined["val"], joined["test"]])
    counts = np.bincount(labels["train"], minlength=len(rows.label_names))
    row_facts = replace(rows.facts, num_leaks_dropped=rows.facts.num_leaks_dropped + drawn.num_leaks_dropped)
    facts = DataFacts(
        labels=rows.label_names,
        num_source_rows=len(rows.labels),
        num_train_available=drawn.num_train_available,
        num_near_duplicates=num_near,
        num_near_checked=num_checked,
        rare_labels=tuple(name for name, count in zip(rows.label_names, counts, strict=True) if count < RARE_ROWS),
        **vars(row_facts),
        **{name: _describe_split(*segments[name], labels[name]) for name in SPLITS},
    )
    key = None if rows.cache_key is None else digest(rows.cache_key, settings.model_dump(mode="json"))
    return Corpus(facts, texts, labels, pairs, key)


def require_two_labels(rows: Rows, settings: DataSettings) -> None:
    """Raise UserError if the usable rows have fewer than two labels; the message says which rows were not usable."""
    if len(rows.label_names) >= 2:  # noqa: PLR2004 - a classifier needs two
        return
    others = [
        f"{count:,} {kind}{f': {CURES[kind]}' if kind in CURES else ''}" for kind, count in rows.facts.bad_rows.items()
    ]
    if rows.facts.num_duplicates_dropped:
        others.append(f"{rows.facts.num_duplicates_dropped:,} repeat an earlier text")
    left_out = f" (left out: {', '.join(others)})" if others else ""
    raise UserError(
        f"data {settings.source!r}: only one label, {rows.label_names[0][:_MAX_SHOWN_CHARACTERS]!r}, in {len(rows.labels):,} "
        f"usable rows{left_out}; at least two labels are needed: add rows with another label, or name another column in "
        "data.label (--label)"
    )


def require_labels_in_splits(facts: DataFacts, settings: DataSettings) -> None:
    """Raise UserError if a split has a single label, so that accuracy would say nothing.

    A model that was trained on one label is right on all rows of that label without having learned anything. Validation and
    test files that the user named may have one label: the accuracy is then that label's recall, and the report says so.
    """
    splits: dict[str, Split] = {name: getattr(facts, name) for name in SPLITS}
    problem = _one_label_problem(
        {name: (split.num_rows, split.has_one_label) for name, split in splits.items()}, settings
    )
    if problem is not None:
        raise UserError(f"data {settings.source!r}: {problem}")


def find_one_label_split(rows: Rows, settings: DataSettings) -> str | None:
    """Return why `require_labels_in_splits` would refuse these rows, with what to do; None if it would not.

    Raises:
        UserError: If there are fewer rows than the settings request.
    """
    labels = {name: rows.labels[drawn] for name, drawn in draw_splits(rows, settings).rows.items()}
    return _one_label_problem(
        {name: (len(split), not (split != split[0]).any()) for name, split in labels.items()}, settings
    )


def _one_label_problem(splits: Mapping[str, tuple[int, bool]], settings: DataSettings) -> str | None:
    """Describe the first drawn split with one label.

    Args:
        splits: Number of rows of each split, and whether all have one label.
        settings: The settings that drew the splits.
    """
    own_files = {"train": None, "val": settings.val_source, "test": settings.test_source}
    for name, title in _SPLIT_TITLES.items():
        num_rows, has_one_label = splits[name]
        if has_one_label and own_files[name] is None:
            return (
                f"all {num_rows:,} {title} rows have the same label, so that accuracy would say nothing; "
                f"{_how_to_mix(settings, name)}"
            )
    return None


def _how_to_mix(settings: DataSettings, split: str) -> str:
    ways = [] if settings.stratify or settings.group_by or settings.time_by else ["set data.stratify = true"]
    if split != "train" or settings.num_train != "all":
        ways.append(f"raise data.num_{split}")
    if split != "train" and (settings.group_by or settings.time_by):
        ways.append(f"name a file of {_SPLIT_TITLES[split]} rows in data.{split}_source")
    return ", or ".join([*ways, "add rows with other labels"])


def write_texts(corpus: Corpus, folder: Path) -> None:
    """Write the splits' texts and labels for the baselines; for texts on disk, write path and row numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SPLITS:
        first, second = corpus.texts[name], None if corpus.pairs is None else corpus.pairs[name]
        content: dict[str, object]
        if isinstance(first, ArrowTextColumn):
            save_array(folder / f"{name}.npy", np.stack([first.indices, corpus.labels[name].astype(np.int64)]))
            content = {"file": str(first.path), "has_pairs": second is not None}
        else:
            content = {"texts": list(ConcatTexts(first, second)), "labels": corpus.labels[name].tolist()}
        with naming(folder):
            (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def load_texts(folder: Path, split: str) -> tuple[Collection[str], np.ndarray]:
    """Read a split that `write_texts` wrote: texts (segments joined by a space), and labels of shape `(num_rows,)`."""
    content = json.loads((folder / f"{split}.json").read_text(encoding="utf-8"))
    if "texts" in content:
        return content["texts"], np.asarray(content["labels"], dtype=np.int64)
    indices, labels = np.load(folder / f"{split}.npy")
    first, second = (ArrowTextColumn(Path(content["file"]), column, indices) for column in ("text", "pair"))
    return ConcatTexts(first, second if content["has_pairs"] else None), labels


def _describe_split(texts: Sequence[str], pairs: Sequence[str] | None, labels: np.ndarray) -> Split:
    hasher = hashlib.sha256()
    columns = (labels.tolist(), texts) if pairs is None else (labels.tolist(), texts, pairs)
    for row in zip(*columns, strict=True):
        hasher.update("\t".join(map(str, row)).encode() + b"\n")
    return Split(
        num_rows=len(texts),
        sha256=hasher.hexdigest(),
        majority_fraction=float(np.bincount(labels).max() / len(labels)),
    )
