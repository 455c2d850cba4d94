"""Cells that differ in the number of training examples alone: what more data buys, and what all of it takes (pure)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.estimate import Estimate, value_of
from harness.analysis.power_law import MeasuredErrors, PowerLaw, fit_power_law, measure_errors
from harness.analysis.summary import Summary
from harness.errors import Unavailable
from harness.pricing import cost, formulas
from harness.pricing.cost import Priced
from harness.schema.cells import FineTuneConfig, hash_config
from harness.schema.record import was_fitted_on_part

FEWEST_POINTS = 3  # two points are no curve
TWICE = 2
# What the cells of one curve may differ in.
_FREE = ("seed", "data.num_train")


@dataclass(frozen=True)
class CurvePoint:
    """A curve at one number of training examples.

    Attributes:
        accuracy: On the test set, as everywhere else in a report.
        train_s, run_s: Seconds of training, and of a whole run: set-up, training and evaluations.
        whole_s: Training on all rows that the source has for it, estimated from this size; None of a baseline.
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
    """What going from one number of examples to a larger one buys.

    Attributes:
        seconds: By which a whole run is longer.
        usd: Of these seconds; None without a price.
        is_measured: Both ends were; else the end is foretold, its seconds by the speed of the largest size measured.
    """

    start: int
    end: int
    accuracy: Estimate
    seconds: float
    usd: float | None
    is_measured: bool


@dataclass(frozen=True)
class LearningCurve:
    """Cells on one machine and test set that differ in the number of training examples alone, fewest first.

    Attributes:
        num_available: Rows that the source has for training.
        law: What is fitted, or why nothing is.
    """

    points: tuple[CurvePoint, ...]
    num_available: int
    errors: MeasuredErrors
    law: PowerLaw | Unavailable

    @property
    def largest(self) -> CurvePoint:
        """With the most examples."""
        return self.points[-1]

    @property
    def whole(self) -> CurvePoint | None:
        """The point that was trained on all rows that the source has; None where none was."""
        return self.largest if self.largest.num_train == self.num_available else None


def learning_curves(cells: Sequence[Priced]) -> list[LearningCurve]:
    """Every curve of three sizes or more, fine-tuned models before baselines, else in the cells' order."""
    groups: dict[tuple[str, str, str], dict[int, Priced]] = defaultdict(dict)
    for cell in cells:
        data = cell.summary.data
        if data is None or cell.summary.accuracy is None or cell.summary.train_s is None or not _learns(cell.summary):
            continue
        key = cell.summary.machine_id, hash_config(cell.summary.config, ignore=_FREE), data.test.sha256
        groups[key][data.train.num_rows] = cell
    curves = [_curve(found) for found in groups.values() if len(found) >= FEWEST_POINTS]
    return sorted(curves, key=lambda curve: curve.largest.cell.summary.kind == "baseline")


def measured_gain(curve: LearningCurve) -> Gain:
    """From the largest size but one to the largest, as measured on the same test examples."""
    start, end = curve.points[-2:]
    seconds = end.run_s - start.run_s
    accuracy = curve.errors.gain(-2, -1)
    return Gain(start.num_train, end.num_train, accuracy, seconds, _usd(end.cell, seconds), is_measured=True)


def extrapolated_gain(curve: LearningCurve) -> Gain | None:
    """From the largest size measured to all rows that the source has; where those can't be told, to twice as many.

    None where no law is fitted.
    """
    if isinstance(curve.law, Unavailable):
        return None
    start, end = curve.largest.num_train, num_extrapolated(curve, curve.law)
    accuracy = curve.law.gain(start, end)
    seconds = run_seconds(curve, end) - curve.largest.run_s
    if isinstance(accuracy, Unavailable):
        return None
    return Gain(start, end, accuracy, seconds, _usd(curve.largest.cell, seconds), is_measured=False)


def num_extrapolated(curve: LearningCurve, law: PowerLaw) -> int:
    """Of how many examples the report foretells: all that the source has, or twice the most that were measured."""
    largest, available = curve.largest.num_train, curve.num_available
    return available if largest < available <= law.max_num_train else TWICE * largest


def train_seconds(curve: LearningCurve, num_train: float) -> float:
    """Seconds of training on so many examples, in proportion to the largest size measured."""
    return value_of(cost.train_seconds(curve.largest.cell.summary, num_train)) or 0.0


def run_seconds(curve: LearningCurve, num_train: float) -> float:
    """Seconds of a whole run on so many examples: training as above, set-up and evaluations as measured."""
    return value_of(cost.run_seconds(curve.largest.cell.summary, num_train)) or 0.0


def whole_error(curve: LearningCurve, point: CurvePoint) -> float | None:
    """By which share of it training on all rows was estimated wrong from a smaller size; None where it was not measured."""
    if curve.whole is None or point is curve.whole or point.whole_s is None:
        return None
    return point.whole_s.value / curve.whole.train_s - 1


def _curve(found: dict[int, Priced]) -> LearningCurve:
    points = tuple(_point(num_train, found[num_train]) for num_train in sorted(found))
    errors = measure_errors({point.num_train: _right(point.cell.summary) for point in points})
    available = max(data.num_train_available for point in points if (data := point.cell.summary.data) is not None)
    return LearningCurve(points, available, errors, fit_power_law(errors))


def _point(num_train: int, cell: Priced) -> CurvePoint:
    summary = cell.summary
    assert summary.accuracy is not None and summary.train_s is not None  # noqa: S101 - learning_curves takes no others
    return CurvePoint(
        cell=cell,
        num_train=num_train,
        num_seeds=len(_by_seed(summary)),
        accuracy=summary.accuracy,
        train_s=summary.train_s,
        run_s=value_of(cost.run_seconds(summary)) or 0.0,
        whole_s=cost.whole_dataset_seconds(summary),
    )


def _usd(cell: Priced, seconds: float) -> float | None:
    return None if cell.price is None else formulas.usd_of_seconds(cell.price.usd_per_hour, seconds)


def _learns(summary: Summary) -> bool:
    """Whether it is not the commonest answer, of which no data makes more, and saw all the rows that it was given."""
    return summary.classifier != "majority" and not any(map(was_fitted_on_part, summary.ok_records))


def _by_seed(summary: Summary) -> dict[int, list[np.ndarray]]:
    """By seed, 1 where a run labelled a test example right; a list holds a seed's repeats."""
    found: dict[int, list[np.ndarray]] = defaultdict(list)
    for record in summary.ok_records:
        ran = record.training or record.baseline
        if ran is not None and ran.test is not None:
            seed = record.config.seed if isinstance(record.config, FineTuneConfig) else 0
            found[seed].append(np.equal(ran.test.labels, ran.test.predictions).astype(float))
    return found


def _right(summary: Summary) -> np.ndarray:
    """One row a seed, its repeats averaged: they tell nothing of the seeds' spread. `(num_seeds, num_examples)`."""
    return np.stack([np.mean(repeats, axis=0) for repeats in _by_seed(summary).values()])
