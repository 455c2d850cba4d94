"""Interleaved runs: by hand, compared with Welch's test, and error rates on simulated noise."""

from __future__ import annotations

import math
import random
from datetime import timedelta
from itertools import accumulate

import pytest

from harness.analysis.significance import SIGNIFICANCE_LEVEL, find_abba_rounds, ratio_by_rounds, welch_log_ratio
from tests.make_records import make_machine, make_record

B_SIDE = {"training": {"compile": True}}


def test_a_comparison_by_hand():
    # The contrasts are 0.02 and 0.04, with mean 0.03; after removing it and each round's mean, all residuals are +-0.005.
    result = ratio_by_rounds([(0.0, 0.02, 0.02, 0.0), (1.0, 1.04, 1.04, 1.0)])
    assert result.value == pytest.approx(0.03)
    assert result.degrees_of_freedom == 5
    assert result.variance == pytest.approx(8 * 0.005**2 / 5 / 2)
    assert result.basis == "2 rounds of A B B A"


def test_differences_between_rounds_and_linear_drift_cancel():
    rounds = [
        tuple(5 * index + 0.01 * position + 0.03 * (position in (1, 2)) for position in range(4)) for index in range(3)
    ]
    result = ratio_by_rounds(rounds)
    assert result.value == pytest.approx(0.03)
    assert result.estimate().high < math.exp(0.05)
    runs = [[rates[position] for rates in rounds for position in places] for places in ((0, 3), (1, 2))]
    assert welch_log_ratio(*runs).p_value() > 0.9


def make_noise(rng, kind, num):
    """Simulate the relative speeds of successive runs, with 1 % noise."""
    white = [rng.gauss(0, 0.01) for _ in range(num)]
    if kind == "white":
        return white
    if kind == "walk":
        return list(accumulate(white))
    if kind == "drift":
        return [value + 0.005 * index for index, value in enumerate(white)]
    return list(
        accumulate(white, lambda previous, value: 0.8 * previous + 0.6 * value)
    )  # "alike": AR(1) with coefficient 0.8


def trials(kind, *, num_rounds, b_slowdown=0.0, num_trials=1500, seed=3, b_noise_factor=1.0):
    """Return the shares of trials in which `ratio_by_rounds` and Welch's test find a difference."""
    rng, num_significant = random.Random(seed), [0, 0]
    for _ in range(num_trials):
        noise = make_noise(rng, kind, 4 * num_rounds)
        rates = [value * (b_noise_factor if index % 4 in (1, 2) else 1) - b_slowdown * (index % 4 in (1, 2))
                 for index, value in enumerate(noise)]  # fmt: skip
        rounds = [tuple(rates[first : first + 4]) for first in range(0, len(rates), 4)]
        sides = [[rate for index, rate in enumerate(rates) if (index % 4 in (1, 2)) is is_b] for is_b in (False, True)]
        for position, result in enumerate((ratio_by_rounds(rounds), welch_log_ratio(*sides))):
            num_significant[position] += result.p_value() < SIGNIFICANCE_LEVEL
    return [count / num_trials for count in num_significant]


@pytest.mark.parametrize("num_rounds", [2, 3, 6])
@pytest.mark.parametrize("kind", ["white", "alike", "walk", "drift"])
def test_false_positive_rate_is_at_most_the_significance_level(kind, num_rounds):
    false_positives, _ = trials(kind, num_rounds=num_rounds)
    assert false_positives <= 0.065  # 5 %, with the sampling error of 1,500 trials
    if kind == "white":
        assert false_positives >= 0.035


def test_unequal_variances_hardly_raise_the_false_positive_rate():
    assert trials("white", num_rounds=3, b_noise_factor=10)[0] <= 0.075


def test_rounds_have_more_power_than_welch_under_drift_and_about_the_same_without():
    rounds, welch = trials("walk", num_rounds=3, b_slowdown=0.02)
    assert rounds > welch + 0.2
    rounds, welch = trials("drift", num_rounds=3, b_slowdown=0.03)
    assert rounds > welch + 0.2
    rounds, welch = trials("white", num_rounds=3, b_slowdown=0.03)
    assert rounds > 0.99 and welch > 0.99


def make_runs(order="ABBA" * 2, *, minutes=None, **fields):
    """Make runs of one minute each, in this order."""
    sides, repeats = {"A": [], "B": []}, {"A": 0, "B": 0}
    for index, side in enumerate(order):
        minute = float(index) if minutes is None else minutes[index]
        sides[side].append(
            make_record(minutes=minute, repeat=repeats[side], sections=B_SIDE if side == "B" else None,
                        training={"seconds": [0.5 if side == "B" else 1.0] * 40}, **fields)
        )  # fmt: skip
        repeats[side] += 1
    return sides["A"], sides["B"]


def test_rounds_are_found_by_start_time():
    a, b = make_runs()
    rounds = find_abba_rounds(a[::-1], b)
    assert rounds == [pytest.approx([math.log(16), math.log(32), math.log(32), math.log(16)])] * 2


@pytest.mark.parametrize("order", ["ABBA", "ABAB" * 2, "AABB" * 2, "ABBAABB", "BAAB" * 2, "AAAABBBB"])
def test_other_orders_are_not_rounds(order):
    assert find_abba_rounds(*make_runs(order)) is None


def test_a_long_pause_within_a_round_is_rejected():
    pause = [0, 1, 2, 3, 4, 5, 60, 61]
    assert find_abba_rounds(*make_runs(minutes=pause)) is None
    assert find_abba_rounds(*make_runs(minutes=[0, 1, 2, 3, 60, 61, 62, 63])) is not None


def test_another_host_or_seed_in_a_round_is_rejected():
    a, b = make_runs()
    assert find_abba_rounds([*a[:-1], a[-1].model_copy(update={"machine": make_machine(host="host-b")})], b) is None
    later = a[-1].started_at + timedelta(seconds=0)
    assert (
        find_abba_rounds([*a[:-1], make_record(seed=1, repeat=3).model_copy(update={"started_at": later})], b) is None
    )
