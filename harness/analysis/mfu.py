"""What a cell computed a second, and what share that is of what its machine could (pure)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from harness.analysis.flops_formula import training_flops
from harness.analysis.summary import ComputeUse, Summary
from harness.analysis.throughput import ThroughputWindow, measure_windows
from harness.schema.cells import FineTuneConfig
from harness.schema.record import Record
from harness.schema.settings import Precision
from harness.schema.training_record import FlopCount, MemoryParts, ModelFacts, Training

# A GPU's dense peak in FLOP/s, by NVML's name and precision; None where it is not known.
PeakFlops = Callable[[str, Precision], float | None]

LOW_MFU = 0.1
# The best published BERT fine-tuning runs reach 0.26 to 0.36; above this a mistake is likelier than a record.
MAX_PLAUSIBLE_MFU = 0.6


@dataclass(frozen=True)
class _Run:
    """A run that trained, with what its arithmetic follows from."""

    config: FineTuneConfig
    model: ModelFacts
    num_labels: int
    training: Training
    window: ThroughputWindow

    def flops(self, num_samples: int, num_tokens: float, num_pairs: float | None, *, recomputed: bool = False) -> float:
        """By the closed formula."""
        return training_flops(
            self.model, self.num_labels, num_samples, num_tokens,
            trainable=self.config.trainable, num_token_pairs=num_pairs, recomputed=recomputed,
        )  # fmt: skip


def with_mfu(summaries: Iterable[Summary], peak_flops: PeakFlops) -> list[Summary]:
    """Fill in `compute` and `mfu`, and warn of what can't be or does not load its GPU."""
    filled = []
    for summary in summaries:
        use = _mean_use([found for record in summary.ok_records if (found := compute_use(record, peak_flops))])
        mfu = None if use is None else use.mfu_datasheet if summary.config.on_gpu else use.mfu_calibrated
        warnings = (*summary.warnings, *_warnings(use))
        filled.append(replace(summary, mfu=mfu, compute=use, warnings=warnings))
    return filled


def measure_mfu(record: Record, peak_flops: PeakFlops) -> float | None:
    """One run's FLOPs over what all its GPUs could have done in the same seconds; None on a CPU."""
    use = compute_use(record, peak_flops)
    return None if use is None else use.mfu_datasheet


def compute_use(record: Record, peak_flops: PeakFlops) -> ComputeUse | None:
    """What one run computed over its measured steps; None of what has none."""
    run = _run(record)
    if run is None:
        return None
    window, training = run.window, run.training
    # The formula is linear in all three, so that a run's sums serve for its steps one by one.
    num_samples = sum(window.num_samples)
    padded = run.flops(num_samples, sum(window.num_padded_tokens), _num_pairs(training, window))
    real = run.flops(num_samples, sum(window.num_real_tokens), _even_pairs(window.num_real_tokens, window.num_samples))
    factor = _counted_over_formula(run)
    flop_per_s = factor * padded / sum(window.seconds)
    peak, datasheet = training.peak, _datasheet(record, run, peak_flops)
    return ComputeUse(
        flop_per_s=flop_per_s,
        mfu_calibrated=None if peak is None else flop_per_s / peak.flop_per_s,
        mfu_datasheet=None if datasheet is None else flop_per_s / datasheet,
        peak_flop_per_s=None if peak is None else peak.flop_per_s,
        datasheet_flop_per_s=datasheet,
        copy_bytes_per_s=None if peak is None else peak.copy_bytes_per_s,
        flop_per_byte=_flop_per_byte(run, factor),
        padding_fraction=1 - real / padded,
    )


def moved_bytes(parts: MemoryParts, num_padded_tokens: float) -> float:
    """Least that one rank's step moves between memory and where it computes.

    Weights are read once, gradients written and read, as much of weights written, optimiser state read and written,
    what autograd saves written and read: as if caches held all else.

    Args:
        num_padded_tokens: Of the rank's step, to which the saved tensors of its largest micro-batch are scaled.
    """
    saved = sum(parts.activations_bytes.values()) * num_padded_tokens / parts.num_padded_tokens
    return parts.weights_bytes + 3 * parts.gradients_bytes + 2 * parts.optimizer_bytes + 2 * saved


def _run(record: Record) -> _Run | None:
    config, model, training = record.config, record.model, record.training
    if not isinstance(config, FineTuneConfig) or training is None or model is None or record.data is None:
        return None
    window = next(iter(measure_windows([training])), None)
    return None if window is None else _Run(config, model, len(record.data.labels), training, window)


def _counted_over_formula(run: _Run) -> float:
    """What torch counted in one step over what the formula says of it; 1 where nothing was counted.

    What checkpointing computes again is on both sides, and so in neither the factor nor MFU.
    """
    counted = run.training.flops
    if counted is None or not counted.num_samples:
        return 1.0
    return counted.num_flops / _by_formula(run, counted)


def _by_formula(run: _Run, counted: FlopCount) -> float:
    again = run.config.training.activation_checkpointing
    return run.flops(counted.num_samples, counted.num_padded_tokens, counted.num_token_pairs, recomputed=again)


def _num_pairs(training: Training, window: ThroughputWindow) -> float:
    """Of the measured steps."""
    known = training.steps.num_token_pairs[window.num_warmup :]
    if len(known) == len(window.seconds):
        return sum(known)
    return _even_pairs(window.num_padded_tokens, window.num_samples)


def _even_pairs(num_tokens: Sequence[int], num_samples: Sequence[int]) -> float:
    """Pairs of some steps' tokens, were all rows of a step of one length."""
    return sum(tokens**2 / rows for tokens, rows in zip(num_tokens, num_samples, strict=True))


def _datasheet(record: Record, run: _Run, peak_flops: PeakFlops) -> float | None:
    """Of all GPUs of the cell."""
    if not run.config.on_gpu or not record.machine.gpus:
        return None
    peak = peak_flops(record.machine.gpus[0].name, run.config.precision)
    return None if peak is None else peak * run.training.world_size


def _flop_per_byte(run: _Run, factor: float) -> float | None:
    counted, parts = run.training.flops, run.training.memory_parts
    if counted is None or parts is None or not counted.num_samples or not parts.num_padded_tokens:
        return None
    flops = factor * run.flops(counted.num_samples, counted.num_padded_tokens, counted.num_token_pairs)
    ranks = run.training.world_size
    return flops / (ranks * moved_bytes(parts, counted.num_padded_tokens / ranks))


def _mean_use(runs: Sequence[ComputeUse]) -> ComputeUse | None:
    """Means over runs; of peaks the best, since what disturbs makes them only lower."""
    if not runs:
        return None
    return ComputeUse(
        flop_per_s=fmean(one.flop_per_s for one in runs),
        mfu_calibrated=_over([one.mfu_calibrated for one in runs], fmean),
        mfu_datasheet=_over([one.mfu_datasheet for one in runs], fmean),
        peak_flop_per_s=_over([one.peak_flop_per_s for one in runs], max),
        datasheet_flop_per_s=_over([one.datasheet_flop_per_s for one in runs], max),
        copy_bytes_per_s=_over([one.copy_bytes_per_s for one in runs], max),
        flop_per_byte=_over([one.flop_per_byte for one in runs], fmean),
        padding_fraction=fmean(one.padding_fraction for one in runs),
    )


def _over(values: Iterable[float | None], together: Callable[[list[float]], float]) -> float | None:
    known = [value for value in values if value is not None]
    return together(known) if known else None


def _warnings(use: ComputeUse | None) -> Iterator[str]:
    if use is None:
        return
    of_gpu, calibrated = use.mfu_datasheet, use.mfu_calibrated
    if of_gpu is not None and of_gpu < LOW_MFU:
        yield f"At {of_gpu:.3f} of its peak the cell does not load this GPU: do not choose hardware by it."
    if of_gpu is not None and of_gpu > MAX_PLAUSIBLE_MFU:
        yield (
            f"At {of_gpu:.2f} of its peak the cell is faster than any published run of BERT: look for a mistake, in the "
            "peak of bench/hardware.csv or in the seconds, before believing it."
        )
    if calibrated is not None and calibrated > 1.0:
        yield (
            f"The cell computes at {calibrated:.2f} of the calibrated peak, which can't be: something slowed the machine "
            "while the peak was looked for, or the run was short. Run it again, alone and longer, with --force."
        )
