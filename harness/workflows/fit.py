"""`harness fit`: find the largest batch size that fits a memory budget, first predicted, then confirmed by real steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import psutil

from harness.dataset.sources import read_model_shape
from harness.errors import UserError
from harness.machine.support import num_ranks, unsupported_reason
from harness.prediction.cell_memory import predict_peak_bytes
from harness.prediction.memory_fit import largest_that
from harness.prediction.peak_memory import UNCHARGED_BYTES, MemoryPrediction, predict_peak
from harness.pricing.price_table import load_prices
from harness.schema.cells import Cell, FineTuneConfig
from harness.schema.host_record import Machine
from harness.schema.model_shapes import ModelShape, require_predicted_memory
from harness.schema.record import Record
from harness.workflows.memory_budget import GIB, InstanceFit, MemoryBudget, find_instance_fits
from harness.workflows.model_support import refused_by_model
from harness.workflows.short_run import NUM_TRIAL_STEPS, TrialRunner

MAX_ATTEMPTS = 8
MAX_CONFIRMATIONS = 4
# Shares of the measured peak to keep free. A further epoch has other batches, in other order; a longer one, more shapes.
EPOCH_MARGIN, PART_MARGIN = 0.03, 0.08
_NUM_LABELS = 2  # assumed, since the data isn't read yet; each further label adds only a few thousand weights
_MAX_ROWS = 2**16


@dataclass(frozen=True)
class Attempt:
    """One batch size that was run.

    Attributes:
        measured_bytes: Its peak; None if the process was killed before reporting one.
        fits: Whether it ran to its end, within the budget less `margin`.
        num_steps: Steps that were run: a few with all rows padded to `seq_len`, or many on the study's own batches.
        margin: Share of the measured peak that had to stay free.
    """

    batch_size: int
    predicted_bytes: int
    measured_bytes: int | None
    outcome: str
    fits: bool
    reason: str | None
    num_steps: int = NUM_TRIAL_STEPS
    margin: float = 0.0


@dataclass(frozen=True)
class Fit:
    """Result of a search.

    Attributes:
        predicted_batch: Largest batch size predicted to fit; 0 if none.
        batch: Largest batch size that ran within the budget; 0 if none, None if nothing was run.
        smallest_too_large: Smallest batch size that ran and did not fit; None if none.
        confirmations: Batch sizes that were run on the study's own batches, after the attempts; the last one is `batch`.
        instances: Instance types with enough memory for `batch`, or for `predicted_batch` if nothing was run.
        note: Why nothing was run, or why the search ended early.
    """

    cell: str
    budget: MemoryBudget
    predicted_batch: int
    predicted_bytes: int
    batch: int | None
    smallest_too_large: int | None
    attempts: tuple[Attempt, ...]
    instances: tuple[InstanceFit, ...]
    note: str | None
    confirmations: tuple[Attempt, ...] = ()

    def as_fields(self) -> dict[str, object]:
        """Return the fields of `--json`."""
        budget = self.budget
        return {
            "cell": self.cell,
            "limit": {"num_bytes": budget.num_bytes, "words": budget.description, "cap": budget.cap},
            "predicted_batch": self.predicted_batch,
            "predicted_bytes": self.predicted_bytes,
            "batch": self.batch,
            "smallest_that_did_not": self.smallest_too_large,
            "tries": [asdict(attempt) for attempt in self.attempts],
            "confirmed": [asdict(attempt) for attempt in self.confirmations],
            "rooms": [asdict(instance) for instance in self.instances],
            "note": self.note,
        }


class BatchSizeSearch:
    """A cell whose batch size is searched for; all other settings are fixed, and rows are padded to `seq_len`."""

    def __init__(self, cell: Cell, machine: Machine) -> None:
        if not isinstance(cell.config, FineTuneConfig):
            raise UserError(f"cell {cell.name}: a baseline has no batch size")
        self.cell, self.machine, config = cell, machine, cell.config
        self._config = config
        self.shape: ModelShape = read_model_shape(config.model)
        if (reason := refused_by_model(config)) is not None:
            raise UserError(reason)
        require_predicted_memory(self.shape)
        self.num_ranks = num_ranks(config, machine)
        rows = _MAX_ROWS if config.data.num_train == "all" else config.data.num_train
        # A batch can't hold more rows than the training split.
        self.max_batch_size = max(1, rows // (self.num_ranks * config.training.grad_accum))

    def config(self, batch_size: int) -> FineTuneConfig:
        """Return the cell's configuration with this batch size and with rows padded to `seq_len`."""
        return self._config.model_copy(update={"batch_size": batch_size, "global_batch_size": None, "padding": "max"})

    def own_config(self, batch_size: int) -> FineTuneConfig:
        """Return the cell's configuration with this batch size and with rows padded as the study asks."""
        return self._config.model_copy(update={"batch_size": batch_size, "global_batch_size": None})

    def predict(self, batch_size: int, *, device: str | None = None) -> MemoryPrediction:
        """Predict the memory of a batch size, on the cell's device unless another is named."""
        config = self.config(batch_size)
        if device is not None:
            config = config.model_copy(update={"device": device})
        return predict_peak(config, self.shape, _NUM_LABELS, num_ranks=1 if device else self.num_ranks)

    def predict_default(self, batch_size: int) -> int:
        """Predict the peak of a batch size as its training will see it, in bytes: with what the allocator and oneDNN add.

        Every batch counts as `seq_len` long, and without the data there may be a shape for each length.
        """
        if self._config.on_gpu:
            return self.predict(batch_size).peak_bytes
        lengths = 1 if self._config.padding == "max" else -(-self._config.seq_len // self._config.pad_multiple)
        peak = predict_peak_bytes(
            self.config(batch_size), self.shape, _NUM_LABELS, longest=self._config.seq_len,
            num_shapes=min(lengths, self.max_batch_size), num_ranks=self.num_ranks,
        )  # fmt: skip
        return round(peak.value)

    def largest(self, fits: Callable[[int], bool]) -> int:
        """Return the largest batch size for which `fits` is true, by bisection; 0 if there is none."""
        return largest_that(fits, self.max_batch_size)

    def largest_predicted(self, num_bytes: int, correction: int = 0) -> int:
        """Return the largest batch size whose predicted peak plus `correction` is within `num_bytes`; 0 if none."""
        return self.largest(lambda size: self.predict(size).peak_bytes + correction <= num_bytes)

    def instance_fits(self, batch_size: int, peak_bytes: int) -> tuple[InstanceFit, ...]:
        """List instance types with enough memory for a batch size whose peak on the cell's device is `peak_bytes`."""
        gpu_bytes = self.predict(batch_size, device="gpu").peak_bytes
        cpu_bytes = self.predict(batch_size, device="cpu").peak_bytes if self._config.on_gpu else peak_bytes
        return find_instance_fits(load_prices(), cpu_bytes=cpu_bytes, gpu_bytes=gpu_bytes)


def choose_cell(cells: Sequence[Cell], seq_len: int | None, precision: str | None) -> Cell:
    """Return the first cell that trains, with `seq_len` and `precision` replaced if given.

    Raises:
        UserError: If no cell trains.
    """
    trained = [cell for cell in cells if isinstance(cell.config, FineTuneConfig)]
    if not trained:
        raise UserError("this study has no cell that trains a model")
    replaced = {key: value for key, value in (("seq_len", seq_len), ("precision", precision)) if value is not None}
    matching = [cell for cell in trained if all(getattr(cell.config, key) == value for key, value in replaced.items())]
    cell = (matching or trained)[0]
    return cell.model_copy(update={"config": FineTuneConfig.model_validate(cell.config.model_dump() | replaced)})


def predict_fit(search: BatchSizeSearch, budget: MemoryBudget) -> Fit:
    """Predict the largest batch size without running a step; needs no torch."""
    batch_size = search.largest(lambda size: search.predict_default(size) <= budget.num_bytes)
    peak_bytes = search.predict_default(max(1, batch_size))
    return Fit(
        cell=search.cell.name,
        budget=budget,
        predicted_batch=batch_size,
        predicted_bytes=peak_bytes,
        batch=None,
        smallest_too_large=None,
        attempts=(),
        instances=search.instance_fits(batch_size, peak_bytes) if batch_size else (),
        note=None,
    )


def find_fit(search: BatchSizeSearch, budget: MemoryBudget, on_attempt: Callable[[Attempt], None]) -> Fit:
    """Predict the largest batch size, then run batch sizes near the prediction until the largest that fits is known.

    Raises:
        UserError: If model or data is not available, or an attempt failed for a reason other than memory.
    """
    predicted = predict_fit(search, budget)
    reason = _why_not_run(search, budget)
    if reason is not None:
        return replace(predicted, note=f"not confirmed: {reason}")
    with TrialRunner(search, budget) as trial:
        attempts = run_attempts(search, budget, max(1, predicted.predicted_batch), trial.run, on_attempt)
        largest = max((attempt.batch_size for attempt in attempts if attempt.fits), default=0)
        confirmations = confirm(search, budget, largest, trial.run_own_batches, on_attempt) if largest else []
    best = confirmations[-1] if confirmations and confirmations[-1].fits else None
    too_large = min((attempt.batch_size for attempt in (*attempts, *confirmations) if not attempt.fits), default=None)
    return replace(
        predicted,
        batch=best.batch_size if best else 0,
        smallest_too_large=too_large,
        attempts=tuple(attempts),
        confirmations=tuple(confirmations),
        instances=search.instance_fits(best.batch_size, best.measured_bytes or 0) if best else (),
        note=_why_not_final(search, attempts, confirmations),
    )


def _why_not_final(
    search: BatchSizeSearch, attempts: Sequence[Attempt], confirmations: Sequence[Attempt]
) -> str | None:
    """Return why a larger batch size might fit, or none was confirmed; None if the search came to its end."""
    if confirmations and not confirmations[-1].fits:
        return f"ended after {len(confirmations)} runs on the study's own batches, none of which fitted"
    largest = max((attempt.batch_size for attempt in attempts if attempt.fits), default=0)
    too_large = min((attempt.batch_size for attempt in attempts if not attempt.fits), default=None)
    is_final = largest == search.max_batch_size or too_large == largest + 1
    return None if is_final else f"ended after {len(attempts)} tries"


def confirm(
    search: BatchSizeSearch,
    budget: MemoryBudget,
    first: int,
    run: Callable[[int], tuple[Record, int | None, bool]],
    on_attempt: Callable[[Attempt], None],
) -> list[Attempt]:
    """Run batch sizes on the study's own batches, from the largest down, until one fits with a margin.

    A few padded steps show less memory than a training takes: batches of many shapes leave fragments in glibc's heap, and
    oneDNN keeps kernels for each shape.

    Args:
        search: The cell and its predictions.
        budget: The memory that the cell may use.
        first: The largest batch size that padded steps allowed.
        run: Function that runs a batch size, and returns its record, its measured peak in bytes, and whether it ran on
            a whole epoch.
        on_attempt: Function to call after each run.

    Returns:
        The runs in order; the last one fits, unless none did.

    Raises:
        UserError: If a run failed for a reason other than memory.
    """
    attempts: list[Attempt] = []
    batch_size = first
    while batch_size >= 1 and len(attempts) < MAX_CONFIRMATIONS:
        record, measured, is_epoch = run(batch_size)
        _require_memory_reason(record, batch_size)
        margin = EPOCH_MARGIN if is_epoch else PART_MARGIN
        fits = record.outcome == "ok" and (measured or 0) * (1 + margin) <= budget.num_bytes
        num_steps = len(record.training.steps.num_samples) if record.training else len(record.held_bytes)
        predicted = search.predict(batch_size).peak_bytes
        attempts.append(
            Attempt(batch_size, predicted, measured, record.outcome, fits, record.reason, num_steps, margin)
        )
        on_attempt(attempts[-1])
        if fits:
            break
        smaller = (
            None if measured is None else _largest_in_proportion(search, budget, batch_size, measured * (1 + margin))
        )
        batch_size = min(batch_size - 1, batch_size * 9 // 10 if smaller is None else smaller)
    return attempts


def _largest_in_proportion(search: BatchSizeSearch, budget: MemoryBudget, batch_size: int, needed: float) -> int:
    """Return the largest batch size that fits if all exceed their prediction, above the base process, as this one does."""
    prediction = search.predict(batch_size)
    base = prediction.peak_bytes - prediction.num_ranks * prediction.above_base_bytes
    growth = (needed - base) / (prediction.peak_bytes - base)
    return search.largest(lambda size: base + growth * (search.predict(size).peak_bytes - base) <= budget.num_bytes)


def _require_memory_reason(record: Record, batch_size: int) -> None:
    # Without the kernel's OOM counter, a SIGKILL is the only sign of a memory shortage, so it counts as one. A capped run that
    # is not done after minutes pages.
    pages = record.outcome == "timeout" and record.config.limits.memory_limit_gib is not None
    if record.outcome not in ("ok", "oom") and not pages and "SIGKILL" not in (record.reason or ""):
        raise UserError(f"batch size {batch_size}: the run ended as {record.outcome}: {record.reason}")


def _why_not_run(search: BatchSizeSearch, budget: MemoryBudget) -> str | None:
    """Return why this machine can't run attempts of the cell within the budget; None if it can."""
    config = search.config(1)
    reason = unsupported_reason(config, search.machine)
    if reason is not None or config.on_gpu:
        return reason
    available = psutil.virtual_memory().available
    if budget.num_bytes > available + search.predict(1).base_bytes:
        return f"{budget.description} is more than the {available / GIB:.1f} GiB that are free on this machine"
    return None


def run_attempts(
    search: BatchSizeSearch,
    budget: MemoryBudget,
    first: int,
    run: Callable[[int], tuple[Record, int | None]],
    on_attempt: Callable[[Attempt], None],
) -> list[Attempt]:
    """Run batch sizes to narrow a bracket around the largest batch size that fits.

    Each attempt shows the prediction's error at its batch size. The next attempt takes the largest batch size by the
    corrected prediction, limited to the bracket. If no peak was measured yet, it takes the middle of the bracket.

    Args:
        search: The cell and its predictions.
        budget: The memory that the cell may use.
        first: Batch size of the first attempt.
        run: Function that runs a batch size and returns its record and measured peak in bytes.
        on_attempt: Function to call after each attempt.

    Returns:
        At most `MAX_ATTEMPTS` attempts, in order.

    Raises:
        UserError: If an attempt failed for a reason other than memory.
    """
    attempts: list[Attempt] = []
    low, high, batch_size = 0, search.max_batch_size + 1, min(first, search.max_batch_size)
    while high - low > 1 and len(attempts) < MAX_ATTEMPTS:
        record, measured = run(batch_size)
        _require_memory_reason(record, batch_size)
        fits = record.outcome == "ok" and (measured or 0) <= budget.num_bytes
        # An exact cap measures the control group's peak, which is smaller than the predicted resident set.
        uncharged = UNCHARGED_BYTES if record.cap is not None and record.cap.exact else 0
        predicted = search.predict(batch_size).peak_bytes - uncharged
        attempts.append(Attempt(batch_size, predicted, measured, record.outcome, fits, record.reason))
        on_attempt(attempts[-1])
        low, high = (batch_size, high) if fits else (low, batch_size)
        batch_size = max(low + 1, min(high - 1, _next_batch_size(search, budget, attempts, low, high)))
    return attempts


def _next_batch_size(
    search: BatchSizeSearch, budget: MemoryBudget, attempts: Sequence[Attempt], low: int, high: int
) -> int:
    """Choose a batch size by the prediction, corrected by the error of the attempt nearest to the budget."""
    measured = [(one.measured_bytes, one.batch_size) for one in attempts if one.measured_bytes is not None]
    if not measured:
        return (low + high) // 2
    peak_bytes, batch_size = min(measured, key=lambda pair: abs(pair[0] - budget.num_bytes))
    correction = peak_bytes - search.predict(batch_size).peak_bytes
    corrected = search.largest_predicted(budget.num_bytes, correction)
    # If the corrected size is known to fit, the next larger size is to be tested.
    return corrected if corrected > low else corrected + 1
