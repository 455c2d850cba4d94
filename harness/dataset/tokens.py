"""Tokenise the splits of a corpus into arrays on disk, which the worker opens."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.dataset.array_files import save_array
from harness.dataset.cache import Cache, digest
from harness.dataset.corpus import SPLITS, Corpus
from harness.dataset.sources import ModelFiles
from harness.dataset.tokenizer_files import load_tokenizer, unknown_token_id
from harness.errors import UnwritableError
from harness.files import naming
from harness.schema.inputs_record import DataFacts, Example

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

MMAP_ABOVE_BYTES = 2**26  # larger arrays are memory-mapped, so that ranks share one copy
_LAYOUT = 3  # version of the files of cached tokens; raise it when their format changes
_BATCH_ROWS = 5_000
_SUMMARY = "tokens.json"


@dataclass(frozen=True)
class TokenArrays:
    """The tokens of one split: row i is `ids[offsets[i]:offsets[i + 1]]`, special tokens included.

    Attributes:
        ids: Token ids of all rows, int32, shape `(num_tokens,)`.
        offsets: Start of each row in `ids`, int64, shape `(num_rows + 1,)`.
        labels: Label of each row as index into `DataFacts.labels`, int64, shape `(num_rows,)`.
        first_segment_lengths: Tokens in each row's first segment, special tokens included, int32, shape `(num_rows,)`;
            None for single-segment data.
    """

    ids: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    first_segment_lengths: np.ndarray | None = None

    @property
    def lengths(self) -> np.ndarray:
        """Return the number of tokens of each row, shape `(num_rows,)`."""
        return np.diff(self.offsets)

    def longest(self, rows: np.ndarray) -> int:
        """Return the number of tokens of the longest of some rows, without computing those of all rows; 0 of none."""
        return int((self.offsets[rows + 1] - self.offsets[rows]).max(initial=0))


@dataclass(frozen=True)
class TokenizedSplits:
    """A tokenised corpus: its folder, and the facts that records store."""

    folder: Path
    facts: DataFacts
    example: Example
    tokenise_s: float


def tokenize(
    corpus: Corpus, model: ModelFiles, seq_len: int, folder: Path, *, store_texts: bool, cache: Cache | None = None
) -> TokenizedSplits:
    """Tokenise every split.

    Args:
        corpus: The splits.
        model: The model whose tokenizer is used.
        seq_len: Longer rows are truncated to this many tokens, special tokens included.
        folder: Folder for the tokens of a small source, which are not cached.
        store_texts: Whether the record's example contains its text and tokens.
        cache: Cache for the tokens of a large source; by default the user's cache.

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
        raise UnwritableError(f"{cache.root}: tokens can't be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # the folder is gone if it was committed


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


def largest_token_id(folder: Path) -> int:
    """Return the largest token id of all splits that `tokenize` wrote."""
    return int(json.loads((folder / _SUMMARY).read_text(encoding="utf-8"))["largest_id"])


def _open_tokens(folder: Path, facts: DataFacts, *, from_cache: bool) -> TokenizedSplits:
    summary = json.loads((folder / _SUMMARY).read_text(encoding="utf-8"))
    fractions = {key: summary[key] for key in ("truncated_fraction", "unknown_fraction")}
    facts = facts.model_copy(update=fractions | {"tokens_were_kept": from_cache})
    return TokenizedSplits(folder, facts, Example.model_validate(summary["example"]), summary["tokenise_s"])


def _write_tokens(
    corpus: Corpus, tokenizer: Tokenizer, seq_len: int, folder: Path, start: float, *, store_texts: bool
) -> None:
    """Write the token arrays of all splits, and `tokens.json` with the facts about them.

    Args:
        corpus: The splits.
        tokenizer: A tokenizer that truncates and does not pad.
        seq_len: The truncation length, in tokens.
        folder: An existing folder, to which the files are written.
        start: `time.perf_counter()` when tokenising began.
        store_texts: Whether the example contains its text and tokens.
    """
    unknown_id, counts = unknown_token_id(tokenizer), _TokenCounts()
    for name in SPLITS:
        _write_split_tokens(corpus, name, tokenizer, folder, lambda rows, ids: counts.add(rows, ids, unknown_id))
    num_rows = sum(len(corpus.labels[name]) for name in SPLITS)
    num_special = num_rows * tokenizer.num_special_tokens_to_add(corpus.pairs is not None)
    summary = {
        "truncated_fraction": counts.num_truncated / num_rows,
        "unknown_fraction": counts.num_unknown / max(1, counts.num_tokens - num_special),
        "largest_id": counts.largest_id,
        "example": _example(corpus, tokenizer, seq_len, store_texts=store_texts).model_dump(mode="json"),
        "tokenise_s": time.perf_counter() - start,
    }
    with naming(folder / _SUMMARY):
        (folder / _SUMMARY).write_text(json.dumps(summary), encoding="utf-8")


@dataclass
class _TokenCounts:
    """What is counted while tokens are written."""

    num_truncated: int = 0
    num_tokens: int = 0
    num_unknown: int = 0
    largest_id: int = 0

    def add(self, encodings: list[Encoding], ids: np.ndarray, unknown_id: int | None) -> None:
        """Add a batch's encodings and its token ids."""
        self.num_truncated += sum(bool(encoding.overflowing) for encoding in encodings)
        self.num_tokens += len(ids)
        self.num_unknown += 0 if unknown_id is None else int((ids == unknown_id).sum())
        self.largest_id = max(self.largest_id, int(ids.max(initial=0)))


def _write_split_tokens(
    corpus: Corpus, name: str, tokenizer: Tokenizer, folder: Path, count: Callable[[list[Encoding], np.ndarray], None]
) -> None:
    """Write one split's token arrays.

    Args:
        corpus: The splits.
        name: The split.
        tokenizer: A tokenizer that truncates and does not pad.
        folder: An existing folder, to which the files are written.
        count: Called with each batch's encodings and token ids.
    """
    lengths, first_segment_lengths = [], []
    path = folder / f"{name}-ids.bin"
    with naming(path), path.open("wb") as file:
        for encodings in _encode(corpus, name, tokenizer):
            lengths.append(np.fromiter(map(len, encodings), dtype=np.int64, count=len(encodings)))
            flat = chain.from_iterable(encoding.ids for encoding in encodings)
            ids = np.fromiter(flat, dtype=np.int32, count=lengths[-1].sum())
            count(encodings, ids)
            file.write(ids.tobytes())
            if corpus.pairs is not None:
                batch = [_first_segment_length(encoding.type_ids) for encoding in encodings]
                first_segment_lengths.append(np.array(batch, dtype=np.int32))
    save_array(folder / f"{name}-offsets.npy", np.concatenate([[0], np.cumsum(np.concatenate(lengths))]))
    save_array(folder / f"{name}-labels.npy", corpus.labels[name].astype(np.int64))
    if first_segment_lengths:
        save_array(folder / f"{name}-first-segment-lengths.npy", np.concatenate(first_segment_lengths))


def _encode(corpus: Corpus, name: str, tokenizer: Tokenizer) -> Iterator[list[Encoding]]:
    """Yield a split's encodings in batches, made on all cores and without character offsets, which nothing needs."""
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
    # asarray makes a plain array that still maps the file: torch would copy a subclass such as memmap.
    return np.asarray(np.load(path, mmap_mode="r" if is_mapped else None))


def _first_segment_length(type_ids: list[int]) -> int:
    return type_ids.index(1) if 1 in type_ids else len(type_ids)
