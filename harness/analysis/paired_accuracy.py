"""Compare two configurations' accuracies on the same test examples, seed by seed."""

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
    """Accuracies of two sides, A and B, on the same test examples.

    Attributes:
        a, b: Mean accuracy over the seeds that both sides have.
        difference: b - a, with its 95 % interval over test examples.
        tests: For each seed, whether B was better, and the p-value of McNemar's exact test.
    """

    a: float
    b: float
    difference: Estimate
    tests: tuple[tuple[bool, float], ...]


def pair_accuracies(records_a: Sequence[Record], records_b: Sequence[Record]) -> PairedAccuracy | None:
    """Compare the first repeat of each seed that both sides have; None without a common seed or test set.

    An example's differences are averaged over seeds before their variance over examples is computed, because the
    answers of the seeds' models to one example are not independent.
    """
    by_seed_a, by_seed_b = _first_repeats(records_a), _first_repeats(records_b)
    pairs = [(by_seed_a[seed], by_seed_b[seed]) for seed in sorted(by_seed_a.keys() & by_seed_b.keys())]
    pairs = [pair for pair in pairs if _test_set(pair[0]) == _test_set(pair[1])]
    if not pairs or len({_test_set(record) for pair in pairs for record in pair}) > 1:
        return None
    correct = [(_is_correct(record_a), _is_correct(record_b)) for record_a, record_b in pairs]
    tests = []
    for correct_a, correct_b in correct:
        num_only_a = sum(a and not b for a, b in zip(correct_a, correct_b, strict=True))
        num_only_b = sum(b and not a for a, b in zip(correct_a, correct_b, strict=True))
        tests.append((num_only_b > num_only_a, mcnemar(num_only_a, num_only_b)))
    accuracy_a, accuracy_b = (fmean(fmean(seed) for seed in side) for side in zip(*correct, strict=True))
    return PairedAccuracy(accuracy_a, accuracy_b, _difference(correct), tuple(tests))


def _difference(correct: Sequence[tuple[tuple[bool, ...], tuple[bool, ...]]]) -> Estimate:
    """Estimate the accuracy difference mean(d) +- z * sd(d) / sqrt(n) over n examples.

    Here d is an example's difference b - a, averaged over seeds.

    Args:
        correct: For each seed, whether A and B classified each example correctly.
    """
    by_seed = [[b - a for a, b in zip(correct_a, correct_b, strict=True)] for correct_a, correct_b in correct]
    differences = [fmean(example) for example in zip(*by_seed, strict=True)]
    mean = fmean(differences)
    z = NormalDist().inv_cdf(1 - SIGNIFICANCE_LEVEL / 2)
    half = z * math.sqrt(pvariance(differences) / len(differences))
    return Estimate(mean, mean - half, mean + half, f"over {len(differences):,} examples, {len(correct)} seeds")


def _first_repeats(records: Iterable[Record]) -> dict[int, Record]:
    """Return the first repeat of each seed that has a test evaluation."""
    by_seed: dict[int, Record] = {}
    for record in sorted(records, key=lambda record: record.repeat):
        if isinstance(record.config, FineTuneConfig) and record.training and record.training.test:
            by_seed.setdefault(record.config.seed, record)
    return by_seed


def _test_set(record: Record) -> tuple[str | None, tuple[int, ...]]:
    """Return what identifies a test set: its hash and its labels."""
    test = record.training.test if record.training else None
    return record.data.test.sha256 if record.data else None, test.labels if test else ()


def _is_correct(record: Record) -> tuple[bool, ...]:
    """Return for each test example whether it was classified correctly."""
    test = record.training.test if record.training else None
    return (
        tuple(true == predicted for true, predicted in zip(test.labels, test.predictions, strict=True)) if test else ()
    )
