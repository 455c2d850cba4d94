"""Coverage and width of intervals within a run and between runs, on simulated noise."""

from __future__ import annotations

import math
import random
from statistics import median

import pytest

from harness.analysis.estimate import t_interval
from harness.analysis.run_spread import stated_spread
from harness.analysis.throughput import measure_windows, throughput
from harness.schema.training_record import Steps
from tests.make_records import make_record

TRUE_S = 0.25


def steps_of(rng, num_steps, rho, sd=0.05):
    noise, seconds = rng.gauss(0, sd), []
    for _ in range(num_steps):
        seconds.append(TRUE_S * max(0.05, 1 + noise))
        noise = rho * noise + rng.gauss(0, sd * math.sqrt(1 - rho**2))
    return seconds


def oracle(num_steps, rho, sd=0.05):
    """Return the half-width if the noise were known: 1.96 standard errors of the mean of an AR(1) series."""
    inner = (1 + rho) / (1 - rho) - 2 * rho * (1 - rho**num_steps) / (num_steps * (1 - rho) ** 2)
    return 1.959964 * sd * math.sqrt(inner / num_steps)


@pytest.mark.parametrize(("num_steps", "rho", "num_trials"), [(100, 0.0, 1500), (100, 0.5, 1500), (1000, 0.9, 500)])
def test_intervals_within_a_run_cover_93_percent_at_1_5_times_the_oracle_width(num_steps, rho, num_trials):
    """Start from raw steps, so that warm-up detection is included."""
    rng, covered, halves = random.Random(8), 0, []
    plain = make_record(training={"seconds": [1.0] * num_steps}).training
    for _ in range(num_trials):
        steps = Steps.model_construct(**dict(plain.steps) | {"seconds": (tuple(steps_of(rng, num_steps, rho)),)})
        windows = measure_windows([plain.model_copy(update={"steps": steps})])
        estimate = throughput(windows, spread=stated_spread(0.0))
        covered += estimate.low <= 16 / TRUE_S <= estimate.high
        halves.append((estimate.high - estimate.low) / 2 / (16 / TRUE_S))
    assert covered / num_trials >= 0.93
    assert median(halves) <= 1.5 * oracle(num_steps, rho)


def test_students_t_between_runs_covers_what_intervals_within_runs_do_not():
    rng, between, within = random.Random(9), 0, 0
    for _ in range(1000):
        levels = [16 / TRUE_S * (1 + rng.gauss(0, 0.02)) for _ in range(5)]
        estimate = t_interval(levels, "between 5 runs")
        between += estimate.low <= 16 / TRUE_S <= estimate.high
        half = oracle(100, 0.0) * levels[0]
        within += abs(levels[0] - 16 / TRUE_S) <= half
    assert between / 1000 >= 0.93
    assert within / 1000 <= 0.6  # a single run's steps don't show the 2 % between runs
