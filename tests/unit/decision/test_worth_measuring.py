"""Which machines to measure first: probabilities by hand, shared errors, requirements."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from harness.decision.worth_measuring import Contender, choose_to_measure
from harness.prediction.uncertain_time import ErrorFactor, UncertainTime


def contender(kind, hours, *factors, usd_per_hour=1.0, is_measured=False, setup_s=0.0):
    return Contender(
        kind,
        UncertainTime(3600 * hours, factors),
        lambda seconds: usd_per_hour * (seconds + setup_s) / 3600,
        lambda seconds: seconds + setup_s,
        is_measured,
    )


def own(name, log_sd):
    return ErrorFactor(name, log_sd)


def chosen(picks):
    return [pick.index for pick in picks.picks]


def test_the_probability_of_the_cheaper_of_two_by_hand():
    picks = choose_to_measure([contender("a", 1.0, own("a", 0.2)), contender("b", 1.2, own("b", 0.2))])
    # Normal errors: P(log a + e_a < log b + e_b) = Phi(log 1.2 / (0.2 x sqrt 2)).
    expected = stats.norm.cdf(math.log(1.2) / (0.2 * math.sqrt(2)))
    assert chosen(picks) == [0, 1]
    assert picks.picks[0].probability == pytest.approx(expected, abs=0.025)
    assert picks.picks[1].probability == pytest.approx(1 - expected, abs=0.025)
    assert picks.probability == pytest.approx(1)


def test_an_error_that_all_share_changes_no_ranking():
    shared = own("model", 1.0)
    picks = choose_to_measure([contender("a", 1.0, shared), contender("b", 1.1, shared)])
    assert picks.picks[0].probability == 1
    apart = choose_to_measure([contender("a", 1.0, own("x", 1.0)), contender("b", 1.1, own("y", 1.0))])
    assert 0.5 < apart.picks[0].probability < 0.6


def test_a_shared_error_matters_where_set_up_costs_differ():
    shared = own("model", 1.0)
    # B needs little time and much set-up: it is cheaper where the model is too fast.
    quick = contender("b", 0.2, shared, setup_s=3600)
    picks = choose_to_measure([contender("a", 1.0, shared), quick])
    # They tie at exp(e) = 1 / (1 - 0.2): log 1.25.
    assert picks.picks[0].index == 0
    assert picks.picks[0].probability == pytest.approx(stats.norm.cdf(math.log(1.25)), abs=0.025)


def test_the_three_likeliest_are_picked():
    contenders = [
        contender(name, hours, own(name, 0.3)) for name, hours in zip("abcde", (2.0, 1.0, 1.4, 1.2, 9.0), strict=True)
    ]
    picks = choose_to_measure(contenders)
    assert chosen(picks) == [1, 3, 2]
    probabilities = [pick.probability for pick in picks.picks]
    assert probabilities == sorted(probabilities, reverse=True)
    assert picks.probability == pytest.approx(sum(probabilities))
    assert 0.9 < picks.probability < 1


def test_machines_with_the_same_gpus_are_measured_once():
    gpu = own("T4", 0.3)
    contenders = [
        contender("1 x T4", 1.0, gpu, usd_per_hour=1.3),
        contender("1 x T4", 1.0, gpu, usd_per_hour=1.0),
        contender("1 x L4", 0.9, own("L4", 0.3), usd_per_hour=1.4),
        contender("1 x A10", 0.5, own("A10", 0.3), usd_per_hour=2.6),
    ]
    assert chosen(choose_to_measure(contenders)) == [1, 2, 3]


def test_a_certain_winner_is_followed_by_the_next_without_it():
    contenders = [
        contender(name, hours, own(name, 0.01)) for name, hours in zip("abcd", (4.0, 1.0, 3.0, 2.0), strict=True)
    ]
    picks = choose_to_measure(contenders)
    assert chosen(picks) == [1, 3, 2]
    assert [pick.probability for pick in picks.picks] == [1, 0, 0]


def test_what_was_measured_is_not_measured_again():
    contenders = [contender("a", 1.0, is_measured=True), contender("b", 1.05, own("b", 0.1)), contender("c", 9.0)]
    picks = choose_to_measure(contenders)
    assert chosen(picks) == [1, 2]
    assert picks.picks[0].probability == pytest.approx(stats.norm.cdf(-math.log(1.05) / 0.1), abs=0.025)
    assert picks.probability == pytest.approx(1)


def test_limits_rule_machines_out_in_each_draw():
    slow_and_cheap = contender("a", 3.0, own("a", 0.2), usd_per_hour=0.1)
    fast_and_dear = contender("b", 1.0, own("b", 0.01), usd_per_hour=1.0)
    assert chosen(choose_to_measure([slow_and_cheap, fast_and_dear]))[0] == 0
    picks = choose_to_measure([slow_and_cheap, fast_and_dear], deadline_s=2 * 3600)
    # A is cheaper, but keeps the deadline only where its error is below log(2/3).
    assert chosen(picks) == [1, 0]
    assert picks.picks[1].probability == pytest.approx(stats.norm.cdf(math.log(2 / 3) / 0.2), abs=0.02)
    assert chosen(choose_to_measure([slow_and_cheap, fast_and_dear], budget_usd=0.5)) == [0]


def test_nothing_is_advised_where_no_machine_meets_the_limits():
    picks = choose_to_measure([contender("a", 1.0)], deadline_s=60)
    assert (picks.picks, picks.probability) == ((), None)
    assert choose_to_measure([]).probability is None


def test_a_run_that_would_never_end_is_not_the_cheapest():
    endless = Contender("a", UncertainTime(1.0, ()), lambda _: None, lambda seconds: seconds)
    assert chosen(choose_to_measure([endless, contender("b", 1.0)])) == [1]
