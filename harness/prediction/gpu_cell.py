"""Seconds of a cell on GPUs that were not rented, from their datasheet and from what the cell computes.

Besides the spread between GPUs, an interval holds what the published rows can't show: another loop, other lengths, steps that
are too small for the GPU. How far these reach is assumed, and each is named with its reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from harness.errors import Unavailable
from harness.prediction.gpu_speed import Datasheet, GpuSpeed, StepSeconds
from harness.prediction.step_work import HARNESS_LOOP, evaluation_work, training_work
from harness.prediction.uncertain_time import ErrorFactor, UncertainTime
from harness.pricing.price_rows import HardwareRow
from harness.schema.cells import FineTuneConfig
from harness.schema.model_shapes import ModelShape
from harness.schema.probe_record import CellWork, Work
from harness.schema.settings import Precision

# Assumed standard deviations of a logarithm: of all that this harness's loop does otherwise than the published one, a part
# that GPUs share and a part of each; for each doubling or halving of the row length, and twice as much for that of the
# bandwidth, beyond those of the published rows; of the host's seconds, which depend on its CPU.
_LOOP_SD, _OWN_LOOP_SD, _DOUBLING_SD, _HOST_SD = 0.1, 0.1, 0.05, 0.5
_FP32_SD, _PARTLY_TRAINED_SD, _CHECKPOINTING_SD, _COMPILE_SD = 0.25, 0.1, 0.1, 0.3
_MIN_HOST_SHARE = 0.1  # a smaller one is not worth a reason
_PUBLISHED_TOKENS = 384
# Assumed, in bytes/s between two GPUs in one direction: over NVLink, and over PCIe through the host's memory.
_NVLINK_BYTES_PER_S, _PCIE_BYTES_PER_S = 200e9, 10e9
_HAS_NVLINK = re.compile(r"SXM|HBM3|\bH200\b(?! NVL)|\bB200\b")
_GRADIENT_BYTES = 4
_OTHER_LOOP = "the published runs had another training loop, with unfused attention"


@dataclass(frozen=True)
class GpuCell:
    """A cell as GPUs compute it: its configuration, its model, and what each rank computes."""

    config: FineTuneConfig
    shape: ModelShape
    work: CellWork
    world_size: int

    @property
    def evaluations(self) -> tuple[Work, ...]:
        """All validations, and the test; none with random weights."""
        return tuple(part for part in (self.work.validations, self.work.test) if part is not None)


@dataclass(frozen=True)
class GpuRun:
    """Predicted seconds of training and of evaluations, with one error of both."""

    train_s: float
    evaluate_s: float
    factors: tuple[ErrorFactor, ...]

    @property
    def train(self) -> UncertainTime:
        """The seconds of training, with their error."""
        return UncertainTime(self.train_s, self.factors)


def datasheet(gpu: HardwareRow, precision: Precision) -> Datasheet | None:
    """Return a GPU's dense peak at a precision, and its bandwidth; None if the GPU lacks the precision."""
    tflops: float | None = getattr(gpu, f"peak_{precision}_tflops")
    return None if tflops is None else Datasheet(gpu.name, tflops * 1e12, gpu.memory_bandwidth_gb_per_s * 1e9)


def predict_on_gpu(speed: GpuSpeed, gpu: HardwareRow, cell: GpuCell) -> GpuRun | Unavailable:
    """Predict a cell on one GPU model, or on several of them.

    Args:
        speed: The fitted model.
        gpu: The GPU.
        cell: The cell.
    """
    precision = cell.config.precision
    sheet = datasheet(gpu, precision)
    if sheet is None:
        return Unavailable(f"{gpu.name} has no rate for {precision}")
    work = training_work(cell.config, cell.shape, cell.work.training, cell.work.num_rows // cell.world_size)
    step = speed.step(sheet, work, HARNESS_LOOP)
    passes = [
        speed.step(sheet, evaluation_work(cell.config, cell.shape, part), HARNESS_LOOP) for part in cell.evaluations
    ]
    exchange_s = _exchange_s(cell, gpu)
    return GpuRun(
        # Half of the exchange is taken to be hidden behind the backward pass; the interval reaches from none to all.
        train_s=step.seconds + exchange_s / 2,
        evaluate_s=sum(part.seconds for part in passes),
        factors=(*speed.factors(sheet, precision), *_assumed(speed, gpu, cell, step, exchange_s)),
    )


def slowest_of(runs: Sequence[GpuRun]) -> GpuRun:
    """Return what is known of a machine that may have any of several boards: the slowest, and how much faster others are."""
    slowest = max(runs, key=lambda run: run.train_s)
    faster = math.log(slowest.train_s / min(run.train_s for run in runs))
    reason = f"it may have any of {len(runs)} boards" if len(runs) > 1 else None
    return replace(slowest, factors=(*slowest.factors, ErrorFactor("board", faster / 2, reason=reason)))


def _assumed(
    speed: GpuSpeed, gpu: HardwareRow, cell: GpuCell, step: StepSeconds, exchange_s: float
) -> Iterator[ErrorFactor]:
    """Yield what the published rows can't show, with the reason."""
    config = cell.config
    known = speed.measured.get(gpu.name)
    if known is None or not known.by_own_loop:
        yield ErrorFactor("loop", _LOOP_SD, reason=_OTHER_LOOP)
        yield ErrorFactor(f"{gpu.name} loop", _OWN_LOOP_SD)
    tokens = cell.work.training.num_pairs / cell.work.training.num_tokens
    doublings = abs(math.log2(tokens / _PUBLISHED_TOKENS))
    yield ErrorFactor("length", _DOUBLING_SD * doublings, reason=_length_reason(tokens, doublings))
    host_reason = None
    if step.host_share >= _MIN_HOST_SHARE:
        host_reason = "its steps are small for the GPU, so that its host, which is not known, sets a part of the pace"
    yield ErrorFactor("host", _HOST_SD * step.host_share, reason=host_reason)
    bandwidth = gpu.memory_bandwidth_gb_per_s * 1e9
    beyond = max(
        0.0, math.log2(speed.slowest_bytes_per_s / bandwidth), math.log2(bandwidth / speed.fastest_bytes_per_s)
    )
    yield ErrorFactor("bandwidth", 2 * _DOUBLING_SD * beyond, reason="no published GPU has a bandwidth like it")
    if config.precision == "fp32" and gpu.peak_tf32_tflops is not None:
        yield ErrorFactor("fp32", _FP32_SD, reason="no published run computes true fp32 on such a GPU")
    if config.trainable != "all":
        yield ErrorFactor("partly trained", _PARTLY_TRAINED_SD, reason="no published run trains a part of the model")
    if config.training.activation_checkpointing:
        yield ErrorFactor("checkpointing", _CHECKPOINTING_SD, reason="no published run recomputes activations")
    if config.training.compile:
        yield ErrorFactor("compile", _COMPILE_SD, reason="no published run compiles the model")
    if exchange_s:
        reach = math.log1p(exchange_s / step.seconds)
        yield ErrorFactor("exchange", reach / 4, reason="no published run has several GPUs: their exchange is assumed")


def _length_reason(tokens: float, doublings: float) -> str | None:
    return f"no published row has {tokens:.0f} tokens" if doublings >= 1 else None


def _exchange_s(cell: GpuCell, gpu: HardwareRow) -> float:
    """Return the seconds in which all ranks sum their gradients in a ring, if nothing else happened meanwhile."""
    if cell.world_size == 1:
        return 0.0
    speed = _NVLINK_BYTES_PER_S if _HAS_NVLINK.search(gpu.name) else _PCIE_BYTES_PER_S
    gradients = _GRADIENT_BYTES * cell.shape.trained_parameters(cell.config.trainable, 2)
    return cell.work.training.num_batches * 2 * (cell.world_size - 1) / cell.world_size * gradients / speed
