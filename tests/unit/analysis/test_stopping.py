"""When the speed of a run is known well enough to end it."""

import math

import numpy as np
import pytest

from harness.analysis.stopping import FIRST_LOOK, GROWTH, is_known_within, is_look, within_run_rate


def test_looks_are_few_and_each_has_a_third_more_steps_than_the_last():
    looks = [num_steps for num_steps in range(1, 1000) if is_look(num_steps)]
    assert looks[0] == FIRST_LOOK
    assert looks[1:] == [math.ceil(GROWTH * look) for look in looks[:-1]]
    assert len(looks) < 20


def test_the_rate_is_that_of_the_slowest_rank_without_warm_up():
    fast, slow = [0.5] * 40, [4.0, 4.0] + [1.0] * 38
    rate = within_run_rate([fast, slow], [32] * 40, [640] * 40)
    assert math.exp(rate.value) == pytest.approx(32.0)
    assert is_known_within(rate, 1e-6)


def test_noise_widens_the_interval_and_more_steps_narrow_it():
    noise = np.exp(0.2 * np.random.default_rng(0).standard_normal(400))
    few, many = (within_run_rate([noise[:n].tolist()], [16] * n, [640] * n) for n in (16, 400))
    assert math.expm1(many.half_width) == pytest.approx(1.96 * 0.2 / 20, rel=0.5)
    assert not is_known_within(few, 0.05)
    assert is_known_within(many, 0.05)


@pytest.mark.parametrize("num_steps", [0, 1])
def test_a_run_of_less_than_two_steps_tells_no_speed(num_steps):
    rate = within_run_rate([[1.0] * num_steps], [16] * num_steps, [640] * num_steps)
    assert rate is None
    assert not is_known_within(rate, 0.5)
