"""Find exact duplicates by 64-bit hashes, and near duplicates by MinHash with locality-sensitive hashing."""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection, Iterable, Sequence
from itertools import chain, compress

import numpy as np
import pandas as pd

NEAR_SIMILARITY = 0.8
MAX_NEAR_ROWS = 200_000
# 16 bands of 4 hashes: two texts of similarity 0.8 agree on a band with probability 1 - (1 - 0.8^4)^16 = 0.9998.
_NUM_BANDS, _BAND_ROWS = 16, 4
_CANDIDATES_PER_BAND = 16
_PAIRS_PER_BATCH, _TEXTS_PER_BATCH = 20_000, 2_000
_MAX_WORDS = 128
# The exact similarity is only computed if 64 hashes estimate at least this: five standard deviations below 0.8.
_MIN_ESTIMATED_SIMILARITY = 0.55
_WORD = re.compile(r"\w+")
# Multipliers that mix 64-bit hashes: 2^64 over the golden ratio, and MurmurHash3's finalizer.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MURMUR = np.uint64(0xFF51AFD7ED558CCD)


def hash_texts(texts: Sequence[str]) -> np.ndarray:
    """Return a 64-bit hash of each text, which is the same on every machine, as uint64 of shape `(num_texts,)`."""
    hashes: np.ndarray = pd.util.hash_array(np.array(texts, dtype=object), categorize=False)
    return hashes


def first_occurrences(hashes: np.ndarray, assigned_split: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose one row per distinct hash: the first of the rows with the highest `assigned_split`.

    Args:
        hashes: Hash of each row's text, shape `(num_rows,)`.
        assigned_split: Split to which each row's file assigns the row, 0 for none, shape `(num_rows,)`.

    Returns:
        The chosen rows, ascending, and for every row the chosen row with the same text.
    """
    order = (
        np.lexsort((-assigned_split.astype(np.int8), hashes))
        if assigned_split.any()
        else np.argsort(hashes, kind="stable")
    )
    ordered = hashes[order]
    is_first = np.ones(len(hashes), dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    del ordered  # to free memory: arrays of millions of rows are large
    first = order[is_first]
    kept_row_of = np.empty(len(hashes), dtype=np.int64)
    kept_row_of[order] = first[np.cumsum(is_first, dtype=np.int32) - 1]
    return np.sort(first), kept_row_of


def count_near_duplicates(train: Collection[str], held_out: Sequence[Collection[str]]) -> tuple[int, int]:
    """Count held-out texts that nearly equal a training text, by Jaccard similarity of their word bigrams.

    Words are compared without case and punctuation, and only the first 128 of each text. Of more than
    `MAX_NEAR_ROWS` texts, a random sample of that many is checked; at most half of the sample are held-out texts,
    unless training texts don't fill the other half. A held-out text is compared with at most 16 training texts per
    matching band.

    Returns:
        The number of held-out texts with a similarity of `NEAR_SIMILARITY` or more, and the number of texts checked.
    """
    rng = np.random.default_rng(0)
    held_out_texts = _sample(held_out, max(MAX_NEAR_ROWS // 2, MAX_NEAR_ROWS - len(train)), rng)
    train_texts = _sample([train], MAX_NEAR_ROWS - len(held_out_texts), rng)
    num_train, num_texts = len(train_texts), len(train_texts) + len(held_out_texts)
    if not train_texts or not held_out_texts:
        return 0, num_texts
    bigrams, offsets = _hash_bigrams(chain(train_texts, held_out_texts))
    del train_texts, held_out_texts  # to free memory: long texts take much
    signatures = _signatures(bigrams, offsets)
    near: set[int] = set()
    for band in range(_NUM_BANDS):
        rows, train_rows = _candidates(signatures[band * _BAND_ROWS : (band + 1) * _BAND_ROWS], num_train)
        for begin in range(0, len(rows), _PAIRS_PER_BATCH):
            batch = slice(begin, begin + _PAIRS_PER_BATCH)
            estimated = (signatures[:, rows[batch]] == signatures[:, train_rows[batch]]).mean(axis=0)
            likely = estimated >= _MIN_ESTIMATED_SIMILARITY
            for row, train_row in zip(rows[batch][likely].tolist(), train_rows[batch][likely].tolist(), strict=True):
                if row not in near and _similarity(bigrams, offsets, row, train_row) >= NEAR_SIMILARITY:
                    near.add(row)
    return len(near), num_texts


def _sample(parts: Sequence[Collection[str]], max_texts: int, rng: np.random.Generator) -> list[str]:
    texts, num_texts = chain.from_iterable(parts), sum(map(len, parts))
    if num_texts <= max_texts:
        return list(texts)
    chosen = np.zeros(num_texts, dtype=bool)
    chosen[rng.choice(num_texts, max_texts, replace=False)] = True
    # Choose in one pass in order, because texts on disk are read a batch at a time.
    return list(compress(texts, chosen.tobytes()))


def _hash_bigrams(texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hash the word bigrams of each text.

    Returns:
        The hashes of all texts, concatenated, uint64, shape `(num_bigrams,)`, and the start of each text in them, shape
        `(num_texts + 1,)`.
    """
    word_ids: dict[str, int] = {}
    words, counts = array("I"), array("q", [0])
    for text in texts:
        text_words = _WORD.findall(text.lower())[:_MAX_WORDS] or [text]
        words.extend(word_ids.setdefault(word, len(word_ids) + 1) for word in text_words)
        words.append(0)  # end of text, paired with the last word, so that a text of one word has a bigram too
        counts.append(len(text_words))
    flat, offsets = np.asarray(words), np.cumsum(np.asarray(counts))
    ends_before = np.arange(len(offsets) - 1)
    hashes = np.delete(flat, offsets[1:] + ends_before).astype(np.uint64)  # first words of the bigrams
    hashes *= _GOLDEN
    hashes ^= np.delete(flat, offsets[:-1] + ends_before) * _MURMUR  # second words of the bigrams
    hashes ^= hashes >> np.uint64(33)
    hashes *= _MURMUR
    hashes ^= hashes >> np.uint64(29)
    return hashes, offsets


def _signatures(bigrams: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return MinHash signatures: the minimum of each of 64 hash functions over a text's bigrams.

    Source: A. Z. Broder, "On the resemblance and containment of documents", SEQUENCES (1997), 21-29.

    Returns:
        uint32, shape `(64, num_texts)`.
    """
    rng = np.random.default_rng(1)
    num_hashes = _NUM_BANDS * _BAND_ROWS
    factors = rng.integers(0, 2**63, num_hashes, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    terms = rng.integers(0, 2**63, num_hashes, dtype=np.uint64)
    signatures = np.empty((num_hashes, len(offsets) - 1), dtype=np.uint32)
    for begin in range(0, len(offsets) - 1, _TEXTS_PER_BATCH):
        bounds = offsets[begin : begin + _TEXTS_PER_BATCH + 1]
        batch, starts = bigrams[bounds[0] : bounds[-1]], bounds[:-1] - bounds[0]
        for row, (factor, term) in enumerate(zip(factors, terms, strict=True)):
            hashed = ((batch * factor + term) >> np.uint64(32)).astype(np.uint32)
            signatures[row, begin : begin + len(starts)] = np.minimum.reduceat(hashed, starts)
    return signatures


def _candidates(band: np.ndarray, num_train: int) -> tuple[np.ndarray, np.ndarray]:
    """Pair each held-out text with the first few training texts that have equal hashes in the whole band.

    Args:
        band: The band's rows of the signatures, training texts first, shape `(_BAND_ROWS, num_texts)`.
        num_train: Number of training texts.

    Returns:
        The held-out and the training index of each pair, both of shape `(num_pairs,)`.
    """
    keys = np.zeros(band.shape[1], dtype=np.uint64)
    for hashes in band:
        keys = (keys ^ hashes) * _GOLDEN
        keys ^= keys >> np.uint64(31)
    by_key = np.argsort(keys[:num_train], kind="stable")
    ordered = keys[:num_train][by_key]
    begins = np.searchsorted(ordered, keys[num_train:], side="left")
    counts = np.minimum(np.searchsorted(ordered, keys[num_train:], side="right") - begins, _CANDIDATES_PER_BAND)
    held_out = np.repeat(np.arange(num_train, band.shape[1]), counts)
    index_in_row = np.arange(len(held_out)) - np.repeat(np.cumsum(counts) - counts, counts)
    return held_out, by_key[np.repeat(begins, counts) + index_in_row]


def _similarity(bigrams: np.ndarray, offsets: np.ndarray, row: int, other_row: int) -> float:
    """Return the Jaccard similarity of two texts' bigrams: intersection over union.

    Args:
        bigrams: Hashes of all texts' bigrams, from `_hash_bigrams`.
        offsets: Start of each text in `bigrams`, from `_hash_bigrams`.
        row: Index of one text.
        other_row: Index of the other text.
    """
    a, b = (set(bigrams[offsets[index] : offsets[index + 1]].tolist()) for index in (row, other_row))
    return len(a & b) / len(a | b)
