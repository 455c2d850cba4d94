"""The largest batch that fits a memory: predicted from shapes, then confirmed by steps that are really run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from harness.dataset.batch_plan import MIN_EVALUATION_BATCH
from harness.dataset.sources import locate_model
from harness.errors import Unavailable, UserError
from harness.machine.describe import num_ranks, unsupported_reason
from harness.pricing.price_rows import PriceRow
from harness.pricing.price_search import burstable, find_instance
from harness.pricing.price_table import PriceTable, load_prices
from harness.schema.cells import Cell, FineTuneConfig
from harness.schema.host_record import Machine
from harness.schema.model_shapes import ModelShape, load_model_shape
from harness.schema.record import Record
from harness.workflows.memory_estimate import UNCHARGED_BYTES, MemoryPrediction, predict_peak

if TYPE_CHECKING:
    from harness.execution.jobs import Environment
    from harness.execution.preparation import Preparations
    from harness.execution.runner import Runner

GIB = 2**30
MOST_TRIES = 8
_NUM_STEPS = 2  # the second is the first that finds the optimiser's state
_NUM_STEPS_DDP = 3  # DDP makes its buckets anew after the first, and touches them in the second's backward pass
_NUM_LABELS = 2  # before the data is read; a label more is a few thousand weights
_MOST_ROWS = 2**16
# Assumed: what a system without a desktop, and the harness's own parent, hold beside the cell.
SYSTEM_BYTES = GIB // 2


@dataclass(frozen=True)
class MemoryBudget:
    """Bytes that a cell may hold, and how that was said.

    Attributes:
        cap: Whether a try is to run under it: not where it is this machine's own.
    """

    num_bytes: int
    words: str
    cap: bool


@dataclass(frozen=True)
class Attempt:
    """One batch size that was run; measured_bytes is None where it did not live to tell."""

    batch_size: int
    predicted_bytes: int
    measured_bytes: int | None
    outcome: str
    fits: bool
    reason: str | None


@dataclass(frozen=True)
class InstanceFit:
    """A machine of the price table that the batch fits on; `gpu` by a prediction that no GPU ever checked."""

    instance: str
    provider: str
    region: str
    usd_per_hour: float
    memory_gib: float
    gpu: str | None
    predicted_bytes: int


@dataclass(frozen=True)
class Fit:
    """What was found.

    Attributes:
        predicted_batch: The largest that is predicted to fit; 0 when none does.
        batch: The largest that was seen to fit; None when nothing was run.
        smallest_that_did_not: Of those that were run; None when none did not.
        note: Why a search was not run, or ended before it was done.
    """

    cell: str
    limit: MemoryBudget
    predicted_batch: int
    predicted_bytes: int
    batch: int | None
    smallest_that_did_not: int | None
    tries: tuple[Attempt, ...]
    rooms: tuple[InstanceFit, ...]
    note: str | None

    def as_fields(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class BatchSizeSearch:
    """One cell of a study whose batch size is asked for, all else as it is; rows are padded to seq_len."""

    def __init__(self, cell: Cell, machine: Machine) -> None:
        if not isinstance(cell.config, FineTuneConfig):
            raise UserError(f"cell {cell.name}: a baseline has no batch size")
        self.cell, self.machine = cell, machine
        config = cell.config
        folder = None
        if config.model.shape is None:
            folder = locate_model(config.model.name, weights=False).folder
        self.shape: ModelShape = load_model_shape(config.model, folder)
        if config.seq_len > self.shape.positions:
            raise UserError(f"seq_len {config.seq_len} is beyond this model's {self.shape.positions} positions")
        self.num_ranks = num_ranks(config, machine)
        rows = _MOST_ROWS if config.data.num_train == "all" else config.data.num_train
        # A larger batch than there are rows is no larger.
        self.most = max(1, rows // (self.num_ranks * config.training.grad_accum))

    def config(self, batch_size: int) -> FineTuneConfig:
        """The cell's configuration with another batch."""
        assert isinstance(self.cell.config, FineTuneConfig)  # noqa: S101 - checked at the door
        return self.cell.config.model_copy(
            update={"batch_size": batch_size, "global_batch_size": None, "padding": "max"}
        )

    def predict(self, batch_size: int, *, base_bytes: int | None = None, device: str | None = None) -> MemoryPrediction:
        """What a batch is predicted to need; on another device if one is named."""
        config = self.config(batch_size)
        if device is not None:
            config = config.model_copy(update={"device": device})
        return predict_peak(
            config, self.shape, _NUM_LABELS, num_ranks=self.num_ranks if device is None else 1, base_bytes=base_bytes
        )

    def largest(self, fits: Callable[[int], bool]) -> int:
        """The largest batch size of which a growing need still fits; 0 when none does."""
        low, high = 0, self.most + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low


def choose_cell(cells: Sequence[Cell], seq_len: int | None, precision: str | None) -> Cell:
    """The first cell that trains, with another sequence length or precision if asked for.

    Raises:
        UserError: When there is none.
    """
    trained = [cell for cell in cells if isinstance(cell.config, FineTuneConfig)]
    if not trained:
        raise UserError("this study has no cell that trains a model")
    wanted = {key: value for key, value in (("seq_len", seq_len), ("precision", precision)) if value is not None}
    same = [cell for cell in trained if all(getattr(cell.config, key) == value for key, value in wanted.items())]
    cell = (same or trained)[0]
    return cell.model_copy(update={"config": FineTuneConfig.model_validate(cell.config.model_dump() | wanted)})


def choose_limit(config: FineTuneConfig, here: Machine, memory_gib: float | None, machine: str | None) -> MemoryBudget:
    """The memory that is to be fitted: as given, a machine's of the price table, or this one's.

    Raises:
        UserError: When both are given, or the machine or its GPU is not known.
    """
    on_gpu = config.on_gpu
    if memory_gib is not None and machine is not None:
        raise UserError("--memory-gib and --machine: give one of them")
    if memory_gib is not None:
        return MemoryBudget(round(memory_gib * GIB), f"{memory_gib:g} GiB", cap=True)
    system = "" if on_gpu else f" less {SYSTEM_BYTES / GIB:g} GiB for the system (assumed)"
    kept = 0 if on_gpu else SYSTEM_BYTES
    if machine is not None:
        table = load_prices()
        row = find_instance(table, machine)
        if isinstance(row, Unavailable):
            raise UserError(f"--machine {machine}: {row.reason}")
        size = gpu_memory_gib(table, row) if on_gpu else row.memory_gib
        if size is None:
            raise UserError(f"--machine {machine}: its GPU's memory is not in the price table; give --memory-gib")
        what = f"{row.accelerator} of {machine}" if on_gpu else machine
        return MemoryBudget(round(size * GIB) - kept, f"{what}, {size:g} GiB{system}", cap=True)
    if on_gpu:
        size_bytes = here.gpus[0].memory_bytes if here.gpus else None
        if size_bytes is None:
            raise UserError("no GPU with a known memory is here; give --memory-gib or --machine")
        return MemoryBudget(size_bytes, f"this machine's {here.gpus[0].name}", cap=False)
    free = min(psutil.virtual_memory().available, here.memory_limit_bytes or here.memory_bytes)
    return MemoryBudget(free - kept, f"this machine, {free / GIB:.1f} GiB free now{system}", cap=False)


def predict_fit(question: BatchSizeSearch, limit: MemoryBudget) -> Fit:
    """Predict the largest batch size alone: no step is run, and torch is not needed."""
    batch = question.largest(lambda size: question.predict(size).peak_bytes <= limit.num_bytes)
    predicted = question.predict(max(1, batch))
    return Fit(
        cell=question.cell.name,
        limit=limit,
        predicted_batch=batch,
        predicted_bytes=predicted.peak_bytes,
        batch=None,
        smallest_that_did_not=None,
        tries=(),
        rooms=find_instance_fits(load_prices(), question, batch, predicted.peak_bytes) if batch else (),
        note=None,
    )


def find_fit(question: BatchSizeSearch, limit: MemoryBudget, on_try: Callable[[Attempt], None]) -> Fit:
    """Predict, then run the batch sizes around the prediction until the largest that fits is known.

    Raises:
        UserError: When the model or the data can't be had, or a try ended in another way than well or out of memory.
    """
    predicted = predict_fit(question, limit)
    config = question.config(1)
    reason = unsupported_reason(config, question.machine)
    if reason is not None:
        return replace(predicted, note=f"not confirmed: {reason}")
    on_gpu = config.on_gpu
    room = psutil.virtual_memory().available
    if not on_gpu and limit.num_bytes > room + question.predict(1).base_bytes:
        return replace(
            predicted,
            note=f"not confirmed: {limit.words} is more than the {room / GIB:.1f} GiB that are free on this machine",
        )
    with _TrialRunner(question, limit) as trial:
        tries = search(question, limit, max(1, predicted.predicted_batch), trial.run, on_try)
    fitting = [one for one in tries if one.fits]
    best = max(fitting, key=lambda one: one.batch_size, default=None)
    above = min((one.batch_size for one in tries if not one.fits), default=None)
    batch = best.batch_size if best else 0
    done = batch == question.most or above == batch + 1
    return replace(
        predicted,
        batch=batch,
        smallest_that_did_not=above,
        tries=tuple(tries),
        rooms=find_instance_fits(load_prices(), question, batch, best.measured_bytes or 0) if best else (),
        note=None if done else f"ended after {len(tries)} tries",
    )


def search(
    question: BatchSizeSearch,
    limit: MemoryBudget,
    first: int,
    run: Callable[[int], tuple[Record, int | None]],
    on_try: Callable[[Attempt], None],
) -> list[Attempt]:
    """Bracket the largest batch size that fits, and close the bracket.

    Each try tells by how much the prediction is off there; the next is what the corrected one names, kept inside the
    bracket, or the bracket's middle where a try told nothing.
    """
    tries: list[Attempt] = []
    low, high, batch = 0, question.most + 1, min(first, question.most)
    while high - low > 1 and len(tries) < MOST_TRIES:
        record, measured = run(batch)
        # Where no counter tells who was killed for memory, the kernel's signal is all there is.
        if record.outcome not in ("ok", "oom") and "SIGKILL" not in (record.reason or ""):
            raise UserError(f"batch size {batch}: the try ended as {record.outcome}: {record.reason}")
        fits = record.outcome == "ok" and (measured or 0) <= limit.num_bytes
        # What a control group counts is less than the process's resident set, which the prediction is of.
        uncharged = UNCHARGED_BYTES if record.cap is not None and record.cap.exact else 0
        predicted = question.predict(batch).peak_bytes - uncharged
        tries.append(Attempt(batch, predicted, measured, record.outcome, fits, record.reason))
        on_try(tries[-1])
        low, high = (batch, high) if fits else (low, batch)
        batch = _next(question, limit, tries, low, high)
    return tries


def _next(question: BatchSizeSearch, limit: MemoryBudget, tries: Sequence[Attempt], low: int, high: int) -> int:
    told = [one for one in tries if one.measured_bytes is not None]
    if not told:
        return max(low + 1, min(high - 1, (low + high) // 2))
    nearest = min(told, key=lambda one: abs((one.measured_bytes or 0) - limit.num_bytes))
    off = (nearest.measured_bytes or 0) - question.predict(nearest.batch_size).peak_bytes
    corrected = question.largest(lambda size: question.predict(size).peak_bytes + off <= limit.num_bytes)
    # Where the corrected prediction is known to fit already, the one above it is what remains to be refuted.
    wanted = corrected if corrected > low else corrected + 1
    return max(low + 1, min(high - 1, wanted))


class _TrialRunner:
    """Runs a batch size for two steps in a process of its own."""

    def __init__(self, question: BatchSizeSearch, limit: MemoryBudget) -> None:
        self._question, self._limit = question, limit
        self._folder = tempfile.TemporaryDirectory(prefix="harness-fit-")
        self._runner: Runner
        self._preparations: Preparations
        self._around: Environment

    def __enter__(self) -> _TrialRunner:
        from harness.execution.preparation import Preparations
        from harness.execution.runner import Runner
        from harness.execution.sweep import describe_environment

        self._preparations, self._around = Preparations(Path(self._folder.name)), describe_environment(None)
        # Forked from a warm process, a cell would map fewer pages than it needs on a machine of its own.
        self._runner = Runner("spawn").__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._runner.__exit__(*exception)
        self._folder.cleanup()

    def run(self, batch_size: int) -> tuple[Record, int | None]:
        """The record of two steps, and their peak in bytes."""
        cap_gib = self._limit.num_bytes / GIB if self._limit.cap else None
        record = self._run(batch_size, cap_gib)
        if record.outcome == "unsupported" and cap_gib is not None:
            record = self._run(batch_size, None)  # no cap can be set here: the measured peak alone decides
        return record, measured_peak(record)

    def _run(self, batch_size: int, cap_gib: float | None) -> Record:
        config = self._question.config(batch_size)
        # An evaluation's memory depends on its batch alone: more rows than one would only take longer.
        rows = max(batch_size, MIN_EVALUATION_BATCH) * self._question.num_ranks
        data, training, limits = config.data, config.training, config.limits
        config = config.model_copy(
            update={
                "data": data.model_copy(
                    update={"num_val": min(data.num_val, rows), "num_test": min(data.num_test, rows)}
                ),
                "training": training.model_copy(
                    update={"max_steps": _NUM_STEPS if self._question.num_ranks == 1 else _NUM_STEPS_DDP}
                ),
                "limits": limits.model_copy(update={"memory_limit_gib": cap_gib, "max_train_s": None}),
            }
        )
        cell = Cell(study=self._question.cell.study, name=f"fit-b{batch_size}", repeat=0, config=config)
        return self._runner.run(cell, self._preparations.prepare(cell), self._around)


def measured_peak(record: Record) -> int | None:
    """What a limit is compared with: the control group's own peak, else the ranks' (the fullest GPU's), in bytes."""
    if record.cap is not None and record.cap.peak_bytes is not None:
        return record.cap.peak_bytes
    peaks = record.training.peak_memory if record.training else ()
    reserved = [peak.num_bytes for peak in peaks if peak.source == "cuda_reserved"]
    if reserved:
        process = [peak.num_bytes for peak in peaks if peak.source == "nvml_process"]
        return max(process or reserved)
    return sum(peak.num_bytes for peak in peaks if peak.source == "rss") or None


def find_instance_fits(
    table: PriceTable, question: BatchSizeSearch, batch_size: int, cpu_bytes: int
) -> tuple[InstanceFit, ...]:
    """Machines of the price table that a batch fits on, cheapest first, each in its cheapest region.

    Of a machine with GPUs one GPU's memory counts, by a prediction for it; bursting ones are left out.
    """
    on_gpu = question.predict(batch_size, device="gpu").peak_bytes
    if question.config(1).on_gpu:
        cpu_bytes = question.predict(batch_size, device="cpu").peak_bytes
    found: dict[tuple[str, str], InstanceFit] = {}
    for row in sorted(table.prices, key=lambda row: row.usd_per_hour_on_demand):
        gpu = row.accelerator_count > 0
        need, size = (on_gpu, gpu_memory_gib(table, row)) if gpu else (cpu_bytes, row.memory_gib)
        kept = 0 if gpu else SYSTEM_BYTES
        if burstable(row) or size is None or size * GIB - kept < need:
            continue
        room = InstanceFit(
            row.instance_type, row.provider, row.region, row.usd_per_hour_on_demand, size,
            row.accelerator if gpu else None, need,
        )  # fmt: skip
        found.setdefault((row.provider, row.instance_type), room)
    return tuple(found.values())


def gpu_memory_gib(table: PriceTable, row: PriceRow) -> float | None:
    """Memory of one of a machine's GPUs: as the driver tells it of such a GPU, where the hardware table knows."""
    seen = next((gpu.memory_gib for gpu in table.hardware if gpu.name == row.hardware), None)
    return min((size for size in (seen, row.accelerator_memory_gib) if size is not None), default=None)
