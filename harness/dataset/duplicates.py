"""Texts that are the same, or nearly: by 64-bit hashes, and by MinHash."""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection, Iterable, Sequence
from itertools import chain, compress

import numpy as np
import pandas as pd

NEAR_SIMILARITY = 0.8
MAX_NEAR_ROWS = 200_000
# 16 bands of 4: of two texts that share 0.8 of their word pairs, one band at least agrees with probability 0.9998.
_NUM_BANDS, _BAND_ROWS = 16, 4
_CANDIDATES_A_BAND = 16
_PAIRS_AT_ONCE, _TEXTS_AT_ONCE = 20_000, 2_000
_MOST_WORDS = 128
_LIKELY_SIMILARITY = 0.55  # as 64 hashes tell it: five standard deviations below
_WORD = re.compile(r"\w+")
_ODD = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xFF51AFD7ED558CCD)


def hash_texts(texts: Sequence[str]) -> np.ndarray:
    """64-bit hashes, the same on every machine, `(num_texts,)`."""
    found: np.ndarray = pd.util.hash_array(np.array(texts, dtype=object), categorize=False)
    return found


def first_occurrences(hashes: np.ndarray, set_aside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which row stands for each text: of equal ones the first that is set aside for most.

    Args:
        hashes: Of all rows, `(num_rows,)`.
        set_aside: What each serves alone: 0 for nothing, else the higher the sooner it is kept, `(num_rows,)`.

    Returns:
        The rows that are kept, rising, and for every row the one that stands for it.
    """
    order = np.lexsort((-set_aside.astype(np.int8), hashes)) if set_aside.any() else np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    begins = np.ones(len(hashes), dtype=bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    del ordered  # of millions of rows each such array counts
    first = order[begins]
    stands_for = np.empty(len(hashes), dtype=np.int64)
    stands_for[order] = first[np.cumsum(begins, dtype=np.int32) - 1]
    return np.sort(first), stands_for


def count_near_duplicates(train: Collection[str], held_out: Sequence[Collection[str]]) -> tuple[int, int]:
    """How many held-out texts nearly are a training text: Jaccard similarity of their pairs of neighbouring words.

    Words are compared without case and punctuation, the first 128 of each text. Up to MOST_NEAR_ROWS texts all are looked
    at, else a random sample of both, at most half of it held out. Of training texts that agree with one on a band, 16 a
    band are looked at.

    Returns:
        Held-out texts of a similarity of NEAR_SIMILARITY or more, and how many texts were looked at.
    """
    rng = np.random.default_rng(0)
    unseen = _sample(held_out, max(MAX_NEAR_ROWS // 2, MAX_NEAR_ROWS - len(train)), rng)
    seen = _sample([train], MAX_NEAR_ROWS - len(unseen), rng)
    num_texts = len(seen) + len(unseen)
    if not seen or not unseen:
        return 0, num_texts
    num_seen = len(seen)
    pairs, offsets = _word_pairs(chain(seen, unseen))
    del seen, unseen  # of long texts that counts
    signatures = _signatures(pairs, offsets)
    found: set[int] = set()
    for band in range(_NUM_BANDS):
        ours, theirs = _candidates(signatures[band * _BAND_ROWS : (band + 1) * _BAND_ROWS], num_seen)
        for begin in range(0, len(ours), _PAIRS_AT_ONCE):
            some = slice(begin, begin + _PAIRS_AT_ONCE)
            alike = (signatures[:, ours[some]] == signatures[:, theirs[some]]).mean(axis=0) >= _LIKELY_SIMILARITY
            for row, other in zip(ours[some][alike].tolist(), theirs[some][alike].tolist(), strict=True):
                if row not in found and _similarity(pairs, offsets, row, other) >= NEAR_SIMILARITY:
                    found.add(row)
    return len(found), num_texts


def _sample(parts: Sequence[Collection[str]], most: int, rng: np.random.Generator) -> list[str]:
    texts, num_texts = chain.from_iterable(parts), sum(map(len, parts))
    if num_texts <= most:
        return list(texts)
    chosen = np.zeros(num_texts, dtype=bool)
    chosen[rng.choice(num_texts, most, replace=False)] = True
    # One pass in order: texts that lie on disk are read a part at a time.
    return list(compress(texts, chosen.tobytes()))


def _word_pairs(texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of each text's pairs of neighbouring words, one text after the other, and where each begins."""
    numbers: dict[str, int] = {}
    words, counts = array("I"), array("q", [0])
    for text in texts:
        of_text = _WORD.findall(text.lower())[:_MOST_WORDS] or [text]
        words.extend(numbers.setdefault(word, len(numbers) + 1) for word in of_text)
        words.append(0)  # the last word's pair is with none, so that a text of one word has one too
        counts.append(len(of_text))
    flat, offsets = np.asarray(words), np.cumsum(np.asarray(counts))
    place = np.arange(len(offsets) - 1)
    mixed = np.delete(flat, offsets[1:] + place).astype(np.uint64)
    mixed *= _ODD
    mixed ^= np.delete(flat, offsets[:-1] + place) * _MIX
    mixed ^= mixed >> np.uint64(33)
    mixed *= _MIX
    mixed ^= mixed >> np.uint64(29)
    return mixed, offsets


def _signatures(pairs: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The least of each of 64 hashes over a text's pairs, `(64, num_texts)`. Source: Broder, SEQUENCES (1997), 21-29."""
    rng = np.random.default_rng(1)
    num = _NUM_BANDS * _BAND_ROWS
    factors = rng.integers(0, 2**63, num, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    terms = rng.integers(0, 2**63, num, dtype=np.uint64)
    signatures = np.empty((num, len(offsets) - 1), dtype=np.uint32)
    for begin in range(0, len(offsets) - 1, _TEXTS_AT_ONCE):
        some = offsets[begin : begin + _TEXTS_AT_ONCE + 1]
        of_some, begins = pairs[some[0] : some[-1]], some[:-1] - some[0]
        for row, (factor, term) in enumerate(zip(factors, terms, strict=True)):
            hashed = ((of_some * factor + term) >> np.uint64(32)).astype(np.uint32)
            signatures[row, begin : begin + len(begins)] = np.minimum.reduceat(hashed, begins)
    return signatures


def _candidates(band: np.ndarray, num_train: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a held-out and a training row that agree on a band `(_BAND_ROWS, num_texts)`; a few of each row's."""
    keys = np.zeros(band.shape[1], dtype=np.uint64)
    for hashes in band:
        keys = (keys ^ hashes) * _ODD
        keys ^= keys >> np.uint64(31)
    by_key = np.argsort(keys[:num_train], kind="stable")
    ordered = keys[:num_train][by_key]
    begins = np.searchsorted(ordered, keys[num_train:], side="left")
    counts = np.minimum(np.searchsorted(ordered, keys[num_train:], side="right") - begins, _CANDIDATES_A_BAND)
    ours = np.repeat(np.arange(num_train, band.shape[1]), counts)
    nth = np.arange(len(ours)) - np.repeat(np.cumsum(counts) - counts, counts)
    return ours, by_key[np.repeat(begins, counts) + nth]


def _similarity(pairs: np.ndarray, offsets: np.ndarray, row: int, other: int) -> float:
    one, two = (set(pairs[offsets[at] : offsets[at + 1]].tolist()) for at in (row, other))
    return len(one & two) / len(one | two)
