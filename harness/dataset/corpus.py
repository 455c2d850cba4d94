"""Labelled texts: a source's rows to splits that do not leak, and to tokens on disk (no torch)."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.dataset.arrow_texts import ArrowTextColumn, ConcatTexts
from harness.dataset.cache import Cache, digest
from harness.dataset.duplicates import count_near_duplicates
from harness.dataset.rows import Rows, read_rows
from harness.dataset.sources import ModelFiles
from harness.dataset.splits import draw_splits
from harness.errors import UserError
from harness.files import cached_sha256
from harness.schema.settings import DataSettings
from harness.schema.training_record import DataFacts, Example, Split

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

SPLITS = ("train", "val", "test")
RARE_ROWS = 10
_LAYOUT = 1  # of kept tokens: raised when it changes
_ENCODED_AT_ONCE = 5_000
# Larger arrays are mapped, so that ranks open them without loading them.
_MAPPED_BYTES = 2**26


@dataclass(frozen=True)
class Corpus:
    """Rows drawn for each split, labels as indices into `facts.labels`.

    Attributes:
        texts: First segments; lists, or on disk where the source is large.
        pairs: Second segments; None where rows have one.
        key: Of the cache: tells these splits from all others; None where the source is not large.
    """

    facts: DataFacts
    texts: dict[str, Sequence[str]]
    labels: dict[str, np.ndarray]
    pairs: dict[str, Sequence[str]] | None = None
    cache_key: str | None = None


@dataclass(frozen=True)
class TokenArrays:
    """One split's tokens: row i is `ids[offsets[i]:offsets[i + 1]]`, special tokens included; labels `(num_rows,)`.

    Attributes:
        firsts: Of rows of two segments how many tokens the first one has, special tokens included, `(num_rows,)`.
    """

    ids: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    first_segment_lengths: np.ndarray | None = None

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, `(num_rows,)`."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class TokenizedSplits:
    """Where a corpus lies tokenised (a few arrays a split), and what is said of it in a record."""

    folder: Path
    facts: DataFacts
    example: Example
    tokenise_s: float


def load_corpus(settings: DataSettings, rows: Rows | None = None) -> Corpus:
    """Read a source, unless its rows are given, and draw its splits; the same settings give the same rows in one order.

    Raises:
        UserError: When the source can't be read, or has too few usable rows.
    """
    rows = rows or read_rows(settings)
    if len(rows.label_names) < 2:  # noqa: PLR2004 - a classifier needs two
        found = f"only one label, {rows.label_names[0]!r}" if rows.label_names else "no rows"
        raise UserError(f"data {settings.source!r}: {found}; at least two labels are needed")
    drawn, num_available, num_leaks = draw_splits(rows, settings)
    segments = {name: rows.take(drawn[name]) for name in SPLITS}
    texts = {name: first for name, (first, _) in segments.items()}
    pairs = {name: second for name, (_, second) in segments.items() if second is not None} or None
    labels = {name: np.asarray(rows.labels[drawn[name]]) for name in SPLITS}
    joined = {name: ConcatTexts(texts[name], None if pairs is None else pairs[name]) for name in SPLITS}
    num_near, num_checked = count_near_duplicates(joined["train"], [joined["val"], joined["test"]])
    counts = np.bincount(labels["train"], minlength=len(rows.label_names))
    told = vars(rows.facts)
    facts = DataFacts(
        labels=rows.label_names,
        num_source_rows=len(rows.labels),
        num_train_available=num_available,
        num_near_duplicates=num_near,
        num_near_checked=num_checked,
        rare_labels=tuple(name for name, count in zip(rows.label_names, counts, strict=True) if count < RARE_ROWS),
        **(told | {"num_leaks_dropped": told["num_leaks_dropped"] + num_leaks}),
        **{name: _describe_split(*segments[name], labels[name]) for name in SPLITS},
    )
    key = None if rows.cache_key is None else digest(rows.cache_key, settings.model_dump(mode="json"))
    return Corpus(facts, texts, labels, pairs, key)


def tokenize(
    corpus: Corpus, model: ModelFiles, seq_len: int, folder: Path, *, store_texts: bool, cache: Cache | None = None
) -> TokenizedSplits:
    """Tokenise every split to at most `seq_len` tokens and lay it in `folder`; what is large, in the cache.

    Raises:
        UserError: When the model's folder has no tokenizer, or the disk no room.
    """
    began = time.perf_counter()
    tokenizer, sha256 = load_tokenizer(model)
    tokenizer.no_padding()
    tokenizer.enable_truncation(seq_len)
    facts = corpus.facts.model_copy(update={"tokenizer_sha256": sha256})
    if corpus.cache_key is None:
        folder.mkdir(parents=True, exist_ok=True)
        return _open_texts(
            _write_tokens(corpus, tokenizer, seq_len, folder, began, store_texts=store_texts), facts, kept=False
        )
    cache = cache or Cache()
    key = digest(_LAYOUT, corpus.cache_key, sha256, seq_len, store_texts)
    kept = cache.find(key)
    if kept is not None:
        return _open_texts(kept, facts, kept=True)
    half = cache.begin()
    try:
        _write_tokens(corpus, tokenizer, seq_len, half, began, store_texts=store_texts)
        words = f"{facts.source}: {facts.train.num_rows:,} training rows in tokens, {seq_len} at most"
        return _open_texts(cache.keep(half, key, words), facts, kept=False)
    except OSError as error:
        raise UserError(f"{cache.root}: tokens can't be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(half, ignore_errors=True)  # gone already where it was kept


def write_texts(corpus: Corpus, folder: Path) -> None:
    """Write the splits' texts to `folder`, for the baselines; of those that lie on disk, where."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SPLITS:
        first, second = corpus.texts[name], None if corpus.pairs is None else corpus.pairs[name]
        if isinstance(first, ArrowTextColumn):
            np.save(folder / f"{name}.npy", np.stack([first.indices, corpus.labels[name].astype(np.int64)]))
            rows: dict[str, Any] = {"file": str(first.path), "has_pairs": second is not None}
        else:
            rows = {"texts": list(ConcatTexts(first, second)), "labels": corpus.labels[name].tolist()}
        (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")


def load_texts(folder: Path, split: str) -> tuple[Collection[str], np.ndarray]:
    """Read what `lay_texts` wrote: texts, both segments joined by a blank, and labels `(num_rows,)`."""
    rows = json.loads((folder / f"{split}.json").read_text(encoding="utf-8"))
    if "texts" in rows:
        return rows["texts"], np.asarray(rows["labels"], dtype=np.int64)
    indices, labels = np.load(folder / f"{split}.npy")
    first, second = (ArrowTextColumn(Path(rows["file"]), column, indices) for column in ("text", "pair"))
    return ConcatTexts(first, second if rows["has_pairs"] else None), labels


def load_tokens(folder: Path, split: str) -> TokenArrays:
    """Open what `tokenise` laid down."""
    firsts = folder / f"{split}-firsts.npy"
    return TokenArrays(
        ids=_open_array(folder / f"{split}-ids.bin"),
        offsets=_open_array(folder / f"{split}-offsets.npy"),
        labels=_open_array(folder / f"{split}-labels.npy"),
        first_segment_lengths=_open_array(firsts) if firsts.is_file() else None,
    )


def _open_texts(folder: Path, facts: DataFacts, *, kept: bool) -> TokenizedSplits:
    told = json.loads((folder / "told.json").read_text(encoding="utf-8"))
    facts = facts.model_copy(update={"truncated_fraction": told["truncated_fraction"], "tokens_were_kept": kept})
    return TokenizedSplits(folder, facts, Example.model_validate(told["example"]), told["tokenise_s"])


def _write_tokens(
    corpus: Corpus, tokenizer: Tokenizer, seq_len: int, folder: Path, began: float, *, store_texts: bool
) -> Path:
    num_truncated = num_rows = 0
    for name in SPLITS:
        lengths, firsts = [], []
        with (folder / f"{name}-ids.bin").open("wb") as file:
            for encodings in _encode(corpus, name, tokenizer):
                num_truncated += sum(bool(encoding.overflowing) for encoding in encodings)
                lengths.append(np.fromiter(map(len, encodings), dtype=np.int64, count=len(encodings)))
                ids = chain.from_iterable(encoding.ids for encoding in encodings)
                file.write(np.fromiter(ids, dtype=np.int32, count=lengths[-1].sum()).tobytes())
                if corpus.pairs is not None:
                    firsts.append(
                        np.array([_first_segment(encoding.type_ids) for encoding in encodings], dtype=np.int32)
                    )
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        num_rows += len(offsets) - 1
        np.save(folder / f"{name}-offsets.npy", offsets)
        np.save(folder / f"{name}-labels.npy", corpus.labels[name].astype(np.int64))
        if firsts:
            np.save(folder / f"{name}-firsts.npy", np.concatenate(firsts))
    told = {
        "truncated_fraction": num_truncated / num_rows,
        "example": _example(corpus, tokenizer, seq_len, store_texts=store_texts).model_dump(mode="json"),
        "tokenise_s": time.perf_counter() - began,
    }
    (folder / "told.json").write_text(json.dumps(told), encoding="utf-8")
    return folder


def _encode(corpus: Corpus, name: str, tokenizer: Tokenizer) -> Iterator[list[Encoding]]:
    """A split's rows, encoded by all cores, some at a time; what stands where in a text is left out."""
    rows: Iterator[Any] = iter(corpus.texts[name])
    if corpus.pairs is not None:
        rows = zip(rows, corpus.pairs[name], strict=True)
    while some := list(islice(rows, _ENCODED_AT_ONCE)):
        yield tokenizer.encode_batch_fast(some)


def _example(corpus: Corpus, tokenizer: Tokenizer, seq_len: int, *, store_texts: bool) -> Example:
    """The first training row."""
    text = corpus.texts["train"][0]
    pair = None if corpus.pairs is None else corpus.pairs["train"][0]
    encoding = tokenizer.encode(text, pair)
    num_padding = max(0, seq_len - len(encoding.ids))
    return Example(
        label=corpus.facts.labels[corpus.labels["train"][0]],
        text=text if store_texts else None,
        tokens=tuple(encoding.tokens) if store_texts else None,
        input_ids=tuple(encoding.ids) if store_texts else None,
        attention_mask=(1,) * len(encoding.ids) + (0,) * num_padding,
        pair=pair if store_texts else None,
        token_type_ids=tuple(encoding.type_ids) if pair is not None and store_texts else None,
    )


def load_tokenizer(model: ModelFiles) -> tuple[Tokenizer, str]:
    """A model's tokenizer, and its file's SHA-256.

    Raises:
        UserError: When there is none in its folder.
    """
    from tokenizers import BertWordPieceTokenizer, Tokenizer

    path = model.folder / "tokenizer.json"
    if path.is_file():
        return Tokenizer.from_file(str(path)), cached_sha256(path)
    path = model.folder / "vocab.txt"
    if path.is_file():
        return Tokenizer.from_str(BertWordPieceTokenizer(str(path)).to_str()), cached_sha256(path)
    raise UserError(f"model {model.name!r}: no tokenizer.json and no vocab.txt in its folder")


def _open_array(path: Path) -> np.ndarray:
    mapped = path.stat().st_size > _MAPPED_BYTES
    if path.suffix == ".bin":
        return np.asarray(np.memmap(path, np.int32, "r")) if mapped else np.fromfile(path, np.int32)
    # A plain array over the same memory: torch takes no subclass without a copy.
    return np.asarray(np.load(path, mmap_mode="r" if mapped else None))


def _describe_split(texts: Sequence[str], pairs: Sequence[str] | None, labels: np.ndarray) -> Split:
    hasher = hashlib.sha256()
    rows = (
        zip(labels.tolist(), texts, strict=True) if pairs is None else zip(labels.tolist(), texts, pairs, strict=True)
    )
    for row in rows:
        hasher.update("\t".join(map(str, row)).encode() + b"\n")
    return Split(
        num_rows=len(texts),
        sha256=hasher.hexdigest(),
        majority_fraction=float(np.bincount(labels).max() / len(labels)),
    )


def _first_segment(type_ids: list[int]) -> int:
    """How many tokens come before those of the second segment."""
    return type_ids.index(1) if 1 in type_ids else len(type_ids)
