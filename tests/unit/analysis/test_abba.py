"""Runs in turns: by hand, against Welch's test, and by what is said of noise that was made."""

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
    # Contrasts 0.02 and 0.04; beside 0.03 and each round's own mean, the rests are +-0.005 at every place.
    found = ratio_by_rounds([(0.0, 0.02, 0.02, 0.0), (1.0, 1.04, 1.04, 1.0)])
    assert found.value == pytest.approx(0.03)
    assert found.degrees_of_freedom == 5
    assert found.variance == pytest.approx(8 * 0.005**2 / 5 / 2)
    assert found.basis == "2 rounds of A B B A"


def test_what_differs_between_rounds_and_drifts_steadily_drops_out():
    rounds = [tuple(5 * index + 0.01 * place + 0.03 * (place in (1, 2)) for place in range(4)) for index in range(3)]
    found = ratio_by_rounds(rounds)
    assert found.value == pytest.approx(0.03)
    assert found.estimate().high < math.exp(0.05)
    runs = [[four[place] for four in rounds for place in places] for places in ((0, 3), (1, 2))]
    assert welch_log_ratio(*runs).p_value() > 0.9


def noises(rng, kind, num):
    """Relative speeds of successive runs, 1 % each."""
    white = [rng.gauss(0, 0.01) for _ in range(num)]
    if kind == "white":
        return white
    if kind == "walk":
        return list(accumulate(white))
    if kind == "drift":
        return [one + 0.005 * index for index, one in enumerate(white)]
    return list(accumulate(white, lambda last, one: 0.8 * last + 0.6 * one))  # alike: each 0.8 of the last


def trials(kind, *, num_rounds, slow=0.0, num_trials=1500, seed=3, by=1.0):
    """Shares of trials in which rounds and Welch's test see a difference; `by`: how much noisier B is."""
    rng, seen = random.Random(seed), [0, 0]
    for _ in range(num_trials):
        noise = noises(rng, kind, 4 * num_rounds)
        rates = [one * (by if index % 4 in (1, 2) else 1) - slow * (index % 4 in (1, 2))
                 for index, one in enumerate(noise)]  # fmt: skip
        rounds = [tuple(rates[first : first + 4]) for first in range(0, len(rates), 4)]
        sides = [[rate for index, rate in enumerate(rates) if (index % 4 in (1, 2)) is is_b] for is_b in (False, True)]
        for place, found in enumerate((ratio_by_rounds(rounds), welch_log_ratio(*sides))):
            seen[place] += found.p_value() < SIGNIFICANCE_LEVEL
    return [count / num_trials for count in seen]


@pytest.mark.parametrize("num_rounds", [2, 3, 6])
@pytest.mark.parametrize("kind", ["white", "alike", "walk", "drift"])
def test_nothing_is_seen_where_nothing_is(kind, num_rounds):
    alarms, _ = trials(kind, num_rounds=num_rounds)
    assert alarms <= 0.065  # 5 % as drawn in 1,500 trials
    if kind == "white":
        assert alarms >= 0.035


def test_a_side_that_is_noisier_alarms_hardly_more():
    assert trials("white", num_rounds=3, by=10)[0] <= 0.075


def test_rounds_see_more_than_welch_where_speed_drifts_and_hardly_less_where_it_does_not():
    rounds, welch = trials("walk", num_rounds=3, slow=0.02)
    assert rounds > welch + 0.2
    rounds, welch = trials("drift", num_rounds=3, slow=0.03)
    assert rounds > welch + 0.2
    rounds, welch = trials("white", num_rounds=3, slow=0.03)
    assert rounds > 0.99 and welch > 0.99


def turns(order="ABBA" * 2, *, minutes=None, **fields):
    """Runs of a minute each, in this order."""
    sides, repeats = {"A": [], "B": []}, {"A": 0, "B": 0}
    for index, side in enumerate(order):
        at = float(index) if minutes is None else minutes[index]
        sides[side].append(
            make_record(minutes=at, repeat=repeats[side], sections=B_SIDE if side == "B" else None,
                        training={"seconds": [0.5 if side == "B" else 1.0] * 40}, **fields)
        )  # fmt: skip
        repeats[side] += 1
    return sides["A"], sides["B"]


def test_rounds_are_found_in_the_order_of_time():
    a, b = turns()
    rounds = find_abba_rounds(a[::-1], b)
    assert rounds == [pytest.approx([math.log(16), math.log(32), math.log(32), math.log(16)])] * 2


@pytest.mark.parametrize("order", ["ABBA", "ABAB" * 2, "AABB" * 2, "ABBAABB", "BAAB" * 2, "AAAABBBB"])
def test_other_orders_are_no_rounds(order):
    assert find_abba_rounds(*turns(order)) is None


def test_a_round_that_was_stopped_in_its_middle_is_none():
    pause = [0, 1, 2, 3, 4, 5, 60, 61]
    assert find_abba_rounds(*turns(minutes=pause)) is None
    assert find_abba_rounds(*turns(minutes=[0, 1, 2, 3, 60, 61, 62, 63])) is not None


def test_another_host_or_seed_in_a_round_is_none():
    a, b = turns()
    assert find_abba_rounds([*a[:-1], a[-1].model_copy(update={"machine": make_machine(host="host-b")})], b) is None
    later = a[-1].started_at + timedelta(seconds=0)
    assert (
        find_abba_rounds([*a[:-1], make_record(seed=1, repeat=3).model_copy(update={"started_at": later})], b) is None
    )
