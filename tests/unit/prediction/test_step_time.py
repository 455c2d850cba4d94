"""The linear time of a step: worked out by hand, and recovered from noise."""

from __future__ import annotations

import numpy as np
import pytest

from harness.prediction.step_time import Timing, fit_time
from harness.schema.probe_record import Work


def timings(shapes, *, noise=0.0, seed=0):
    """Time shapes (rows, tokens) with 0.1 s a batch, 2 ms a token and 1 us a pair."""
    rng = np.random.default_rng(seed)
    return [
        Timing(
            rows * tokens,
            rows * tokens**2,
            (0.1 + 2e-3 * rows * tokens + 1e-6 * rows * tokens**2) * np.exp(rng.normal(0, noise)),
        )
        for rows, tokens in shapes
    ]


def test_three_shapes_give_the_three_coefficients():
    line = fit_time(timings([(8, 16), (16, 64), (4, 256)]))
    assert (line.per_batch, line.per_token, line.per_pair) == pytest.approx((0.1, 2e-3, 1e-6))
    assert line.misfit == 0.0


def test_seconds_of_many_batches_are_the_sum_of_their_seconds():
    line = fit_time(timings([(8, 16), (16, 64), (4, 256)]))
    work = Work(num_batches=2, num_tokens=16 * 32 + 16 * 64, num_pairs=16 * 32**2 + 16 * 64**2, num_shapes=2)
    assert line.seconds(work) == pytest.approx(0.2 + 2e-3 * 1536 + 1e-6 * 81920)


def test_no_coefficient_is_negative_where_longer_rows_cost_less():
    line = fit_time([Timing(100, 1_000, 1.0), Timing(200, 4_000, 1.5), Timing(400, 40_000, 1.6)])
    assert min(line.per_batch, line.per_token, line.per_pair) == 0.0


def test_one_shape_is_fitted_exactly():
    line = fit_time([Timing(1024, 65536, 0.5)])
    assert line.seconds(Work(num_batches=3, num_tokens=3072, num_pairs=3 * 65536, num_shapes=1)) == pytest.approx(1.5)


def test_misfit_is_the_noise_of_the_timings():
    shapes = [(rows, tokens) for rows in (4, 8, 16, 32) for tokens in (16, 32, 64, 128)]
    misfits = [fit_time(timings(shapes, noise=0.08, seed=seed)).misfit for seed in range(40)]
    assert np.sqrt(np.mean(np.square(misfits))) == pytest.approx(0.08, rel=0.1)
