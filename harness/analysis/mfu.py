"""Compute model FLOPs utilisation (MFU): achieved FLOP/s over the hardware's peak.

MFU = model FLOPs of the measured steps / (seconds * peak FLOP/s). Model FLOPs exclude what activation checkpointing
recomputes.

Source: A. Chowdhery et al., "PaLM: scaling language modeling with Pathways", arXiv:2204.02311 (2022), appendix B.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from harness.analysis.flops_formula import training_flops
from harness.analysis.summary import ComputeUse, Summary
from harness.analysis.throughput import ThroughputWindow, measure_windows
from harness.schema.cells import FineTuneConfig
from harness.schema.diagnostics_record import MemoryParts
from harness.schema.inputs_record import ModelFacts
from harness.schema.record import Record
from harness.schema.settings import Precision
from harness.schema.training_record import Training

# Maps a GPU's NVML name and a precision to the dense peak in FLOP/s; None if unknown.
PeakFlops = Callable[[str, Precision], float | None]

LOW_MFU = 0.1
# The best published BERT fine-tuning runs reach 0.26 to 0.36; above 0.6, a mistake is more likely than a new best.
MAX_PLAUSIBLE_MFU = 0.6


@dataclass(frozen=True)
class _TrainedRun:
    """A run with measured steps, and the facts that determine its FLOPs."""

    config: FineTuneConfig
    model: ModelFacts
    num_labels: int
    training: Training
    window: ThroughputWindow

    def flops(self, num_samples: int, num_tokens: float, num_pairs: float | None, *, recomputed: bool = False) -> float:
        """Return the FLOPs of a number of steps together, by the closed formula.

        Args:
            num_samples: Rows in the steps.
            num_tokens: Tokens in the steps.
            num_pairs: Sum over rows of the squared length; None if all rows have the mean length.
            recomputed: Also count what activation checkpointing recomputes.
        """
        return training_flops(
            self.model, self.num_labels, num_samples, num_tokens,
            trainable=self.config.trainable, num_token_pairs=num_pairs, recomputed=recomputed,
        )  # fmt: skip


def with_mfu(summaries: Iterable[Summary], peak_flops: PeakFlops) -> list[Summary]:
    """Fill in each summary's `compute` and `mfu`, and add warnings about implausible or very low values."""
    filled = []
    for summary in summaries:
        use = _mean_over_runs([run for record in summary.ok_records if (run := compute_use(record, peak_flops))])
        mfu = None if use is None else use.mfu_datasheet if summary.config.on_gpu else use.mfu_calibrated
        warnings = (*summary.warnings, *_mfu_warnings(use))
        filled.append(replace(summary, mfu=mfu, compute=use, warnings=warnings))
    return filled


def measure_mfu(record: Record, peak_flops: PeakFlops) -> float | None:
    """Return one run's MFU relative to its GPUs' datasheet peak; None on a CPU."""
    use = compute_use(record, peak_flops)
    return None if use is None else use.mfu_datasheet


def compute_use(record: Record, peak_flops: PeakFlops) -> ComputeUse | None:
    """Compute one run's FLOP/s, MFU and arithmetic intensity; None without measured training steps."""
    run = _trained_run(record)
    if run is None:
        return None
    window, training = run.window, run.training
    # The formula is linear in samples, tokens and pairs, so it applies to their sums over steps.
    num_samples = sum(window.num_samples)
    padded = run.flops(num_samples, sum(window.num_padded_tokens), num_token_pairs(training, window))
    real_pairs = _pairs_of_even_rows(window.num_real_tokens, window.num_samples)
    real = run.flops(num_samples, sum(window.num_real_tokens), real_pairs)
    correction = _counted_over_formula(run)
    flop_per_s = correction * padded / sum(window.seconds)
    peak, datasheet = training.peak, _datasheet_flop_per_s(record, run, peak_flops)
    return ComputeUse(
        flop_per_s=flop_per_s,
        mfu_calibrated=None if peak is None else flop_per_s / peak.flop_per_s,
        mfu_datasheet=None if datasheet is None else flop_per_s / datasheet,
        peak_flop_per_s=None if peak is None else peak.flop_per_s,
        datasheet_flop_per_s=datasheet,
        copy_bytes_per_s=None if peak is None else peak.copy_bytes_per_s,
        flop_per_byte=_flop_per_byte(run, correction),
        padding_fraction=1 - real / padded,
    )


def moved_bytes(parts: MemoryParts, num_padded_tokens: float) -> float:
    """Return the minimum memory traffic of one rank's step, in bytes, assuming that all other data stay in caches.

    Per step: weights are read; gradients are written and read; updated weights are written (as many bytes as gradients);
    optimizer state is read and written; activations saved for the backward pass are written and read.

    Source of the roofline model: S. Williams, A. Waterman and D. Patterson, "Roofline", Communications of the ACM 52
    (2009), 65-76.

    Args:
        parts: The rank's memory by kind; the activations are those of its largest micro-batch.
        num_padded_tokens: Padded tokens in the rank's step; the bytes of the activations are scaled to this number.
    """
    saved = sum(parts.activations_bytes.values()) * num_padded_tokens / parts.num_padded_tokens
    return parts.weights_bytes + 3 * parts.gradients_bytes + 2 * parts.optimizer_bytes + 2 * saved


def _trained_run(record: Record) -> _TrainedRun | None:
    config, model, training = record.config, record.model, record.training
    if not isinstance(config, FineTuneConfig) or training is None or model is None or record.data is None:
        return None
    window = next(iter(measure_windows([training])), None)
    return None if window is None else _TrainedRun(config, model, len(record.data.labels), training, window)


def _counted_over_formula(run: _TrainedRun) -> float:
    """Return torch's FLOP count of one step divided by the formula's; 1 if torch counted none.

    Both counts include what activation checkpointing recomputes. So the recomputation cancels, and MFU excludes it.
    """
    counted = run.training.flops
    if counted is None or not counted.num_samples:
        return 1.0
    by_formula = run.flops(
        counted.num_samples,
        counted.num_padded_tokens,
        counted.num_token_pairs,
        recomputed=run.config.training.activation_checkpointing,
    )
    return counted.num_flops / by_formula


def num_token_pairs(training: Training, window: ThroughputWindow) -> float:
    """Return the sum of squared padded lengths over the measured steps' rows; an estimate if it was not recorded."""
    recorded = training.steps.num_token_pairs[window.num_warmup :]
    if len(recorded) == len(window.seconds):
        return sum(recorded)
    return _pairs_of_even_rows(window.num_padded_tokens, window.num_samples)


def _pairs_of_even_rows(num_tokens: Sequence[int], num_samples: Sequence[int]) -> float:
    """Return the sum of squared row lengths, assuming that all rows of a step have equal length."""
    return sum(tokens**2 / rows for tokens, rows in zip(num_tokens, num_samples, strict=True))


def _datasheet_flop_per_s(record: Record, run: _TrainedRun, peak_flops: PeakFlops) -> float | None:
    """Return the datasheet peak of all the cell's GPUs together; None on a CPU or if the peak is unknown."""
    if not run.config.on_gpu or not record.machine.gpus:
        return None
    peak = peak_flops(record.machine.gpus[0].name, run.config.precision)
    return None if peak is None else peak * run.training.world_size


def _flop_per_byte(run: _TrainedRun, correction: float) -> float | None:
    """Return the arithmetic intensity of one step; None if FLOPs or memory were not counted."""
    counted, parts = run.training.flops, run.training.memory_parts
    if counted is None or parts is None or not counted.num_samples or not parts.num_padded_tokens:
        return None
    flops = correction * run.flops(counted.num_samples, counted.num_padded_tokens, counted.num_token_pairs)
    world_size = run.training.world_size
    return flops / (world_size * moved_bytes(parts, counted.num_padded_tokens / world_size))


def _mean_over_runs(runs: Sequence[ComputeUse]) -> ComputeUse | None:
    """Average each figure over runs; of peaks take the maximum, because disturbances can only lower a peak."""
    if not runs:
        return None
    return ComputeUse(
        flop_per_s=fmean(run.flop_per_s for run in runs),
        mfu_calibrated=_aggregate([run.mfu_calibrated for run in runs], fmean),
        mfu_datasheet=_aggregate([run.mfu_datasheet for run in runs], fmean),
        peak_flop_per_s=_aggregate([run.peak_flop_per_s for run in runs], max),
        datasheet_flop_per_s=_aggregate([run.datasheet_flop_per_s for run in runs], max),
        copy_bytes_per_s=_aggregate([run.copy_bytes_per_s for run in runs], max),
        flop_per_byte=_aggregate([run.flop_per_byte for run in runs], fmean),
        padding_fraction=fmean(run.padding_fraction for run in runs),
    )


def _aggregate(values: Iterable[float | None], function: Callable[[list[float]], float]) -> float | None:
    known = [value for value in values if value is not None]
    return function(known) if known else None


def _mfu_warnings(use: ComputeUse | None) -> Iterator[str]:
    if use is None:
        return
    datasheet, calibrated = use.mfu_datasheet, use.mfu_calibrated
    if datasheet is not None and datasheet < LOW_MFU:
        yield f"At {datasheet:.3f} of its peak the cell does not load this GPU: do not choose hardware by it."
    if datasheet is not None and datasheet > MAX_PLAUSIBLE_MFU:
        yield (
            f"At {datasheet:.2f} of its peak the cell is faster than any published run of BERT: look for a mistake, in the "
            "peak of bench/hardware.csv or in the seconds, before believing it."
        )
    if calibrated is not None and calibrated > 1.0:
        yield (
            f"The cell computes at {calibrated:.2f} of the calibrated peak, which can't be: something slowed the machine "
            "while the peak was looked for, or the run was short. Run it again, alone and longer, with --force."
        )
