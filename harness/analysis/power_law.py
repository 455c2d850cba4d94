"""Error over the number of training examples: a power law with an offset, and what it foretells (pure).

Source of the form: Cortes et al., Learning curves, NIPS 6 (1993), 327-334; Hestness et al., Deep learning scaling is
predictable, empirically, arXiv:1712.00409 (2017), who also name the region of few examples in which it does not hold yet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from harness.analysis.estimate import Estimate, t_quantile

MIN_SIZES = 4  # three constants, and one more to see whether they fit
MIN_SPAN = 4.0  # largest number of examples over the smallest
MAX_EXTRAPOLATION = 4.0  # times the largest number of examples: beyond it nothing is foretold
MIN_FIT_P_VALUE = (
    0.01  # of the draws from a fitted curve, the share that may miss their own fit by more than what was measured does
)
NUM_DRAWS = 1000
_SEED = 20261126
_EXPONENTS = np.geomspace(0.05, 2.0, 60)  # what was seen of language and images lies between 0.07 and 0.5 (Hestness)


@dataclass(frozen=True)
class MeasuredErrors:
    """What was measured on one test set after training on different numbers of examples, fewest first.

    Attributes:
        num_train: `(num_sizes,)`.
        error: Share of the test set labelled wrong, mean over seeds. `(num_sizes,)`.
        covariance: Of `error`, by test examples and seeds. `(num_sizes, num_sizes)`.
        run_variance: Of one more run's error about its mean over seeds.
        freedom: Degrees of freedom of the spread between seeds; 0 where every size has one run.
    """

    num_train: np.ndarray
    error: np.ndarray
    covariance: np.ndarray
    run_variance: float
    degrees_of_freedom: int = 0

    def gain(self, start: int, end: int) -> Estimate:
        """By how much accuracy at one place is above that at another, with its 95 % interval."""
        value, quantile = (
            float(self.error[start] - self.error[end]),
            t_quantile(self.degrees_of_freedom or math.inf),
        )
        half = quantile * _spread(self.covariance, start, end) ** 0.5
        return Estimate(value, value - half, value + half, "over test examples and seeds")


@dataclass(frozen=True)
class PowerLaw:
    """error(n) = offset + scale x n ** -exponent, as fitted, and as fitted to draws.

    Attributes:
        smallest, largest: Numbers of examples that were fitted.
        draws: Offset, scale and exponent of each draw. `(NUM_DRAWS, 3)`.
        run_noise: Of one more run, a value a draw. `(NUM_DRAWS,)`.
        p_value: Share of the draws from this curve that miss their own fit by more than what was measured misses this one.
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
        """The most examples of which anything is foretold."""
        return MAX_EXTRAPOLATION * self.largest

    def fitted(self, num_train: float) -> float:
        """The curve's accuracy."""
        return 1 - float(self.offset + self.scale * num_train**-self.exponent)

    def accuracy(self, num_train: float) -> Estimate | str:
        """What one more run with so many examples would reach, with its prediction interval; or why that is not told."""
        if num_train > self.max_num_train:
            return self._too_far(num_train)
        drawn = np.clip(self._drawn(num_train) + self.run_noise, 0, 1)
        return _estimate(self.fitted(num_train), drawn, "prediction interval of one more run")

    def gain(self, start: float, end: float) -> Estimate | str:
        """By how much a run at `end` would be above one at `start`, with its prediction interval; or why that is not told."""
        if end > self.max_num_train:
            return self._too_far(end)
        noise = self.run_noise - np.roll(self.run_noise, 1)  # of two runs
        drawn = self._drawn(end) - self._drawn(start) + noise
        return _estimate(self.fitted(end) - self.fitted(start), drawn, "prediction interval between two runs")

    def reachable_accuracy(self) -> Estimate:
        """The curve's accuracy at the most examples of which anything is foretold."""
        return _estimate(self.fitted(self.max_num_train), self._drawn(self.max_num_train), "bootstrap of the curve")

    def examples_for_share(self, share: float) -> Estimate:
        """Examples at which the curve comes to a share of the reachable accuracy."""
        law = np.array([[self.offset, self.scale, self.exponent]])
        found = _examples_at(1 - share * np.array([self.fitted(self.max_num_train)]), law)[0]
        drawn = _examples_at(1 - share * self._drawn(self.max_num_train), self.draws)
        return _estimate(float(found), drawn, "bootstrap of the curve")

    def _drawn(self, num_train: float) -> np.ndarray:
        """Each draw's accuracy."""
        offset, scale, exponent = self.draws.T
        drawn: np.ndarray = 1 - offset - scale * num_train**-exponent
        return drawn

    def _too_far(self, num_train: float) -> str:
        return f"{num_train:,.0f} examples are more than {MAX_EXTRAPOLATION:g} times the most that were measured, {self.largest:,}"


def measure_errors(right: Mapping[int, np.ndarray]) -> MeasuredErrors:
    """Errors with their covariance, from which test examples were labelled right.

    Test examples are one sample for all sizes: what makes the set easy or hard moves all together, and little of it is
    left in a gain. A size's variance between seeds is taken half way to the mean of all sizes', since a few seeds tell
    little of it. Of single runs the examples' own changes from size to size stand for it.

    Args:
        right: By number of training examples, 1 where a seed's run was right, 0 elsewhere. `(num_seeds, num_examples)`.
    """
    sizes = sorted(right)
    by_example = np.stack([right[size].mean(axis=0) for size in sizes])
    num_examples = by_example.shape[1]
    covariance = np.atleast_2d(np.cov(by_example)) / num_examples
    seen = {size: float(right[size].mean(axis=1).var(ddof=1)) for size in sizes if len(right[size]) > 1}
    if seen:
        usual = sum(seen.values()) / len(seen)
        variance = np.array([(seen.get(size, usual) + usual) / 2 for size in sizes])
        covariance = covariance + np.diag(variance / [len(right[size]) for size in sizes])
        run_variance = float(variance[-1])
    else:
        run_variance = float(np.var(by_example[-1] - by_example[-2])) / num_examples / 2 if len(sizes) > 1 else 0.0
    freedom = sum(len(right[size]) - 1 for size in seen)
    return MeasuredErrors(np.array(sizes), 1 - by_example.mean(axis=1), covariance, run_variance, freedom)


def fit_power_law(measured: MeasuredErrors) -> PowerLaw | str:
    """Fit the law, weighted by the errors' variances, with draws of what else might have been measured.

    Where the fit is poor, the smallest size is left out and the rest is tried, as long as enough are left: a law of many
    examples does not hold of few.

    Returns:
        The law, or why there is none: too few sizes, too close to each other, no clear gain, or a poor fit.
    """
    found = _refusal(measured) or _fit_all(measured)
    while isinstance(found, PoorFit):
        rest = replace(
            measured,
            num_train=measured.num_train[1:],
            error=measured.error[1:],
            covariance=measured.covariance[1:, 1:],
        )
        if _refusal(rest):
            return found
        measured, found = rest, _fit_all(rest)
    return found


class PoorFit(str):
    """That a fit is poor, in words."""

    __slots__ = ()


def _refusal(measured: MeasuredErrors) -> str:
    sizes = measured.num_train
    if len(sizes) < MIN_SIZES:
        return f"{len(sizes)} numbers of examples were measured, and a fit needs {MIN_SIZES}"
    if sizes[-1] / sizes[0] < MIN_SPAN:
        return f"{sizes[0]:,} and {sizes[-1]:,} examples are too close: a fit needs {MIN_SPAN:g} times the fewest"
    if (measured.gain(0, -1).low or 0.0) <= 0:
        return f"accuracy is not clearly higher with {sizes[-1]:,} examples than with {sizes[0]:,}"
    return ""


def _fit_all(measured: MeasuredErrors) -> PowerLaw | PoorFit:
    """Fit to every size; the draws are the curve with noise of the measured covariance: a parametric bootstrap.

    They are made wider where the points miss the curve by more than that noise explains.
    """
    sizes, error = measured.num_train, measured.error
    weights = 1 / np.maximum(np.diag(measured.covariance), 1e-12)
    weights /= weights.sum()
    span, first = sizes / sizes[0], float(sizes[0])
    law = _refine(span, error, weights, _fit(span, error[None], weights)[0])
    curve = law[0] + law[1] * span ** -law[2]
    random = np.random.default_rng(_SEED)
    noise = random.standard_normal((NUM_DRAWS, len(sizes))) @ _root(measured.covariance).T
    missed = float((error - curve) ** 2 @ weights)
    by_draws = _weighted_sse(span, curve + noise, weights, _fit(span, curve + noise, weights))
    p_value = (1 + int((by_draws >= missed).sum())) / (1 + NUM_DRAWS)
    if p_value < MIN_FIT_P_VALUE:
        return PoorFit(f"the points miss every such curve by more than their noise explains (p = {p_value:.3f})")
    wider = max(1.0, missed / float(by_draws.mean())) ** 0.5
    draws = _fit(span, np.clip(curve + wider * noise, 0, 1), weights)
    draws[:, 1] *= first ** draws[:, 2]
    return PowerLaw(
        offset=float(law[0]),
        scale=float(law[1] * first ** law[2]),
        exponent=float(law[2]),
        smallest=int(sizes[0]),
        largest=int(sizes[-1]),
        draws=draws,
        run_noise=wider * measured.run_variance**0.5 * random.standard_normal(NUM_DRAWS),
        p_value=p_value,
    )


def _fit(span: np.ndarray, errors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Offset, scale and exponent of each row of errors, none below 0. `(num_rows, 3)`.

    The law is linear but for its exponent (separable least squares: Golub and Pereyra, SIAM Journal on Numerical Analysis
    10 (1973), 413-432): for each exponent of a grid the other two stand in closed form, and the best exponent counts.
    """
    powers = span[None] ** -_EXPONENTS[:, None]  # (exponents, sizes)
    middle, centre = powers @ weights, errors @ weights
    apart, about = powers - middle[:, None], errors - centre[:, None]
    across, together = apart**2 @ weights, (about * weights) @ apart.T  # (exponents,), (rows, exponents)
    scale = np.maximum(together / across, 0)
    offset = centre[:, None] - scale * middle
    through_0 = (errors * weights) @ powers.T / (powers**2 @ weights)
    scale, offset = np.where(offset < 0, through_0, scale), np.maximum(offset, 0)
    # The weighted sum of squared residuals, less what no constant changes.
    missed = scale**2 * across - 2 * scale * together + (centre[:, None] - offset - scale * middle) ** 2
    rows, best = np.arange(len(errors)), missed.argmin(axis=1)
    return np.stack([offset[rows, best], scale[rows, best], _EXPONENTS[best]], axis=1)


def _refine(span: np.ndarray, error: np.ndarray, weights: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The best fit near a grid's."""
    from scipy import optimize  # here, so that what fits no curve runs where scipy is not installed

    def residuals(law: np.ndarray) -> np.ndarray:
        missed: np.ndarray = (law[0] + law[1] * span ** -law[2] - error) * weights**0.5
        return missed

    low, high = np.array([0.0, 0.0, _EXPONENTS[0]]), np.array([1.0, np.inf, _EXPONENTS[-1]])
    found = optimize.least_squares(
        residuals,
        np.clip(start, low + 1e-9, high - 1e-9),
        bounds=(low, high),
        xtol=1e-12,
        ftol=1e-12,
        gtol=1e-12,
    )
    refined: np.ndarray = found.x
    return refined if 2 * found.cost < _weighted_sse(span, error[None], weights, start[None])[0] else start


def _weighted_sse(span: np.ndarray, errors: np.ndarray, weights: np.ndarray, laws: np.ndarray) -> np.ndarray:
    """Weighted sum of each row's squared residuals."""
    offset, scale, exponent = laws.T[..., None]
    missed: np.ndarray = (errors - offset - scale * span**-exponent) ** 2 @ weights
    return missed


def _root(covariance: np.ndarray) -> np.ndarray:
    """A matrix whose product with its own transpose is the covariance, however flat that is."""
    values, vectors = np.linalg.eigh(covariance)
    root: np.ndarray = vectors * np.sqrt(np.maximum(values, 0))
    return root


def _spread(covariance: np.ndarray, one: int, other: int) -> float:
    """Variance of the difference between two sizes."""
    return max(0.0, float(covariance[one, one] + covariance[other, other] - 2 * covariance[one, other]))


def _examples_at(error: np.ndarray, laws: np.ndarray) -> np.ndarray:
    """Where each law comes down to an error above its offset; 0 where it is level."""
    offset, scale, exponent = laws.T
    found: np.ndarray = (scale / (error - offset)) ** (1 / exponent)
    return found


def _estimate(value: float, drawn: np.ndarray, basis: str) -> Estimate:
    low, high = np.percentile(drawn, [2.5, 97.5])
    # A value at the edge of what was drawn is an end of its own interval.
    return Estimate(value, min(value, float(low)), max(value, float(high)), basis)
