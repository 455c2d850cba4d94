"""The power law: known constants found again, refusals, and intervals that hold what is drawn beside them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import optimize, special

from harness.analysis.estimate import Estimate
from harness.analysis.power_law import MAX_EXTRAPOLATION, MeasuredErrors, PowerLaw, fit_power_law, measure_errors
from harness.errors import Unavailable

SIZES = (100, 200, 400, 800, 1600)
NUM_EXAMPLES = 1000


def exact(law, sizes=SIZES, variance=1e-8):
    """Errors that lie on a curve."""
    offset, scale, exponent = law
    num_train = np.array(sizes)
    return MeasuredErrors(num_train, offset + scale * num_train**-exponent, np.eye(len(sizes)) * variance, variance)


def simulate(random, law, sizes, num_seeds, seed_sd, also=()):
    """Which examples runs label right, by size: hard examples are hard for all, and a run has luck of its own."""
    offset, scale, exponent = law
    hard = random.standard_normal(NUM_EXAMPLES)
    found = {}
    for size in (*sizes, *also):
        level = special.ndtri(1 - offset - scale * size**-exponent)
        runs = level + seed_sd * random.standard_normal((num_seeds, 1))
        own = random.standard_normal((num_seeds, NUM_EXAMPLES))
        found[size] = (np.sqrt(0.7) * hard + np.sqrt(0.3) * own < runs).astype(float)
    return found


@pytest.mark.parametrize("law", [(0.15, 2.0, 0.45), (0.0, 1.2, 0.2), (0.25, 8.0, 0.8), (0.1, 0.9, 0.15)])
def test_known_constants_are_found_again(law):
    found = fit_power_law(exact(law))
    assert isinstance(found, PowerLaw)
    assert (found.offset, found.scale, found.exponent) == pytest.approx(law, rel=1e-3, abs=1e-3)
    for size in (1600, 3200, 6400):
        assert found.accuracy(size).value == pytest.approx(1 - law[0] - law[1] * size ** -law[2], abs=1e-5)
    assert (found.smallest, found.largest, found.max_num_train) == (100, 1600, 6400)


def test_weights_and_minimum_are_those_of_scipys_own_fit():
    random = np.random.default_rng(3)
    errors = exact((0.2, 1.5, 0.4))
    variance = np.array([4, 3, 2, 1, 1]) * 1e-4
    noisy = errors.error + variance**0.5 * random.standard_normal(5)
    found = fit_power_law(dataclasses.replace(errors, error=noisy, covariance=np.diag(variance)))
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
        assert found.fitted(size) == pytest.approx(1 - law[0] - law[1] * size ** -law[2], abs=1e-5)


def test_the_same_errors_give_the_same_intervals():
    measured = measure_errors(simulate(np.random.default_rng(5), (0.2, 0.9, 0.3), SIZES, 3, 0.02))
    one, other = (fit_power_law(measured).accuracy(3200) for _ in range(2))
    assert one == other and one.low < one.value < one.high


def test_what_is_enough_is_where_the_curve_comes_to_its_share():
    found = fit_power_law(exact((0.2, 1.5, 0.5)))
    reachable = found.reachable_accuracy().value
    assert reachable == pytest.approx(1 - 0.2 - 1.5 * 6400**-0.5, abs=1e-5)
    enough = found.examples_for_share(0.95)
    assert found.fitted(enough.value) == pytest.approx(0.95 * reachable, rel=1e-6)
    assert enough.value == pytest.approx((1.5 / (1 - 0.95 * reachable - 0.2)) ** 2, rel=1e-3)


def test_beyond_four_times_the_largest_size_there_is_no_figure():
    found = fit_power_law(exact((0.2, 1.5, 0.5)))
    assert isinstance(found.accuracy(MAX_EXTRAPOLATION * 1600), Estimate)
    too_far = Unavailable("6,401 examples are more than 4 times the most that were measured, 1,600")
    assert found.accuracy(6401) == too_far
    assert found.gain(1600, 6401) == too_far


def test_too_few_too_close_and_level_sizes_are_refused():
    assert fit_power_law(exact((0.2, 1.5, 0.5), SIZES[:3])) == Unavailable(
        "3 numbers of examples were measured, and a fit needs 4"
    )
    close = fit_power_law(exact((0.2, 1.5, 0.5), (100, 150, 200, 399)))
    assert close == Unavailable("100 and 399 examples are too close: a fit needs 4 times the fewest")
    level = fit_power_law(exact((0.2, 0.05, 0.3), variance=1e-4))
    assert level == Unavailable("accuracy is not clearly higher with 1,600 examples than with 100")


def test_a_poor_fit_is_refused_and_few_examples_may_be_left_out_of_it():
    law = exact((0.2, 1.5, 0.4), (50, *SIZES), variance=1e-5)
    # Knows nothing with 50 examples, whatever the rest's curve would say of them.
    plateau = dataclasses.replace(law, error=np.array([0.41, *law.error[1:]]))
    found = fit_power_law(plateau)
    assert isinstance(found, PowerLaw) and found.smallest == 100
    assert (found.offset, found.exponent) == pytest.approx((0.2, 0.4), abs=0.01)
    # A step upwards in the middle is no power law, whatever is left out.
    stepped = dataclasses.replace(law, error=np.array([0.5, 0.5, 0.5, 0.5, 0.3, 0.3]))
    poor = fit_power_law(stepped)
    assert isinstance(poor, Unavailable)
    assert poor.reason.startswith("the points miss every such curve by more than their noise explains (p = 0.0")


def test_a_true_curve_is_hardly_ever_refused_and_a_step_always():
    random = np.random.default_rng(11)
    measured = [measure_errors(simulate(random, (0.15, 2.0, 0.45), SIZES, 3, 0.02)) for _ in range(100)]
    assert sum(isinstance(fit_power_law(one), Unavailable) for one in measured) <= 5
    step = np.array([0.45, 0.45, 0.45, 0.25, 0.25])
    assert all(isinstance(fit_power_law(dataclasses.replace(one, error=step)), Unavailable) for one in measured[:10])


@pytest.mark.parametrize(("law", "num_seeds"), [((0.15, 2.0, 0.45), 1), ((0.05, 1.2, 0.2), 3), ((0.2, 0.9, 0.3), 3)])
def test_the_interval_of_one_more_run_at_twice_the_largest_size_holds_it(law, num_seeds):
    """100 simulated curves a law, 300 in all."""
    random, held, gains = np.random.default_rng(17), [], []
    for _ in range(100):
        right = simulate(random, law, SIZES, num_seeds, 0.02, also=(3200,))
        truth = right.pop(3200)[0].mean()
        found = fit_power_law(measure_errors(right))
        if isinstance(found, PowerLaw):
            foretold, gain = found.accuracy(3200), found.gain(1600, 3200)
            held.append(foretold.low <= truth <= foretold.high)
            gains.append(gain.low <= truth - right[1600][0].mean() <= gain.high)
    assert len(held) >= 90
    assert np.mean(held) >= 0.9
    assert np.mean(gains) >= 0.9


def test_the_covariance_is_over_examples_and_seeds():
    right = {100: np.array([[1, 0, 0, 1.0], [1, 0, 1, 1]]), 200: np.array([[1, 1, 0, 1.0], [1, 1, 1, 1]])}
    found = measure_errors(right)
    means = np.array([[1, 0, 0.5, 1], [1, 1, 0.5, 1]])
    # Shares are 0.5 and 0.75, and 0.75 and 1: a variance of 1/32 each, over two seeds.
    assert found.covariance == pytest.approx(np.cov(means) / 4 + np.eye(2) / 64)
    assert found.error == pytest.approx([0.375, 0.125])
    assert (found.run_variance, found.degrees_of_freedom) == (pytest.approx(1 / 32), 2)
    gain = found.gain(0, 1)
    spread = np.var(means[1] - means[0], ddof=1) / 4 + 1 / 32
    assert gain.value == pytest.approx(0.25)
    assert gain.high - gain.value == pytest.approx(4.302652729749464 * spread**0.5)


def test_single_runs_have_their_examples_changes_for_noise():
    right = {100: np.array([[1, 0, 0, 1.0]]), 200: np.array([[1, 1, 0, 1.0]])}
    found = measure_errors(right)
    assert found.degrees_of_freedom == 0
    assert found.run_variance == pytest.approx(np.var([0, 1, 0, 0]) / 4 / 2)
