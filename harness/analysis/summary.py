"""The summary of one configuration on one machine, from which every report and choice is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from harness.analysis.estimate import Estimate
from harness.analysis.run_spread import RunSpread
from harness.schema.cells import BaselineConfig, Classifier, FineTuneConfig, hash_config
from harness.schema.inputs_record import DataFacts
from harness.schema.record import Outcome, Record

CellKey = tuple[str, str]  # machine id, and hash of the configuration without its seed


@dataclass(frozen=True)
class ComputeUse:
    """A cell's FLOP/s over its measured steps, relative to the machine's peak; means over runs.

    FLOPs are those of the model's matrix products, without what activation checkpointing recomputes.

    Attributes:
        mfu_calibrated: MFU relative to the peak measured with matrix products between steps.
        mfu_datasheet: MFU relative to the GPUs' dense datasheet peak at the cell's precision; None on a CPU.
        peak_flop_per_s, copy_bytes_per_s: Highest calibrated peak over the runs, of matrix products and of copies.
        datasheet_flop_per_s: Datasheet peak of all the cell's GPUs.
        flop_per_byte: Arithmetic intensity: FLOPs of a step over its minimum memory traffic.
        padding_fraction: Share of the FLOPs spent on padding.
    """

    flop_per_s: float
    mfu_calibrated: float | None
    mfu_datasheet: float | None
    peak_flop_per_s: float | None
    datasheet_flop_per_s: float | None
    copy_bytes_per_s: float | None
    flop_per_byte: float | None
    padding_fraction: float


@dataclass(frozen=True)
class Summary:
    """All runs (seeds and repeats) of one configuration on one machine, summarised.

    Figures are from the runs with outcome `ok`; a figure is None if it was not measured.

    Attributes:
        records: The newest record of each (host, seed, repeat), oldest first.
        outcome: `ok` if every run succeeded; otherwise the outcome of the first failed run.
        samples_per_s: Samples over the slowest rank's seconds, without warm-up. Its interval is between runs, or with
            fewer than 3 runs by `run_spread`; with several hosts, it includes all of them.
        run_spread: Spread between runs that the interval of `samples_per_s` assumes; None if it needs none.
        within_run_fraction: Relative half-width of the 95 % interval within one run, median over runs; it shows the
            spread of the steps whatever the interval of `samples_per_s` is based on.
        padding_fraction: Share of the computed tokens that was padding, without warm-up.
        num_warmup_steps: Steps left out of every run (see `steady_state.warmup_steps`).
        num_measured_steps: Measured steps of the shortest run.
        num_updates, global_batch_size: Optimizer updates, and samples per update, of the newest run.
        peak_memory_bytes: Largest peak over runs; a run's peak is the sum over ranks.
        memory_growth: Bytes per step after warm-up, of the run whose memory grew most, failed runs included.
        setup_s: Seconds to start, load, tokenise, choose attention and compile, mean over runs; reused work counts too.
        train_s, evaluate_s: Seconds of training, and of validations and test, means over runs.
        epoch_s: Training seconds for one pass over the training rows, at the measured throughput.
        evaluation_samples_per_s: Throughput of the test evaluation, mean over runs.
        majority_accuracy: Test accuracy of always predicting the most common label.
        num_reached_target, num_missed_target: Runs that reached the target and runs that did not, diverged ones
            included; None if no run was on its way to a target.
        time_to_target_s: Seconds of set-up, training and validations of all these runs, over the number that reached
            the target; a run counts until the validation that reached it (see `seconds_per_success`).
        target_lost: True if, in any run, a later validation fell below the target again.
        mfu: Datasheet MFU on a GPU, calibrated MFU on a CPU; filled in by `with_mfu`, like `compute`.
        noise: Disturbances of the runs, one sentence each; a cell with a disturbance is not steady.
        warnings: All warnings, one sentence each, including those in `noise`.
    """

    machine_id: str
    study: str
    cell: str
    config: FineTuneConfig | BaselineConfig
    records: tuple[Record, ...]
    outcome: Outcome
    reason: str | None
    num_ok: int
    samples_per_s: Estimate | None
    run_spread: RunSpread | None
    real_tokens_per_s: float | None
    within_run_fraction: float | None
    padding_fraction: float | None
    step_s_median: float | None
    num_warmup_steps: int | None
    num_measured_steps: int | None
    num_updates: int | None
    global_batch_size: int | None
    peak_memory_bytes: int | None
    peak_memory_source: str | None
    memory_growth: Estimate | None
    setup_s: float | None
    train_s: float | None
    evaluate_s: float | None
    epoch_s: float | None
    evaluation_samples_per_s: float | None
    accuracy: Estimate | None
    macro_f1: float | None
    majority_accuracy: float | None
    target_accuracy: float | None
    num_reached_target: int | None
    num_missed_target: int | None
    time_to_target_s: Estimate | None
    target_lost: bool
    mfu: float | None
    noise: tuple[str, ...]
    warnings: tuple[str, ...]
    compute: ComputeUse | None = None

    @property
    def key(self) -> CellKey:
        """Machine id and hash of the configuration without its seed; `summarize` returns one summary per key."""
        return self.machine_id, hash_config(self.config, ignore=("seed",))

    @property
    def kind(self) -> Literal["fine_tune", "baseline"]:
        """Whether a model was fine-tuned or a baseline was run."""
        return self.config.kind

    @property
    def classifier(self) -> Classifier | None:
        """The baseline's classifier; None for a fine-tuned model."""
        return self.config.classifier if isinstance(self.config, BaselineConfig) else None

    @property
    def data(self) -> DataFacts | None:
        """The data facts of the newest successful run that has them."""
        return next((record.data for record in reversed(self.ok_records) if record.data is not None), None)

    @property
    def test_sha256(self) -> str | None:
        """Hash of the test set's labels and texts; accuracies on different test sets are not comparable."""
        return next((record.data.test.sha256 for record in self.records if record.data is not None), None)

    @property
    def ok_records(self) -> tuple[Record, ...]:
        """The successful runs, from which the figures are computed."""
        return tuple(record for record in self.records if record.outcome == "ok")


def most_common_test_set(summaries: Iterable[Summary]) -> str | None:
    """Return the test set hash that most summaries have."""
    counts = Counter(summary.test_sha256 for summary in summaries)
    return next((test_sha256 for test_sha256, _ in counts.most_common(1)), None)
