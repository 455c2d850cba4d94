"""Fit a power law with an offset, error(n) = offset + scale * n^-exponent, to test errors over training set sizes.

Sources: C. Cortes et al., "Learning curves: asymptotic values and rate of convergence", NIPS 6 (1993), 327-334;
J. Hestness et al., "Deep learning scaling is predictable, empirically", arXiv:1712.00409 (2017), which also describes
the small-data region where the law does not hold yet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from harness.analysis.estimate import Estimate
from harness.analysis.measured_errors import MeasuredErrors
from harness.errors import Unavailable

MIN_SIZES = 4  # three determine the curve's three parameters; a fourth tests the fit
MIN_SPAN = 4.0  # largest training set size over the smallest
MAX_EXTRAPOLATION = 4.0  # no extrapolation beyond this multiple of the largest measured size
MIN_FIT_P_VALUE = 0.01  # a fit is rejected if a smaller share of bootstrap draws has a larger residual
NUM_DRAWS = 1000
_SEED = 20261126
_EXPONENTS = np.geomspace(0.05, 2.0, 60)  # published exponents for text and images are 0.07 to 0.5 (Hestness et al.)


@dataclass(frozen=True)
class PowerLaw:
    """A fitted curve error(n) = offset + scale * n^-exponent, with its bootstrap draws.

    Attributes:
        smallest: Smallest training set size that was fitted.
        largest: Largest training set size that was fitted.
        draws: Offset, scale and exponent of each bootstrap draw, shape `(NUM_DRAWS, 3)`.
        run_noise: Simulated deviation of a future single run from the curve, for prediction intervals; one value per
            draw, shape `(NUM_DRAWS,)`.
        p_value: Goodness of fit: share of draws whose residual is at least as large as the measured one.
    """

    offset: float
    scale: float
    exponent: float
    smallest: int
    largest: int
    draws: np.ndarray
    run_noise: np.ndarray
    p_value: float

    @property
    def max_num_train(self) -> float:
        """Largest training set size that predictions are made for."""
        return MAX_EXTRAPOLATION * self.largest

    def fitted(self, num_train: float) -> float:
        """Return the fitted curve's accuracy at a training set size."""
        return 1 - float(self.offset + self.scale * num_train**-self.exponent)

    def accuracy(self, num_train: float) -> Estimate | Unavailable:
        """Predict one more run's accuracy at a training set size, with its 95 % prediction interval."""
        if num_train > self.max_num_train:
            return self._too_far(num_train)
        drawn = np.clip(self._drawn_accuracies(num_train) + self.run_noise, 0, 1)
        return _estimate(self.fitted(num_train), drawn, "prediction interval of one more run")

    def gain(self, start: float, end: float) -> Estimate | Unavailable:
        """Predict the accuracy gain of a run at size `end` over one at `start`, with its 95 % prediction interval."""
        if end > self.max_num_train:
            return self._too_far(end)
        noise = self.run_noise - np.roll(self.run_noise, 1)  # shifted by one draw, so that both runs are independent
        drawn = self._drawn_accuracies(end) - self._drawn_accuracies(start) + noise
        return _estimate(self.fitted(end) - self.fitted(start), drawn, "prediction interval between two runs")

    def reachable_accuracy(self) -> Estimate:
        """Return the curve's accuracy at `max_num_train`, with its bootstrap interval."""
        return _estimate(
            self.fitted(self.max_num_train), self._drawn_accuracies(self.max_num_train), "bootstrap of the curve"
        )

    def examples_for_share(self, share: float) -> Estimate:
        """Return the training set size at which the curve reaches `share` of the reachable accuracy."""
        law = np.array([[self.offset, self.scale, self.exponent]])
        num_train = _examples_at(1 - share * np.array([self.fitted(self.max_num_train)]), law)[0]
        drawn = _examples_at(1 - share * self._drawn_accuracies(self.max_num_train), self.draws)
        return _estimate(float(num_train), drawn, "bootstrap of the curve")

    def _drawn_accuracies(self, num_train: float) -> np.ndarray:
        """Return each draw's accuracy, shape `(NUM_DRAWS,)`."""
        offset, scale, exponent = self.draws.T
        accuracies: np.ndarray = 1 - offset - scale * num_train**-exponent
        return accuracies

    def _too_far(self, num_train: float) -> Unavailable:
        return Unavailable(
            f"{num_train:,.0f} examples are more than {MAX_EXTRAPOLATION:g} times the most that were measured, {self.largest:,}"
        )


def fit_power_law(measured: MeasuredErrors) -> PowerLaw | Unavailable:
    """Fit a power law, weighted by the errors' variances, with a parametric bootstrap.

    A poor fit is retried without the smallest size, while enough sizes remain: the law does not hold for few examples.

    Returns:
        The law, or `Unavailable`: too few sizes, sizes too close together, no significant gain, or a poor fit.
    """
    if unusable := _check_sizes(measured):
        return unusable
    fit = _fit_sizes(measured)
    while isinstance(fit, Unavailable):
        measured = replace(
            measured,
            num_train=measured.num_train[1:],
            error=measured.error[1:],
            covariance=measured.covariance[1:, 1:],
        )
        if _check_sizes(measured):
            return fit
        fit = _fit_sizes(measured)
    return fit


def _check_sizes(measured: MeasuredErrors) -> Unavailable | None:
    """Return the reason why no curve can be fitted to these sizes; None if a curve can be fitted."""
    sizes = measured.num_train
    if len(sizes) < MIN_SIZES:
        return Unavailable(f"{len(sizes)} numbers of examples were measured, and a fit needs {MIN_SIZES}")
    if sizes[-1] / sizes[0] < MIN_SPAN:
        return Unavailable(
            f"{sizes[0]:,} and {sizes[-1]:,} examples are too close: a fit needs {MIN_SPAN:g} times the fewest"
        )
    if (measured.gain(0, -1).low or 0.0) <= 0:
        return Unavailable(f"accuracy is not clearly higher with {sizes[-1]:,} examples than with {sizes[0]:,}")
    return None


def _fit_sizes(measured: MeasuredErrors) -> PowerLaw | Unavailable:
    """Fit the law to all given sizes, with a parametric bootstrap.

    Each bootstrap draw is a refit to the fitted curve plus random noise with the measured covariance. The noise is
    scaled up if the residuals exceed what the covariance explains.

    Returns:
        The law, or `Unavailable` if the p-value of the fit is below `MIN_FIT_P_VALUE`.
    """
    sizes, error = measured.num_train, measured.error
    weights = 1 / np.maximum(np.diag(measured.covariance), 1e-12)
    weights /= weights.sum()
    # Sizes are divided by the smallest, so that offset and scale are of the same magnitude.
    span, first = sizes / sizes[0], float(sizes[0])
    law = _refine(span, error, weights, _fit_on_grid(span, error[None], weights)[0])
    curve = law[0] + law[1] * span ** -law[2]
    random = np.random.default_rng(_SEED)
    noise = random.standard_normal((NUM_DRAWS, len(sizes))) @ _matrix_root(measured.covariance).T
    residual = float((error - curve) ** 2 @ weights)
    drawn_residuals = _weighted_sse(span, curve + noise, weights, _fit_on_grid(span, curve + noise, weights))
    p_value = (1 + int((drawn_residuals >= residual).sum())) / (1 + NUM_DRAWS)
    if p_value < MIN_FIT_P_VALUE:
        return Unavailable(f"the points miss every such curve by more than their noise explains (p = {p_value:.3f})")
    widening = max(1.0, residual / float(drawn_residuals.mean())) ** 0.5
    draws = _fit_on_grid(span, np.clip(curve + widening * noise, 0, 1), weights)
    draws[:, 1] *= first ** draws[:, 2]
    return PowerLaw(
        offset=float(law[0]),
        scale=float(law[1] * first ** law[2]),
        exponent=float(law[2]),
        smallest=int(sizes[0]),
        largest=int(sizes[-1]),
        draws=draws,
        run_noise=widening * measured.run_variance**0.5 * random.standard_normal(NUM_DRAWS),
        p_value=p_value,
    )


def _fit_on_grid(span: np.ndarray, errors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fit the law to each row of errors by separable least squares over a grid of exponents.

    The law is linear in offset and scale, so both have a closed form for each exponent. The exponent with the smallest
    weighted sum of squared residuals wins. Offset and scale are at least 0.

    Source: G. H. Golub and V. Pereyra, SIAM Journal on Numerical Analysis 10 (1973), 413-432.

    Args:
        span: Training set sizes over the smallest, shape `(num_sizes,)`.
        errors: Test errors, shape `(num_rows, num_sizes)`.
        weights: Weights that sum to 1, shape `(num_sizes,)`.

    Returns:
        Offset, scale and exponent of each row, shape `(num_rows, 3)`.
    """
    powers = span[None] ** -_EXPONENTS[:, None]  # (num_exponents, num_sizes)
    mean_power, mean_error = powers @ weights, errors @ weights
    centred_powers, centred_errors = powers - mean_power[:, None], errors - mean_error[:, None]
    variance = centred_powers**2 @ weights  # (num_exponents,)
    covariance = (centred_errors * weights) @ centred_powers.T  # (num_rows, num_exponents)
    scale = np.maximum(covariance / variance, 0)
    offset = mean_error[:, None] - scale * mean_power
    scale_without_offset = (errors * weights) @ powers.T / (powers**2 @ weights)
    scale, offset = np.where(offset < 0, scale_without_offset, scale), np.maximum(offset, 0)
    # The weighted sum of squared residuals, but for a term that can be left out, since it is equal for all exponents.
    residual = scale**2 * variance - 2 * scale * covariance + (mean_error[:, None] - offset - scale * mean_power) ** 2
    rows, best = np.arange(len(errors)), residual.argmin(axis=1)
    return np.stack([offset[rows, best], scale[rows, best], _EXPONENTS[best]], axis=1)


def _refine(span: np.ndarray, error: np.ndarray, weights: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Refine a grid fit by bounded nonlinear least squares; return `start` if the result is no better.

    Args:
        span: Training set sizes over the smallest, shape `(num_sizes,)`.
        error: Test errors, shape `(num_sizes,)`.
        weights: Weights that sum to 1, shape `(num_sizes,)`.
        start: Offset, scale and exponent of the grid fit, shape `(3,)`.
    """
    from scipy import optimize  # imported here: importing scipy is slow, and reports without a curve don't need it

    def residuals(law: np.ndarray) -> np.ndarray:
        weighted: np.ndarray = (law[0] + law[1] * span ** -law[2] - error) * weights**0.5
        return weighted

    low, high = np.array([0.0, 0.0, _EXPONENTS[0]]), np.array([1.0, np.inf, _EXPONENTS[-1]])
    result = optimize.least_squares(
        residuals,
        np.clip(start, low + 1e-9, high - 1e-9),
        bounds=(low, high),
        xtol=1e-12,
        ftol=1e-12,
        gtol=1e-12,
    )
    refined: np.ndarray = result.x
    return refined if 2 * result.cost < _weighted_sse(span, error[None], weights, start[None])[0] else start


def _weighted_sse(span: np.ndarray, errors: np.ndarray, weights: np.ndarray, laws: np.ndarray) -> np.ndarray:
    """Return the weighted sum of squared residuals of each row from its law, shape `(num_rows,)`.

    Args:
        span: Training set sizes over the smallest, shape `(num_sizes,)`.
        errors: Test errors, shape `(num_rows, num_sizes)`.
        weights: Weights that sum to 1, shape `(num_sizes,)`.
        laws: Offset, scale and exponent of each row, shape `(num_rows, 3)`.
    """
    offset, scale, exponent = laws.T[..., None]
    sse: np.ndarray = (errors - offset - scale * span**-exponent) ** 2 @ weights
    return sse


def _matrix_root(covariance: np.ndarray) -> np.ndarray:
    """Return R with R @ R.T == covariance; works for singular matrices, where Cholesky fails."""
    values, vectors = np.linalg.eigh(covariance)
    root: np.ndarray = vectors * np.sqrt(np.maximum(values, 0))
    return root


def _examples_at(error: np.ndarray, laws: np.ndarray) -> np.ndarray:
    """Solve each law for the training set size with the given error; 0 for a flat law (scale 0)."""
    offset, scale, exponent = laws.T
    num_train: np.ndarray = (scale / (error - offset)) ** (1 / exponent)
    return num_train


def _estimate(value: float, drawn: np.ndarray, basis: str) -> Estimate:
    """Return `value` with the 95 % percentile interval of the draws, extended to include the value."""
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(value, min(value, float(low)), max(value, float(high)), basis)
