"""Significance tests: by hand, and their error rates and power on simulated runs."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy import stats

from harness.analysis.log_ratio import ratio_of_sums
from harness.analysis.serial_correlation import RunStart, correlation_matrix
from harness.analysis.significance import (
    SIGNIFICANCE_LEVEL,
    compare_runs,
    compare_within_runs,
    geometric_mean_ratio,
    holm,
    mcnemar,
    welch_log_ratio,
)
from harness.analysis.throughput import ThroughputWindow


def window(seconds, samples=None, tokens=None):
    count = len(seconds)
    return ThroughputWindow(
        3, tuple(seconds), tuple(samples or [16] * count), (1,) * count, tuple(tokens or [1] * count)
    )


def noisy(rng, *, rho, run_sd, slow=1.0, num_steps=40, step_sd=0.05):
    """Simulate a run whose steps follow an AR(1) process around a level that differs between runs."""
    level, noise, seconds = slow * math.exp(rng.gauss(0, run_sd)), rng.gauss(0, step_sd), []
    for _ in range(num_steps):
        seconds.append(level * max(0.05, 1 + noise))
        noise = rho * noise + rng.gauss(0, step_sd * math.sqrt(1 - rho**2))
    return window(seconds)


def families(
    seed, *, num_trials, num_runs, rho, run_sd, slow=1.0, num_cells=4, num_steps=40, step_sd=0.05, assumed=None
):
    """Return the false positive rate, and how often the first cell's real difference is found."""
    rng, alarms, hits, opposite = random.Random(seed), 0, 0, 0
    for _ in range(num_trials):
        result = []
        for cell in range(num_cells):
            slows = (1.0, slow if cell == 0 else 1.0)
            sides = [
                [
                    noisy(rng, rho=rho, run_sd=run_sd, slow=by, num_steps=num_steps, step_sd=step_sd)
                    for _ in range(num_runs)
                ]
                for by in slows
            ]
            result.append(compare_runs(*sides, assumed))
        clear = [p is not None and p < SIGNIFICANCE_LEVEL for p in holm([one.p_value() for one in result])]
        alarms += any(clear if slow == 1.0 else clear[1:])
        hits += clear[0] and result[0].value < 0
        opposite += clear[0] and result[0].value > 0
    return alarms / num_trials, hits / num_trials, opposite


def test_welch_by_hand_and_by_scipy():
    one, other = [0.0, 0.01, 0.02], [0.10, 0.12, 0.14]
    result = welch_log_ratio(one, other)
    assert result.value == pytest.approx(0.11)
    assert result.variance == pytest.approx((1e-4 + 4e-4) / 3)
    assert result.degrees_of_freedom == pytest.approx(50 / 17)
    theirs = stats.ttest_ind(other, one, equal_var=False)
    assert result.p_value() == pytest.approx(theirs.pvalue)
    low, high = theirs.confidence_interval(0.95)
    assert (result.estimate().low, result.estimate().high) == pytest.approx((math.exp(low), math.exp(high)))
    assert result.p_value(at=0.11) == pytest.approx(1.0)
    assert result.basis == "between 3 and 3 runs (Welch)"


@pytest.mark.parametrize(
    ("nums", "reason"),
    [((1, 1), "one run: "), ((5, 1), "one run: "), ((2, 3), "2 runs: "), ((3, 3), None)],
)
def test_fewer_than_three_runs_on_a_side_are_inconclusive(nums, reason):
    result = welch_log_ratio([0.001 * k for k in range(nums[0])], [0.5 + 0.001 * k for k in range(nums[1])])
    if reason is None:
        assert result.inconclusive_reason is None and result.p_value() < 1e-6
    else:
        assert result.inconclusive_reason == f"{reason}spread between runs unknown, repeat with repeats = 3"
        assert (result.variance, result.p_value(), result.estimate().low) == (None, None, None)


def test_values_that_are_equal_in_every_run():
    assert welch_log_ratio([1.0] * 3, [1.0] * 3).p_value() == 1.0
    assert welch_log_ratio([1.0] * 3, [2.0] * 3).p_value() == 0.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_mcnemar_by_hand():
    assert mcnemar(1, 9) == pytest.approx(22 / 1024)
    assert mcnemar(9, 1) == pytest.approx(22 / 1024)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0


def test_variance_of_a_ratio_by_hand():
    # R = 2, the residuals are -1 and 1: 2 / 1 * (1 + 1) / 4^2.
    result = ratio_of_sums([1.0, 1.0], [1.0, 3.0])
    assert (result.value, result.variance, result.degrees_of_freedom) == (math.log(2), 0.25, 1)
    assert ratio_of_sums([1.0], [2.0]) is None


def test_autocorrelated_steps_count_as_fewer():
    turns, blocks = [1.0, 1.1] * 50, ([1.0] * 10 + [1.1] * 10) * 5
    spread = [ratio_of_sums(seconds, [16] * 100).variance for seconds in (turns, blocks)]
    assert spread[1] > 8 * spread[0]


def test_fully_autocorrelated_steps_have_no_variance():
    drifting = window([1.0 + 0.2 * step for step in range(13)])
    assert ratio_of_sums(drifting.seconds, drifting.num_samples).variance is None
    for assumed in (None, 0.01):
        result = compare_runs([drifting], [window([1.0] * 13, tokens=[2] * 13)], assumed)
        assert (result.variance, result.p_value(), result.estimate().low) == (None, None, None)
        assert result.inconclusive_reason.startswith("one run")


def test_equal_batches_are_compared_pairwise_and_others_are_not():
    lengths = [1.0, 2.0, 3.0, 4.0] * 10
    tokens = [int(16 * length) for length in lengths]
    mine = window(lengths, tokens=tokens)
    theirs = window([1.25 * length for length in lengths], tokens=tokens)
    paired = compare_within_runs([mine], [theirs])
    assert paired.estimate().value == pytest.approx(0.8)
    assert paired.estimate().high - paired.estimate().low < 1e-6
    assert paired.basis == "within runs, over the same batches"
    shuffled = window([1.25 * length for length in reversed(lengths)], tokens=tokens[::-1])
    apart = compare_within_runs([mine], [shuffled])
    assert apart.estimate().value == pytest.approx(0.8)
    assert apart.estimate().high - apart.estimate().low > 0.1
    assert apart.basis == "within runs"


def test_one_run_is_inconclusive_unless_a_spread_is_assumed():
    mine, theirs = [window([1.0, 1.02] * 20)], [window([1.03, 1.05] * 20)]
    result = compare_runs(mine, theirs)
    assert result.inconclusive_reason.startswith("one run") and result.p_value() is None
    assert result.estimate().high < 1  # significant within the runs, which is not enough
    assumed = compare_runs(mine, theirs, 0.01)
    assert assumed.inconclusive_reason is None and "assumed" in assumed.basis
    # A spread of 1 % in two runs gives sqrt(2) %; the difference is 2.9 %.
    assert math.log(assumed.estimate().high) - assumed.value == pytest.approx(1.96 * 0.01 * math.sqrt(2), rel=0.01)
    assert assumed.p_value() == pytest.approx(math.erfc(-assumed.value / 0.01 / 2), rel=0.05)
    # With three runs a side the spread is measured, and the assumption is ignored.
    assert compare_runs(mine * 3, theirs * 3, 0.5).basis == "between 3 and 3 runs (Welch)"


def test_geometric_mean_ratio_by_hand():
    parts = [
        welch_log_ratio([0.0, 0.01, 0.02], [0.1, 0.12, 0.14]),
        welch_log_ratio([0.0, 0.01, 0.02], [-0.1, -0.12, -0.14]),
    ]
    mean = geometric_mean_ratio(parts)
    assert mean.value == pytest.approx((0.11 - 0.13) / 2)
    assert mean.variance == pytest.approx(2 * (5e-4 / 3) / 4)
    assert mean.degrees_of_freedom == pytest.approx(2 * 50 / 17)
    assert geometric_mean_ratio([]) is None
    unsure = geometric_mean_ratio([*parts, welch_log_ratio([0.0], [0.1])])
    assert unsure.inconclusive_reason.startswith("1 of 3 cells: one run") and unsure.p_value() is None


@pytest.mark.parametrize(("sds", "shift", "least", "most"), [
    ([0.02] * 4, 0.0, 0.02, 0.05), ([0.002, 0.02] * 2, 0.0, 0.02, 0.05), ([0.02] * 4, -0.03, 0.87, 0.94),
])  # fmt: skip
def test_false_positives_and_power_of_the_geometric_mean_over_four_cells_of_three_runs(sds, shift, least, most):
    rng, found = random.Random(9), 0
    for _ in range(1500):
        sides = [([rng.gauss(0, sd) for _ in range(3)], [rng.gauss(shift, sd) for _ in range(3)]) for sd in sds]
        found += geometric_mean_ratio([welch_log_ratio(*side) for side in sides]).p_value() < SIGNIFICANCE_LEVEL
    assert least <= found / 1500 <= most


@pytest.mark.parametrize(("rho", "num_runs"), [(0.0, 5), (0.5, 3), (0.9, 5)])
def test_familywise_error_rate_of_four_equal_cells_is_at_most_5_percent(rho, num_runs):
    alarms, _, _ = families(1, num_trials=1000, num_runs=num_runs, rho=rho, run_sd=0.01)
    assert 0.01 < alarms <= SIGNIFICANCE_LEVEL


@pytest.mark.parametrize(("num_runs", "run_sd"), [(3, 0.003), (5, 0.007)])
def test_a_difference_of_three_percent_is_found_among_four_cells(num_runs, run_sd):
    # 40 steps with 1 % noise and autocorrelation 0.5 leave 0.3 % on a run's mean, in addition to the spread between runs.
    alarms, hits, opposite = families(
        2, num_trials=500, num_runs=num_runs, rho=0.5, run_sd=run_sd, slow=1.03, step_sd=0.01
    )
    assert hits >= 0.9 and opposite == 0 and alarms <= SIGNIFICANCE_LEVEL


def test_more_noise_hides_the_difference_without_false_positives():
    alarms, hits, _ = families(2, num_trials=500, num_runs=3, rho=0.5, run_sd=0.03, slow=1.03)
    assert hits < 0.2 and alarms <= SIGNIFICANCE_LEVEL


@pytest.mark.parametrize(("rho", "num_steps"), [(0.5, 40), (0.5, 100), (0.9, 400)])
def test_single_runs_with_the_correct_assumed_spread(rho, num_steps):
    alarms, _, _ = families(5, num_trials=200, num_runs=1, rho=rho, run_sd=0.01, num_steps=num_steps, assumed=0.01)
    assert alarms <= 0.07  # 5 %, plus what the autocorrelation in short runs still hides


def test_single_runs_without_an_assumed_spread_never_give_a_verdict():
    assert families(6, num_trials=50, num_runs=1, rho=0.5, run_sd=0.05)[:2] == (0, 0)


def test_equivalence_at_the_margin_is_rarely_claimed():
    rng, reason = random.Random(7), 0
    for _ in range(2000):
        result = welch_log_ratio(
            [rng.gauss(0, 0.003) for _ in range(5)], [rng.gauss(-math.log(1.03), 0.003) for _ in range(5)]
        )
        change = result.estimate()
        reason += change.low >= 1 / 1.03 and change.high <= 1.03
    assert reason / 2000 <= 0.03


@pytest.mark.parametrize(("nums", "sds"), [((3, 3), (1, 1)), ((3, 3), (1, 10)), ((5, 3), (1, 3)), ((3, 20), (3, 1))])
def test_unequal_spreads_hardly_raise_the_false_positive_rate(nums, sds):
    rng, alarms = random.Random(8), 0
    for _ in range(4000):
        sides = [[rng.gauss(0, sd) for _ in range(num)] for num, sd in zip(nums, sds, strict=True)]
        alarms += welch_log_ratio(*sides).p_value() < SIGNIFICANCE_LEVEL
    assert alarms / 4000 <= 0.075


def drift_trials(num_trials, num_runs, starts_a, starts_b, shift=0.0):
    """Draw two sides of one cell on a machine that drifts as the reference machine; return p-values with and without it."""
    places = [RunStart("a", at_s) for at_s in (*starts_a, *starts_b)]
    matrix = correlation_matrix(places)
    random_state = np.random.default_rng(20261127)
    draws = 0.08 * random_state.standard_normal((num_trials, 2 * num_runs)) @ np.linalg.cholesky(matrix).T
    draws[:, num_runs:] += shift
    pairs = [(list(logs[:num_runs]), list(logs[num_runs:])) for logs in draws]
    corrected = [welch_log_ratio(*pair, correlation=matrix).p_value() < SIGNIFICANCE_LEVEL for pair in pairs]
    plain = [welch_log_ratio(*pair).p_value() < SIGNIFICANCE_LEVEL for pair in pairs]
    return sum(plain) / num_trials, sum(corrected) / num_trials


def test_two_sweeps_do_not_share_their_drift():
    """Five runs a side, 34 s apart, the sides an hour apart: before, a false alarm in 23 %."""
    one = [34.0 * index for index in range(5)]
    plain, corrected = drift_trials(1500, 5, one, [3600 + at_s for at_s in one])
    assert plain == pytest.approx(0.23, abs=0.03)
    assert corrected <= 0.06
    _, power = drift_trials(300, 5, one, [3600 + at_s for at_s in one], shift=math.log(1.4))
    assert power >= 0.9


def test_two_sides_of_one_sweep_share_their_drift():
    """Five runs a side in turns, 17 s apart: Welch's test is conservative already, and stays as it is."""
    one = [34.0 * index for index in range(5)]
    plain, corrected = drift_trials(800, 5, one, [17 + at_s for at_s in one])
    assert plain <= 0.04
    assert corrected <= plain
    _, power = drift_trials(300, 5, one, [17 + at_s for at_s in one], shift=math.log(1.2))
    assert power >= 0.95
