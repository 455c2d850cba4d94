"""Runs that follow each other are alike: intervals between runs allow for it."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from harness.analysis.estimate import t_quantile
from harness.analysis.serial_correlation import (
    DRIFT_S,
    DRIFT_SHARE,
    RunStart,
    correlated_mean,
    correlation_matrix,
    run_start,
    variance_of_mean,
)
from harness.analysis.throughput import measure_windows, throughput
from harness.store.record_files import load_records

COVERAGE = Path("results/reference/amd-epyc-2c-24g-dbbbf2/coverage")


def starts(num_runs, apart_s, host="a"):
    return [RunStart(host, index * apart_s) for index in range(num_runs)]


@cache
def reference_cells():
    """Return the records of the two cells of 50 runs each, in order of time."""
    records = sorted(load_records([COVERAGE]).records, key=lambda record: record.started_at)
    return [[record for record in records if record.cell.startswith(size)] for size in ("b16-", "b8-")]


def test_runs_far_apart_and_on_other_hosts_are_independent():
    assert np.allclose(correlation_matrix(starts(3, 3600)), np.eye(3))
    two = correlation_matrix([*starts(1, 0), *starts(1, 0, "b")])
    assert two.tolist() == [[1, 0], [0, 1]]
    factors = correlated_mean(np.eye(4))
    assert (factors.variance_factor, factors.sample_factor) == (pytest.approx(0.25), pytest.approx(1))
    assert factors.degrees_of_freedom == pytest.approx(3)


def test_correlation_decays_with_the_time_between_starts():
    one, other = 0.75 * math.exp(-34 / 65), 0.75 * math.exp(-68 / 65)
    expected = [[1, one, other], [one, 1, one], [other, one, 1]]
    assert np.allclose(correlation_matrix(starts(3, 34)), expected)


def test_factors_of_the_mean_and_of_the_sample_variance_by_hand():
    # Correlation 1/2 of neighbours alone: sum(R) = 3 + 4/2 = 5; trace(M R) = 3 - 5/3 = 4/3; M R M = [[1/9, ...]].
    matrix = np.array([[1, 0.5, 0], [0.5, 1, 0.5], [0, 0.5, 1]])
    factors = correlated_mean(matrix)
    assert (factors.variance_factor, factors.sample_factor) == (pytest.approx(5 / 9), pytest.approx(2 / 3))
    centering = np.eye(3) - 1 / 3
    product = centering @ matrix
    assert factors.degrees_of_freedom == pytest.approx(np.trace(product) ** 2 / np.trace(product @ product))
    # s^2 = 1 of (0, 1, 2): 1 / (2/3) * 5/9 instead of 1/3.
    assert variance_of_mean([0, 1, 2], matrix)[0] == pytest.approx(5 / 6)


def test_variance_and_degrees_of_freedom_agree_with_a_simulation():
    matrix = correlation_matrix(starts(5, 34))
    factors = correlated_mean(matrix)
    random = np.random.default_rng(20261127)
    draws = random.standard_normal((40_000, 5)) @ np.linalg.cholesky(matrix).T
    variances = draws.var(axis=1, ddof=1)
    assert draws.mean(axis=1).var() == pytest.approx(factors.variance_factor, rel=0.02)
    assert variances.mean() == pytest.approx(factors.sample_factor, rel=0.02)
    assert 2 * variances.mean() ** 2 / variances.var() == pytest.approx(factors.degrees_of_freedom, rel=0.05)


def log_likelihood(share, drift_s):
    """Return the restricted log-likelihood of the reference runs' speeds, one drift for both cells."""
    logs, at_s, cell = [], [], []
    for index, records in enumerate(reference_cells()):
        windows = measure_windows([record.training for record in records])
        logs += [math.log(window.samples_per_s) for window in windows]
        at_s += [record.started_at.timestamp() for record in records]
        cell += [index] * len(records)
    logs, at_s = np.array(logs), np.array(at_s)
    design = np.eye(2)[cell]
    matrix = share * np.exp(-abs(at_s[:, None] - at_s) / drift_s)
    np.fill_diagonal(matrix, 1.0)
    root = np.linalg.cholesky(matrix)
    left, right = np.linalg.solve(root, design), np.linalg.solve(root, logs)
    residual = right - left @ np.linalg.lstsq(left, right, rcond=None)[0]
    degrees = len(logs) - 2
    determinants = 2 * np.log(np.diag(root)).sum() + np.linalg.slogdet(left.T @ left)[1]
    return -0.5 * (determinants + degrees * math.log(residual @ residual / degrees))


def test_the_constants_are_the_likeliest_of_the_reference_runs():
    best = log_likelihood(DRIFT_SHARE, DRIFT_S)
    assert best - log_likelihood(0.0, DRIFT_S) > 14  # no correlation
    for share, drift_s in [(0.5, 65), (0.95, 65), (0.75, 30), (0.75, 150), (0.9, 600)]:
        assert log_likelihood(share, drift_s) < best
    assert log_likelihood(0.8, 250) > best - 1.6


@pytest.mark.parametrize(("cell", "before", "now"), [(0, 41, 45), (1, 37, 44)])
def test_blocks_of_five_consecutive_reference_runs_cover_the_mean_of_the_others(cell, before, now):
    """Of 46 blocks, Student's t covered 41 (89 %) and 37 (80 %); runs drawn at random from 4.5 hours hid that."""
    records = reference_cells()[cell]
    windows = measure_windows([record.training for record in records])
    places = [run_start(record) for record in records]
    num_naive = num_covered = 0
    for first in range(len(records) - 4):
        block = slice(first, first + 5)
        others = np.mean([window.samples_per_s for window in [*windows[:first], *windows[first + 5 :]]])
        estimate = throughput(windows[block], places[block])
        num_covered += estimate.low <= others <= estimate.high
        independent = throughput(windows[block])
        num_naive += independent.low <= others <= independent.high
    assert (num_naive, num_covered) == (before, now)
    assert now / 46 >= 0.9


@pytest.mark.parametrize(("apart_s", "widest"), [(34, 1.9), (120, 1.25), (300, 1.02)])
def test_independent_runs_pay_for_the_assumption_only_if_they_follow_each_other(apart_s, widest):
    """Half-width relative to Student's t of independent runs."""
    factors = correlated_mean(correlation_matrix(starts(5, apart_s)))
    ratio = math.sqrt(5 * factors.variance_factor / factors.sample_factor)
    assert ratio * t_quantile(factors.degrees_of_freedom) / t_quantile(4) <= widest
