"""The fit of GPU speed: recovery of constants, leaving GPUs out, factors of measured GPUs, coverage by simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from harness.prediction.gpu_speed import (
    Datasheet,
    MeasuredStep,
    SpeedConstants,
    fit_constants,
    fit_gpu_speed,
    leave_one_out,
    predict_seconds,
)
from harness.prediction.step_work import HARNESS_LOOP, GpuWork, Loop
from harness.prediction.uncertain_time import UncertainTime

WAITING = Loop(fused_attention=False, fp32_states=False, waits_for_gpu=True, prepares_rows=True)
TRUTH = SpeedConstants(0.8, 0.5, 2e-3, 1e-4)
SHEETS = [
    Datasheet(f"GPU {index}", peak * 1e12, bandwidth * 1e9)
    for index, (peak, bandwidth) in enumerate(
        [(65, 320), (70, 600), (125, 900), (155, 770), (165, 1000), (312, 1555), (312, 2039), (756, 2000), (989, 3350)]
    )
]
WORKS = [
    GpuWork(2e12, 1e10, 12, 16),
    GpuWork(1e13, 8e10, 12, 64),
    GpuWork(2e13, 3e11, 24, 64),
    GpuWork(4e12, 9e10, 24, 8),
]


def steps(log_factor=lambda _gpu, _work: 0.0, sheets=SHEETS):
    return [
        MeasuredStep(
            gpu, work, WAITING, predict_seconds(TRUTH, gpu, work, WAITING).seconds * math.exp(log_factor(gpu, work))
        )
        for gpu in sheets
        for work in WORKS
    ]


def noisy(rng, sheets, between, within):
    factors = {gpu.hardware: rng.normal(0, between) for gpu in sheets}
    return steps(lambda gpu, _: factors[gpu.hardware] + rng.normal(0, within), sheets)


def test_host_and_gpu_add_up_where_the_loop_waits():
    gpu, work = Datasheet("x", 1e12, 1e10), GpuWork(4e11, 1e9, 100, 1000)
    # 0.4 / 0.8 s of products, 0.1 / 0.5 s of traffic; 0.2 s of layers and 0.1 s of rows on the host.
    waiting = predict_seconds(TRUTH, gpu, work, WAITING)
    assert waiting.seconds == pytest.approx(0.7 + 0.3)
    assert waiting.host_share == pytest.approx(0.3)
    overlapping = predict_seconds(TRUTH, gpu, work, HARNESS_LOOP)
    assert overlapping.seconds == pytest.approx(math.hypot(0.7, 0.3))
    assert overlapping.host_share == pytest.approx(0.09 / 0.58)


def test_work_twice_as_large_takes_twice_as_long():
    gpu, work = SHEETS[3], WORKS[1]
    for loop in (WAITING, HARNESS_LOOP):
        one, two = (predict_seconds(TRUTH, gpu, each, loop).seconds for each in (work, work + work))
        assert two == pytest.approx(2 * one)


@pytest.mark.parametrize("loop", [WAITING, HARNESS_LOOP])
def test_the_fit_recovers_the_constants(loop):
    exact = [
        replace(step, loop=loop, seconds=predict_seconds(TRUTH, step.gpu, step.work, loop).seconds) for step in steps()
    ]
    fitted = fit_constants(exact)
    assert (fitted.peak_fraction, fitted.bandwidth_fraction) == pytest.approx((0.8, 0.5), rel=1e-6)
    assert (fitted.layer_s, fitted.row_s) == pytest.approx((2e-3, 1e-4), rel=1e-4)


def test_a_gpu_that_is_left_out_does_not_touch_its_own_prediction():
    slow = steps(lambda gpu, _: math.log(2) if gpu is SHEETS[4] else 0.0)
    mask = np.array([step.gpu is SHEETS[4] for step in slow])
    assert leave_one_out(slow)[mask] == pytest.approx(math.log(2), abs=1e-6)
    assert leave_one_out(steps()) == pytest.approx(0, abs=1e-6)


def test_too_few_gpus_are_refused():
    with pytest.raises(ValueError, match="3 GPUs, 4 needed"):
        leave_one_out(steps(sheets=SHEETS[:3]))


def test_a_measured_gpu_has_a_shrunken_factor_of_its_own():
    speed = fit_gpu_speed(noisy(np.random.default_rng(1), SHEETS, 0.1, 0.05))
    spread, own = speed.spread, speed.measured["GPU 2"]
    known = spread.between**2 / (spread.between**2 + spread.within**2 / 4)
    assert own.log_sd == pytest.approx(spread.between * math.sqrt(1 - known))
    residuals = [
        math.log(step.seconds / predict_seconds(speed.constants, step.gpu, step.work, WAITING).seconds)
        for step in noisy(np.random.default_rng(1), SHEETS, 0.1, 0.05)
        if step.gpu is SHEETS[2]
    ]
    assert own.log == pytest.approx(known * np.mean(residuals))
    plain = predict_seconds(speed.constants, SHEETS[2], WORKS[0], WAITING).seconds
    assert speed.step(SHEETS[2], WORKS[0], WAITING).seconds == pytest.approx(plain * math.exp(own.log))
    between, within = speed.factors(SHEETS[2], "fp16")
    assert (between.log_sd, within.log_sd) == (own.log_sd, spread.within)
    assert (between.degrees_of_freedom, within.degrees_of_freedom) == (9, 27)
    unknown = speed.factors(Datasheet("new", 1e12, 1e9), "fp16")[0]
    assert unknown.log_sd == spread.between > own.log_sd


def test_rows_of_the_own_loop_alone_count_for_a_gpus_factor():
    published = noisy(np.random.default_rng(2), SHEETS, 0.1, 0.03)
    own = [
        MeasuredStep(SHEETS[0], work, HARNESS_LOOP, 1.5 * predict_seconds(TRUTH, SHEETS[0], work, HARNESS_LOOP).seconds)
        for work in WORKS
    ]
    speed = fit_gpu_speed(published + own)
    assert speed.measured["GPU 0"].by_own_loop
    assert not speed.measured["GPU 1"].by_own_loop
    assert speed.measured["GPU 0"].log > fit_gpu_speed(published).measured["GPU 0"].log + 0.1


def test_intervals_cover_new_gpus_as_often_as_they_say():
    rng, inside, total = np.random.default_rng(0), 0, 0
    for _ in range(60):
        drawn = noisy(rng, SHEETS, 0.12, 0.08)
        speed = fit_gpu_speed([step for step in drawn if step.gpu is not SHEETS[5]])
        for step in drawn:
            if step.gpu is SHEETS[5]:
                time = UncertainTime(speed.step(step.gpu, step.work, WAITING).seconds, speed.factors(step.gpu, "fp16"))
                inside += abs(math.log(step.seconds / time.seconds)) <= time.log_half_width()
                total += 1
    # 95 % are promised; the four rows of a GPU share its factor, so that 240 rows are worth about 80 of them.
    assert 0.90 <= inside / total <= 0.995
