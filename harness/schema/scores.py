"""TODO: say in one line what this module is for."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Sequence
from itertools import chain


def accuracy(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Share of examples whose prediction is their label."""
    if len(labels) != len(predictions):
        raise ValueError(f"{len(labels)} labels, {len(predictions)} predictions")
    # No line of Python for each example: a report asks thousands of records.
    num_right: int = sum(map(operator.eq, labels, predictions))
    return num_right / len(labels)


def macro_f1(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """F1 of each class that occurs among labels or predictions, averaged with equal weight."""
    return _macro_f1_of(Counter(zip(labels, predictions, strict=True)))


def _macro_f1_of(pairs: Counter[tuple[int, int]]) -> float:
    scores = []
    for label in sorted({*chain.from_iterable(pairs)}):
        hits = pairs[label, label]
        wrong = sum(count for pair, count in pairs.items() if label in pair) - hits
        scores.append(2 * hits / (2 * hits + wrong))
    return sum(scores) / len(scores)
