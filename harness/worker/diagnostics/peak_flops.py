"""What this machine's arithmetic reaches at best while it trains: matrix products between steps, after all else was measured."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import Literal, NamedTuple

import torch

from harness.dataset.batch_plan import Step
from harness.dataset.tokens import TokenArrays
from harness.execution.messages import TrainHistory
from harness.schema.cells import FineTuneConfig
from harness.schema.diagnostics_record import CalibratedPeak, FlopCount
from harness.schema.inputs_record import ModelFacts
from harness.worker.diagnostics.flop_counter import count_flops, middle_step
from harness.worker.diagnostics.microbenchmarks import DTYPES, SIZES, copy_gb_per_s, room_bytes, wait
from harness.worker.distributed import DistributedContext, all_gather_object
from harness.worker.train_loop import forward_backward, iter_batches
from harness.worker.train_state import OnProgress, TrainState

# A tenth of the run's training is spent, and not more than this.
MOST_S, SHARE = 1.8, 0.1
_LEAST_S = 0.05
_STEPS = 0.45  # of the time; a copy and the products share the rest
_MOST_STEPS = 8
_COPY_S, _COPY_BYTES = 0.1, 128 * 2**20  # twice that is touched: beyond the last cache of most processors
_PIECE_S = 0.005  # timed at once: long against a clock and against a GPU's launch
_FINALISTS = 4  # after a first look at all, only the fastest are repeated
_ROOM = 1 / 8  # of the free memory, to the matrices
_STRETCH = 2**18
_GIGA = 1e9

# `nt`: by a transposed matrix, as a layer's forward pass; `tn`: a transposed one by another, as its weights' gradient.
Layout = Literal["nn", "nt", "tn"]


class MatrixProduct(NamedTuple):
    """(rows, inner) x (inner, columns)."""

    rows: int
    inner: int
    columns: int
    layout: Layout = "nn"

    @property
    def num_flops(self) -> int:
        """A multiply-add is two."""
        return 2 * self.rows * self.inner * self.columns

    @property
    def num_elements(self) -> int:
        """Of both factors and the product."""
        return self.rows * self.inner + self.inner * self.columns + self.rows * self.columns


def measure_arithmetic(
    trainee: TrainState,
    model: ModelFacts,
    rows: TokenArrays,
    config: FineTuneConfig,
    place: DistributedContext,
    seconds: Sequence[float],
    beat: OnProgress,
    *,
    near_limit: bool,
) -> tuple[FlopCount | None, CalibratedPeak | None]:
    """What a step computes, and what this machine could compute at best: `flops` and `peak` of a record.

    Args:
        seconds: Of this rank's steps, by step.
        near_limit: This rank came so near its memory cap that nothing more is tried; then no rank tries.
    """
    flops: FlopCount | None = None
    if not all(all_gather_object(not near_limit, place)):
        return None, None
    step = middle_step(islice(iter_batches(rows, config, place), len(seconds)), rows, config)
    try:
        flops = count_flops(trainee, rows, step, config, place, beat)
    except (MemoryError, RuntimeError):
        traceback.print_exc()  # the ending is training's, which went well
    if all(all_gather_object(flops is not None, place)):
        try:
            return flops, measure_peak(trainee, model, rows, step, config, place, seconds, beat)
        except (MemoryError, RuntimeError):
            traceback.print_exc()
    return flops, None


def burst_seconds(train_s: float) -> float:
    """How long to look for the peak after so many seconds of training: short runs are not made much longer by it."""
    return min(MOST_S, max(_LEAST_S, SHARE * train_s))


def products_of(model: ModelFacts, num_tokens: int) -> list[MatrixProduct]:
    """Squares, and the model's own products forward and backward on so many tokens; the smallest first."""
    hidden, wide = model.hidden_size, model.intermediate_size
    layers = ((hidden, hidden), (hidden, wide), (wide, hidden))
    own = [
        product
        for inner, outer in layers
        for product in (
            MatrixProduct(num_tokens, inner, outer, "nt"),  # forward
            MatrixProduct(num_tokens, outer, inner),  # its input's gradient
            MatrixProduct(outer, num_tokens, inner, "tn"),  # its weights' gradient
        )
    ]
    return sorted({*own, *(MatrixProduct(size, size, size) for size in SIZES)}, key=lambda one: one.num_flops)


def measure_peak(
    trainee: TrainState,
    model: ModelFacts,
    rows: TokenArrays,
    step: Step,
    config: FineTuneConfig,
    place: DistributedContext,
    seconds: Sequence[float],
    beat: OnProgress,
) -> CalibratedPeak | None:
    """Time products and whole steps in turns, the steps at a learning rate of 0; None where memory is too short.

    All ranks do so at once, each on its own threads or GPU, so that they share what they shared in training.

    Args:
        seconds: Of the steps so far: a tenth of them is spent here, and one step at least.
    """
    burst_s = burst_seconds(sum(seconds))
    mine = max(1, min(_MOST_STEPS, int(_STEPS * burst_s / median(seconds))))
    room = room_bytes(place.device) * _ROOM
    all_products = products_of(model, _num_tokens(step, rows, config, place))
    products = [one for one in all_products if _num_bytes(one, config) <= room]
    told = all_gather_object((mine, bool(products)), place)
    num_steps = told[0][0]
    if not all(able for _, able in told):
        return None
    for group in trainee.optimizer.param_groups:
        group["lr"] = 0.0  # a whole step, and weights that stay
    copy_s = _COPY_S if burst_s >= MOST_S / 2 else 0.0
    race, step_s = _Race(products, config, place, (1 - _STEPS) * burst_s - copy_s), []
    for turn in range(1, num_steps + 1):
        race.run(turn / (num_steps + 1))
        step_s.append(_step(trainee, rows, step, config, place, beat))
    race.run(1.0)
    best = max(race.rates, key=race.rates.__getitem__)
    copied = copy_gb_per_s(place.device, copy_s / 2, _COPY_BYTES) if copy_s else None
    return CalibratedPeak(
        precision=config.precision,
        flop_per_s=race.rates[best],
        shape=best[:3],
        num_shapes=len(race.rates),
        seconds=race.spent_s,
        step_s=tuple(step_s),
        copy_bytes_per_s=None if copied is None else copied * _GIGA,
    )


@dataclass
class _Work:
    """A product on buffers that all of them share."""

    left: torch.Tensor
    right: torch.Tensor
    out: torch.Tensor

    def __call__(self) -> None:
        torch.mm(self.left, self.right, out=self.out)


class _Race:
    """Times products one after the other, as long as there is time.

    Attributes:
        rates: The best FLOP/s of each product that was timed.
        spent_s: So far.
    """

    def __init__(
        self, products: list[MatrixProduct], config: FineTuneConfig, place: DistributedContext, seconds: float
    ) -> None:
        self._place, self._seconds = place, seconds
        # Random numbers, as GPUs draw less power and run faster on zeros; a short stretch of them, again and again.
        self._some = torch.randn(_STRETCH, device=place.device).to(DTYPES[config.precision])
        self._buffer = self._some
        self.rates: dict[MatrixProduct, float] = {}
        self.spent_s = 0.0
        self._queue = self._order(products)

    def run(self, share: float) -> None:
        """Go on until this share of the seconds is over."""
        while self.spent_s < share * self._seconds:
            product = next(self._queue)
            began = time.perf_counter()
            rate = self._time(product)
            self.rates[product] = max(rate, self.rates.get(product, 0.0))
            self.spent_s += time.perf_counter() - began

    def _order(self, products: list[MatrixProduct]) -> Iterator[MatrixProduct]:
        """All that there is time for, the smallest first, then the fastest of them without end."""
        for product in products:
            expected_s = product.num_flops / max(self.rates.values()) if self.rates else 0.0
            # One to warm up, and one that counts, in half of what is left.
            if 4 * expected_s <= self._seconds - self.spent_s:
                yield product
        while True:
            yield from sorted(self.rates, key=self.rates.__getitem__, reverse=True)[:_FINALISTS]

    @torch.no_grad()
    def _time(self, product: MatrixProduct) -> float:
        """FLOP/s of one piece: so many of this product as take some milliseconds."""
        work = self._work(product)
        one_s = self._seconds_of(work, 1)  # it warms up, too
        repeats = max(1, math.ceil(_PIECE_S / one_s))
        return product.num_flops * repeats / self._seconds_of(work, repeats)

    def _seconds_of(self, work: _Work, repeats: int) -> float:
        wait(self._place.device)
        began = time.perf_counter()
        for _ in range(repeats):
            work()
        wait(self._place.device)
        return time.perf_counter() - began

    def _work(self, product: MatrixProduct) -> _Work:
        rows, inner, columns, layout = product
        if len(self._buffer) < product.num_elements:
            del self._buffer
            self._buffer = self._some.repeat(-(-product.num_elements // _STRETCH))
        left, right, out = self._buffer[: product.num_elements].split([rows * inner, inner * columns, rows * columns])
        return _Work(
            left.view(inner, rows).t() if layout == "tn" else left.view(rows, inner),
            right.view(columns, inner).t() if layout == "nt" else right.view(inner, columns),
            out.view(rows, columns),
        )


def _step(
    trainee: TrainState,
    rows: TokenArrays,
    step: Step,
    config: FineTuneConfig,
    place: DistributedContext,
    beat: OnProgress,
) -> float:
    """Seconds of one whole step, as training makes it, but for the schedule."""
    wait(place.device)
    began = time.perf_counter()
    forward_backward(trainee, rows, step, config, place, TrainHistory(), beat)
    trainee.scaler.step(trainee.optimizer)
    trainee.scaler.update()
    trainee.optimizer.zero_grad(set_to_none=True)
    wait(place.device)
    return time.perf_counter() - began


def _num_bytes(product: MatrixProduct, config: FineTuneConfig) -> int:
    return product.num_elements * DTYPES[config.precision].itemsize


def _num_tokens(step: Step, rows: TokenArrays, config: FineTuneConfig, place: DistributedContext) -> int:
    """Padded tokens of this rank's first micro-batch: the rows of the matrices that its layers multiply."""
    mine = step[0][place.rank]
    return max(1, len(mine)) * (config.seq_len if config.padding == "max" else int(rows.lengths[mine].max(initial=1)))
