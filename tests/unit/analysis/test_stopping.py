"""When the speed of a run is known well enough to end it."""

import math
from dataclasses import replace

import numpy as np
import pytest

from harness.analysis.stopping import FIRST_LOOK, GROWTH, is_known_within, is_look, within_run_rate
from harness.analysis.throughput import ThroughputWindow
from harness.schema.training_record import PlannedStep


def test_looks_are_few_and_each_has_a_third_more_steps_than_the_last():
    looks = [num_steps for num_steps in range(1, 1000) if is_look(num_steps)]
    assert looks[0] == FIRST_LOOK
    assert looks[1:] == [math.ceil(GROWTH * look) for look in looks[:-1]]
    assert len(looks) < 20


def test_the_slowest_rank_counts_and_warm_up_does_not():
    fast, slow = [0.5] * 40, [4.0, 4.0] + [1.0] * 38
    rate = within_run_rate([fast, slow], [640] * 40)
    assert rate.value == pytest.approx(0.0)
    assert is_known_within(rate, 1e-6)


def test_steps_of_different_sizes_are_no_noise():
    """Batches of mixed lengths differ by 15 % and more: taken for noise, 3 % needed 143 steps."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(300, 900, 16).tolist()
    assert is_known_within(within_run_rate([[0.1 + count / 1000 for count in tokens]], tokens), 0.01)


def test_noise_widens_the_interval_and_more_steps_narrow_it():
    noise = np.exp(0.2 * np.random.default_rng(0).standard_normal(400))
    few, many = (within_run_rate([noise[:n].tolist()], [640] * n) for n in (16, 400))
    assert math.expm1(many.half_width) == pytest.approx(1.96 * 0.2 / 20, rel=0.5)
    assert not is_known_within(few, 0.05)
    assert is_known_within(many, 0.05)


@pytest.mark.parametrize("num_steps", [0, 1])
def test_a_run_of_less_than_two_steps_tells_no_speed(num_steps):
    rate = within_run_rate([[1.0] * num_steps], [640] * num_steps)
    assert rate is None
    assert not is_known_within(rate, 0.5)


def test_the_speed_of_a_run_that_ended_early_is_that_of_the_whole_plan():
    """The steps that ran had 400 tokens on average, those of the plan 500; a step takes 0.1 s and 1 ms a token."""
    tokens = (200, 300, 400, 500, 600) * 4
    seconds = tuple(0.1 + count / 1000 for count in tokens)
    window = ThroughputWindow(
        0, seconds, (16,) * 20, tokens, tokens, PlannedStep(num_samples=16, num_padded_tokens=500)
    )
    assert window.samples_per_s == pytest.approx(16 / 0.6)
    assert math.exp(window.log_rate.value) == pytest.approx(16 / 0.6)
    assert replace(window, planned_step=None).samples_per_s == pytest.approx(16 / 0.5)
