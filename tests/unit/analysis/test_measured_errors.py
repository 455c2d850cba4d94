"""Test errors over training set sizes: their covariance over examples and seeds, measured gains and leads."""

from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.accuracy import score_noise
from harness.analysis.estimate import t_quantile
from harness.analysis.measured_errors import measure_errors

CORRECT = {100: np.array([[1, 0, 0, 1.0], [1, 0, 1, 1]]), 200: np.array([[1, 1, 0, 1.0], [1, 1, 1, 1]])}


def test_errors_and_covariance_are_those_of_all_accuracies():
    measured = measure_errors(CORRECT)
    noise = score_noise(list(CORRECT.values()), [True, True])
    assert measured.error == pytest.approx([0.375, 0.125])
    assert measured.covariance == pytest.approx(noise.covariance)
    assert measured.seed_variance == pytest.approx(noise.of_seeds)
    # One degree of freedom a size, and the prior's two.
    assert (measured.num_seeds.tolist(), measured.num_examples, measured.degrees_of_freedom) == ([2, 2], 4, 4)


def test_a_gain_has_students_interval_with_the_degrees_of_freedom_of_its_two_variances():
    measured = measure_errors(CORRECT)
    gain = measured.gain(0, 1)
    # The means over seeds differ by 0, 1, 0, 0: variance 3/16, of a mean of 4 examples 3/64; one example adds 1/16.
    of_seeds = measured.seed_variance.sum()
    variance = 3 / 64 + of_seeds + 1 / 16
    freedom = 4 * (variance / of_seeds) ** 2
    assert measured.degrees_of_freedom_of(variance, of_seeds) == pytest.approx(freedom)
    assert gain.value == pytest.approx(0.25)
    half = t_quantile(freedom) * variance**0.5
    assert (gain.low, gain.high) == pytest.approx((0.25 - half, 0.25 + half))
    assert gain.basis == "over test examples and seeds"


def test_single_runs_have_no_variance_between_seeds():
    measured = measure_errors({100: np.array([[1, 0, 0, 1.0]]), 200: np.array([[1, 1, 0, 1.0]])})
    assert measured.degrees_of_freedom == 0 and not measured.seed_variance.any()
    gain = measured.gain(0, 1)
    assert gain.high - gain.value == pytest.approx(1.959964 * (3 / 64 + 1 / 16) ** 0.5)
    assert gain.basis == "over test examples"


def test_the_lead_over_a_baseline_is_paired_over_the_test_examples():
    assert measure_errors(CORRECT).lead() is None
    baseline = np.array([1, 0, 0, 1.0])
    measured = measure_errors(CORRECT, baseline)
    lead = measured.lead()
    assert lead.value == pytest.approx(0.875 - 0.5)
    # Differences of 0, 1, 0.5, 0 have a variance of 0.171875; the baseline has no variance between seeds.
    variance = 0.171875 / 4 + measured.seed_variance[-1] + 1 / 16
    half = t_quantile(4 * (variance / measured.seed_variance[-1]) ** 2) * variance**0.5
    assert (lead.low, lead.high) == pytest.approx((lead.value - half, lead.value + half))
    assert measured.baseline.error == 0.5


def test_selected_sizes_keep_their_rows_and_columns():
    correct = CORRECT | {400: np.array([[1, 1, 1, 1.0], [1, 1, 1, 0]])}
    measured = measure_errors(correct, np.array([1, 0, 0, 1.0]))
    selected = measured.select(np.array([0, 2]))
    assert selected.num_train.tolist() == [100, 400]
    assert selected.covariance == pytest.approx(measured.covariance[[0, 2]][:, [0, 2]])
    assert selected.baseline.covariance == pytest.approx(measured.baseline.covariance[[0, 2]])
    assert selected.gain(0, 1) == measured.gain(0, 2)
