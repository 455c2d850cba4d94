"""Accuracies of two sides on the same test examples, seed by seed (pure)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, pvariance

from harness.analysis.estimate import Estimate
from harness.analysis.significance import SIGNIFICANCE_LEVEL, mcnemar
from harness.schema.cells import FineTuneConfig
from harness.schema.record import Record


@dataclass(frozen=True)
class PairedAccuracy:
    """What the same examples tell of two sides.

    Attributes:
        a, b: Mean over the seeds that both sides have.
        difference: B - A, each example's mean over those seeds; its 95 % interval is between examples.
        tests: By seed, whether B won, and the exact p of McNemar.
    """

    a: float
    b: float
    difference: Estimate
    tests: tuple[tuple[bool, float], ...]


def pair_accuracies(one: Sequence[Record], other: Sequence[Record]) -> PairedAccuracy | None:
    """Hold each seed's first repeats against each other; None without a seed on both sides, or on other examples.

    The examples' differences are averaged over seeds before their spread is taken, since several models that read one
    example are not independent.
    """
    sides = [_by_seed(records) for records in (one, other)]
    pairs = [(sides[0][seed], sides[1][seed]) for seed in sorted(sides[0].keys() & sides[1].keys())]
    pairs = [pair for pair in pairs if _labels(pair[0]) == _labels(pair[1])]
    if not pairs or len({_labels(record) for pair in pairs for record in pair}) > 1:
        return None
    right = [tuple(_right(record) for record in pair) for pair in pairs]
    tests = []
    for mine, theirs in right:
        num_won = sum(after and not before for before, after in zip(mine, theirs, strict=True))
        num_lost = sum(before and not after for before, after in zip(mine, theirs, strict=True))
        tests.append((num_won > num_lost, mcnemar(num_lost, num_won)))
    shares = [fmean(fmean(found) for found in side) for side in zip(*right, strict=True)]
    return PairedAccuracy(shares[0], shares[1], _difference(right), tuple(tests))


def _difference(right: Sequence[tuple[tuple[bool, ...], ...]]) -> Estimate:
    by_seed = [[after - before for before, after in zip(mine, theirs, strict=True)] for mine, theirs in right]
    examples = [fmean(found) for found in zip(*by_seed, strict=True)]
    value = fmean(examples)
    half = NormalDist().inv_cdf(1 - SIGNIFICANCE_LEVEL / 2) * math.sqrt(pvariance(examples) / len(examples))
    return Estimate(value, value - half, value + half, f"over {len(examples):,} examples, {len(right)} seeds")


def _by_seed(records: Iterable[Record]) -> dict[int, Record]:
    """The first repeat of each seed that was tested."""
    found: dict[int, Record] = {}
    for record in sorted(records, key=lambda record: record.repeat):
        if isinstance(record.config, FineTuneConfig) and record.training and record.training.test:
            found.setdefault(record.config.seed, record)
    return found


def _labels(record: Record) -> tuple[object, ...]:
    """What tells whether two test sets are the same."""
    test = record.training.test if record.training else None
    return record.data.test.sha256 if record.data else None, test.labels if test else ()


def _right(record: Record) -> tuple[bool, ...]:
    test = record.training.test if record.training else None
    return tuple(label == guess for label, guess in zip(test.labels, test.predictions, strict=True)) if test else ()
