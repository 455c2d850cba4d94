"""Predict what more training examples gain, from a family of power laws through measured test errors.

Sources: C. Cortes et al., "Learning curves: asymptotic values and rate of convergence", NIPS 6 (1993), 327-334;
J. Hestness et al., "Deep learning scaling is predictable, empirically", arXiv:1712.00409 (2017), which also describes
the small-data region where the law does not hold yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.analysis.curve_likelihood import Curves, averaged_gain, fit_curves, p_value, profile_interval, shapes
from harness.analysis.estimate import Estimate, t_quantile
from harness.analysis.measured_errors import MeasuredErrors
from harness.errors import Unavailable

MIN_SIZES = 4  # three determine a curve's three parameters; a fourth tests the fit
MIN_SPAN = 4.0  # largest training set size over the smallest
MAX_EXTRAPOLATION = 2.0  # no prediction beyond this multiple of the largest measured size
MIN_FIT_P_VALUE = 0.1  # a fit is rejected if curves of the family miss their points so far more rarely than this

_BASIS = "prediction interval of the mean over seeds"


@dataclass(frozen=True)
class PowerLaw:
    """Curves fitted to measured errors.

    Attributes:
        measured: The sizes that were fitted.
        p_value: Goodness of fit: probability that points on a curve miss it by more than the measured points do.
        curves: Curves through all fitted sizes.
        without_one: Curves through all of these sizes except one, for each size.
    """

    measured: MeasuredErrors
    p_value: float
    curves: Curves
    without_one: tuple[Curves, ...]

    @property
    def smallest(self) -> int:
        """Smallest training set size that was fitted."""
        return int(self.measured.num_train[0])

    @property
    def largest(self) -> int:
        """Largest training set size that was fitted."""
        return int(self.measured.num_train[-1])

    def fitted(self, num_train: np.ndarray) -> np.ndarray:
        """Return the most likely curve's accuracies at training set sizes of shape `(num_sizes,)`."""
        best = self.curves.best
        slope = max(0.0, float(self.curves.slope[best]))
        accuracies: np.ndarray = 1 - self.curves.level[best] - slope * shapes(num_train / self.largest)[best[1]]
        return accuracies

    def gain(self, num_train: float) -> Estimate | Unavailable:
        """Predict how much the mean accuracy gains from the largest measured size to `num_train` examples, which is larger.

        The value averages over curves. The 95 % interval is the profile likelihood's, extended to the values that the
        fits without one of the sizes give. Neither exceeds the error at the largest size.
        """
        return self._too_far(num_train) or Estimate(*self._gain(num_train), _BASIS)

    def lead(self, num_train: float) -> Estimate | Unavailable:
        """Predict how far accuracy with `num_train` examples is above the baseline as measured.

        The measured lead and the predicted gain are added. So are their half-widths, as those of correlated errors.

        Source: G. Y. Zou, American Journal of Epidemiology 168 (2008), 212-224.
        """
        baseline, covariance = self.measured.baseline, self.curves.covariance
        if baseline is None:
            return Unavailable("no baseline was measured on the same test set")
        if too_far := self._too_far(num_train):
            return too_far
        gain, low, high = self._gain(num_train)
        variance = float(baseline.variance + covariance[-1, -1] - 2 * baseline.covariance[-1])
        weights = self.curves.weights[self.curves.best]
        shared = float((baseline.covariance - covariance[-1]) @ weights)
        correlation = shared / (variance * float(weights @ covariance @ weights)) ** 0.5
        of_seeds = float(self.measured.seed_variance[-1])
        half = t_quantile(self.measured.degrees_of_freedom_of(variance, of_seeds)) * variance**0.5
        value = float(baseline.error - self.measured.error[-1]) + gain
        below, above = (
            (half**2 + other**2 + 2 * correlation * half * other) ** 0.5 for other in (gain - low, high - gain)
        )
        return Estimate(value, value - below, value + above, _BASIS)

    def _too_far(self, num_train: float) -> Unavailable | None:
        if num_train <= MAX_EXTRAPOLATION * self.largest:
            return None
        return Unavailable(
            f"{num_train:,.0f} examples are more than {MAX_EXTRAPOLATION:g} times the most that were measured, "
            f"{self.largest:,}"
        )

    def _gain(self, num_train: float) -> tuple[float, float, float]:
        """Return the predicted gain and the two ends of its interval."""
        ratio, most = num_train / self.largest, float(self.measured.error[-1])
        values = [averaged_gain(curves, ratio) for curves in (self.curves, *self.without_one)]
        low, high = profile_interval(self.curves, ratio)
        return min(most, values[0]), min(most, low, *values), min(most, max(high, *values))


def fit_power_law(measured: MeasuredErrors) -> PowerLaw | Unavailable:
    """Fit the family of power laws, with the errors' covariance.

    A poor fit is retried without the smallest size, while enough sizes remain: the law does not hold for few examples.

    Returns:
        The law, or `Unavailable`: too few sizes, sizes too close together, or a poor fit.
    """
    if unusable := _check_sizes(measured):
        return unusable
    while True:
        curves = fit_curves(measured, int(measured.num_train[-1]))
        probability = p_value(curves, len(measured.num_train))
        if probability >= MIN_FIT_P_VALUE:
            return PowerLaw(measured, probability, curves, _leave_one_out(measured))
        measured = measured.select(np.arange(1, len(measured.num_train)))
        if _check_sizes(measured):
            return Unavailable(
                f"the points miss every such curve by more than their noise explains (p = {probability:.3f})"
            )


def _leave_one_out(measured: MeasuredErrors) -> tuple[Curves, ...]:
    """Fit all sizes except one, for each size."""
    sizes = np.arange(len(measured.num_train))
    return tuple(
        fit_curves(measured.select(sizes[sizes != left_out]), int(measured.num_train[-1])) for left_out in sizes
    )


def _check_sizes(measured: MeasuredErrors) -> Unavailable | None:
    """Return the reason why no curve can be fitted to these sizes; None if a curve can be fitted."""
    sizes = measured.num_train
    if len(sizes) < MIN_SIZES:
        return Unavailable(f"{len(sizes)} numbers of examples were measured, and a fit needs {MIN_SIZES}")
    if sizes[-1] / sizes[0] < MIN_SPAN:
        return Unavailable(
            f"{sizes[0]:,} and {sizes[-1]:,} examples are too close: a fit needs {MIN_SPAN:g} times the fewest"
        )
    return None
