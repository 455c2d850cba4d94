"""The schema of a record: what one run of one cell left behind.

History of `SCHEMA_VERSION` (frozen records of each are in tests/fixtures/records; older ones are upgraded on reading):
    1: first.
    2: where the memory went, who else held it and whether it grew; caps; GPU readings; exposed communication; compile
        and activation checkpointing; a global batch that no device's batch tells.
    3: what the cloud's metadata service said of the machine; joules by counters.
    4: FLOPs of a counted step and the machine's peak beside it; what disturbed the machine; a ladder's rungs.
"""

from __future__ import annotations

import json
import operator
import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from typing import Any, Literal

from pydantic import Field, ValidationError

from harness.matrix import Config
from harness.settings import Precision, Settings

SCHEMA_VERSION = 4

# Raised by hand when a change of the measuring code could move a figure: older records become stale.
# 2: DDP no longer broadcasts buffers; a process's resident set is read between steps.
MEASURING_VERSION = 2

Outcome = Literal["ok", "oom", "timeout", "crashed", "diverged", "unsupported", "skipped", "interrupted", "preempted"]
# An outcome that measuring again would repeat; the others are run anew.
FINISHED: frozenset[str] = frozenset({"ok", "oom", "timeout", "diverged", "unsupported"})
# rss: the kernel's VmHWM; control_group: its peak, shared pages counted once; pss: proportional set size, sampled.
MemorySource = Literal["rss", "cuda_allocated", "cuda_reserved", "nvml_process", "control_group", "pss"]
CapMethod = Literal["control_group_v1", "control_group_v2", "rlimit_data", "cuda_fraction"]
# Of probabilities in a record.
PROBABILITY_DIGITS = 4


class Cpu(Settings):
    """The processor as this process may use it.

    Attributes:
        flags: Those that decide what arithmetic runs fast (see machine.py), sorted.
        num_usable: Logical CPUs left by affinity and the control group's quota.
    """

    model: str
    flags: tuple[str, ...]
    num_logical: int
    num_physical: int | None
    num_usable: int


class Gpu(Settings):
    """One GPU as NVML sees it; None where NVML gives no answer."""

    name: str
    memory_bytes: int | None
    compute_capability: tuple[int, int] | None
    driver: str | None
    cuda_driver: str | None
    power_limit_watts: float | None
    max_sm_clock_mhz: int | None
    max_memory_clock_mhz: int | None
    mig: bool | None
    ecc: bool | None
    persistence: bool | None


class GpuLink(Settings):
    """What lies between two GPUs, by their indices among those seen; None where NVML gives no answer.

    Attributes:
        topology: In the words of `nvidia-smi topo -m`: PIX (one PCIe switch), PXB (several), PHB (a host bridge), NODE
            (within a NUMA node), SYS (between them).
        nvlink: Whether they reach each other over NVLink, directly or by a switch.
    """

    first: int
    second: int
    topology: str | None
    nvlink: bool | None


class Machine(Settings):
    """What a computer is, without what would name it.

    Attributes:
        id: Folder name: CPU model and flags, cores, memory and GPUs; equal on two hosts of one type.
        host: Salted hash of the operating system's machine id, telling hosts of one type apart; None if it has none.
        memory_limit_bytes: The control group's limit where it is below `memory_bytes`.
        cloud_product: The firmware's product name where the vendor is a cloud (on EC2 it is the instance type).
        gpu_note: Why `gpus` is empty, where a reason is known; or what limits those that are there.
        gpu_links: Of every two GPUs; none in records of schema version 1.
    """

    id: str
    host: str | None
    system: str
    kernel: str
    cpu: Cpu
    memory_bytes: int
    memory_limit_bytes: int | None
    swap_bytes: int
    gpus: tuple[Gpu, ...]
    gpu_note: str | None
    cloud_vendor: str | None
    cloud_product: str | None
    python: str
    allocator: str
    gpu_links: tuple[GpuLink, ...] = ()


class Stated(Settings):
    """What the user said of the machine: a fact about it, never a price."""

    instance: str
    region: str | None


class Detected(Settings):
    """What the cloud's metadata service said of the machine: its own instance, and nothing that names an account.

    Attributes:
        is_spot: Whether the cloud may take it away (spot, pre-emptible); None where it does not say.
    """

    vendor: Literal["aws", "gcp", "azure"]
    instance: str
    region: str | None
    is_spot: bool | None


class Git(Settings):
    """The harness's own checkout."""

    commit: str
    dirty: bool


class Holder(Settings):
    """Another process that held memory when the cell began; `gpu` is the GPU's index, None for main memory."""

    name: str
    num_bytes: int
    gpu: int | None


class Load(Settings):
    """The machine while the cell ran, in CPU seconds; None where the system gives no answer.

    Attributes:
        available_memory_bytes: Before the cell began.
        swap_used_bytes: Before the cell began.
        holders: Largest first, before the cell began; None where nobody looked.
        system_busy_s: All processes, over the cell's whole life.
        cell_s: The cell's processes.
        parent_s: The harness's own parent process.
        steal_s: Taken by the hypervisor.
        swapped_bytes: Read from and written to swap, by all processes.
        major_faults: Pages that any process had to wait for a disk to read.
        quota_periods, throttled_periods: Of the harness's control group: periods in which it ran, and in which its CPU
            quota was used up; None without a quota.
        thermal_throttles: How often the usable cores were slowed by their temperature.
        clock_mhz: Mean of the usable cores' clocks, every 5 s; none without readings.
    """

    available_memory_bytes: int
    system_busy_s: float | None
    cell_s: float | None
    parent_s: float
    steal_s: float | None
    swap_used_bytes: int | None = None
    holders: tuple[Holder, ...] | None = None
    swapped_bytes: int | None = None
    major_faults: int | None = None
    quota_periods: int | None = None
    throttled_periods: int | None = None
    thermal_throttles: int | None = None
    clock_mhz: tuple[float, ...] | None = None


class GpuReading(Settings):
    """What NVML told the parent of one GPU at one moment, about once a second; None where it gives no answer.

    Attributes:
        at_s: Since the cell was ordered.
        gpu: Index among the GPUs that the cell sees.
        used_bytes: Of all processes.
        throttle_reasons: NVML's names, e.g. `sw_power_cap`; idle is none.
    """

    at_s: float
    gpu: int
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    power_watts: float | None
    temperature_celsius: int | None
    used_bytes: int | None
    throttle_reasons: tuple[str, ...] | None


class Energy(Settings):
    """What counters of energy told from the order of a cell to the end of its test evaluation, or to its own end.

    They count whole devices: what other processes had of them is in it.

    Attributes:
        source: The instruments.
        seconds: Between the two readings.
        gpu_joules: Of each GPU that the cell uses.
        cpu_joules: Of each processor package, all its cores.
        dram_joules: Of each package's memory, where that is counted apart.
    """

    source: str
    seconds: float
    gpu_joules: tuple[float, ...] = ()
    cpu_joules: tuple[float, ...] = ()
    dram_joules: tuple[float, ...] = ()


class Cap(Settings):
    """The limit that a cell's memory was held under.

    Attributes:
        exact: False where the method counts something else than the pages that a smaller machine would have to hold.
        peak_bytes: Of the control group; None for the other methods.
        num_oom_kills: Of the control group's counter; None for the other methods.
    """

    limit_bytes: int
    method: CapMethod
    exact: bool
    peak_bytes: int | None
    num_oom_kills: int | None


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


class Kept(Settings):
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


class Mark(Settings):
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


class Piece(Settings):
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
    pieces: tuple[Piece, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    kept: Kept | None = None


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


class Record(Settings):
    """One run of one cell, self-contained.

    Attributes:
        rung: Of a study that is a ladder, the cell's place in it, from 0.
        stderr_tail: Last lines of each rank, scrubbed.
        marks: Kept of a cell that failed too: how far it came.
        cap: None where memory was not limited.
        held_bytes: Rank 0's after every step up to its last mark, of a cell that did not live to tell; where it did,
            `training` has those of every rank.
        detected: None where no metadata service was asked, or none answered.
        start_method: None when no process was started.
        energy: None where the machine has no counter that the harness may read.
        is_made_up: Nothing in it was measured: it serves a test, and a report of it says so across its page.
    """

    schema_version: int = SCHEMA_VERSION
    measuring_version: int = MEASURING_VERSION
    harness_version: str
    study: str
    cell: str
    repeat: int
    rung: int | None = None
    config: Config
    config_hash: str
    outcome: Outcome
    reason: str | None
    stderr_tail: tuple[tuple[str, ...], ...] = ()
    started_at: datetime
    duration_s: float
    phases: Phases
    git: Git | None
    packages: dict[str, str]
    machine: Machine
    stated: Stated | None
    detected: Detected | None = None
    load: Load | None
    start_method: Literal["forkserver", "spawn", "fresh"] | None
    model: ModelFacts | None = None
    data: DataFacts | None = None
    marks: tuple[Mark, ...] = ()
    cap: Cap | None = None
    gpu_readings: tuple[GpuReading, ...] = ()
    held_bytes: tuple[int, ...] = ()
    energy: Energy | None = None
    is_made_up: bool = False
    training: Training | None = None
    baseline: Baseline | None = None


def accuracy(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Share of examples whose prediction is their label."""
    if len(labels) != len(predictions):
        raise ValueError(f"{len(labels)} labels, {len(predictions)} predictions")
    # No line of Python for each example: a report asks thousands of records.
    num_right: int = sum(map(operator.eq, labels, predictions))
    return num_right / len(labels)


def macro_f1(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """F1 of each class that occurs among labels or predictions, averaged with equal weight."""
    return _macro_f1_of(Counter(zip(labels, predictions, strict=True)))


def _macro_f1_of(pairs: Counter[tuple[int, int]]) -> float:
    scores = []
    for label in sorted({*chain.from_iterable(pairs)}):
        hits = pairs[label, label]
        wrong = sum(count for pair, count in pairs.items() if label in pair) - hits
        scores.append(2 * hits / (2 * hits + wrong))
    return sum(scores) / len(scores)


def was_fitted_on_part(record: Record) -> bool:
    """Whether a baseline did not see all its training rows."""
    fitted = record.baseline.num_fitted if record.baseline else None
    return fitted is not None and record.data is not None and fitted < record.data.train.num_rows


def to_json(record: Record) -> str:
    """Render as indented JSON with sorted keys, each array of numbers on one line."""
    text = json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    # A raw line break stands outside every JSON string, so no text can match.
    return re.sub(r"\[\n([-\d.eE+,\s]+?)\n\s*\]", _on_one_line, text) + "\n"


def _on_one_line(array: re.Match[str]) -> str:
    return "[" + " ".join(array[1].split()) + "]"


def from_fields(fields: dict[str, Any]) -> Record:
    """Check a record's fields as read from JSON, upgrading older versions: what they do not hold was not measured.

    Raises:
        pydantic.ValidationError: When they are no record.
    """
    return Record.model_validate(fields | {"schema_version": SCHEMA_VERSION})


def whole_record(text: str | bytes) -> Record | None:
    """Read a record of this schema version in one go; None of all else, which `from_fields` can say more about."""
    try:
        record = Record.model_validate_json(text)
    except ValidationError:
        return None
    stated = "schema_version" in record.model_fields_set
    return record if stated and record.schema_version == SCHEMA_VERSION else None
