"""Accuracy and macro F1 of predicted labels, in plain Python."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Sequence
from itertools import chain


def accuracy(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Return the share of predictions that equal their label."""
    if len(labels) != len(predictions):
        raise ValueError(f"{len(labels)} labels, {len(predictions)} predictions")
    # map() is faster than a Python loop, which matters to reports on thousands of records.
    num_correct: int = sum(map(operator.eq, labels, predictions))
    return num_correct / len(labels)


def macro_f1(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Return the unweighted mean F1 over the classes that occur among labels or predictions."""
    return macro_f1_of_pairs(Counter(zip(labels, predictions, strict=True)))


def macro_f1_of_pairs(pairs: Counter[tuple[int, int]]) -> float:
    """Return macro F1 from the counts of (true, predicted) label pairs."""
    scores = []
    for label in sorted({*chain.from_iterable(pairs)}):
        hits = pairs[label, label]
        errors = sum(count for pair, count in pairs.items() if label in pair) - hits
        scores.append(2 * hits / (2 * hits + errors))
    return sum(scores) / len(scores)
