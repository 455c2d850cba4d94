"""Turn a source's rows into leak-free splits, and splits into token arrays on disk."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.dataset.arrow_texts import ArrowTextColumn, ConcatTexts
from harness.dataset.cache import Cache, digest
from harness.dataset.duplicates import count_near_duplicates
from harness.dataset.rows import Rows, read_rows
from harness.dataset.sources import ModelFiles
from harness.dataset.splits import draw_splits
from harness.errors import UserError
from harness.files import cached_sha256
from harness.schema.inputs_record import DataFacts, Example, Split
from harness.schema.settings import DataSettings

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

SPLITS = ("train", "val", "test")
RARE_ROWS = 10
MMAP_ABOVE_BYTES = 2**26  # larger arrays are memory-mapped, so that ranks share one copy
_LAYOUT = 2  # of cached tokens; raise it when the files change
_BATCH_ROWS = 5_000


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


@dataclass(frozen=True)
class TokenArrays:
    """The tokens of one split: row i is `ids[offsets[i]:offsets[i + 1]]`, special tokens included.

    Attributes:
        ids: Token ids of all rows, int32, shape `(num_tokens,)`.
        offsets: Start of each row in `ids`, int64, shape `(num_rows + 1,)`.
        labels: int64, shape `(num_rows,)`.
        first_segment_lengths: Tokens in each row's first segment, special tokens included, int32, shape `(num_rows,)`;
            None for single-segment data.
    """

    ids: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    first_segment_lengths: np.ndarray | None = None

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each row, shape `(num_rows,)`."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class TokenizedSplits:
    """Folder of a tokenised corpus, and the facts about it that records store."""

    folder: Path
    facts: DataFacts
    example: Example
    tokenise_s: float


def load_corpus(settings: DataSettings, rows: Rows | None = None) -> Corpus:
    """Read a source, unless its rows are given, and draw its splits; deterministic for equal settings.

    Raises:
        UserError: If the source can't be read, or has too few usable rows or labels.
    """
    rows = rows or read_rows(settings)
    if len(rows.label_names) < 2:  # noqa: PLR2004 - a classifier needs two
        problem = f"only one label, {rows.label_names[0]!r}" if rows.label_names else "no rows"
        raise UserError(f"data {settings.source!r}: {problem}; at least two labels are needed")
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


def tokenize(
    corpus: Corpus, model: ModelFiles, seq_len: int, folder: Path, *, store_texts: bool, cache: Cache | None = None
) -> TokenizedSplits:
    """Tokenise every split.

    Args:
        corpus: The splits.
        model: Where the tokenizer is.
        seq_len: Longer rows are truncated to this many tokens, special tokens included.
        folder: Where to write the tokens of a small source.
        store_texts: Whether the record's example contains its text and tokens.
        cache: Where to look up and write the tokens of a large source; by default the user's cache.

    Raises:
        UserError: If the model has no tokenizer, or the tokens can't be written.
    """
    start = time.perf_counter()
    tokenizer, sha256 = load_tokenizer(model)
    tokenizer.no_padding()
    tokenizer.enable_truncation(seq_len)
    facts = corpus.facts.model_copy(update={"tokenizer_sha256": sha256})
    if corpus.cache_key is None:
        folder.mkdir(parents=True, exist_ok=True)
        _write_tokens(corpus, tokenizer, seq_len, folder, start, store_texts=store_texts)
        return _open_tokens(folder, facts, from_cache=False)
    cache = cache or Cache()
    key = digest(_LAYOUT, corpus.cache_key, sha256, seq_len, store_texts)
    cached = cache.find(key)
    if cached is not None:
        return _open_tokens(cached, facts, from_cache=True)
    staging = cache.create_staging_folder()
    try:
        _write_tokens(corpus, tokenizer, seq_len, staging, start, store_texts=store_texts)
        description = f"{facts.source}: {facts.train.num_rows:,} training rows in tokens, {seq_len} at most"
        return _open_tokens(cache.commit(staging, key, description), facts, from_cache=False)
    except OSError as error:
        raise UserError(f"{cache.root}: tokens can't be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # does not exist if it was committed


def write_texts(corpus: Corpus, folder: Path) -> None:
    """Write the splits' texts and labels for the baselines; for texts on disk, write their file and row numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SPLITS:
        first, second = corpus.texts[name], None if corpus.pairs is None else corpus.pairs[name]
        content: dict[str, object]
        if isinstance(first, ArrowTextColumn):
            np.save(folder / f"{name}.npy", np.stack([first.indices, corpus.labels[name].astype(np.int64)]))
            content = {"file": str(first.path), "has_pairs": second is not None}
        else:
            content = {"texts": list(ConcatTexts(first, second)), "labels": corpus.labels[name].tolist()}
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def load_texts(folder: Path, split: str) -> tuple[Collection[str], np.ndarray]:
    """Read what `write_texts` wrote: texts with both segments joined by a space, and labels of shape `(num_rows,)`."""
    content = json.loads((folder / f"{split}.json").read_text(encoding="utf-8"))
    if "texts" in content:
        return content["texts"], np.asarray(content["labels"], dtype=np.int64)
    indices, labels = np.load(folder / f"{split}.npy")
    first, second = (ArrowTextColumn(Path(content["file"]), column, indices) for column in ("text", "pair"))
    return ConcatTexts(first, second if content["has_pairs"] else None), labels


def load_tokens(folder: Path, split: str, *, mmap_above_bytes: int = MMAP_ABOVE_BYTES) -> TokenArrays:
    """Open one split that `tokenize` wrote; arrays larger than `mmap_above_bytes` are memory-mapped."""
    first_segment_lengths = folder / f"{split}-first-segment-lengths.npy"
    return TokenArrays(
        ids=_open_array(folder / f"{split}-ids.bin", mmap_above_bytes),
        offsets=_open_array(folder / f"{split}-offsets.npy", mmap_above_bytes),
        labels=_open_array(folder / f"{split}-labels.npy", mmap_above_bytes),
        first_segment_lengths=(
            _open_array(first_segment_lengths, mmap_above_bytes) if first_segment_lengths.is_file() else None
        ),
    )


def load_tokenizer(model: ModelFiles) -> tuple[Tokenizer, str]:
    """Load a model's tokenizer; return it with the SHA-256 of its file.

    Raises:
        UserError: If the model's folder contains none.
    """
    from tokenizers import BertWordPieceTokenizer, Tokenizer

    path = model.folder / "tokenizer.json"
    if path.is_file():
        return Tokenizer.from_file(str(path)), cached_sha256(path)
    path = model.folder / "vocab.txt"
    if path.is_file():
        return Tokenizer.from_str(BertWordPieceTokenizer(str(path)).to_str()), cached_sha256(path)
    raise UserError(f"model {model.name!r}: its folder has no tokenizer.json and no vocab.txt")


def _open_tokens(folder: Path, facts: DataFacts, *, from_cache: bool) -> TokenizedSplits:
    summary = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))
    facts = facts.model_copy(
        update={"truncated_fraction": summary["truncated_fraction"], "tokens_were_kept": from_cache}
    )
    return TokenizedSplits(folder, facts, Example.model_validate(summary["example"]), summary["tokenise_s"])


def _write_tokens(
    corpus: Corpus, tokenizer: Tokenizer, seq_len: int, folder: Path, start: float, *, store_texts: bool
) -> None:
    """Write the token arrays of all splits, and `tokens.json` with the facts about them.

    Args:
        corpus: The splits.
        tokenizer: Set to truncate, and not to pad.
        seq_len: The truncation length, in tokens.
        folder: An existing folder.
        start: `time.perf_counter()` when tokenising began.
        store_texts: Whether the example contains its text and tokens.
    """
    num_truncated = sum(_write_split_tokens(corpus, name, tokenizer, folder) for name in SPLITS)
    summary = {
        "truncated_fraction": num_truncated / sum(len(corpus.labels[name]) for name in SPLITS),
        "example": _example(corpus, tokenizer, seq_len, store_texts=store_texts).model_dump(mode="json"),
        "tokenise_s": time.perf_counter() - start,
    }
    (folder / "tokens.json").write_text(json.dumps(summary), encoding="utf-8")


def _write_split_tokens(corpus: Corpus, name: str, tokenizer: Tokenizer, folder: Path) -> int:
    """Write one split's token arrays; return the number of truncated rows.

    Args:
        corpus: The splits.
        name: The split.
        tokenizer: Set to truncate, and not to pad.
        folder: An existing folder.
    """
    num_truncated, lengths, first_segment_lengths = 0, [], []
    with (folder / f"{name}-ids.bin").open("wb") as file:
        for encodings in _encode(corpus, name, tokenizer):
            num_truncated += sum(bool(encoding.overflowing) for encoding in encodings)
            lengths.append(np.fromiter(map(len, encodings), dtype=np.int64, count=len(encodings)))
            ids = chain.from_iterable(encoding.ids for encoding in encodings)
            file.write(np.fromiter(ids, dtype=np.int32, count=lengths[-1].sum()).tobytes())
            if corpus.pairs is not None:
                batch = [_first_segment_length(encoding.type_ids) for encoding in encodings]
                first_segment_lengths.append(np.array(batch, dtype=np.int32))
    np.save(folder / f"{name}-offsets.npy", np.concatenate([[0], np.cumsum(np.concatenate(lengths))]))
    np.save(folder / f"{name}-labels.npy", corpus.labels[name].astype(np.int64))
    if first_segment_lengths:
        np.save(folder / f"{name}-first-segment-lengths.npy", np.concatenate(first_segment_lengths))
    return num_truncated


def _encode(corpus: Corpus, name: str, tokenizer: Tokenizer) -> Iterator[list[Encoding]]:
    """Yield a split's encodings in batches; the `fast` variant, on all cores, skips character offsets."""
    rows: Iterator[str | tuple[str, str]] = iter(corpus.texts[name])
    if corpus.pairs is not None:
        rows = zip(corpus.texts[name], corpus.pairs[name], strict=True)
    while batch := list(islice(rows, _BATCH_ROWS)):
        yield tokenizer.encode_batch_fast(batch)


def _example(corpus: Corpus, tokenizer: Tokenizer, seq_len: int, *, store_texts: bool) -> Example:
    """Describe the first training row, padded to `seq_len` tokens."""
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


def _open_array(path: Path, mmap_above_bytes: int) -> np.ndarray:
    is_mapped = path.stat().st_size > mmap_above_bytes
    if path.suffix == ".bin":
        return np.asarray(np.memmap(path, np.int32, "r")) if is_mapped else np.fromfile(path, np.int32)
    # asarray makes a plain array over the mapped memory: torch copies subclasses such as memmap.
    return np.asarray(np.load(path, mmap_mode="r" if is_mapped else None))


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


def _first_segment_length(type_ids: list[int]) -> int:
    return type_ids.index(1) if 1 in type_ids else len(type_ids)
