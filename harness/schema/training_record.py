"""The parts of a record that training and evaluation measured."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Literal

from harness.schema.diagnostics_record import CalibratedPeak, Communication, FlopCount, MemoryParts
from harness.schema.inputs_record import Example
from harness.schema.scores import accuracy, macro_f1_of_pairs
from harness.schema.settings import Settings

LONGEST_TEXT = 300  # characters of a mistake's text in a record
PROBABILITY_DIGITS = 4  # decimal places of probabilities in a record

# rss: the kernel's VmHWM. control_group: the group's peak, shared pages counted once. pss: proportional set size,
# sampled.
MemorySource = Literal["rss", "cuda_allocated", "cuda_reserved", "nvml_process", "control_group", "pss"]


class Phases(Settings):
    """Seconds of each phase; None when the run did not reach it.

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
    """Every optimizer step in order; counts cover all ranks together. Each tuple has the length `num_steps`.

    Attributes:
        seconds: Seconds of each step, batch preparation included, evaluations excluded: `(world_size, num_steps)`.
        num_samples: Rows.
        num_real_tokens: Tokens without padding.
        num_padded_tokens: Tokens with padding, as computed.
        loss: Mean loss over the step's rows, before its update; None where it is not finite.
        clock: The instrument of `seconds`.
        num_skipped: Number of updates that the fp16 gradient scaler skipped.
        num_token_pairs: Sum of each row's padded length squared: the token pairs of attention. Empty in older records.
    """

    seconds: tuple[tuple[float, ...], ...]
    num_samples: tuple[int, ...]
    num_real_tokens: tuple[int, ...]
    num_padded_tokens: tuple[int, ...]
    loss: tuple[float | None, ...]
    clock: Literal["perf_counter", "cuda_events"]
    num_skipped: int = 0
    num_token_pairs: tuple[int, ...] = ()


class Evaluation(Settings):
    """One validation.

    Attributes:
        train_s: The training clock at this moment, in seconds.
        num_samples_seen: Rows trained on so far, repetitions included.
        num_updates: Optimizer updates so far.
        accuracy: Validation accuracy from 0 to 1.
        macro_f1: Validation macro F1 from 0 to 1.
        evaluate_s: Seconds of this validation.
        chunk: The chunk of training rows just finished, from 1; None between chunks and without chunks.
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

    __test__ = False  # not a pytest class

    evaluate_s: float
    labels: tuple[int, ...]
    predictions: tuple[int, ...]
    probabilities: tuple[float, ...] = ()

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
    """The saved model, which is also the one that the test evaluation used.

    Attributes:
        num_updates: Optimizer updates when its weights were saved.
        sha256: Hash of the weights file; identifies its folder under results/models.
        num_bytes: Size of the weights file.
        keep_s: Seconds for writing weights at each best validation and for reading the best ones back before the test
            evaluation; in no other figure.
    """

    num_updates: int
    sha256: str
    num_bytes: int
    keep_s: float


class ProgressMark(Settings):
    """Progress at a message from rank 0, by the parent's clock, which is independent of the measured process.

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
        first_update: Optimizer updates of the segments before.
        num_updates: Updates of this segment, without those lost after its last checkpoint.
        machine: `Machine.id` of the computer it ran on.
        host: `Machine.host` of that computer.
        torch_build: `torch.__version__`.
        start_s: As `Phases.start_s`.
        load_s: As `Phases.load_s`, reading the checkpoint included.
        restore_s: Seconds of `load_s` for reading the checkpoint; None for the first segment.
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
    checkpoints: tuple[Checkpoint, ...] = ()


class Training(Settings):
    """The measurements of a fine-tuning run.

    Attributes:
        threads_per_rank: CPU threads of each rank.
        global_batch_size: Rows per optimizer update, over all ranks and micro-batches.
        lr_peak: Peak learning rate after `lr_scaling`.
        num_updates_planned: Optimizer updates of the full schedule.
        stopped_early: Why training ended before its planned updates; None when it did not.
        test: None with random weights, or when training diverged.
        torch_build: `torch.__version__`.
        held_bytes: Memory after each step: resident set, or allocated bytes on a GPU: `(world_size, num_steps)`.
        memory_parts: None when it was not measured.
        attention_kernels: Operators that computed attention, e.g. `_scaled_dot_product_flash_attention_for_cpu`.
        communication: None when it was not measured, as with a single rank.
        compile_s: Seconds of torch.compile, in none of the steps; None without torch.compile.
        flops: None when it was not measured: the cell diverged or came near its memory cap.
        peak: None when it was not measured, as `flops`.
        pieces: Segments of a training by `harness train`; empty for a run without interruptions. Steps, evaluations,
            memory peaks and training seconds cover all segments; the record's fields outside `training` describe the
            last one.
        mistakes: The most confident first; empty with `store_texts = false`.
        kept: The saved model; None when saving was not requested or failed.
    """

    world_size: int
    threads_per_rank: int
    global_batch_size: int
    lr_peak: float
    num_updates_planned: int
    stopped_early: str | None
    steps: Steps
    evaluations: tuple[Evaluation, ...]
    test: TestEvaluation | None
    peak_memory: tuple[PeakMemory, ...]
    example: Example
    torch_build: str
    held_bytes: tuple[tuple[int, ...], ...] = ()
    memory_parts: MemoryParts | None = None
    attention_kernels: tuple[str, ...] = ()
    communication: Communication | None = None
    compile_s: float | None = None
    flops: FlopCount | None = None
    peak: CalibratedPeak | None = None
    pieces: tuple[Segment, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    kept: SavedWeights | None = None


class Baseline(Settings):
    """The measurements of a baseline.

    Attributes:
        train_s: Seconds of fitting, feature extraction included.
        num_fitted: Training rows used; None in older records, which used all of them.
        val_accuracy: Validation accuracy from 0 to 1.
        val_macro_f1: Validation macro F1 from 0 to 1.
    """

    train_s: float
    num_fitted: int | None = None
    peak_memory: tuple[PeakMemory, ...]
    test: TestEvaluation
    val_accuracy: float
    val_macro_f1: float
