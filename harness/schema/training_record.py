"""The parts of a record that training and evaluation measured."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Literal

from harness.schema.diagnostics_record import CalibratedPeak, Communication, FlopCount, MemoryParts
from harness.schema.inputs_record import Example
from harness.schema.scores import accuracy, macro_f1_of_pairs
from harness.schema.settings import Many, Settings

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

    start_s: float | None = None
    load_s: float | None = None
    first_step_s: float | None = None
    train_s: float | None = None
    evaluate_s: float | None = None
    test_s: float | None = None
    tokenise_s: float | None = None


class PeakMemory(Settings):
    """Peak memory between the start and the end of training.

    Attributes:
        rank: The rank measured; None for all ranks together.
        num_bytes: The peak in bytes.
    """

    rank: int | None
    source: MemorySource
    num_bytes: int


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

    seconds: Many[Many[float]]
    num_samples: Many[int]
    num_real_tokens: Many[int]
    num_padded_tokens: Many[int]
    loss: Many[float | None]
    clock: Literal["perf_counter", "cuda_events"]
    num_skipped: int = 0
    num_token_pairs: Many[int] = ()


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

    train_s: float
    num_samples_seen: int
    num_updates: int
    accuracy: float
    macro_f1: float
    evaluate_s: float
    chunk: int | None = None
    test_accuracy: float | None = None


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

    evaluate_s: float
    labels: Many[int]
    predictions: Many[int]
    probabilities: Many[float] = ()

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

    row: int
    label: int
    predicted: int
    probability: float
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

    num_updates: int
    sha256: str
    num_bytes: int
    keep_s: float


class ProgressMark(Settings):
    """Progress that rank 0 reported, timed by the parent's clock, which is independent of the measured process.

    Attributes:
        at_s: Seconds since the parent submitted the cell.
        num_steps: Steps so far.
        num_samples: Rows so far.
        evaluate_s: Seconds spent in evaluations so far.
        loss: Loss of the last step over rank 0's rows; None where it is not finite.
    """

    at_s: float
    num_steps: int
    num_samples: int
    evaluate_s: float
    loss: float | None


class Checkpoint(Settings):
    """One checkpoint, written while the training clock was stopped.

    Attributes:
        num_updates: Optimizer updates of the whole run so far.
        seconds: From the end of the last step until all files were on disk and all ranks ready to continue; None when
            the process ended before it could report the time.
        num_bytes: Size of the checkpoint's files.
    """

    num_updates: int
    seconds: float | None
    num_bytes: int


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

    first_update: int
    num_updates: int
    started_at: datetime
    machine: str
    host: str | None
    torch_build: str
    start_s: float
    load_s: float
    restore_s: float | None
    checkpoints: Many[Checkpoint] = ()


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
    """

    world_size: int
    threads_per_rank: int
    global_batch_size: int
    lr_peak: float
    num_updates_planned: int
    stopped_early: str | None
    steps: Steps
    evaluations: Many[Evaluation]
    test: TestEvaluation | None
    peak_memory: Many[PeakMemory]
    example: Example
    torch_build: str
    held_bytes: Many[Many[int]] = ()
    memory_parts: MemoryParts | None = None
    attention_kernels: Many[str] = ()
    communication: Communication | None = None
    compile_s: float | None = None
    flops: FlopCount | None = None
    peak: CalibratedPeak | None = None
    pieces: Many[Segment] = ()
    mistakes: Many[Mistake] = ()
    kept: SavedWeights | None = None
    cpus: Many[Many[int]] = ()


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

    layer: int
    c: float
    c_values: Many[float]
    val_accuracies: Many[Many[float]]
    fit_s: float
    num_threads: int

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

    train_s: float
    num_fitted: int | None = None
    peak_memory: Many[PeakMemory]
    test: TestEvaluation
    val_accuracy: float
    val_macro_f1: float
    features: FeatureChoice | None = None
    ngrams: TfidfNgrams | None = None
