"""TODO: say in one line what this module is for."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Literal

from pydantic import Field

from harness.schema.scores import _macro_f1_of, accuracy
from harness.schema.settings import Precision, Settings

LONGEST_TEXT = 300


# rss: the kernel's VmHWM; control_group: its peak, shared pages counted once; pss: proportional set size, sampled.
MemorySource = Literal["rss", "cuda_allocated", "cuda_reserved", "nvml_process", "control_group", "pss"]


# Of probabilities in a record.
PROBABILITY_DIGITS = 4


class Phases(Settings):
    """Seconds of each phase; None: not reached.

    Attributes:
        start_s: From the parent's order to the cell's first line of code.
        load_s: Model and data to memory.
        first_step_s: From the parent's order to the end of the first training step.
        train_s: The training clock, which stands still during evaluations.
        evaluate_s: Validations during training, and looks at the test set after chunks.
        test_s: The one evaluation on the test set.
        tokenise_s: Tokenising the splits: done once before the first cell, and shared.
    """

    start_s: float | None = None
    load_s: float | None = None
    first_step_s: float | None = None
    train_s: float | None = None
    evaluate_s: float | None = None
    test_s: float | None = None
    tokenise_s: float | None = None


class ModelFacts(Settings):
    """The model that was trained.

    Attributes:
        sha256: Of the weights' file; None for random weights.
        checkpoint_dtype: Of the file's tensors, before they were loaded as fp32.
        attention: The attention implementation that ran.
    """

    name: str
    origin: Literal["packaged", "local", "hub", "random"]
    sha256: str | None
    architecture: str
    num_parameters: int
    num_trainable_parameters: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    vocab_size: int
    max_positions: int
    attention_dropout: float | None
    hidden_dropout: float | None
    checkpoint_dtype: str | None
    attention: str | None


class Split(Settings):
    """One split; sha256 is over its labels and texts in order, majority_fraction the commonest label's share."""

    num_rows: int
    sha256: str
    majority_fraction: float


class DataFacts(Settings):
    """The data that was used; counts are None in records that are older than the count.

    Attributes:
        sha256: Of the source's file; of several, over their hashes in order; None of the hub's.
        num_source_rows: Usable rows of the whole source, from which dollars for the whole dataset are estimated.
        num_train_available: Rows that the training split could have had.
        split_by: The column whose groups never cross splits, or by whose times they are parted; None: random rows.
        bad_rows: Rows that were left out, by what was wrong with them (`on_bad_row = "skip"`).
        num_conflicting_duplicates: Of the duplicates, those whose label was another than that of the row that was kept.
        num_leaks_dropped: Rows left out of a split because their text, or a row of their group, stands in the file that
            validates or tests.
        num_near_duplicates: Validation and test rows that nearly are a training row.
        num_near_checked: Rows of all splits that were looked at for that, at random where not all.
        rare_labels: Labels of which fewer than 10 rows train.
        tokens_were_kept: Tokens came from the cache; `tokenise_s` is what they took when they were made.
    """

    source: str
    sha256: str | None
    labels: tuple[str, ...]
    split_by: str | None
    num_source_rows: int
    num_duplicates_dropped: int
    num_train_available: int
    train: Split
    val: Split
    test: Split
    tokenizer_sha256: str | None = None
    truncated_fraction: float | None = None
    bad_rows: dict[str, int] = Field(default_factory=dict)
    num_conflicting_duplicates: int | None = None
    num_leaks_dropped: int | None = None
    num_near_duplicates: int | None = None
    num_near_checked: int | None = None
    rare_labels: tuple[str, ...] = ()
    tokens_were_kept: bool = False


class Example(Settings):
    """One training example as the model sees it; texts, tokens and ids are None with `store_texts = false`.

    Attributes:
        pair: The second segment, where rows have two.
        token_type_ids: Which segment each token is of, 0 or 1; None where rows have one.
    """

    label: str | None
    text: str | None
    tokens: tuple[str, ...] | None
    input_ids: tuple[int, ...] | None
    attention_mask: tuple[int, ...]
    pair: str | None = None
    token_type_ids: tuple[int, ...] | None = None


class PeakMemory(Settings):
    """One high-water mark from the start of training to its end; of all ranks together where `rank` is None."""

    rank: int | None
    source: MemorySource
    num_bytes: int


class Steps(Settings):
    """Every optimiser step in order, all ranks together unless named.

    Attributes:
        seconds: By rank, then step; batch preparation included, evaluations not. `(world_size, num_steps)`.
        num_samples: Examples.
        num_real_tokens: Without padding.
        num_padded_tokens: With padding: what was computed.
        num_token_pairs: Padded tokens that attention multiplied with each other: the sum of each row's padded length
            squared; none in older records.
        loss: Mean over the step's examples, before its update; None where it was no finite number.
        clock: How `seconds` were taken.
        num_skipped: fp16 updates that the gradient scaler skipped.
    """

    seconds: tuple[tuple[float, ...], ...]
    num_samples: tuple[int, ...]
    num_real_tokens: tuple[int, ...]
    num_padded_tokens: tuple[int, ...]
    loss: tuple[float | None, ...]
    clock: Literal["perf_counter", "cuda_events"]
    num_skipped: int = 0
    num_token_pairs: tuple[int, ...] = ()


class StepPeak(Settings):
    """The moment at which a step's own tensors held most: what is there beyond weights and optimiser state.

    Attributes:
        phase: `evaluation` where a batch of a validation holds more than a step.
        activations_bytes: Saved for the backward pass, and not yet used.
        workspace_bytes: All other tensors, what checkpointing computes again among them.
    """

    phase: Literal["forward", "backward", "evaluation"]
    activations_bytes: int
    gradients_bytes: int
    workspace_bytes: int

    @property
    def num_bytes(self) -> int:
        """All of it."""
        return self.activations_bytes + self.gradients_bytes + self.workspace_bytes


class MemoryParts(Settings):
    """What rank 0's memory was used for, counted in one step that is in no other figure.

    The step repeats the one with the most tokens. Bytes; on a GPU of its memory, else of main memory.

    Attributes:
        base_bytes: Held before the model was loaded: interpreter, torch and libraries, data; on a GPU the context.
        weights_bytes: Parameters and buffers.
        gradients_bytes: At the end of the backward pass, DDP's second copy among them.
        activations_bytes: Tensors that autograd saved for the backward pass, by kind of layer.
        num_samples: Of the step's largest micro-batch.
        num_padded_tokens: Of the same.
        libraries_bytes: Pages of shared libraries that were first touched after the base was read; None on a GPU.
        unread_weights_bytes: Of `weights_bytes`, what is mapped from the checkpoint's file and was never touched.
    """

    base_bytes: int | None
    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: dict[str, int]
    num_samples: int
    num_padded_tokens: int
    libraries_bytes: int | None
    unread_weights_bytes: int
    at_peak: StepPeak


class FlopCount(Settings):
    """Floating-point operations of one more step, as torch counted its operators; all ranks together.

    A multiply-add is two. The step is the whole one with the middle number of padded tokens, without its update.

    Attributes:
        by_operator: E.g. of `mm`, `addmm`, `bmm`. Of fused attention's backward pass 4 products, as of the plain one's:
            that it computes scores again is left out. What activation checkpointing computes again is in it.
        num_samples: Of that step, as are the other two.
    """

    by_operator: dict[str, int]
    num_samples: int
    num_padded_tokens: int
    num_token_pairs: int

    @property
    def num_flops(self) -> int:
        """Of all operators."""
        return sum(self.by_operator.values())


class CalibratedPeak(Settings):
    """What the cell's own threads or GPUs reached at best, by matrix products made in turns with steps, after training.

    Attributes:
        flop_per_s: Of the fastest product, at the cell's precision and threads; the sum over ranks, which multiply at once.
        shape: Of that product, rank 0's: rows, inner size, columns.
        num_shapes: How many products there was time for.
        seconds: Of all products.
        step_s: Of the steps between them, updates at a learning rate of 0; the step is that of `FlopCount`.
        copy_bytes_per_s: Read and written by the fastest copy of a large tensor, the sum over ranks; None in short runs.
    """

    precision: Precision
    flop_per_s: float
    shape: tuple[int, int, int]
    num_shapes: int
    seconds: float
    step_s: tuple[float, ...]
    copy_bytes_per_s: float | None


class Communication(Settings):
    """Forward and backward passes on one batch, in turns with and without all-reduce, after training; rank 0's clock."""

    sync_s: tuple[float, ...]
    no_sync_s: tuple[float, ...]


class Evaluation(Settings):
    """One look at the validation set.

    Attributes:
        evaluate_s: Of that look alone.
        chunk: The chunk of the training rows, from 1, that had just been trained on; None elsewhere.
        test_accuracy: After a chunk, on the test set, which decides nothing; None elsewhere.
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
    """The look at the test set when training is over: each example's true and predicted label, as indices into `DataFacts.labels`.

    Attributes:
        probabilities: What the model gave each predicted label, to 4 digits; none of baselines and in older records.
    """

    __test__ = False  # not a pytest class

    evaluate_s: float
    labels: tuple[int, ...]
    predictions: tuple[int, ...]
    probabilities: tuple[float, ...] = ()

    @property
    def accuracy(self) -> float:
        """Share of examples that were labelled right."""
        return accuracy(self.labels, self.predictions)

    @property
    def pairs(self) -> Counter[tuple[int, int]]:
        """How many examples each pair of a true and a predicted label has, of those that occur."""
        return Counter(zip(self.labels, self.predictions, strict=True))

    @property
    def macro_f1(self) -> float:
        """See `macro_f1`."""
        return _macro_f1_of(self.pairs)


class Mistake(Settings):
    """A test example that the model labelled wrong with much confidence; labels as in `TestEvaluation`.

    Attributes:
        row: Of the test split, from 0.
        probability: What the model gave the label that it predicted.
        text: Cut, see mistakes.py.
    """

    row: int
    label: int
    predicted: int
    probability: float
    text: str


class SavedWeights(Settings):
    """The model that was kept, which is the one that the test evaluation looked at.

    Attributes:
        num_updates: Done when its weights were written.
        sha256: Of the weights' file, by which its folder under results/models is found.
        keep_s: Of writing weights between steps, each time that a validation was the best, and of reading the best ones
            back before the test evaluation; in no other figure.
    """

    num_updates: int
    sha256: str
    num_bytes: int
    keep_s: float


class ProgressMark(Settings):
    """The parent's own clock at a message of rank 0: an instrument outside the measured process.

    Attributes:
        at_s: Since the cell was ordered.
        num_steps: Done by then.
        num_samples: Done by then.
        evaluate_s: Spent in evaluations by then.
        loss: Of the last step, over rank 0's examples.
    """

    at_s: float
    num_steps: int
    num_samples: int
    evaluate_s: float
    loss: float | None


class Checkpoint(Settings):
    """One that was written while the training clock stood still.

    Attributes:
        num_updates: Of the whole run, by then.
        seconds: From the last step's end until every file was on the disk and every rank ready to go on; None where the
            process was gone before it could say so.
    """

    num_updates: int
    seconds: float | None
    num_bytes: int


class Segment(Settings):
    """A part of a training that was done at one go; steps of a run belong to its pieces in order.

    Attributes:
        first_update: Updates of the pieces before it.
        num_updates: Its own. What it did after its last checkpoint and was lost with its process is in none.
        machine: See `Machine.id`.
        start_s, load_s: See `Phases`; reading the checkpoint is in the second.
        restore_s: Of that, the checkpoint; None of a run's first piece.
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
    """What a fine-tuning run measured.

    Attributes:
        stopped_early: Why training ended before its planned updates, or None.
        lr_peak: After `lr_scaling`.
        held_bytes: After every step, by rank: resident set, or allocated on a GPU. `(world_size, num_steps)`.
        attention_kernels: The operators that attention ran as, e.g. `_scaled_dot_product_flash_attention_for_cpu`.
        compile_s: Seconds of torch.compile, in none of the steps; None where it was not asked for.
        test: None when weights were random, or training diverged.
        flops: None where the cell came near its memory cap or diverged, as `peak`.
        pieces: Of a training by `harness train`; none of one that was done at one go. Steps, evaluations, peaks and training
            seconds are those of all of them; what the record says outside of `training` is its own piece's.
        mistakes: The most confident first; none where the study stores no texts.
        kept: None where none was asked for, or none could be written.
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
    """What a baseline measured; train_s covers fitting, features included.

    Attributes:
        num_fitted: Of the training rows; None in older records, where it was all of them.
    """

    train_s: float
    num_fitted: int | None = None
    peak_memory: tuple[PeakMemory, ...]
    test: TestEvaluation
    val_accuracy: float
    val_macro_f1: float
