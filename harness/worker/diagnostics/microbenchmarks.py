"""The process of a calibration: `python -m harness.calibration ORDER FILE` measures and writes what it found."""

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

SIZES = (512, 1024, 2048, 4096)
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Shares of the time: products by far the longest, as a peak is only reached in a quiet moment. What is left over goes
# into making the matrices and warming up.
_PRODUCTS, _COPY, _STEPS = 0.5, 0.1, 0.25
_EACH = 0.25  # of the time that is left, to each size but the last: that needs the longest products
_FEWEST_STEPS = 20
_STEP_S = 0.01  # long enough for a clock, short enough for a thousand of them
_COPY_BYTES = 512 * 2**20  # far beyond the last cache of any CPU
_LEAST_COPY_BYTES = 32 * 2**20
_GIGA = 1e9


def measure(order: CalibrationPlan) -> Calibration:
    """Measure every device of the order, each for an equal share of the time."""
    torch.set_num_threads(order.num_threads)
    begin = time.perf_counter()
    share_s = order.seconds / len(order.precisions)
    with torch.inference_mode():
        devices = tuple(
            _measure(device, precisions, share_s, order.num_threads) for device, precisions in order.precisions.items()
        )
    return Calibration(torch=torch.__version__, duration_s=time.perf_counter() - begin, devices=devices)


def _measure(
    device: Literal["cpu", "gpu"],
    precisions: tuple[Literal["fp32", "tf32", "bf16", "fp16"], ...],
    seconds: float,
    num_threads: int,
) -> DeviceCalibration:
    where = torch.device("cuda:0" if device == "gpu" else "cpu")
    each_s = seconds * _PRODUCTS / len(precisions)
    products = tuple(_best_product(where, precision, each_s) for precision in precisions)
    copied = copy_gb_per_s(where, seconds * _COPY)
    median, ratio, count = jitter(_steps_s(where, seconds * _STEPS))
    return DeviceCalibration(
        device=device,
        num_threads=num_threads if device == "cpu" else None,
        products=products,
        copy_gb_per_s=copied,
        step_s_median=median,
        step_s_p95_over_median=ratio,
        num_steps=count,
    )


def jitter(seconds: list[float]) -> tuple[float, float, int]:
    """Median, 95th percentile over median, and count."""
    median = statistics.median(seconds)
    return median, statistics.quantiles(seconds, n=20, method="inclusive")[-1] / median, len(seconds)


def _best_product(
    where: torch.device, precision: Literal["fp32", "tf32", "bf16", "fp16"], seconds: float
) -> CalibratedProduct:
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    best = CalibratedProduct(precision=precision, size=SIZES[0], gflop_per_s=0.0)
    end, expected_s = time.perf_counter() + seconds, 0.0
    for size in SIZES:
        left_s = end - time.perf_counter()
        if 2 * expected_s > left_s:  # one to warm up, and one that counts
            break
        work = _product(where, DTYPES[precision], size)
        fastest = min(_times_s(where, work, max(0.0, left_s - expected_s) * (1 if size == SIZES[-1] else _EACH)))
        expected_s = fastest * 2**3  # of the next size
        rate = 2 * size**3 / fastest / _GIGA
        if rate > best.gflop_per_s:
            best = CalibratedProduct(precision=precision, size=size, gflop_per_s=rate)
    torch.set_float32_matmul_precision("highest")
    return best


def _product(where: torch.device, dtype: torch.dtype, size: int) -> Callable[[], object]:
    # Of random numbers: GPUs draw less power, and run faster, on zeros.
    left, right = (torch.randn(size, size, device=where, dtype=torch.float32).to(dtype) for _ in range(2))
    out = torch.empty(size, size, device=where, dtype=dtype)
    return lambda: torch.mm(left, right, out=out)


def room_bytes(where: torch.device) -> int:
    """Memory that is free on a device, and that this process may still take."""
    free = psutil.virtual_memory().available if where.type == "cpu" else torch.cuda.mem_get_info(where)[0]
    group = available_memory_bytes() if where.type == "cpu" else None
    return min(free, group if group is not None else free)


def copy_gb_per_s(where: torch.device, seconds: float, most_bytes: int = _COPY_BYTES) -> float | None:
    """Bytes read and written by the fastest copy of a large tensor, in 10⁹ a second; None where memory is short."""
    num_bytes = min(most_bytes, room_bytes(where) // 8)
    if num_bytes < _LEAST_COPY_BYTES:
        return None
    source = torch.ones(num_bytes // 4, device=where)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(_times_s(where, lambda: target.copy_(source), seconds)) / _GIGA


def _steps_s(where: torch.device, seconds: float) -> list[float]:
    """Seconds of equal steps, each as many products as take about 10 ms."""
    one = _product(where, torch.float32, SIZES[1] if where.type == "cuda" else SIZES[0])
    repeats = max(1, round(_STEP_S / statistics.median(_times_s(where, one, seconds / 10))))

    def step() -> None:
        for _ in range(repeats):
            one()

    return list(_times_s(where, step, seconds, fewest=_FEWEST_STEPS))


def _times_s(where: torch.device, work: Callable[[], object], seconds: float, fewest: int = 1) -> Iterator[float]:
    """Do a piece of work again and again until the time is over; yield each one's seconds, the first left out."""
    work()
    wait(where)
    end = time.perf_counter() + seconds
    count = 0
    while count < fewest or time.perf_counter() < end:
        begin = time.perf_counter()
        work()
        wait(where)
        yield time.perf_counter() - begin
        count += 1


def wait(where: torch.device) -> None:
    """Until a GPU has done all that it was told; a CPU has."""
    if where.type == "cuda":
        torch.cuda.synchronize(where)


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(
        measure(CalibrationPlan.model_validate_json(sys.argv[1])).model_dump_json(), encoding="utf-8"
    )
