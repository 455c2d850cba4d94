"""One configuration on one machine, judged: what every report and choice is made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from harness.analysis.estimate import Estimate
from harness.schema.cells import BaselineConfig, FineTuneConfig, hash_config
from harness.schema.record import Outcome, Record
from harness.schema.training_record import DataFacts

CellKey = tuple[str, str]


@dataclass(frozen=True)
class ComputeUse:
    """What a cell computes a second over its measured steps, and what its machine could; mean over runs.

    FLOPs are those of the model's matrix products: what checkpointing computes again is none of them.

    Attributes:
        mfu_calibrated: Share of the peak that was found by products between steps.
        mfu_datasheet: Share of the GPUs' dense peak at the cell's precision; None on a CPU.
        peak_flop_per_s: Found so; the best of the runs, as is `copy_bytes_per_s`.
        flop_per_byte: FLOPs of a step over the least that it moves to and from memory.
        padding_fraction: Share of the FLOPs that went into padding.
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
    """One configuration on one machine: all its runs (seeds and repeats), judged.

    Figures come from the runs that ended `ok`; each is None where not measured.

    Attributes:
        records: The newest record of each (host, seed, repeat), oldest first.
        outcome: `ok` when every run was; otherwise the first run's that was not.
        samples_per_s: Samples over the slowest rank's seconds, warm-up left out; of several hosts the interval reaches
            over all of them.
        within_run_fraction: Half the 95 % interval within one run, over its value, median of the runs: what the steps of a
            run differ by, whatever `samples_per_s` rests on.
        padding_fraction: Share of computed tokens that was padding, warm-up left out.
        num_warmup_steps: Left out of every run (see `steadiness.warmup_steps`).
        num_measured_steps: Fewest of a run.
        num_updates, global_batch_size: Of the newest run.
        peak_memory_bytes: Largest over runs, of all ranks together.
        memory_growth: Bytes a step, after warm-up, of the run that grew most; of failed runs too, as far as they came.
        setup_s: Start, load, tokenising and compiling, which each run is charged in full, as if it ran alone.
        train_s, evaluate_s: Mean over runs; evaluate_s covers validation and test.
        epoch_s: Training seconds of one pass over the training rows, at the measured throughput.
        evaluation_samples_per_s: Mean over runs, of the test evaluation.
        majority_accuracy: What always answering the test set's commonest label would score.
        time_to_target_s: Training clock of the first validation to reach the target; median of runs that did.
        evaluate_to_target_s: Seconds of the validations up to and with that one; median of the same runs.
        target_lost: A later validation fell below the target again.
        mfu: Share of the peak (filled by `with_mfu`, as is `compute`): a GPU's of its datasheet, a CPU's calibrated one.
        noise: What disturbed a run, a sentence each; a cell with any is unsteady.
        warnings: One sentence each, those of `noise` among them.
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
    time_to_target_s: float | None
    evaluate_to_target_s: float | None
    target_lost: bool
    mfu: float | None
    noise: tuple[str, ...]
    warnings: tuple[str, ...]
    compute: ComputeUse | None = None

    @property
    def key(self) -> CellKey:
        """Machine id and hash of the configuration without its seed; `summarise` returns one summary per key."""
        return self.machine_id, hash_config(self.config, ignore=("seed",))

    @property
    def kind(self) -> Literal["fine_tune", "baseline"]:
        """What was run."""
        return self.config.kind

    @property
    def classifier(self) -> Literal["majority", "tfidf"] | None:
        """Which baseline it is; None of a model."""
        return self.config.classifier if isinstance(self.config, BaselineConfig) else None

    @property
    def data(self) -> DataFacts | None:
        """Of the newest run that ended well and knows its data; None where none does."""
        return next((record.data for record in reversed(self.ok_records) if record.data is not None), None)

    @property
    def test_sha256(self) -> str | None:
        """Of the test set's labels and texts: what is judged on another can't be held against it."""
        return next((record.data.test.sha256 for record in self.records if record.data is not None), None)

    @property
    def ok_records(self) -> tuple[Record, ...]:
        """The runs that the figures come from."""
        return tuple(record for record in self.records if record.outcome == "ok")


def most_common_test_set(summaries: Iterable[Summary]) -> str | None:
    """Of the most summaries; None where none knows its own."""
    return next((key for key, _ in Counter(one.test_sha256 for one in summaries).most_common(1)), None)
