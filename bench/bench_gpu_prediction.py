"""How well are steps predicted on a GPU whose measurements were left out, from its datasheet alone?

Run: .venv/bin/python bench/bench_gpu_prediction.py > results/reference/gpu-prediction.md      (two seconds)
For each GPU of bench/published_gpu_throughput.csv, constants and spread are fitted without its rows, which are then
predicted with their 95 % interval. Beside it: the same with all GPUs of one chip left out, the row of the GPU in the table
with the nearest datasheet, and FLOPs over the dense peak times one fitted constant. Prints Markdown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.prediction.gpu_records import measured_steps
from harness.prediction.gpu_speed import MeasuredStep, fit_gpu_speed
from harness.prediction.published_rows import PublishedRow, load_published
from harness.prediction.uncertain_time import UncertainTime
from harness.pricing.price_table import load_prices

# GPUs that have the same chip, by a part of their names; all others are alone with theirs.
CHIPS = {
    "GV100": ("V100",), "GA100": ("A100",), "GA102": ("A10", "A40", "A6000", "3090"), "AD102": ("4090", "6000 Ada"),
    "GH100": ("H100", "H200", "GH200"),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A published row with its step."""

    row: PublishedRow
    step: MeasuredStep


def cases() -> list[Case]:
    """Return all published rows."""
    table = load_prices()
    rows = load_published(table)
    return [Case(row, step) for row, step in zip(rows, measured_steps(rows, (), table), strict=True)]


def chip(case: Case) -> str:
    """Return the chip of a row's GPU."""
    name = case.row.hardware
    words = name.replace("-", " ").split()
    return next((chip for chip, parts in CHIPS.items() if any(p in words or f" {p}" in name for p in parts)), name)


def left_out(found: Sequence[Case], group: Callable[[Case], str]) -> tuple[np.ndarray, np.ndarray]:
    """Predict each row from those of other groups; return log(predicted / measured), and the intervals' half-widths."""
    logs, halves = np.zeros(len(found)), np.zeros(len(found))
    for name in {group(case) for case in found}:
        speed = fit_gpu_speed([case.step for case in found if group(case) != name])
        for index, case in enumerate(found):
            if group(case) == name:
                step = case.step
                predicted = speed.step(step.gpu, step.work, step.loop).seconds
                logs[index] = math.log(predicted / step.seconds)
                factors = speed.factors(step.gpu, case.row.precision)
                halves[index] = UncertainTime(predicted, factors).log_half_width()
    return logs, halves


def nearest(found: Sequence[Case]) -> np.ndarray:
    """Predict each row by the row of the other GPU whose peak and bandwidth are nearest, of the same model and precision."""
    logs = []
    for case in found:
        others = [
            other for other in found
            if other.row.hardware != case.row.hardware
            and (other.row.model, other.row.precision) == (case.row.model, case.row.precision)
        ]  # fmt: skip
        near = min(others, key=lambda other: distance(case.step, other.step))
        logs.append(math.log(case.row.samples_per_s / near.row.samples_per_s))
    return np.array(logs)


def distance(one: MeasuredStep, other: MeasuredStep) -> float:
    """Return how far two GPUs are apart in the logarithms of peak and bandwidth."""
    return math.hypot(
        math.log(one.gpu.flop_per_s / other.gpu.flop_per_s), math.log(one.gpu.bytes_per_s / other.gpu.bytes_per_s)
    )


def over_peak(found: Sequence[Case]) -> np.ndarray:
    """Predict each row as a constant times FLOPs over the peak; the constant is fitted to the other GPUs' rows."""
    ideal = np.array([math.log(case.step.seconds * case.step.gpu.flop_per_s / case.step.work.flops) for case in found])
    names = np.array([case.row.hardware for case in found])
    return np.array([ideal[names != name].mean() for name in names]) - ideal


def summary(name: str, logs: np.ndarray, halves: np.ndarray | None = None) -> str:
    """Return a row of the first table."""
    errors = np.abs(np.expm1(logs))
    cover, half = "", ""
    if halves is not None:
        cover = f"{np.mean(np.abs(logs) <= halves):.0%}"
        half = f"{np.median(np.sinh(halves)):.0%}"
    return (
        f"| {name} | {np.median(errors):.1%} | {np.quantile(errors, 0.9):.1%} | {errors.max():.0%} | {cover} | {half} |"
    )


def lines() -> Iterator[str]:
    """Yield the lines of both tables."""
    found = cases()
    logs, halves = left_out(found, lambda case: case.row.hardware)
    gpus = list(dict.fromkeys(case.row.hardware for case in found))
    yield f"{len(found)} published rows of {len(gpus)} GPUs, each predicted from the other GPUs' rows."
    yield ""
    yield "| prediction | median error | 90 % within | worst | intervals (95 %) cover | their half-width, median |"
    yield "|---|---:|---:|---:|---:|---:|"
    yield summary("four constants, this GPU left out", logs, halves)
    yield summary("the same, all GPUs of its chip left out", *left_out(found, chip))
    yield summary("samples/s of the nearest GPU in the table", nearest(found))
    yield summary("FLOPs over the dense peak, one constant", over_peak(found))
    yield ""
    speed = fit_gpu_speed([case.step for case in found])
    fitted, spread = speed.constants, speed.spread
    yield (
        f"Constants of all rows: {fitted.peak_fraction:.2f} of the dense peak, {fitted.bandwidth_fraction:.2f} of the "
        f"bandwidth, {fitted.layer_s * 1e3:.1f} ms a layer and {fitted.row_s * 1e3:.2f} ms a row on the host. Standard "
        f"deviation of the logarithm: {spread.between:.3f} between GPUs, {spread.within:.3f} within one."
    )
    yield ""
    yield "Errors are predicted over measured seconds less 1; the last four columns are the error's median of a GPU's rows."
    yield ""
    yield "| GPU | rows | in the interval | left out | chip left out | nearest GPU | over peak |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    by_chip, rivals = left_out(found, chip)[0], (nearest(found), over_peak(found))
    for gpu in gpus:
        own = np.array([case.row.hardware == gpu for case in found])
        inside = int((np.abs(logs[own]) <= halves[own]).sum())
        medians = (f"{np.median(np.expm1(errors[own])):+.0%}" for errors in (logs, by_chip, *rivals))
        yield f"| {gpu} | {own.sum()} | {inside} | {' | '.join(medians)} |"


if __name__ == "__main__":
    print("\n".join(lines()))
