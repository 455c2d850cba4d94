"""Measure matrix products, copies and step jitter: `python -m harness.worker.diagnostics.microbenchmarks PLAN FILE`.

PLAN is a `CalibrationPlan` as JSON; FILE receives a `Calibration`.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import psutil
import torch

from harness.machine.calibration import CalibratedProduct, Calibration, CalibrationPlan, DeviceCalibration
from harness.machine.cgroups import available_memory_bytes
from harness.worker.device import synchronize

Precision = Literal["fp32", "tf32", "bf16", "fp16"]

SIZES = (512, 1024, 2048, 4096)
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Shares of a device's time. Matrix products get by far the most, since they reach their peak only while the machine is
# otherwise quiet. What remains goes into creating the matrices and warming up.
_PRODUCT_SHARE, _COPY_SHARE, _STEP_SHARE = 0.5, 0.1, 0.25
_SIZE_SHARE = 0.25  # of the remaining time, for each size; the last, whose products take longest, gets all of it
_MIN_STEPS = 20
_STEP_S = 0.01  # long enough to be timed exactly, short enough for a thousand steps
_COPY_BYTES = 512 * 2**20  # far larger than the last-level cache of any CPU
_MIN_COPY_BYTES = 32 * 2**20
_GIGA = 1e9


def measure(plan: CalibrationPlan) -> Calibration:
    """Measure every device of the plan, each for an equal share of the time."""
    torch.set_num_threads(plan.num_threads)
    begin = time.perf_counter()
    share_s = plan.seconds / len(plan.precisions)
    with torch.inference_mode():
        devices = tuple(
            _measure_device(device, precisions, share_s, plan.num_threads)
            for device, precisions in plan.precisions.items()
        )
    return Calibration(torch=torch.__version__, duration_s=time.perf_counter() - begin, devices=devices)


def _measure_device(
    kind: Literal["cpu", "gpu"], precisions: tuple[Precision, ...], seconds: float, num_threads: int
) -> DeviceCalibration:
    """Measure products, copies and steps on one device.

    Args:
        kind: `cpu`, or `gpu` for the first GPU.
        precisions: Precisions of the products.
        seconds: Time to spend.
        num_threads: CPU threads, for the record.
    """
    device = torch.device("cuda:0" if kind == "gpu" else "cpu")
    product_s = seconds * _PRODUCT_SHARE / len(precisions)
    products = tuple(_best_product(device, precision, product_s) for precision in precisions)
    copy_rate = copy_gb_per_s(device, seconds * _COPY_SHARE)
    median, ratio, count = jitter(_time_steps(device, seconds * _STEP_SHARE))
    return DeviceCalibration(
        device=kind,
        num_threads=num_threads if kind == "cpu" else None,
        products=products,
        copy_gb_per_s=copy_rate,
        step_s_median=median,
        step_s_p95_over_median=ratio,
        num_steps=count,
    )


def jitter(seconds: list[float]) -> tuple[float, float, int]:
    """Return the median of the steps' seconds, their 95th percentile divided by the median, and the number of steps."""
    median = statistics.median(seconds)
    return median, statistics.quantiles(seconds, n=20, method="inclusive")[-1] / median, len(seconds)


def _best_product(device: torch.device, precision: Precision, seconds: float) -> CalibratedProduct:
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    best = CalibratedProduct(precision=precision, size=SIZES[0], gflop_per_s=0.0)
    end, expected_s = time.perf_counter() + seconds, 0.0
    for size in SIZES:
        remaining_s = end - time.perf_counter()
        if 2 * expected_s > remaining_s:  # one product to warm up, one to time
            break
        share = 1 if size == SIZES[-1] else _SIZE_SHARE
        multiply = _product(device, DTYPES[precision], size)
        fastest = min(_time_repeats(device, multiply, max(0.0, remaining_s - expected_s) * share))
        expected_s = fastest * 2**3  # for the next size, twice as large in three dimensions
        rate = 2 * size**3 / fastest / _GIGA
        if rate > best.gflop_per_s:
            best = CalibratedProduct(precision=precision, size=size, gflop_per_s=rate)
    torch.set_float32_matmul_precision("highest")
    return best


def _product(device: torch.device, dtype: torch.dtype, size: int) -> Callable[[], object]:
    # Random numbers, since GPUs draw less power and run faster on zeros.
    left, right = (torch.randn(size, size, device=device, dtype=torch.float32).to(dtype) for _ in range(2))
    out = torch.empty(size, size, device=device, dtype=dtype)
    return lambda: torch.mm(left, right, out=out)


def available_bytes(device: torch.device) -> int:
    """Return the free memory of a device that this process may still allocate."""
    if device.type != "cpu":
        return torch.cuda.mem_get_info(device)[0]
    free, left_in_cgroup = int(psutil.virtual_memory().available), available_memory_bytes()
    return free if left_in_cgroup is None else min(free, left_in_cgroup)


def copy_gb_per_s(device: torch.device, seconds: float, max_bytes: int = _COPY_BYTES) -> float | None:
    """Return the bytes read and written by the fastest copy of a large tensor, in 10⁹ per second; None if memory is short."""
    num_bytes = min(max_bytes, available_bytes(device) // 8)
    if num_bytes < _MIN_COPY_BYTES:
        return None
    source = torch.ones(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(_time_repeats(device, lambda: target.copy_(source), seconds)) / _GIGA


def _time_steps(device: torch.device, seconds: float) -> list[float]:
    """Time equal steps, each of as many matrix products as take about 10 ms; return the seconds of each step."""
    multiply = _product(device, torch.float32, SIZES[1] if device.type == "cuda" else SIZES[0])
    repeats = max(1, round(_STEP_S / statistics.median(_time_repeats(device, multiply, seconds / 10))))

    def step() -> None:
        for _ in range(repeats):
            multiply()

    return list(_time_repeats(device, step, seconds, min_count=_MIN_STEPS))


def _time_repeats(
    device: torch.device, work: Callable[[], object], seconds: float, min_count: int = 1
) -> Iterator[float]:
    """Repeat a piece of work until the time is over, and yield the seconds of each run.

    Args:
        device: The device that does the work.
        work: The work; its first run is not timed.
        seconds: Time to spend.
        min_count: Minimum number of timed runs, even if the time is over.
    """
    work()
    synchronize(device)
    end = time.perf_counter() + seconds
    count = 0
    while count < min_count or time.perf_counter() < end:
        begin = time.perf_counter()
        work()
        synchronize(device)
        yield time.perf_counter() - begin
        count += 1


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(
        measure(CalibrationPlan.model_validate_json(sys.argv[1])).model_dump_json(), encoding="utf-8"
    )
