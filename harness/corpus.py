"""Labelled texts: files to checked rows, splits that do not leak, and tokens on disk (no torch)."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.errors import UserError
from harness.record import DataFacts, Example, Split
from harness.settings import PACKAGED_DATA, DataSettings
from harness.sources import ModelFiles, locate_data, sha256_of

SPLITS = ("train", "val", "test")
_SHOWN_ROWS = 5


@dataclass(frozen=True)
class Rows:
    """All usable rows of a source, in its order.

    Attributes:
        frame: Columns `text` (str), `label` (str), `group` (str or NA; rows of a group never cross splits), and
            `is_test` (bool; rows that the source itself set aside).
        split_by: What `group` is, or None.
        sha256: Of the source's file, or None.
    """

    frame: pd.DataFrame
    split_by: str | None
    num_duplicates: int
    sha256: str | None


@dataclass(frozen=True)
class Corpus:
    """Rows drawn for each split, labels as indices into `facts.labels`."""

    facts: DataFacts
    texts: dict[str, list[str]]
    labels: dict[str, np.ndarray]


@dataclass(frozen=True)
class Tokens:
    """One split's tokens: row i is `ids[offsets[i]:offsets[i + 1]]`, special tokens included; labels `(num_rows,)`."""

    ids: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, `(num_rows,)`."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Tokenised:
    """Where a corpus lies tokenised (one .npz a split), and what is said of it in a record."""

    folder: Path
    facts: DataFacts
    example: Example
    tokenise_s: float


def load_corpus(settings: DataSettings) -> Corpus:
    """Read a source and draw its splits; the same settings give the same rows in the same order.

    Raises:
        UserError: When the source can't be read, or has too few usable rows.
    """
    rows = _read_rows(settings)
    labels = tuple(sorted(rows.frame["label"].unique()))
    if len(labels) < 2:  # noqa: PLR2004 - a classifier needs two
        found = f"only one label, {labels[0]!r}" if labels else "no rows"
        raise UserError(f"data {settings.source!r}: {found}; at least two labels are needed")
    drawn, num_available = _split(rows.frame, settings)
    index = {label: i for i, label in enumerate(labels)}
    texts = {name: part["text"].tolist() for name, part in drawn.items()}
    indices = {name: part["label"].map(index).to_numpy(dtype=np.int64) for name, part in drawn.items()}
    facts = DataFacts(
        source=settings.source if settings.source == PACKAGED_DATA else Path(settings.source).name,
        sha256=rows.sha256,
        labels=labels,
        split_by=rows.split_by,
        num_source_rows=len(rows.frame),
        num_duplicates_dropped=rows.num_duplicates,
        num_train_available=num_available,
        **{name: _describe_split(texts[name], indices[name]) for name in SPLITS},
    )
    return Corpus(facts, texts, indices)


def tokenise(corpus: Corpus, model: ModelFiles, seq_len: int, folder: Path, *, store_texts: bool) -> Tokenised:
    """Tokenise every split to at most `seq_len` tokens and lay it in `folder`.

    Raises:
        UserError: When the model's folder has no tokenizer.
    """
    began = time.perf_counter()
    tokenizer, sha256 = _load_tokenizer(model)
    tokenizer.no_padding()
    tokenizer.enable_truncation(seq_len)
    num_truncated = num_rows = 0
    folder.mkdir(parents=True, exist_ok=True)
    first: Any = None
    for name in SPLITS:
        encodings = tokenizer.encode_batch(corpus.texts[name])
        num_truncated += sum(bool(encoding.overflowing) for encoding in encodings)
        num_rows += len(encodings)
        offsets = np.cumsum([0, *(len(encoding.ids) for encoding in encodings)])
        ids = np.fromiter((i for encoding in encodings for i in encoding.ids), dtype=np.int32, count=offsets[-1])
        np.savez(folder / f"{name}.npz", ids=ids, offsets=offsets, labels=corpus.labels[name])
        first = first or encodings[0]
    facts = corpus.facts.model_copy(update={"tokenizer_sha256": sha256, "truncated_fraction": num_truncated / num_rows})
    num_padding = max(0, seq_len - len(first.ids))
    example = Example(
        label=facts.labels[corpus.labels["train"][0]],
        text=corpus.texts["train"][0] if store_texts else None,
        tokens=tuple(first.tokens) if store_texts else None,
        input_ids=tuple(first.ids) if store_texts else None,
        attention_mask=(1,) * len(first.ids) + (0,) * num_padding,
    )
    return Tokenised(folder, facts, example, time.perf_counter() - began)


def lay_texts(corpus: Corpus, folder: Path) -> None:
    """Write the splits' texts to `folder`, for the baselines."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SPLITS:
        rows = {"texts": corpus.texts[name], "labels": corpus.labels[name].tolist()}
        (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")


def load_texts(folder: Path, split: str) -> tuple[list[str], np.ndarray]:
    """Read what `lay_texts` wrote: texts, and labels `(num_rows,)`."""
    rows = json.loads((folder / f"{split}.json").read_text(encoding="utf-8"))
    return rows["texts"], np.asarray(rows["labels"], dtype=np.int64)


def load_tokens(folder: Path, split: str) -> Tokens:
    """Read what `tokenise` laid down."""
    with np.load(folder / f"{split}.npz") as arrays:
        return Tokens(arrays["ids"], arrays["offsets"], arrays["labels"])


def _load_tokenizer(model: ModelFiles) -> tuple[Any, str]:
    from tokenizers import BertWordPieceTokenizer, Tokenizer

    for file, load in (("tokenizer.json", Tokenizer.from_file), ("vocab.txt", BertWordPieceTokenizer)):
        path = model.folder / file
        if path.is_file():
            return load(str(path)), sha256_of(path)
    raise UserError(f"model {model.name!r}: no tokenizer.json and no vocab.txt in its folder")


def _read_rows(settings: DataSettings) -> Rows:
    if settings.source == PACKAGED_DATA:
        path = locate_data()
        columns = ["category", "text", "movie_name"]
        frame = pd.read_csv(path, usecols=columns, dtype=str, keep_default_na=False, compression="bz2")
        frame = frame[frame["category"] != "plot"].rename(columns={"category": "label", "movie_name": "group"})
        return _deduplicated(frame, "movie_name", sha256_of(path))
    path = Path(settings.source).expanduser()
    if path.suffix in {".csv", ".tsv"}:
        return _deduplicated(_read_table(path, settings), None, sha256_of(path))
    return _deduplicated(_read_hub(settings), None, None)


def _read_table(path: Path, settings: DataSettings) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"data.source {settings.source!r}: no such file") from None
    except (OSError, ValueError) as error:  # parser and encoding errors are ValueErrors
        raise UserError(f"data.source {settings.source!r}: can't be read as a table: {error}") from None
    missing = [column for column in (settings.text, settings.label) if column not in frame.columns]
    if missing:
        raise UserError(
            f"data.source {settings.source!r}: no column {' and none '.join(map(repr, missing))}; "
            f"its columns: {', '.join(map(repr, frame.columns))} (set data.text and data.label)"
        )
    frame = frame[[settings.text, settings.label]].set_axis(["text", "label"], axis=1)
    for column, key in (("text", settings.text), ("label", settings.label)):
        empty = frame.index[frame[column].str.strip() == ""]
        if len(empty):
            lines = ", ".join(str(row + 2) for row in empty[:_SHOWN_ROWS])
            more = ", ..." if len(empty) > _SHOWN_ROWS else ""
            raise UserError(
                f"data.source {settings.source!r}: {len(empty)} rows have an empty {key!r} (line {lines}{more})"
            )
    return frame.assign(group=None)


def _read_hub(settings: DataSettings) -> pd.DataFrame:
    """Labelled rows of a hub dataset: its `train` split, and its `test` split for testing where it has labels."""
    from datasets import load_dataset

    advice = f"use the packaged default (data.source = {PACKAGED_DATA!r}), or a local .csv or .tsv"
    try:
        dataset = load_dataset(settings.source)
    except Exception as error:  # noqa: BLE001 - the hub client raises of many families
        raise UserError(
            f"data.source {settings.source!r}: no file and not to be had from the hub: {type(error).__name__}; {advice}"
        ) from None
    parts = []
    for name in ("train", "test"):
        part = dataset.get(name)
        if part is None:
            continue
        if missing := {settings.text, settings.label} - set(part.column_names):
            raise UserError(f"data.source {settings.source!r}: no column {sorted(missing)}; it has {part.column_names}")
        labels = part[settings.label]
        if all(label == -1 for label in labels[:100]):
            continue  # the hub's convention for labels held back
        feature = part.features[settings.label]
        named = [feature.int2str(label) if hasattr(feature, "int2str") else str(label) for label in labels]
        parts.append(pd.DataFrame({"text": list(part[settings.text]), "label": named, "is_test": name == "test"}))
    if not parts:
        raise UserError(f"data.source {settings.source!r}: no labelled split named train")
    return pd.concat(parts, ignore_index=True).assign(group=None)


def _deduplicated(frame: pd.DataFrame, split_by: str | None, sha256: str | None) -> Rows:
    if "is_test" not in frame:
        frame = frame.assign(is_test=False)
    unique = frame.drop_duplicates("text").reset_index(drop=True)
    return Rows(unique, split_by, len(frame) - len(unique), sha256)


def _split(frame: pd.DataFrame, settings: DataSettings) -> tuple[dict[str, pd.DataFrame], int]:
    """Draw test, then validation, then training rows; subsets of different `num_train` are nested."""
    rng = np.random.default_rng(settings.seed)
    group = frame["group"].where(frame["group"].notna(), frame.index.astype(str)).to_numpy()
    names = rng.permutation(np.unique(group))
    rank = pd.Series(np.arange(len(names)), index=names)
    # Rows in the order of their shuffled groups; within a group shuffled too.
    order = np.lexsort((rng.permutation(len(frame)), rank[group].to_numpy(), ~frame["is_test"].to_numpy()))
    ranks = rank[group].to_numpy()[order]
    drawn, begin = {}, 0
    for name, wanted in (("test", settings.num_test), ("val", settings.num_val)):
        end = _end_of_group(ranks, begin + wanted)
        if begin + wanted > len(order):
            raise _too_few(settings, len(frame))
        drawn[name] = frame.iloc[rng.permutation(order[begin:end])[:wanted]]
        # Rows that the source set aside for testing serve nothing else.
        begin = max(end, int(frame["is_test"].sum()))
    pool = rng.permutation(order[begin:])
    wanted = len(pool) if settings.num_train == "all" else settings.num_train
    if wanted > len(pool) or not len(pool):
        raise _too_few(settings, len(frame), len(pool))
    drawn["train"] = frame.iloc[pool[:wanted]]
    return drawn, len(pool)


def _end_of_group(ranks: np.ndarray, at: int) -> int:
    while 0 < at < len(ranks) and ranks[at] == ranks[at - 1]:
        at += 1
    return at


def _too_few(settings: DataSettings, num_rows: int, num_left: int | None = None) -> UserError:
    left = f", of which {num_left} are left for training" if num_left is not None else ""
    return UserError(
        f"data {settings.source!r}: {num_rows} usable rows{left}; num_train = {settings.num_train}, num_val = "
        f'{settings.num_val} and num_test = {settings.num_test} ask for more; lower them, or num_train = "all"'
    )


def _describe_split(texts: Sequence[str], labels: np.ndarray) -> Split:
    digest = hashlib.sha256()
    for label, text in zip(labels, texts, strict=True):
        digest.update(f"{label}\t{text}\n".encode())
    return Split(
        num_rows=len(texts),
        sha256=digest.hexdigest(),
        majority_fraction=float(np.bincount(labels).max() / len(labels)),
    )
