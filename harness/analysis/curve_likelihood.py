"""The likelihood of every curve of a family of power laws, given test errors over training set sizes.

With x = training examples / the most measured, every curve is error = level + slope * (x^-exponent - 1) / exponent. That
is a power law with or without a floor. The limit, exponent 0, is linear in log x (the transformation of G. E. P. Box and
D. R. Cox, Journal of the Royal Statistical Society B 26 (1964), 211-252); below 0 each doubling gains more than the one
before. For each exponent and level of noise, level and slope have a closed form: generalized least squares.

Sources: D. J. Venzon and S. H. Moolgavkar, "A method for computing profile-likelihood-based confidence intervals",
Applied Statistics 37 (1988), 87-94; J. O. Berger, B. Liseo and R. L. Wolpert, "Integrated likelihood methods for
eliminating nuisance parameters", Statistical Science 14 (1999), 1-28.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.analysis.accuracy import assumed_seed_variance
from harness.analysis.measured_errors import MeasuredErrors

# Published exponents for text and images are 0.07 to 0.5 (J. Hestness et al., arXiv:1712.00409 (2017)). Up to 5,600 of
# the packaged reviews each doubling gains TF-IDF 1.1 times what the one before does, an exponent of about -0.2.
EXPONENTS = np.round(np.arange(-0.2, 2.001, 0.025), 3)
_AVERAGED = (EXPONENTS >= 0) & (EXPONENTS <= 1)
_QUANTILES = (np.arange(15) + 0.5) / 15  # levels of noise, all of the same weight
_NUM_GAINS, _NUM_FINE = 100, 30
_NUM_BISECTIONS = 25
_MAX_LOG_RATIO = 3.841458820694124 / 2  # half the 95 % quantile of chi-squared with one degree of freedom
_NEGLIGIBLE = 5.0  # curves less likely by more than this can't be the best of a gain within the interval: 1.92 + log 15


@dataclass(frozen=True)
class Curves:
    """The best curve for each level of noise and each exponent; arrays have shape `(num_levels, num_exponents)`.

    Attributes:
        weights: The slope as a linear function of the errors, shape `(num_levels, num_exponents, num_sizes)`.
        slope: Slope, which may be negative: accuracy that falls with more examples.
        slope_sd: Standard deviation of the slope.
        log_likelihood: Log likelihood of this slope, with the level integrated out.
        level: Error at the largest measured size, on the best curve that doesn't fall.
        misfit: Squared Mahalanobis distance of the points from that curve.
        covariance: The errors' covariance, as a mean over levels of noise by their likelihood, shape
            `(num_sizes, num_sizes)`.
    """

    weights: np.ndarray
    slope: np.ndarray
    slope_sd: np.ndarray
    log_likelihood: np.ndarray
    level: np.ndarray
    misfit: np.ndarray
    covariance: np.ndarray

    @property
    def best(self) -> tuple[int, int]:
        """Indices of the most likely curve that doesn't fall."""
        likelihood = self.log_likelihood - np.minimum(self.slope / self.slope_sd, 0) ** 2 / 2
        level, exponent = np.unravel_index(likelihood.argmax(), likelihood.shape)
        return int(level), int(exponent)


def shapes(x: np.ndarray) -> np.ndarray:
    """Return (x^-exponent - 1) / exponent for each exponent, shape `(num_exponents, len(x))`; -log x for exponent 0."""
    exponents = np.where(EXPONENTS == 0, 1.0, EXPONENTS)[:, None]
    powers: np.ndarray = np.where(EXPONENTS[:, None] == 0, -np.log(x), np.expm1(-exponents * np.log(x)) / exponents)
    return powers


def fit_curves(measured: MeasuredErrors, largest: int) -> Curves:
    """Fit level and slope for each level of noise and each exponent.

    Args:
        measured: Errors, at least at three sizes.
        largest: Training set size at which x is 1.
    """
    covariance = _covariances(measured)
    inverse = np.linalg.inv(covariance)
    shape = shapes(measured.num_train / largest)  # (num_exponents, num_sizes)
    sums = inverse.sum(axis=-1)  # (num_levels, num_sizes)
    totals = sums.sum(axis=-1)
    mean_shape = sums @ shape.T / totals[:, None]  # (num_levels, num_exponents)
    centred = shape[None] - mean_shape[..., None]
    weighted = centred @ inverse  # (num_levels, num_exponents, num_sizes)
    information = (weighted * centred).sum(axis=-1)
    weights = weighted / information[..., None]
    slope = weights @ measured.error
    mean_error = sums @ measured.error / totals
    deviation = measured.error - mean_error[:, None]
    residual = np.einsum("li,lij,lj->l", deviation, inverse, deviation)[:, None] - information * slope**2
    log_likelihood = -(np.linalg.slogdet(covariance)[1] + np.log(totals))[:, None] / 2 - residual / 2
    probability = (np.exp(log_likelihood - log_likelihood.max()) * information**-0.5).sum(axis=1)
    return Curves(
        weights=weights,
        slope=slope,
        slope_sd=information**-0.5,
        log_likelihood=log_likelihood,
        level=mean_error[:, None] - np.maximum(slope, 0) * mean_shape,
        misfit=residual + information * np.minimum(slope, 0) ** 2,
        covariance=np.tensordot(probability / probability.sum(), covariance, axes=1),
    )


def p_value(curves: Curves, num_sizes: int) -> float:
    """Return the probability that points on a curve miss it by more than these do, as a mean over levels of noise."""
    from scipy import special  # imported here: importing scipy is slow, and reports without a curve don't need it

    misfit = np.maximum(curves.misfit.min(axis=1), 0)
    return float(special.chdtrc(num_sizes - 3, misfit).mean())


def profile_interval(curves: Curves, ratio: float) -> tuple[float, float]:
    """Return the 95 % profile likelihood interval of the accuracy gained from x = 1 to x = `ratio`."""
    likely = curves.log_likelihood > curves.log_likelihood.max() - _NEGLIGIBLE
    exponents = likely.any(axis=0)
    gain, gain_sd = (each[:, exponents] for each in _gains(curves, ratio))
    likelihood = curves.log_likelihood[:, exponents]
    highest = float((np.maximum(gain, 0) + 5 * gain_sd)[likely[:, exponents]].max())

    def profile(gains: np.ndarray) -> np.ndarray:
        """Return the log likelihood of each gain: integrated over levels of noise, the highest of all exponents."""
        distance = (gains - gain[..., None]) / gain_sd[..., None]
        by_level = likelihood[..., None] - distance**2 / 2
        most = by_level.max(axis=0)
        highest_of_all: np.ndarray = (most + np.log(np.exp(by_level - most).mean(axis=0))).max(axis=0)
        return highest_of_all

    coarse = np.linspace(0, 1, _NUM_GAINS) ** 2 * highest
    on_coarse = profile(coarse)
    least = on_coarse.max() - _MAX_LOG_RATIO
    inside = np.flatnonzero(on_coarse >= least)
    ends = []
    for first, step in ((inside[0], -1), (inside[-1], 1)):
        outside = min(max(first + step, 0), _NUM_GAINS - 1)
        fine = np.linspace(coarse[first], coarse[outside], _NUM_FINE)
        ends.append(float(fine[profile(fine) >= least][-1]))
    return ends[0], ends[1]


def averaged_gain(curves: Curves, ratio: float) -> float:
    """Return the median accuracy gained from x = 1 to x = `ratio` over all rising curves with exponents from 0 to 1.

    Curves are weighted by their likelihood; before, all these exponents and gains are equally probable.
    """
    from scipy import special  # imported here: importing scipy is slow, and reports without a curve don't need it

    gain, gain_sd = (each[:, _AVERAGED] for each in _gains(curves, ratio))
    likelihood = curves.log_likelihood[:, _AVERAGED]
    weight = np.exp(likelihood - likelihood.max()) * gain_sd
    falling = special.ndtr(-gain / gain_sd)
    half = float((weight * (1 - falling)).sum()) / 2
    low, high = 0.0, float((np.maximum(gain, 0) + 10 * gain_sd).max())
    for _ in range(_NUM_BISECTIONS):
        middle = (low + high) / 2
        below = float((weight * (special.ndtr((middle - gain) / gain_sd) - falling)).sum())
        low, high = (middle, high) if below < half else (low, middle)
    return high


def _gains(curves: Curves, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the accuracy each curve gains from x = 1 to x = `ratio`, and its standard deviation."""
    steepness = -shapes(np.array([ratio]))[:, 0]
    return curves.slope * steepness, curves.slope_sd * steepness


def _covariances(measured: MeasuredErrors) -> np.ndarray:
    """Return the covariance of the errors at each level of noise, shape `(num_levels, num_sizes, num_sizes)`.

    With several seeds, the levels are quantiles of the true variance between seeds over the estimated one, by its
    chi-squared distribution. With one run a size, whose variance is unknown, the standard deviation between runs is
    half-normal, with the variance that `assumed_seed_variance` has for an accuracy. The variance of one test example is
    added, since smaller differences can't be measured.
    """
    from scipy import special  # imported here: importing scipy is slow, and reports without a curve don't need it

    freedom = measured.degrees_of_freedom
    if freedom:
        added = (freedom / special.chdtri(freedom, _QUANTILES))[:, None] * measured.seed_variance
    else:
        assumed = [assumed_seed_variance(float(error)).of_one for error in measured.error]
        added = special.ndtri((1 + _QUANTILES) / 2)[:, None] ** 2 * assumed / measured.num_seeds
    examples = measured.covariance - np.diag(measured.seed_variance)
    covariances: np.ndarray = examples + (added + measured.num_examples**-2.0)[..., None] * np.eye(len(measured.error))
    return covariances
