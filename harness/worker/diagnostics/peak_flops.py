"""Measure this machine's peak FLOP/s under the run's conditions: time matrix products between extra steps after training."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import Literal, NamedTuple

import torch

from harness.dataset.batch_plan import Step
from harness.schema.diagnostics_record import CalibratedPeak, FlopCount
from harness.schema.inputs_record import ModelFacts
from harness.worker.device import synchronize
from harness.worker.diagnostics.flop_counter import count_flops, middle_step
from harness.worker.diagnostics.microbenchmarks import DTYPES, SIZES, available_bytes, copy_gb_per_s
from harness.worker.distributed import all_gather_object
from harness.worker.train_loop import forward_backward, iter_batches, update_weights
from harness.worker.train_state import FinishedTraining, TrainContext, TrainState

# The search for the peak takes TRAIN_SHARE of the training's time, but at least _MIN_S and at most MAX_S seconds.
MAX_S, TRAIN_SHARE = 1.8, 0.1
_MIN_S = 0.05
_STEP_SHARE = 0.45  # fraction of the search's time spent on training steps; the copy and the products share the rest
_MAX_STEPS = 8
_COPY_S, _COPY_BYTES = 0.1, 128 * 2**20  # read and written: more than most last-level caches hold
_BATCH_S = 0.005  # duration of products timed at once: far longer than a clock's tick or a GPU kernel's launch
_NUM_FINALISTS = 4  # once every product was timed, only this many, the fastest, are repeated
_MEMORY_SHARE = 1 / 8  # of the free memory, for the matrices
_NUM_RANDOM = 2**18
_GIGA = 1e9

# Whether each factor is transposed (`t`) or not (`n`): `nt` is a layer's forward pass, `tn` the gradient of its weights.
Layout = Literal["nn", "nt", "tn"]


class MatrixProduct(NamedTuple):
    """A matrix product `(rows, inner) x (inner, columns)`."""

    rows: int
    inner: int
    columns: int
    layout: Layout = "nn"

    @property
    def num_flops(self) -> int:
        """Floating-point operations; a multiply-add counts as two."""
        return 2 * self.rows * self.inner * self.columns

    @property
    def num_elements(self) -> int:
        """Elements of both factors and the product."""
        return self.rows * self.inner + self.inner * self.columns + self.rows * self.columns


def measure_arithmetic(training: FinishedTraining) -> tuple[FlopCount | None, CalibratedPeak | None]:
    """Count a step's FLOPs, and measure this machine's peak FLOP/s.

    A result is None if it was not measured, for example for lack of memory: a failure here must not change the outcome of
    a training that succeeded.
    """
    context = training.context
    flops, peak = None, None
    step = middle_step(islice(iter_batches(context), len(training.result.step_s)), context)
    try:
        flops = count_flops(training.state, context, step)
    except (MemoryError, RuntimeError):
        traceback.print_exc()
    if all(all_gather_object(flops is not None, context.distributed)):
        try:
            peak = measure_peak(training, step)
        except (MemoryError, RuntimeError):
            traceback.print_exc()
    return flops, peak


def burst_seconds(train_s: float) -> float:
    """Return how long to search for the peak after this many seconds of training, so that short runs stay short."""
    return min(MAX_S, max(_MIN_S, TRAIN_SHARE * train_s))


def candidate_products(model: ModelFacts, num_tokens: int) -> list[MatrixProduct]:
    """Return square products and those of the model's layers, forward and backward on `num_tokens`; the smallest first."""
    hidden, intermediate = model.hidden_size, model.intermediate_size
    layers = ((hidden, hidden), (hidden, intermediate), (intermediate, hidden))
    own = [
        product
        for inner, outer in layers
        for product in (
            MatrixProduct(num_tokens, inner, outer, "nt"),  # forward
            MatrixProduct(num_tokens, outer, inner),  # gradient of the layer's input
            MatrixProduct(outer, num_tokens, inner, "tn"),  # gradient of the layer's weights
        )
    ]
    squares = (MatrixProduct(size, size, size) for size in SIZES)
    return sorted({*own, *squares}, key=lambda product: product.num_flops)


def measure_peak(training: FinishedTraining, step: Step) -> CalibratedPeak | None:
    """Measure the peak FLOP/s, timing products and whole steps at a learning rate of 0 by turns; None if memory is short.

    All ranks measure at once, each on its own threads or GPU, so that they share the same resources as in training.
    """
    context, state = training.context, training.state
    device, precision = context.device, context.config.precision
    burst_s = burst_seconds(sum(training.result.step_s))
    own_steps = max(1, min(_MAX_STEPS, int(_STEP_SHARE * burst_s / median(training.result.step_s))))
    max_bytes = available_bytes(device) * _MEMORY_SHARE
    candidates = candidate_products(training.result.model, _num_tokens(step, context))
    products = [product for product in candidates if product.num_elements * DTYPES[precision].itemsize <= max_bytes]
    answers = all_gather_object((own_steps, bool(products)), context.distributed)
    num_steps = answers[0][0]
    if not all(has_products for _, has_products in answers):
        return None
    for group in state.optimizer.param_groups:
        group["lr"] = 0.0  # the whole step runs, but the weights don't change
    copy_s = _COPY_S if burst_s >= MAX_S / 2 else 0.0
    race, step_s = _ProductRace(products, device, precision, (1 - _STEP_SHARE) * burst_s - copy_s), []
    for turn in range(1, num_steps + 1):
        race.run(turn / (num_steps + 1))
        step_s.append(_time_step(state, context, step))
    race.run(1.0)
    best = max(race.rates, key=race.rates.__getitem__)
    copy_rate = copy_gb_per_s(device, copy_s / 2, _COPY_BYTES) if copy_s else None
    return CalibratedPeak(
        precision=precision,
        flop_per_s=race.rates[best],
        shape=best[:3],
        num_shapes=len(race.rates),
        seconds=race.spent_s,
        step_s=tuple(step_s),
        copy_bytes_per_s=None if copy_rate is None else copy_rate * _GIGA,
    )


@dataclass
class _Multiplication:
    """A matrix product whose tensors lie in a buffer that all products share."""

    left: torch.Tensor
    right: torch.Tensor
    out: torch.Tensor

    def __call__(self) -> None:
        torch.mm(self.left, self.right, out=self.out)


class _ProductRace:
    """Times products one after another while there is time.

    Attributes:
        rates: The best FLOP/s of each product that was timed.
        spent_s: Seconds spent so far.
    """

    def __init__(self, products: list[MatrixProduct], device: torch.device, precision: str, seconds: float) -> None:
        self._device, self._seconds = device, seconds
        # Random numbers, since GPUs draw less power and run faster on zeros. Only a few: `_prepare` repeats them.
        self._random = torch.randn(_NUM_RANDOM, device=device).to(DTYPES[precision])
        self._buffer = self._random
        self.rates: dict[MatrixProduct, float] = {}
        self.spent_s = 0.0
        self._queue = self._order(products)

    def run(self, share: float) -> None:
        """Time products until this share of the race's seconds is spent."""
        while self.spent_s < share * self._seconds:
            product = next(self._queue)
            began = time.perf_counter()
            rate = self._time(product)
            self.rates[product] = max(rate, self.rates.get(product, 0.0))
            self.spent_s += time.perf_counter() - began

    def _order(self, products: list[MatrixProduct]) -> Iterator[MatrixProduct]:
        """Yield every product that there is time for, the smallest first; then repeat the fastest ones without end."""
        for product in products:
            expected_s = product.num_flops / max(self.rates.values()) if self.rates else 0.0
            # A product runs twice, to warm up and to be timed; both runs must fit in half of the remaining seconds.
            if 4 * expected_s <= self._seconds - self.spent_s:
                yield product
        while True:
            yield from sorted(self.rates, key=self.rates.__getitem__, reverse=True)[:_NUM_FINALISTS]

    @torch.no_grad()
    def _time(self, product: MatrixProduct) -> float:
        """Return a product's FLOP/s, timed over as many runs as take about `_BATCH_S`."""
        multiply = self._prepare(product)
        single_s = self._seconds_of(multiply, 1)  # also warms up
        repeats = max(1, math.ceil(_BATCH_S / single_s))
        return product.num_flops * repeats / self._seconds_of(multiply, repeats)

    def _seconds_of(self, multiply: _Multiplication, repeats: int) -> float:
        synchronize(self._device)
        began = time.perf_counter()
        for _ in range(repeats):
            multiply()
        synchronize(self._device)
        return time.perf_counter() - began

    def _prepare(self, product: MatrixProduct) -> _Multiplication:
        rows, inner, columns, layout = product
        if len(self._buffer) < product.num_elements:
            del self._buffer
            self._buffer = self._random.repeat(-(-product.num_elements // _NUM_RANDOM))
        left, right, out = self._buffer[: product.num_elements].split([rows * inner, inner * columns, rows * columns])
        return _Multiplication(
            left.view(inner, rows).t() if layout == "tn" else left.view(rows, inner),
            right.view(columns, inner).t() if layout == "nt" else right.view(inner, columns),
            out.view(rows, columns),
        )


def _time_step(state: TrainState, context: TrainContext, step: Step) -> float:
    """Return the seconds of one whole training step, except for the learning-rate schedule."""
    synchronize(context.device)
    began = time.perf_counter()
    forward_backward(state, context, step)
    update_weights(state)
    synchronize(context.device)
    return time.perf_counter() - began


def _num_tokens(step: Step, context: TrainContext) -> int:
    """Return the number of tokens, padding included, of this rank's first micro-batch: layers multiply that many rows."""
    own, config = step[0][context.rank], context.config
    return max(1, len(own)) * config.padded_length(max(1, context.splits.train.longest(own)))
