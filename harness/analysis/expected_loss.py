"""Score lost by taking one of several measured ways instead of the truly best one, corrected for the best being chosen.

The highest of several noisy scores is too high on average, so that differences from it overstate the loss. Here the
ways' true scores are drawn from a normal distribution whose mean and spread are estimated from all contenders (empirical
Bayes with the spread integrated out): ways that differ by no more than noise shrink together, ways that differ by more
stay apart. A baseline is another kind of way, so that its score is not drawn towards the models'. The loss of a way is
the posterior mean of (the largest true score - its true score).

Sources: B. Efron and C. Morris, "Data analysis using Stein's estimator and its generalizations", Journal of the American
Statistical Association 70 (1975), 311-319; A. Gelman, "Prior distributions for variance parameters in hierarchical
models", Bayesian Analysis 1 (2006), 515-534 (half-normal prior of the spread).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.accuracy import ScoreNoise
from harness.analysis.estimate import Z_95_ONE_SIDED

DEFAULT_TOLERANCE = 0.01
_PRIOR_SPREAD = 0.02  # scale of the half-normal prior of the standard deviation between ways: 2 points
_SPREADS = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0]) / 100
_WIDE_SPREAD = 0.1  # prior of a way of another kind around the models' mean: it leaves the score as measured
_NUM_DRAWS = 4000
_SEED = 20261130
_KIN_SE = 5.0  # a model below the highest by the tolerance and more standard errors than this is of another kind
_MAX_WAYS = 300  # the nearest to the highest; others are compared with the highest alone
_ALIKE_FRACTION = 0.25  # of the tolerance: ways closer than this count as one
_TINY_VARIANCE = 1e-9  # keeps the covariance of ways with identical answers invertible: 0.003 points


@dataclass(frozen=True)
class Loss:
    """What a way loses against the truly best way.

    Attributes:
        mean: Expected loss, 0 or more.
        largest: Largest loss that is not excluded: it is exceeded with a probability of 5 %.
    """

    mean: float
    largest: float


def expected_losses(noise: ScoreNoise, tolerance: float = DEFAULT_TOLERANCE) -> list[Loss]:
    """Estimate each way's loss against the truly best of all; deterministic.

    Args:
        noise: The ways' scores and their noise.
        tolerance: Loss that the user accepts. Models further below the highest than it and five standard errors are no
            evidence of how much the others differ; like baselines, they keep their measured scores.
    """
    scores, covariance = noise.values, noise.covariance
    highest = int(scores.argmax())
    raw = scores[highest] - scores
    variance = np.diag(covariance)
    errors = np.sqrt(np.maximum(variance + variance[highest] - 2 * covariance[highest], 0.0))
    losses = [Loss(float(loss), float(loss + Z_95_ONE_SIDED * error)) for loss, error in zip(raw, errors, strict=True)]
    is_kin = noise.has_seed & (raw <= tolerance + _KIN_SE * errors)
    groups = _group_alike(np.argsort(raw, kind="stable")[:_MAX_WAYS], noise, tolerance * _ALIKE_FRACTION)
    firsts = np.array(list(groups))
    for way, loss in zip(firsts, _losses_of(noise, firsts, is_kin[firsts]), strict=True):
        for member in groups[way]:
            below = max(0.0, float(scores[way] - scores[member]))
            losses[member] = Loss(loss.mean + below, loss.largest + below)
    return losses


def _group_alike(order: np.ndarray, noise: ScoreNoise, margin: float) -> dict[int, list[int]]:
    """Group ways with nearly the same answers, such as one recipe on two machines, under the first of them in `order`.

    Duplicates are no evidence that different ways score alike, so that a group counts as one way.

    Args:
        order: Indices of the ways.
        noise: The ways' scores and their noise.
        margin: Largest difference of scores within a group, and largest standard error of it over test examples.
    """
    groups: dict[int, list[int]] = {}
    variance = np.diag(noise.of_examples)
    for way in map(int, order):
        for first, members in groups.items():
            between = variance[way] + variance[first] - 2 * noise.of_examples[way, first]
            if abs(noise.values[way] - noise.values[first]) <= margin and between <= margin**2:
                members.append(way)
                break
        else:
            groups[way] = [way]
    return groups


def _losses_of(noise: ScoreNoise, ways: np.ndarray, is_kin: np.ndarray) -> list[Loss]:
    """Return each way's loss against the best of them.

    Noise beyond that of the typical contender does not shrink a way's deficit, since uncertainty alone must not admit a
    way; it only raises the largest loss that is not excluded.

    Args:
        noise: The ways' scores and their noise.
        ways: Indices of the ways to compare.
        is_kin: Which of these ways share the prior of the models' spread.
    """
    if len(ways) < 2:  # noqa: PLR2004 - a single way loses nothing
        return [Loss(0.0, 0.0)] * len(ways)
    of_seeds = noise.of_seeds[ways]
    typical = np.minimum(of_seeds, np.median(of_seeds[is_kin]) if is_kin.any() else np.inf)
    covariance = noise.of_examples[np.ix_(ways, ways)] + np.diag(typical)
    drawn = _draw_true_scores(noise.values[ways], covariance, is_kin)
    losses = drawn.max(axis=1, keepdims=True) - drawn
    means = losses.mean(axis=0)
    largest = np.percentile(losses, 95, axis=0)
    largest = means + np.hypot(largest - means, Z_95_ONE_SIDED * np.sqrt(of_seeds - typical))
    return [Loss(float(mean), float(end)) for mean, end in zip(means, largest, strict=True)]


def admitted(losses: Sequence[Loss], tolerance: float = DEFAULT_TOLERANCE) -> list[int]:
    """Return the indices of the ways whose expected loss is at most the tolerance.

    If there are none (many ways, none of which is known to be near the best), those within half a tolerance of the least
    loss: the single least loss would cost two to three times as much, for accuracy that noise decides.
    """
    within = [index for index, loss in enumerate(losses) if loss.mean <= tolerance]
    if within or not losses:
        return within
    least = min(loss.mean for loss in losses)
    return [index for index, loss in enumerate(losses) if loss.mean <= least + tolerance / 2]


def _draw_true_scores(scores: np.ndarray, covariance: np.ndarray, is_kin: np.ndarray) -> np.ndarray:
    """Draw from the posterior of the true scores, shape `(_NUM_DRAWS, num_ways)`.

    Scores are normal around the true scores with the given covariance; true scores are normal around a mean with a flat
    prior, with a spread on a grid. Each spread gets draws in proportion to its posterior probability.

    Args:
        scores: Measured scores, shape `(num_ways,)`.
        covariance: Their covariance, shape `(num_ways, num_ways)`.
        is_kin: Whether a way shares the prior of the models' spread, shape `(num_ways,)`.
    """
    num_ways = len(scores)
    noise = covariance + _TINY_VARIANCE * np.eye(num_ways)
    widths = np.gradient(_SPREADS)
    log_weights, posteriors = [], []
    for spread, width in zip(_SPREADS, widths, strict=True):
        prior = np.diag(np.where(is_kin, spread, _WIDE_SPREAD) ** 2)
        total = noise + prior
        precision = np.linalg.inv(total)
        of_mean = precision.sum()
        centre = float((precision @ scores).sum() / of_mean)
        residual = scores - centre
        _, log_determinant = np.linalg.slogdet(total)
        log_likelihood = -0.5 * (log_determinant + np.log(of_mean) + residual @ precision @ residual)
        log_weights.append(log_likelihood - 0.5 * (spread / _PRIOR_SPREAD) ** 2 + np.log(width))
        # The posterior of the true scores given the spread; the last term is the uncertainty of their mean.
        shrunk = prior @ precision
        to_mean = 1 - shrunk.sum(axis=1)
        variance = prior - shrunk @ prior + np.outer(to_mean, to_mean) / of_mean
        posteriors.append((centre + shrunk @ residual, variance))
    weights = np.exp(np.array(log_weights) - max(log_weights))
    counts = np.floor(weights / weights.sum() * _NUM_DRAWS).astype(int)
    counts[int(weights.argmax())] += _NUM_DRAWS - counts.sum()
    random = np.random.default_rng(_SEED)
    drawn = []
    for count, (mean, variance) in zip(counts, posteriors, strict=True):
        if count:
            drawn.append(mean + random.standard_normal((count, num_ways)) @ _matrix_root(variance).T)
    return np.concatenate(drawn)


def _matrix_root(covariance: np.ndarray) -> np.ndarray:
    """Return R with R @ R.T == covariance, also for singular matrices."""
    values, vectors = np.linalg.eigh(covariance)
    root: np.ndarray = vectors * np.sqrt(np.maximum(values, 0.0))
    return root
