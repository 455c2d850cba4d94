"""Learning curves: accuracy and training time against the number of training examples (pure)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.estimate import Estimate, value_of
from harness.analysis.measured_errors import MeasuredErrors, measure_errors
from harness.analysis.power_law import PowerLaw, fit_power_law
from harness.analysis.summary import Summary
from harness.errors import Unavailable
from harness.pricing import durations, formulas
from harness.pricing.cost import Priced
from harness.schema.cells import FineTuneConfig, hash_config
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
        is_measured: True if `start` and `end` were measured; if False, accuracy at `end` is extrapolated, and time is
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
    """

    points: tuple[CurvePoint, ...]
    num_available: int
    errors: MeasuredErrors
    law: PowerLaw | Unavailable

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
    curves = [_curve(by_size) for by_size in groups.values() if len(by_size) >= FEWEST_POINTS]
    return sorted(curves, key=lambda curve: curve.largest.cell.summary.kind == "baseline")


def measured_gain(curve: LearningCurve) -> Gain:
    """Return the measured gain from the second largest to the largest size."""
    start, end = curve.points[-2:]
    seconds = end.run_s - start.run_s
    accuracy = curve.errors.gain(-2, -1)
    return Gain(start.num_train, end.num_train, accuracy, seconds, _usd(end.cell, seconds), is_measured=True)


def extrapolated_gain(curve: LearningCurve) -> Gain | None:
    """Return the extrapolated gain from the largest size to `num_extrapolated` examples; None without a fit."""
    if isinstance(curve.law, Unavailable):
        return None
    start, end = curve.largest.num_train, num_extrapolated(curve, curve.law)
    accuracy = curve.law.gain(start, end)
    seconds = run_seconds(curve, end) - curve.largest.run_s
    if isinstance(accuracy, Unavailable):
        return None
    return Gain(start, end, accuracy, seconds, _usd(curve.largest.cell, seconds), is_measured=False)


def num_extrapolated(curve: LearningCurve, law: PowerLaw) -> int:
    """Return the number of examples to extrapolate to.

    It is the number of all rows of the source if the fit may be extrapolated so far, else twice the largest measured
    size.
    """
    largest, available = curve.largest.num_train, curve.num_available
    return available if largest < available <= law.max_num_train else TWICE * largest


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


def _curve(by_size: dict[int, Priced]) -> LearningCurve:
    points = tuple(_point(num_train, by_size[num_train]) for num_train in sorted(by_size))
    errors = measure_errors({point.num_train: _correct(point.cell.summary) for point in points})
    available = max(data.num_train_available for point in points if (data := point.cell.summary.data) is not None)
    return LearningCurve(points, available, errors, fit_power_law(errors))


def _point(num_train: int, cell: Priced) -> CurvePoint:
    summary = cell.summary
    assert summary.accuracy is not None and summary.train_s is not None  # noqa: S101 - learning_curves leaves out all others
    return CurvePoint(
        cell=cell,
        num_train=num_train,
        num_seeds=len(_correct_by_seed(summary)),
        accuracy=summary.accuracy,
        train_s=summary.train_s,
        run_s=value_of(durations.run_seconds(summary)) or 0.0,
        whole_s=durations.whole_dataset_seconds(summary),
    )


def _usd(cell: Priced, seconds: float) -> float | None:
    return None if cell.price is None else formulas.usd_of_seconds(cell.price.usd_per_hour, seconds)


def _learns(summary: Summary) -> bool:
    """Return False for the majority class, which more data can't improve, and for baselines fitted on some rows only."""
    return summary.classifier != "majority" and not any(map(was_fitted_on_part, summary.ok_records))


def _correct_by_seed(summary: Summary) -> dict[int, list[np.ndarray]]:
    """Return each seed's repeats as arrays of shape `(num_examples,)`: 1 for a correctly labelled example, else 0."""
    correct: dict[int, list[np.ndarray]] = defaultdict(list)
    for record in summary.ok_records:
        ran = record.training or record.baseline
        if ran is not None and ran.test is not None:
            seed = record.config.seed if isinstance(record.config, FineTuneConfig) else 0
            correct[seed].append(np.equal(ran.test.labels, ran.test.predictions).astype(float))
    return correct


def _correct(summary: Summary) -> np.ndarray:
    """Return each seed's correctness of each test example, averaged over repeats, shape `(num_seeds, num_examples)`."""
    return np.stack([np.mean(repeats, axis=0) for repeats in _correct_by_seed(summary).values()])
