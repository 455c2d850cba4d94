"""Learning curves: accuracy and training time against the number of training examples (pure)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.accuracy import scores_by_seed
from harness.analysis.estimate import Estimate, value_of
from harness.analysis.measured_errors import MeasuredErrors, measure_errors
from harness.analysis.power_law import PowerLaw, fit_power_law
from harness.analysis.summary import Summary
from harness.errors import Unavailable
from harness.pricing import durations, formulas
from harness.pricing.cost import Priced
from harness.schema.cells import hash_config
from harness.schema.record import was_fitted_on_part

FEWEST_POINTS = 3
TWICE = 2
# Configuration keys in which the cells of one curve may differ.
_FREE_KEYS = ("seed", "data.num_train")


@dataclass(frozen=True)
class CurvePoint:
    """One number of training examples on a learning curve.

    Attributes:
        accuracy: Test accuracy.
        train_s, run_s: Seconds of training, and of a whole run with set-up and evaluations.
        whole_s: Estimated seconds of training on all rows that the source has for training; None for a baseline.
    """

    cell: Priced
    num_train: int
    num_seeds: int
    accuracy: Estimate
    train_s: float
    run_s: float
    whole_s: Estimate | None


@dataclass(frozen=True)
class Gain:
    """Accuracy gained, and time and cost added, by training on more examples.

    Attributes:
        seconds: Added seconds of a whole run.
        usd: Cost of these seconds; None without a price.
        is_measured: True if `start` and `end` were measured; if False, the accuracy gained is a forecast, and time is
            computed from the throughput at the largest measured size.
    """

    start: int
    end: int
    accuracy: Estimate
    seconds: float
    usd: float | None
    is_measured: bool


@dataclass(frozen=True)
class LearningCurve:
    """Cells on one machine and test set that differ only in the number of training examples, fewest first.

    Attributes:
        num_available: Rows that the source has for training.
        law: The fitted power law, or the reason why no power law can be fitted.
        baseline: The most accurate baseline on the same test set; None without one, and for a baseline's own curve.
    """

    points: tuple[CurvePoint, ...]
    num_available: int
    errors: MeasuredErrors
    law: PowerLaw | Unavailable
    baseline: Priced | None

    @property
    def largest(self) -> CurvePoint:
        """The point with the most examples."""
        return self.points[-1]

    @property
    def whole(self) -> CurvePoint | None:
        """The point trained on all rows that the source has; None if there is no such point."""
        return self.largest if self.largest.num_train == self.num_available else None


def learning_curves(cells: Sequence[Priced]) -> list[LearningCurve]:
    """Find every curve with at least three sizes: first fine-tuned models, then baselines, each in the cells' order."""
    groups: dict[tuple[str, str, str], dict[int, Priced]] = defaultdict(dict)
    for cell in cells:
        data = cell.summary.data
        if data is None or cell.summary.accuracy is None or cell.summary.train_s is None or not _learns(cell.summary):
            continue
        key = cell.summary.machine_id, hash_config(cell.summary.config, ignore=_FREE_KEYS), data.test.sha256
        groups[key][data.train.num_rows] = cell
    baselines = _best_baselines(cells)
    curves = [
        _curve(by_size, baselines.get(test_sha256))
        for (_, _, test_sha256), by_size in groups.items()
        if len(by_size) >= FEWEST_POINTS
    ]
    return sorted(curves, key=lambda curve: curve.largest.cell.summary.kind == "baseline")


def measured_gain(curve: LearningCurve) -> Gain:
    """Return the measured gain from the second largest to the largest size."""
    start, end = curve.points[-2:]
    seconds = end.run_s - start.run_s
    accuracy = curve.errors.gain(-2, -1)
    return Gain(start.num_train, end.num_train, accuracy, seconds, _usd(end.cell, seconds), is_measured=True)


def forecast_gains(curve: LearningCurve) -> list[Gain]:
    """Return the forecast gain of twice the largest size, and of all rows of the source if these are fewer.

    The list is empty without a fit.
    """
    start = curve.largest.num_train
    ends = [TWICE * start] + ([curve.num_available] if start < curve.num_available < TWICE * start else [])
    gains = []
    for end in ends:
        accuracy = curve.law if isinstance(curve.law, Unavailable) else curve.law.gain(end)
        if isinstance(accuracy, Unavailable):
            continue
        seconds = run_seconds(curve, end) - curve.largest.run_s
        gains.append(Gain(start, end, accuracy, seconds, _usd(curve.largest.cell, seconds), is_measured=False))
    return gains


def forecast_lead(curve: LearningCurve) -> Estimate | None:
    """Return how far above the best baseline twice the examples would be; None without a fit or a baseline."""
    lead = curve.law if isinstance(curve.law, Unavailable) else curve.law.lead(TWICE * curve.largest.num_train)
    return None if isinstance(lead, Unavailable) else lead


def train_seconds(curve: LearningCurve, num_train: float) -> float:
    """Return the seconds of training on `num_train` examples, scaled from the largest measured size."""
    return value_of(durations.train_seconds(curve.largest.cell.summary, num_train)) or 0.0


def run_seconds(curve: LearningCurve, num_train: float) -> float:
    """Return the seconds of a whole run on `num_train` examples; only the seconds of training are scaled."""
    return value_of(durations.run_seconds(curve.largest.cell.summary, num_train)) or 0.0


def whole_error(curve: LearningCurve, point: CurvePoint) -> float | None:
    """Return the relative error of a point's estimated seconds for training on all rows; None if not measured."""
    if curve.whole is None or point is curve.whole or point.whole_s is None:
        return None
    return point.whole_s.value / curve.whole.train_s - 1


def _curve(by_size: dict[int, Priced], best_baseline: Priced | None) -> LearningCurve:
    points = tuple(_point(num_train, by_size[num_train]) for num_train in sorted(by_size))
    baseline = None if points[-1].cell.summary.kind == "baseline" else best_baseline
    errors = measure_errors(
        {point.num_train: _scores(point.cell.summary) for point in points},
        None if baseline is None else _scores(baseline.summary).mean(axis=0),
    )
    available = max(data.num_train_available for point in points if (data := point.cell.summary.data) is not None)
    return LearningCurve(points, available, errors, fit_power_law(errors), baseline)


def _best_baselines(cells: Sequence[Priced]) -> dict[str, Priced]:
    """Return the most accurate baseline on each test set, by the test set's hash."""
    best: dict[str, Priced] = {}
    for cell in cells:
        summary = cell.summary
        if summary.kind != "baseline" or summary.accuracy is None or summary.data is None:
            continue
        test_sha256 = summary.data.test.sha256
        other = best.get(test_sha256)
        if other is None or summary.accuracy.value > (value_of(other.summary.accuracy) or 0.0):
            best[test_sha256] = cell
    return best


def _point(num_train: int, cell: Priced) -> CurvePoint:
    summary = cell.summary
    assert summary.accuracy is not None and summary.train_s is not None  # noqa: S101 - learning_curves leaves out all others
    return CurvePoint(
        cell=cell,
        num_train=num_train,
        num_seeds=len(_scores(summary)),
        accuracy=summary.accuracy,
        train_s=summary.train_s,
        run_s=value_of(durations.run_seconds(summary)) or 0.0,
        whole_s=durations.whole_dataset_seconds(summary),
    )


def _usd(cell: Priced, seconds: float) -> float | None:
    return None if cell.usd_per_hour is None else formulas.usd_of_seconds(cell.usd_per_hour, seconds)


def _learns(summary: Summary) -> bool:
    """Return False for the majority class, which more data can't improve, and for baselines fitted on some rows only."""
    return summary.classifier != "majority" and not any(map(was_fitted_on_part, summary.ok_records))


def _scores(summary: Summary) -> np.ndarray:
    """Return each seed's correctness of each test example, averaged over repeats, shape `(num_seeds, num_examples)`."""
    scores = scores_by_seed(summary.ok_records)
    assert scores is not None  # noqa: S101 - learning_curves leaves out cells without an accuracy
    return scores
