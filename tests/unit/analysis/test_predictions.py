"""A run against its prediction: which differences are an alarm."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.analysis.predictions import predicted_peak, predicted_seconds, prediction_warnings
from harness.schema.probe_record import Predicted
from tests.make_records import make_record

# 100 s, with a standard deviation of 7 % in the logarithm.
FACTOR = math.exp(1.959964 * 0.07)
PREDICTED = Predicted(
    seconds=100, seconds_low=100 / FACTOR, seconds_high=100 * FACTOR,
    samples_per_s=20, samples_per_s_low=18, samples_per_s_high=22,
    peak_bytes=1000, peak_bytes_low=900, peak_bytes_high=1100, basis="probe",
)  # fmt: skip


def ran(seconds):
    return make_record().model_copy(update={"duration_s": seconds, "predicted": PREDICTED})


def test_figures_are_read_with_their_intervals():
    assert predicted_seconds(ran(100)).value == 100
    assert predicted_seconds(ran(100)).high == pytest.approx(114.7, abs=0.1)
    assert (predicted_peak(ran(100)).low, predicted_peak(ran(100)).high) == (900, 1100)
    assert predicted_seconds(make_record()) is None and predicted_peak(make_record()) is None


@pytest.mark.parametrize(("seconds", "is_alarm"), [(80, False), (125, False), (130, True), (78, True), (200, True)])
def test_what_lies_beyond_999_of_1000_is_an_alarm(seconds, is_alarm):
    """100 s times exp(3.29 x 0.07) is 125.9 s."""
    warnings = list(prediction_warnings([ran(seconds)]))
    assert bool(warnings) is is_alarm
    if is_alarm:
        assert f"It took {seconds} s where 100 s were predicted (79.4 to 126 s in 99.9% of cases)" in warnings[0]


def test_a_slow_down_of_30_percent_raises_the_alarm_and_clean_runs_do_not():
    rng = np.random.default_rng(0)
    clean = [ran(100 * math.exp(rng.normal(0, 0.05))) for _ in range(200)]
    assert not list(prediction_warnings(clean))
    assert len(list(prediction_warnings([ran(130.0)]))) == 1


def test_a_run_that_was_stopped_early_is_no_alarm():
    record = ran(10)
    stopped = record.training.model_copy(update={"stopped_early": "target reached"})
    assert not list(prediction_warnings([record.model_copy(update={"training": stopped})]))
