"""Power laws: recovery of known parameters, rejection of bad fits, and coverage of prediction intervals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import optimize, special

from harness.analysis.estimate import Estimate
from harness.analysis.measured_errors import MeasuredErrors, measure_errors
from harness.analysis.power_law import MAX_EXTRAPOLATION, PowerLaw, fit_power_law
from harness.errors import Unavailable

SIZES = (100, 200, 400, 800, 1600)
NUM_EXAMPLES = 1000


def exact(law, sizes=SIZES, variance=1e-8):
    """Make errors exactly on a curve."""
    offset, scale, exponent = law
    num_train = np.array(sizes)
    return MeasuredErrors(num_train, offset + scale * num_train**-exponent, np.eye(len(sizes)) * variance, variance)


def simulate(random, law, sizes, num_seeds, seed_sd, also=()):
    """Simulate per-example correctness by size: a difficulty shared by all runs, plus each run's own noise."""
    offset, scale, exponent = law
    hard = random.standard_normal(NUM_EXAMPLES)
    correct = {}
    for size in (*sizes, *also):
        level = special.ndtri(1 - offset - scale * size**-exponent)
        runs = level + seed_sd * random.standard_normal((num_seeds, 1))
        own = random.standard_normal((num_seeds, NUM_EXAMPLES))
        correct[size] = (np.sqrt(0.7) * hard + np.sqrt(0.3) * own < runs).astype(float)
    return correct


@pytest.mark.parametrize("law", [(0.15, 2.0, 0.45), (0.0, 1.2, 0.2), (0.25, 8.0, 0.8), (0.1, 0.9, 0.15)])
def test_known_parameters_are_recovered(law):
    fit = fit_power_law(exact(law))
    assert isinstance(fit, PowerLaw)
    assert (fit.offset, fit.scale, fit.exponent) == pytest.approx(law, rel=1e-3, abs=1e-3)
    for size in (1600, 3200, 6400):
        assert fit.accuracy(size).value == pytest.approx(1 - law[0] - law[1] * size ** -law[2], abs=1e-5)
    assert (fit.smallest, fit.largest, fit.max_num_train) == (100, 1600, 6400)


def test_the_fit_equals_scipys_curve_fit():
    random = np.random.default_rng(3)
    errors = exact((0.2, 1.5, 0.4))
    variance = np.array([4, 3, 2, 1, 1]) * 1e-4
    noisy = errors.error + variance**0.5 * random.standard_normal(5)
    fit = fit_power_law(dataclasses.replace(errors, error=noisy, covariance=np.diag(variance)))
    law, _ = optimize.curve_fit(
        lambda n, a, b, c: a + b * n**-c,
        np.array(SIZES, float),
        noisy,
        p0=(0.2, 1.5, 0.4),
        sigma=variance**0.5,
        bounds=((0, 0, 0.05), (1, np.inf, 2)),
        xtol=1e-12,
        ftol=1e-12,
    )
    for size in (*SIZES, 3200):
        assert fit.fitted(size) == pytest.approx(1 - law[0] - law[1] * size ** -law[2], abs=1e-5)


def test_the_bootstrap_is_deterministic():
    measured = measure_errors(simulate(np.random.default_rng(5), (0.2, 0.9, 0.3), SIZES, 3, 0.02))
    first, second = (fit_power_law(measured).accuracy(3200) for _ in range(2))
    assert first == second and first.low < first.value < first.high


def test_examples_for_share_is_where_the_curve_reaches_the_share():
    fit = fit_power_law(exact((0.2, 1.5, 0.5)))
    reachable = fit.reachable_accuracy().value
    assert reachable == pytest.approx(1 - 0.2 - 1.5 * 6400**-0.5, abs=1e-5)
    num_examples = fit.examples_for_share(0.95)
    assert fit.fitted(num_examples.value) == pytest.approx(0.95 * reachable, rel=1e-6)
    assert num_examples.value == pytest.approx((1.5 / (1 - 0.95 * reachable - 0.2)) ** 2, rel=1e-3)


def test_no_prediction_beyond_four_times_the_largest_size():
    fit = fit_power_law(exact((0.2, 1.5, 0.5)))
    assert isinstance(fit.accuracy(MAX_EXTRAPOLATION * 1600), Estimate)
    too_far = Unavailable("6,401 examples are more than 4 times the most that were measured, 1,600")
    assert fit.accuracy(6401) == too_far
    assert fit.gain(1600, 6401) == too_far


def test_too_few_or_too_close_sizes_and_flat_curves_are_rejected():
    assert fit_power_law(exact((0.2, 1.5, 0.5), SIZES[:3])) == Unavailable(
        "3 numbers of examples were measured, and a fit needs 4"
    )
    close = fit_power_law(exact((0.2, 1.5, 0.5), (100, 150, 200, 399)))
    assert close == Unavailable("100 and 399 examples are too close: a fit needs 4 times the fewest")
    level = fit_power_law(exact((0.2, 0.05, 0.3), variance=1e-4))
    assert level == Unavailable("accuracy is not clearly higher with 1,600 examples than with 100")


def test_a_poor_fit_is_rejected_unless_it_improves_without_the_smallest_sizes():
    law = exact((0.2, 1.5, 0.4), (50, *SIZES), variance=1e-5)
    # With 50 examples the model has learnt nothing, so this point is far off the other sizes' curve.
    plateau = dataclasses.replace(law, error=np.array([0.41, *law.error[1:]]))
    fit = fit_power_law(plateau)
    assert isinstance(fit, PowerLaw) and fit.smallest == 100
    assert (fit.offset, fit.exponent) == pytest.approx((0.2, 0.4), abs=0.01)
    # A step in the middle is not a power law, whichever sizes are left out.
    stepped = dataclasses.replace(law, error=np.array([0.5, 0.5, 0.5, 0.5, 0.3, 0.3]))
    poor = fit_power_law(stepped)
    assert isinstance(poor, Unavailable)
    assert poor.reason.startswith("the points miss every such curve by more than their noise explains (p = 0.0")


def test_a_power_law_is_rarely_rejected_and_a_step_always():
    random = np.random.default_rng(11)
    measured = [measure_errors(simulate(random, (0.15, 2.0, 0.45), SIZES, 3, 0.02)) for _ in range(100)]
    assert sum(isinstance(fit_power_law(first), Unavailable) for first in measured) <= 5
    step = np.array([0.45, 0.45, 0.45, 0.25, 0.25])
    assert all(
        isinstance(fit_power_law(dataclasses.replace(first, error=step)), Unavailable) for first in measured[:10]
    )


@pytest.mark.parametrize(("law", "num_seeds"), [((0.15, 2.0, 0.45), 1), ((0.05, 1.2, 0.2), 3), ((0.2, 0.9, 0.3), 3)])
def test_prediction_intervals_at_twice_the_largest_size_cover_new_runs(law, num_seeds):
    """Simulate 100 curves per law, 300 in total."""
    random, covered, gains = np.random.default_rng(17), [], []
    for _ in range(100):
        right = simulate(random, law, SIZES, num_seeds, 0.02, also=(3200,))
        truth = right.pop(3200)[0].mean()
        fit = fit_power_law(measure_errors(right))
        if isinstance(fit, PowerLaw):
            prediction, gain = fit.accuracy(3200), fit.gain(1600, 3200)
            covered.append(prediction.low <= truth <= prediction.high)
            gains.append(gain.low <= truth - right[1600][0].mean() <= gain.high)
    assert len(covered) >= 90
    assert np.mean(covered) >= 0.9
    assert np.mean(gains) >= 0.9


def test_the_covariance_is_over_examples_and_seeds():
    right = {100: np.array([[1, 0, 0, 1.0], [1, 0, 1, 1]]), 200: np.array([[1, 1, 0, 1.0], [1, 1, 1, 1]])}
    fit = measure_errors(right)
    means = np.array([[1, 0, 0.5, 1], [1, 1, 0.5, 1]])
    # The seeds' accuracies are 0.5 and 0.75, and 0.75 and 1: a variance of 1/32 each, for two seeds.
    assert fit.covariance == pytest.approx(np.cov(means) / 4 + np.eye(2) / 64)
    assert fit.error == pytest.approx([0.375, 0.125])
    assert (fit.run_variance, fit.degrees_of_freedom) == (pytest.approx(1 / 32), 2)
    gain = fit.gain(0, 1)
    spread = np.var(means[1] - means[0], ddof=1) / 4 + 1 / 32
    assert gain.value == pytest.approx(0.25)
    assert gain.high - gain.value == pytest.approx(4.302652729749464 * spread**0.5)


def test_run_variance_of_single_runs_comes_from_examples():
    right = {100: np.array([[1, 0, 0, 1.0]]), 200: np.array([[1, 1, 0, 1.0]])}
    fit = measure_errors(right)
    assert fit.degrees_of_freedom == 0
    assert fit.run_variance == pytest.approx(np.var([0, 1, 0, 0]) / 4 / 2)
