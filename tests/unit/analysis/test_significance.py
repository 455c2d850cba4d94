"""How certain a ratio is: by hand, and by what it says of noise that was made."""

from __future__ import annotations

import math
import random

import pytest
from scipy import stats

from harness.analysis.log_ratio import ratio_of_sums
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
    """A run whose steps follow an autoregressive process around a level that differs from run to run."""
    level, noise, seconds = slow * math.exp(rng.gauss(0, run_sd)), rng.gauss(0, step_sd), []
    for _ in range(num_steps):
        seconds.append(level * max(0.05, 1 + noise))
        noise = rho * noise + rng.gauss(0, step_sd * math.sqrt(1 - rho**2))
    return window(seconds)


def families(
    seed, *, num_trials, num_runs, rho, run_sd, slow=1.0, num_cells=4, num_steps=40, step_sd=0.05, assumed=None
):
    """Of many comparisons of several cells, the first of them planted: how often a null alarms, and the planted is found."""
    rng, alarms, hits, opposite = random.Random(seed), 0, 0, 0
    for _ in range(num_trials):
        found = []
        for cell in range(num_cells):
            slows = (1.0, slow if cell == 0 else 1.0)
            sides = [
                [
                    noisy(rng, rho=rho, run_sd=run_sd, slow=by, num_steps=num_steps, step_sd=step_sd)
                    for _ in range(num_runs)
                ]
                for by in slows
            ]
            found.append(compare_runs(*sides, assumed))
        clear = [p is not None and p < SIGNIFICANCE_LEVEL for p in holm([one.p_value() for one in found])]
        alarms += any(clear if slow == 1.0 else clear[1:])
        hits += clear[0] and found[0].value < 0
        opposite += clear[0] and found[0].value > 0
    return alarms / num_trials, hits / num_trials, opposite


def test_welch_by_hand_and_by_scipy():
    one, other = [0.0, 0.01, 0.02], [0.10, 0.12, 0.14]
    found = welch_log_ratio(one, other)
    assert found.value == pytest.approx(0.11)
    assert found.variance == pytest.approx((1e-4 + 4e-4) / 3)
    assert found.degrees_of_freedom == pytest.approx(50 / 17)
    theirs = stats.ttest_ind(other, one, equal_var=False)
    assert found.p_value() == pytest.approx(theirs.pvalue)
    low, high = theirs.confidence_interval(0.95)
    assert (found.estimate().low, found.estimate().high) == pytest.approx((math.exp(low), math.exp(high)))
    assert found.p_value(at=0.11) == pytest.approx(1.0)
    assert found.basis == "between 3 and 3 runs (Welch)"


@pytest.mark.parametrize(
    ("nums", "said"),
    [((1, 1), "one run: "), ((5, 1), "one run: "), ((2, 3), "2 runs: "), ((3, 3), None)],
)
def test_fewer_than_three_on_a_side_have_no_spread_and_no_verdict(nums, said):
    found = welch_log_ratio([0.001 * k for k in range(nums[0])], [0.5 + 0.001 * k for k in range(nums[1])])
    if said is None:
        assert found.inconclusive_reason is None and found.p_value() < 1e-6
    else:
        assert found.inconclusive_reason == f"{said}spread between runs unknown, repeat with repeats = 3"
        assert (found.variance, found.p_value(), found.estimate().low) == (None, None, None)


def test_figures_that_are_equal_in_every_run():
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
    # R = 2, the rests are -1 and 1: 2 / 1 * (1 + 1) / 4^2.
    found = ratio_of_sums([1.0, 1.0], [1.0, 3.0])
    assert (found.value, found.variance, found.degrees_of_freedom) == (math.log(2), 0.25, 1)
    assert ratio_of_sums([1.0], [2.0]) is None


def test_steps_that_are_alike_count_as_fewer():
    turns, blocks = [1.0, 1.1] * 50, ([1.0] * 10 + [1.1] * 10) * 5
    spread = [ratio_of_sums(seconds, [16] * 100).variance for seconds in (turns, blocks)]
    assert spread[1] > 8 * spread[0]


def test_steps_that_hang_together_tell_no_spread():
    drifting = window([1.0 + 0.2 * step for step in range(13)])
    assert ratio_of_sums(drifting.seconds, drifting.num_samples).variance is None
    for assumed in (None, 0.01):
        found = compare_runs([drifting], [window([1.0] * 13, tokens=[2] * 13)], assumed)
        assert (found.variance, found.p_value(), found.estimate().low) == (None, None, None)
        assert found.inconclusive_reason.startswith("one run")


def test_the_same_batches_cancel_and_others_do_not():
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


def test_one_run_has_an_interval_but_no_verdict_unless_the_spread_is_assumed():
    mine, theirs = [window([1.0, 1.02] * 20)], [window([1.03, 1.05] * 20)]
    found = compare_runs(mine, theirs)
    assert found.inconclusive_reason.startswith("one run") and found.p_value() is None
    assert found.estimate().high < 1  # clear within the runs, which proves nothing
    assumed = compare_runs(mine, theirs, 0.01)
    assert assumed.inconclusive_reason is None and "assumed" in assumed.basis
    # Two runs of 1 % each: sqrt(2) %, of a difference of 2.9 %.
    assert math.log(assumed.estimate().high) - assumed.value == pytest.approx(1.96 * 0.01 * math.sqrt(2), rel=0.01)
    assert assumed.p_value() == pytest.approx(math.erfc(-assumed.value / 0.01 / 2), rel=0.05)
    # Where three runs a side tell the spread, nothing is assumed.
    assert compare_runs(mine * 3, theirs * 3, 0.5).basis == "between 3 and 3 runs (Welch)"


def test_the_mean_of_cells_by_hand():
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


@pytest.mark.parametrize(("rho", "num_runs"), [(0.0, 5), (0.5, 3), (0.9, 5)])
def test_a_thousand_null_families_of_four_cells_alarm_in_at_most_one_of_twenty(rho, num_runs):
    alarms, _, _ = families(1, num_trials=1000, num_runs=num_runs, rho=rho, run_sd=0.01)
    assert 0.01 < alarms <= SIGNIFICANCE_LEVEL


@pytest.mark.parametrize(("num_runs", "run_sd"), [(3, 0.003), (5, 0.007)])
def test_a_planted_three_percent_is_found_among_four_cells(num_runs, run_sd):
    # 40 steps of 1 % leave 0.3 % on a run's mean (neighbours alike by a half), beside what differs from run to run.
    alarms, hits, opposite = families(
        2, num_trials=500, num_runs=num_runs, rho=0.5, run_sd=run_sd, slow=1.03, step_sd=0.01
    )
    assert hits >= 0.9 and opposite == 0 and alarms <= SIGNIFICANCE_LEVEL


def test_more_noise_hides_it_and_makes_no_alarm():
    alarms, hits, _ = families(2, num_trials=500, num_runs=3, rho=0.5, run_sd=0.03, slow=1.03)
    assert hits < 0.2 and alarms <= SIGNIFICANCE_LEVEL


@pytest.mark.parametrize(("rho", "num_steps"), [(0.5, 40), (0.5, 100), (0.9, 400)])
def test_single_runs_with_the_spread_stated_rightly(rho, num_steps):
    alarms, _, _ = families(5, num_trials=200, num_runs=1, rho=rho, run_sd=0.01, num_steps=num_steps, assumed=0.01)
    assert alarms <= 0.07  # 1 in 20, but for what neighbours alike still hide in short runs


def test_single_runs_never_alarm_when_nothing_is_stated():
    assert families(6, num_trials=50, num_runs=1, rho=0.5, run_sd=0.05)[:2] == (0, 0)


def test_no_difference_is_rarely_said_of_what_lies_at_the_margin():
    rng, said = random.Random(7), 0
    for _ in range(2000):
        found = welch_log_ratio(
            [rng.gauss(0, 0.003) for _ in range(5)], [rng.gauss(-math.log(1.03), 0.003) for _ in range(5)]
        )
        change = found.estimate()
        said += change.low >= 1 / 1.03 and change.high <= 1.03
    assert said / 2000 <= 0.03


@pytest.mark.parametrize(("nums", "sds"), [((3, 3), (1, 1)), ((3, 3), (1, 10)), ((5, 3), (1, 3)), ((3, 20), (3, 1))])
def test_sides_of_unlike_spread_alarm_hardly_more(nums, sds):
    rng, alarms = random.Random(8), 0
    for _ in range(4000):
        sides = [[rng.gauss(0, sd) for _ in range(num)] for num, sd in zip(nums, sds, strict=True)]
        alarms += welch_log_ratio(*sides).p_value() < SIGNIFICANCE_LEVEL
    assert alarms / 4000 <= 0.075
