"""The parts of a record that training and evaluation measured."""

from __future__ import annotations

from collections import Counter
from typing import Literal, Self, get_args

from pydantic import model_validator

from harness.schema.diagnostics_record import CalibratedPeak, Communication, FlopCount, MemoryParts
from harness.schema.inputs_record import Example
from harness.schema.nodes_record import Network
from harness.schema.ranges import (
    Index,
    Loss,
    Moment,
    Positive,
    PositiveSeconds,
    PositiveTally,
    Seconds,
    Share,
    Tally,
    require_equal_lengths,
)
from harness.schema.scores import accuracy, macro_f1_of_pairs
from harness.schema.settings import AttentionKind, Many, Settings

# `auto` chooses eager attention, which can take more memory, if it is at least this many times as fast as sdpa.
CLEAR_SPEED_UP = 1.05
# Steps that choosing takes: of each of three shapes one untimed and two timed steps with each implementation.
NUM_CHOICE_SHAPES, NUM_CHOICE_STEPS = 3, 18
LONGEST_TEXT = 300  # characters of a mistake's text in a record
PROBABILITY_DIGITS = 4  # decimal places of probabilities in a record

# How memory was measured. rss: the kernel's VmHWM. control_group: the control group's peak, which counts shared pages
# once. pss: samples of the proportional set size.
MemorySource = Literal["rss", "cuda_allocated", "cuda_reserved", "nvml_process", "control_group", "pss"]


class Phases(Settings):
    """Seconds of each phase; None when the run did not reach the phase.

    Attributes:
        start_s: From submitting the cell to its first line of code.
        load_s: Loading model and data into memory.
        first_step_s: From submitting the cell to the end of the first training step.
        train_s: The training clock, which stops during evaluations.
        evaluate_s: Validations during training, and test evaluations after chunks.
        test_s: The final test evaluation.
        tokenise_s: Tokenising the splits, once before the first cell; cells share the tokens.
    """

    start_s: Seconds | None = None
    load_s: Seconds | None = None
    first_step_s: Seconds | None = None
    train_s: Seconds | None = None
    evaluate_s: Seconds | None = None
    test_s: Seconds | None = None
    tokenise_s: Seconds | None = None


class PeakMemory(Settings):
    """Peak memory between the start and the end of training.

    Attributes:
        rank: The rank measured; None for all ranks together.
        num_bytes: The peak in bytes.
    """

    rank: Index | None
    source: MemorySource
    num_bytes: Tally


class Steps(Settings):
    """Every optimizer step in order; each tuple but `seconds` has shape `(num_steps,)` and covers all ranks together.

    Attributes:
        seconds: Seconds of each step, batch preparation included, evaluations excluded: `(world_size, num_steps)`.
        num_samples: Rows of each step.
        num_real_tokens: Tokens of each step, without padding.
        num_padded_tokens: Tokens of each step that were computed, padding included.
        loss: Mean loss over the step's rows, before its update; None where it is not finite.
        clock: The clock that measured `seconds`.
        num_skipped: Number of updates that the fp16 gradient scaler skipped.
        num_token_pairs: Token pairs of attention in each step: the sum of each row's padded length squared. Empty in
            older records.
    """

    seconds: Many[Many[PositiveSeconds]]
    num_samples: Many[Tally]
    num_real_tokens: Many[Tally]
    num_padded_tokens: Many[Tally]
    loss: Many[Loss | None]
    clock: Literal["perf_counter", "cuda_events"]
    num_skipped: Tally = 0
    num_token_pairs: Many[Tally] = ()

    @model_validator(mode="after")
    def _has_equal_lengths(self) -> Self:
        require_equal_lengths(
            num_samples=self.num_samples,
            num_real_tokens=self.num_real_tokens,
            num_padded_tokens=self.num_padded_tokens,
            loss=self.loss,
            **{f"seconds of rank {rank}": seconds for rank, seconds in enumerate(self.seconds)},
            **({"num_token_pairs": self.num_token_pairs} if self.num_token_pairs else {}),
        )
        return self


class Evaluation(Settings):
    """One validation.

    Attributes:
        train_s: The training clock at the time of this validation, in seconds.
        num_samples_seen: Rows trained on so far, repetitions included.
        num_updates: Optimizer updates so far.
        accuracy: Validation accuracy from 0 to 1.
        macro_f1: Validation macro F1 from 0 to 1.
        evaluate_s: Seconds of this validation.
        chunk: Number of the chunk of training rows that just ended, from 1; None within a chunk and without chunks.
        test_accuracy: Test accuracy after a chunk, for information only; None elsewhere.
    """

    train_s: Seconds
    num_samples_seen: Tally
    num_updates: Tally
    accuracy: Share
    macro_f1: Share
    evaluate_s: Seconds
    chunk: Tally | None = None
    test_accuracy: Share | None = None


class TestEvaluation(Settings):
    """The final evaluation on the test set.

    Attributes:
        evaluate_s: Seconds of the evaluation.
        labels: True label of each row, as index into `DataFacts.labels`.
        predictions: Predicted label of each row, as index into `DataFacts.labels`.
        probabilities: The model's probability of each predicted label, to 4 decimal places; empty for baselines and in
            older records.
    """

    __test__ = False  # keeps pytest from collecting the class for its name

    evaluate_s: Seconds
    labels: Many[Index]
    predictions: Many[Index]
    probabilities: Many[Share] = ()

    @model_validator(mode="after")
    def _has_equal_lengths(self) -> Self:
        if not self.labels:
            raise ValueError("at least one label")
        require_equal_lengths(
            labels=self.labels,
            predictions=self.predictions,
            **({"probabilities": self.probabilities} if self.probabilities else {}),
        )
        return self

    @property
    def accuracy(self) -> float:
        """Return the share of correct predictions."""
        return accuracy(self.labels, self.predictions)

    @property
    def pairs(self) -> Counter[tuple[int, int]]:
        """Return the count of each (true, predicted) label pair that occurs."""
        return Counter(zip(self.labels, self.predictions, strict=True))

    @property
    def macro_f1(self) -> float:
        """Return the unweighted mean F1 of the classes."""
        return macro_f1_of_pairs(self.pairs)


class Mistake(Settings):
    """A test row that the model mislabelled with high confidence.

    Attributes:
        row: Index in the test split.
        label: True label, as index into `DataFacts.labels`.
        predicted: Predicted label, as index into `DataFacts.labels`.
        probability: The model's probability of the predicted label.
        text: The row's text, cut to LONGEST_TEXT characters.
    """

    row: Index
    label: Index
    predicted: Index
    probability: Share
    text: str


class SavedWeights(Settings):
    """The saved model, which the test evaluation used too.

    Attributes:
        num_updates: Optimizer updates after which the weights were saved.
        sha256: Hash of the weights file; identifies its folder under results/models.
        num_bytes: Size of the weights file.
        keep_s: Seconds for writing weights at each best validation and for reading the best weights back before the
            test evaluation; no other figure includes them.
    """

    num_updates: Tally
    sha256: str
    num_bytes: Tally
    keep_s: Seconds


class ProgressMark(Settings):
    """Progress that rank 0 reported, timed by the parent's clock, which is independent of the measured process.

    Attributes:
        at_s: Seconds since the parent submitted the cell.
        num_steps: Steps so far.
        num_samples: Rows so far.
        evaluate_s: Seconds spent in evaluations so far.
        loss: Loss of the last step over rank 0's rows; None where it is not finite.
    """

    at_s: Seconds
    num_steps: Tally
    num_samples: Tally
    evaluate_s: Seconds
    loss: Loss | None


class Checkpoint(Settings):
    """One checkpoint, written while the training clock was stopped.

    Attributes:
        num_updates: Optimizer updates of the whole run so far.
        seconds: From the end of the last step until all files were on disk and all ranks ready to continue; None when
            the process ended before it could report the time.
        num_bytes: Size of the checkpoint's files.
    """

    num_updates: Tally
    seconds: Seconds | None
    num_bytes: Tally


class Segment(Settings):
    """An uninterrupted part of a resumable training; the run's steps belong to its segments in order.

    Attributes:
        first_update: Optimizer updates of all earlier segments.
        num_updates: Updates of this segment, without the lost updates after its last checkpoint.
        machine: `Machine.id` of the computer that ran the segment.
        host: `Machine.host` of that computer.
        torch_build: `torch.__version__`.
        start_s: Seconds from submitting the segment to its first line of code.
        load_s: Seconds of loading model and data into memory, reading the checkpoint included.
        restore_s: The part of `load_s` for reading the checkpoint; None for the first segment.
    """

    first_update: Tally
    num_updates: Tally
    started_at: Moment
    machine: str
    host: str | None
    torch_build: str
    start_s: Seconds
    load_s: Seconds
    restore_s: Seconds | None
    checkpoints: Many[Checkpoint] = ()


class AttentionChoice(Settings):
    """The attention that `model.attention = "auto"` chose, by steps that are in no other figure.

    Attributes:
        seconds: Seconds of the timed steps with each implementation, over all ranks; without weight updates.
        num_steps: Timed steps of each implementation, on each rank.
        choose_s: Seconds of choosing, first runs of each shape included.
    """

    implementation: AttentionKind
    seconds: dict[AttentionKind, PositiveSeconds]
    num_steps: PositiveTally
    choose_s: Seconds

    @model_validator(mode="after")
    def _has_both(self) -> Self:
        if len(self.seconds) != len(get_args(AttentionKind)):
            raise ValueError("the seconds of each implementation")
        return self

    @property
    def other(self) -> AttentionKind:
        """The implementation that was not chosen."""
        return "sdpa" if self.implementation == "eager" else "eager"

    @property
    def speed_up(self) -> float:
        """How many times as fast the chosen implementation was as the other."""
        return self.seconds[self.other] / self.seconds[self.implementation]


class PlannedStep(Settings):
    """The mean size of an optimizer update over a whole plan: rows, and padded tokens over all ranks."""

    num_samples: Positive
    num_padded_tokens: Positive


class Training(Settings):
    """The measurements of a fine-tuning run.

    Attributes:
        threads_per_rank: CPU threads of each rank.
        global_batch_size: Rows per optimizer update, over all ranks and micro-batches.
        lr_peak: Peak learning rate after `lr_scaling`.
        num_updates_planned: Optimizer updates of the full schedule.
        stopped_early: Why training ended before its planned updates; None when it did not.
        test: The test evaluation; None with random weights, or when training diverged.
        torch_build: `torch.__version__`.
        held_bytes: Memory after each step (resident set; on a GPU, allocated bytes): `(world_size, num_steps)`.
        memory_parts: Breakdown of the memory; None when it was not measured.
        attention_kernels: Operators that computed attention, e.g. `_scaled_dot_product_flash_attention_for_cpu`.
        communication: Times with and without all-reduce; None when not measured, e.g. with a single rank.
        compile_s: Seconds of torch.compile, which no step includes; None without torch.compile.
        flops: Counted operations; None when the cell diverged or came near its memory cap.
        peak: Highest throughput of matrix products; None for the same reasons as `flops`.
        pieces: Segments of a training by `harness train`; empty for a run without interruptions. Steps, evaluations,
            memory peaks and training seconds cover all segments; the record's fields outside `training` describe the
            last segment.
        mistakes: Mislabelled test rows, the most confident first; empty with `store_texts = false`.
        kept: The saved model; None when saving was not requested or failed.
        cpus: The CPUs that the computing threads of each rank could use, at the end; empty where the system does not tell,
            and in older records.
        attention_choice: The attention that was chosen; None where there was nothing to choose.
        planned_step: Of a run that ended once its speed was known, the mean size of all planned updates; None elsewhere.
        network: All-reduces of several sizes, timed before training; None on one machine.
    """

    world_size: PositiveTally
    threads_per_rank: PositiveTally
    global_batch_size: PositiveTally
    lr_peak: Loss
    num_updates_planned: Tally
    stopped_early: str | None
    steps: Steps
    evaluations: Many[Evaluation]
    test: TestEvaluation | None
    peak_memory: Many[PeakMemory]
    example: Example
    torch_build: str
    held_bytes: Many[Many[Tally]] = ()
    memory_parts: MemoryParts | None = None
    attention_kernels: Many[str] = ()
    communication: Communication | None = None
    compile_s: Seconds | None = None
    flops: FlopCount | None = None
    peak: CalibratedPeak | None = None
    pieces: Many[Segment] = ()
    mistakes: Many[Mistake] = ()
    kept: SavedWeights | None = None
    planned_step: PlannedStep | None = None

    @model_validator(mode="after")
    def _has_every_rank(self) -> Self:
        if len(self.steps.seconds) != self.world_size or len(self.held_bytes) not in (0, self.world_size):
            raise ValueError(f"steps.seconds and held_bytes of {self.world_size} ranks")
        return self

    cpus: Many[Many[Tally]] = ()
    attention_choice: AttentionChoice | None = None
    network: Network | None = None


TfidfNgrams = Literal["words", "characters"]


class FeatureChoice(Settings):
    """What the baseline `features` chose on the validation set.

    Attributes:
        layer: The layer whose hidden states are the features; 0 is the output of the embeddings.
        c: The logistic regression's inverse strength of regularization.
        c_values: The values of `c` that were tried.
        val_accuracies: Validation accuracy of each layer, from layer 0, with each value of `c`:
            `(num_layers + 1, len(c_values))`.
        fit_s: Seconds of fitting all logistic regressions, a part of `Baseline.train_s`.
        num_threads: CPU threads of the encoder.
    """

    layer: Index
    c: Positive
    c_values: Many[Positive]
    val_accuracies: Many[Many[Share]]
    fit_s: Seconds
    num_threads: Tally

    @model_validator(mode="after")
    def _has_equal_lengths(self) -> Self:
        if not self.c_values or self.layer >= len(self.val_accuracies):
            raise ValueError("c_values, and val_accuracies of the layer")
        require_equal_lengths(
            c_values=self.c_values, **{f"accuracies of layer {i}": row for i, row in enumerate(self.val_accuracies)}
        )
        return self

    @property
    def layer_accuracies(self) -> Many[float]:
        """Return each layer's validation accuracy with the value of `c` that suits it best."""
        return tuple(max(accuracies) for accuracies in self.val_accuracies)


class Baseline(Settings):
    """The measurements of a baseline.

    Attributes:
        train_s: Seconds of fitting, feature extraction included; for `features` also of the choice on the validation
            set.
        num_fitted: Training rows used; None in older records, whose baselines used all rows.
        val_accuracy: Validation accuracy from 0 to 1; for `features` the highest of all candidates.
        val_macro_f1: Validation macro F1 from 0 to 1.
        features: What `features` chose; None for other baselines.
        ngrams: Of what TF-IDF counts one and two in a row; None for other baselines, and in older records, which counted
            words.
    """

    train_s: Seconds
    num_fitted: Tally | None = None
    peak_memory: Many[PeakMemory]
    test: TestEvaluation
    val_accuracy: Share
    val_macro_f1: Share
    features: FeatureChoice | None = None
    ngrams: TfidfNgrams | None = None
