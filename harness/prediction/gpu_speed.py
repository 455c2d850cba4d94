"""Seconds of a step on a GPU, from its datasheet: four constants, fitted to published and own measurements.

A step takes FLOPs / (c1 x dense peak) + bytes / (c2 x bandwidth) on the GPU, and c3 a layer + c4 a row on its host. The
host's seconds add to the GPU's where the loop waits for the GPU; otherwise both overlap, and the root of the sum of their
squares stands for the change from one to the other.

What GPUs differ in beside their datasheets (sustained clocks, caches, drivers) is a random factor of each GPU. Its spread is
that of predictions of GPUs that were left out of the fit. A GPU that was measured has a factor of its own: the mean of its
rows, shrunk by how certain they make it (best linear unbiased prediction). Only rows of the harness's own loop count for it
where there are any.

Source: C. R. Henderson, "Best linear unbiased estimation and prediction under a selection model", Biometrics 31 (1975),
423-447.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.prediction.step_work import HARNESS_LOOP, GpuWork, Loop
from harness.prediction.uncertain_time import ErrorFactor

FloatArray = NDArray[np.float64]

_MAX_ITERATIONS, _TOLERANCE = 100, 1e-10
_START = (0.5, 0.5, 2e-3, 1e-4)  # of c1 to c4; the fit has one minimum, and reaches it from far
_LIMIT = 1.0  # of a change of a logarithm in one iteration
_MIN_GPUS = 4


@dataclass(frozen=True)
class Datasheet:
    """What a GPU's datasheet says of a precision: dense peak, and memory bandwidth."""

    hardware: str
    flop_per_s: float
    bytes_per_s: float


@dataclass(frozen=True)
class MeasuredStep:
    """The mean step of one run on one GPU."""

    gpu: Datasheet
    work: GpuWork
    loop: Loop
    seconds: float


@dataclass(frozen=True)
class SpeedConstants:
    """The fitted constants.

    Attributes:
        peak_fraction: Share of the dense peak that matrix products reach.
        bandwidth_fraction: Share of the bandwidth that counted traffic reaches; caches can lift it above 1.
        layer_s: Host seconds of one layer's forward and backward pass.
        row_s: Host seconds of a row that is prepared by itself.
    """

    peak_fraction: float
    bandwidth_fraction: float
    layer_s: float
    row_s: float


@dataclass(frozen=True)
class StepSeconds:
    """Predicted seconds, and the host's part of them: the elasticity of the seconds to the host's."""

    seconds: float
    host_share: float


@dataclass(frozen=True)
class GpuSpread:
    """Standard deviations of the logarithm of measured over predicted seconds of GPUs that were left out of the fit.

    Attributes:
        between: Between GPUs.
        within: Between the rows of one GPU.
        num_gpus: GPUs that were left out, one after another.
        num_rows: Their rows.
    """

    between: float
    within: float
    num_gpus: int
    num_rows: int


@dataclass(frozen=True)
class GpuFactor:
    """The factor of one measured GPU: its logarithm, and what remains of its standard deviation.

    Attributes:
        by_own_loop: Whether it was measured with the harness's own loop.
    """

    log: float
    log_sd: float
    by_own_loop: bool


@dataclass(frozen=True)
class GpuSpeed:
    """The fitted model.

    Attributes:
        measured: The factor of each GPU that was measured.
        slowest_bytes_per_s, fastest_bytes_per_s: Lowest and highest bandwidth of these GPUs.
    """

    constants: SpeedConstants
    spread: GpuSpread
    measured: Mapping[str, GpuFactor]
    slowest_bytes_per_s: float
    fastest_bytes_per_s: float

    def step(self, gpu: Datasheet, work: GpuWork, loop: Loop) -> StepSeconds:
        """Predict the seconds of some work, with the GPU's own factor if it was measured."""
        factor = self.measured.get(gpu.hardware)
        plain = predict_seconds(self.constants, gpu, work, loop)
        return plain if factor is None else StepSeconds(plain.seconds * math.exp(factor.log), plain.host_share)

    def factors(self, gpu: Datasheet, precision: str) -> tuple[ErrorFactor, ErrorFactor]:
        """Return the random factor of a GPU, and that of its rows of one precision."""
        known, spread = self.measured.get(gpu.hardware), self.spread
        between = ErrorFactor(gpu.hardware, known.log_sd if known else spread.between, spread.num_gpus)
        within = ErrorFactor(f"{gpu.hardware} {precision}", spread.within, spread.num_rows - spread.num_gpus)
        return between, within


def predict_seconds(constants: SpeedConstants, gpu: Datasheet, work: GpuWork, loop: Loop) -> StepSeconds:
    """Predict the seconds of some work on a GPU of which only the datasheet is known."""
    on_gpu, on_host = _parts(gpu, work)
    power = _power(loop)
    gpu_s = (on_gpu[0] / constants.peak_fraction + on_gpu[1] / constants.bandwidth_fraction) ** power
    host_s = (on_host[0] * constants.layer_s + on_host[1] * constants.row_s) ** power
    return StepSeconds((gpu_s + host_s) ** (1 / power), host_s / (gpu_s + host_s))


def fit_gpu_speed(steps: Sequence[MeasuredStep]) -> GpuSpeed:
    """Fit the constants, the spread between GPUs, and the factor of each measured GPU.

    Args:
        steps: Steps on at least four GPUs.

    Raises:
        ValueError: With fewer GPUs.
    """
    spread = _spread(leave_one_out(steps), steps)
    constants = fit_constants(steps)
    bandwidths = [step.gpu.bytes_per_s for step in steps]
    measured = _measured_factors(_log_errors(constants, steps), steps, spread)
    return GpuSpeed(constants, spread, measured, min(bandwidths), max(bandwidths))


def fit_constants(steps: Sequence[MeasuredStep]) -> SpeedConstants:
    """Fit the constants to the logarithms of seconds by Gauss and Newton's method.

    The constants' logarithms are fitted, so that none is negative. The derivative of a step's logarithm by that of a
    constant is the share of that constant's part in the step.
    """
    parts = np.array([_parts(step.gpu, step.work)[0] + _parts(step.gpu, step.work)[1] for step in steps])
    power = np.array([_power(step.loop) for step in steps])
    target = np.log([step.seconds for step in steps])
    factors = np.log([1 / _START[0], 1 / _START[1], *_START[2:]])
    for _ in range(_MAX_ITERATIONS):
        fitted, shares = _fitted(parts * np.exp(factors), power)
        change = np.clip(np.linalg.lstsq(shares, target - fitted, rcond=None)[0], -_LIMIT, _LIMIT)
        factors = factors + change
        if np.abs(change).max() < _TOLERANCE:
            break
    peak, bandwidth, layer_s, row_s = np.exp(factors)
    return SpeedConstants(float(1 / peak), float(1 / bandwidth), float(layer_s), float(row_s))


def leave_one_out(steps: Sequence[MeasuredStep]) -> FloatArray:
    """Return each step's log(measured / predicted), by constants fitted without any step of its GPU.

    Raises:
        ValueError: With steps of fewer than four GPUs.
    """
    masks = _masks(steps)
    if len(masks) < _MIN_GPUS:
        raise ValueError(f"steps of {len(masks)} GPUs, {_MIN_GPUS} needed")
    errors = np.zeros(len(steps))
    for name, is_gpu in masks.items():
        constants = fit_constants([step for step in steps if step.gpu.hardware != name])
        errors[is_gpu] = _log_errors(constants, [step for step in steps if step.gpu.hardware == name])
    return errors


def _parts(gpu: Datasheet, work: GpuWork) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return what the constants multiply: seconds at the peak and at full bandwidth; layers and rows of the host."""
    return (work.flops / gpu.flop_per_s, work.num_bytes / gpu.bytes_per_s), (work.num_layers, work.num_rows)


def _power(loop: Loop) -> float:
    return 1.0 if loop.waits_for_gpu else 2.0


def _fitted(parts: FloatArray, power: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the logarithms of seconds, and each part's share, `(num_steps, 4)`."""
    gpu_s, host_s = parts[:, :2].sum(axis=1), parts[:, 2:].sum(axis=1)
    gpu, host = gpu_s**power, host_s**power
    weights = np.stack([gpu / gpu_s, gpu / gpu_s, host / host_s, host / host_s], axis=1)
    return np.log(gpu + host) / power, parts * weights / (gpu + host)[:, None]


def _log_errors(constants: SpeedConstants, steps: Sequence[MeasuredStep]) -> FloatArray:
    predicted = [predict_seconds(constants, step.gpu, step.work, step.loop).seconds for step in steps]
    return np.log([step.seconds for step in steps]) - np.log(predicted)


def _spread(errors: FloatArray, steps: Sequence[MeasuredStep]) -> GpuSpread:
    """Split the errors' variance by the method of moments; their mean is taken to be 0, so that a bias counts."""
    groups = [errors[is_gpu] for is_gpu in _masks(steps).values()]
    num_gpus, num_rows = len(groups), len(errors)
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / (num_rows - num_gpus)
    of_means = sum(float(group.mean()) ** 2 for group in groups) / num_gpus
    of_rows = within * sum(1 / len(group) for group in groups) / num_gpus
    return GpuSpread(math.sqrt(max(0.0, of_means - of_rows)), math.sqrt(within), num_gpus, num_rows)


def _measured_factors(errors: FloatArray, steps: Sequence[MeasuredStep], spread: GpuSpread) -> dict[str, GpuFactor]:
    own = np.array([step.loop == HARNESS_LOOP for step in steps])
    factors = {}
    for name, is_gpu in _masks(steps).items():
        by_own_loop = bool((is_gpu & own).any())
        group = errors[is_gpu & own] if by_own_loop else errors[is_gpu]
        known = spread.between**2 / (spread.between**2 + spread.within**2 / len(group)) if spread.between else 0.0
        log_sd = spread.between * math.sqrt(1 - known)
        factors[name] = GpuFactor(known * float(group.mean()), log_sd, by_own_loop)
    return factors


def _masks(steps: Sequence[MeasuredStep]) -> dict[str, NDArray[np.bool_]]:
    names = np.array([step.gpu.hardware for step in steps])
    return {name: names == name for name in dict.fromkeys(names.tolist())}
