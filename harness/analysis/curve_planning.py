"""How many more seeds or test examples would settle an uncertain forecast of a learning curve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from harness.analysis.curve_likelihood import shapes
from harness.analysis.estimate import Estimate
from harness.analysis.measured_errors import MeasuredErrors
from harness.analysis.power_law import PowerLaw, fit_power_law
from harness.errors import Unavailable

FACTORS = (2, 3, 4, 6, 8, 12, 16)
# An interval this much wider is settled with a power of 80 %: (1.96 + 0.84) / 1.96, as in sample size calculations.
_POWER_WIDENING = 1.43


@dataclass(frozen=True)
class MoreNeeded:
    """The smallest of FACTORS by which seeds, test examples or both must be multiplied; None if none suffices.

    Attributes:
        both: Factor of seeds and test examples together; None also if one of them suffices alone.
    """

    seeds: int | None = None
    examples: int | None = None
    both: int | None = None


def more_needed(law: PowerLaw, num_train: float, is_settled: Callable[[Estimate], bool]) -> MoreNeeded:
    """Find how many times as many seeds, or test examples, would probably settle the gain up to `num_train` examples.

    The points are put on the curve that was forecast, with the covariance that more seeds or examples would leave.

    Args:
        law: A fit.
        num_train: Training set size of the forecast.
        is_settled: Whether a forecast is precise enough.
    """
    gain = law.gain(num_train)
    if isinstance(gain, Unavailable):
        return MoreNeeded()
    expected = _on_forecast_curve(law, num_train, gain.value)

    def settles(measured: MeasuredErrors) -> bool:
        fit = fit_power_law(measured)
        planned = fit if isinstance(fit, Unavailable) else fit.gain(num_train)
        return isinstance(planned, Estimate) and is_settled(_widened(planned))

    def smallest(multiplied: Callable[[int], MeasuredErrors]) -> int | None:
        return next((factor for factor in FACTORS if settles(multiplied(factor))), None)

    seeds = smallest(lambda factor: _with_seeds(expected, law, factor))
    examples = smallest(lambda factor: _with_examples(expected, factor))
    if seeds is not None or examples is not None:
        return MoreNeeded(seeds, examples)
    return MoreNeeded(both=smallest(lambda factor: _with_examples(_with_seeds(expected, law, factor), factor)))


def _on_forecast_curve(law: PowerLaw, num_train: float, gain: float) -> MeasuredErrors:
    """Put the measured sizes on the curve of the likeliest exponent that has the forecast gain."""
    exponent, measured = law.curves.best[1], law.measured
    slope = gain / -shapes(np.array([num_train / law.largest]))[exponent, 0]
    shape = shapes(measured.num_train / law.largest)[exponent]
    return replace(measured, error=measured.error[-1] + slope * shape)


def _with_seeds(measured: MeasuredErrors, law: PowerLaw, factor: int) -> MeasuredErrors:
    """Multiply the number of seeds; single runs are taken to vary as the fit suggests."""
    examples = measured.covariance - np.diag(measured.seed_variance)
    variance = (
        np.diag(law.curves.covariance) - np.diag(examples)
        if measured.degrees_of_freedom == 0
        else measured.seed_variance
    )
    num_seeds = measured.num_seeds * factor
    return replace(
        measured,
        covariance=examples + np.diag(variance / factor),
        seed_variance=variance / factor,
        num_seeds=num_seeds,
        degrees_of_freedom=measured.degrees_of_freedom + float((num_seeds - measured.num_seeds).sum()),
    )


def _with_examples(measured: MeasuredErrors, factor: int) -> MeasuredErrors:
    """Multiply the number of test examples."""
    seeds = np.diag(measured.seed_variance)
    return replace(
        measured,
        covariance=(measured.covariance - seeds) / factor + seeds,
        num_examples=measured.num_examples * factor,
    )


def _widened(estimate: Estimate) -> Estimate:
    low, high = estimate.low, estimate.high
    assert low is not None and high is not None  # noqa: S101 - forecasts have an interval
    return replace(
        estimate,
        low=estimate.value - _POWER_WIDENING * (estimate.value - low),
        high=estimate.value + _POWER_WIDENING * (high - estimate.value),
    )
