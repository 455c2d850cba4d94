"""Cells (one run of one configuration each), the hashes of their configurations, and their devices."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from harness.schema.settings import (
    Allocator,
    Count,
    DataSettings,
    DeviceKind,
    DeviceName,
    LimitSettings,
    Measure,
    ModelSettings,
    Padding,
    Precision,
    Seed,
    SeqLen,
    Settings,
    Trainable,
    TrainingSettings,
    padded_length,
)

Classifier = Literal["majority", "tfidf", "features"]

MIN_EVALUATION_BATCH = (
    32  # rows per device: evaluations keep no activations, so small training batches need not limit them
)

# Keys of each table that are excluded from the hash, because they don't change what is measured.
_NOT_HASHED: dict[str, tuple[str, ...]] = {
    "limits": ("timeout_s", "budget_minutes", "budget_usd", "wait_for_quiet_s", "quiet_below"),
    "training": ("seeds", "checkpoint_every_s"),
}
# Keys that newer versions added, each with the value that keeps the older behaviour. A key with this value is left out
# of the hash, so that older records keep their hashes.
_ADDED_LATER: dict[str, dict[str, object]] = {
    "model": {"attention": None},
    "data": {
        "pair": None,
        "on_bad_row": "stop",
        "clean_labels": False,
        "group_by": None,
        "time_by": None,
        "stratify": False,
        "val_source": None,
        "test_source": None,
    },
    "training": {
        "activation_checkpointing": False,
        "compile": False,
        "allocator": "system",
        "stop_at_target": False,
        "chunks": 1,
        "chunk_order": "shuffled",
        "keep_model": False,
    },
    "limits": {"memory_limit_gib": None, "until": None},
}
# The same for keys of the configuration itself, by its kind.
_ADDED_LATER_TO: dict[str, dict[str, object]] = {
    "fine_tune": {"global_batch_size": None, "pad_multiple": 1, "measure": "all"},
    "baseline": dict.fromkeys(("model", "seq_len", "device", "threads", "allocator")) | {"pad_multiple": 1},
}


@dataclass(frozen=True)
class Device:
    """A parsed device name such as `gpu-ddp4`, or `gpu-ddp8x2` for 8 ranks on each of 2 nodes.

    Attributes:
        num_ranks: Number of processes on all nodes, one per device; None for `gpu-ddp`, which uses every visible GPU.
        ddp: Whether DistributedDataParallel (DDP) is used; `cpu-ddp1` is a single rank with DDP.
        num_nodes: Number of machines that train together.
    """

    kind: DeviceKind
    num_ranks: int | None = 1
    ddp: bool = False
    num_nodes: int = 1

    @classmethod
    def parse(cls, name: str) -> Device:
        """Parse a device name that the study reader has checked."""
        kind, ddp, size = name.partition("-ddp")
        ranks, _, nodes = size.partition("x")
        num_nodes = int(nodes) if nodes else 1
        num_ranks = (num_nodes * int(ranks) if ranks else None) if ddp else 1
        return cls("cpu" if kind == "cpu" else "gpu", num_ranks, bool(ddp), num_nodes)

    @property
    def on_gpu(self) -> bool:
        """Return whether the device is a GPU."""
        return self.kind == "gpu"

    @property
    def ranks_per_node(self) -> int | None:
        """Return the number of processes on each node; None for `gpu-ddp`."""
        return None if self.num_ranks is None else self.num_ranks // self.num_nodes


class FineTuneConfig(Settings):
    """The configuration of a fine-tuning cell.

    Attributes:
        batch_size: Rows per device and micro-batch. None when `global_batch_size` can't be split evenly among
            devices, or when the number of devices depends on the machine.
        pad_multiple: Batches that are not padded to `seq_len` have a length that is a multiple of this, or `seq_len`.
        global_batch_size: Rows per optimizer update; None when `batch_size` is set.
        threads: CPU threads of the cell on each node; None for all usable cores.
        measure: What is measured besides speed and memory.
    """

    kind: Literal["fine_tune"] = "fine_tune"
    batch_size: Count | None
    global_batch_size: Count | None = None
    seq_len: SeqLen
    precision: Precision
    device: DeviceName
    padding: Padding
    pad_multiple: Count = 1
    trainable: Trainable
    threads: Count | None
    measure: Measure = "all"
    seed: Seed
    model: ModelSettings
    data: DataSettings
    training: TrainingSettings
    limits: LimitSettings

    @model_validator(mode="after")
    def _has_one_batch_size(self) -> Self:
        if (self.batch_size is None) == (self.global_batch_size is None):
            raise ValueError("either batch_size or global_batch_size")
        return self

    @property
    def on_gpu(self) -> bool:
        """Return whether the cell computes on GPUs."""
        return Device.parse(self.device).on_gpu

    @property
    def num_nodes(self) -> int:
        """Return the number of machines that train together."""
        return Device.parse(self.device).num_nodes

    @property
    def is_judged(self) -> bool:
        """Return whether the cell's model is validated and tested: random weights, and cells of speed alone, are not."""
        return self.model.init == "pretrained" and self.measure == "all"

    @property
    def named_batch_size(self) -> int:
        """Return the batch size that the cell's name shows: per device, or global when `batch_size` is None."""
        return self.batch_size or self.global_batch_size or 0

    def padded_length(self, longest: int) -> int:
        """Return the number of tokens that each row of a batch is padded to, if its longest row has `longest`."""
        return self.seq_len if self.padding == "max" else padded_length(longest, self.pad_multiple, self.seq_len)

    def global_batch(self, world_size: int) -> int:
        """Return the rows per optimizer update, over all devices and micro-batches."""
        return self.global_batch_size or (self.batch_size or 0) * self.training.grad_accum * world_size

    def device_batch(self, world_size: int) -> int:
        """Return the maximum number of rows in one micro-batch of one device."""
        return self.batch_size or -(-(self.global_batch_size or 0) // (self.training.grad_accum * world_size))


class BaselineConfig(Settings):
    """The configuration of a baseline.

    Attributes:
        classifier: `majority`: the most common class; `tfidf`: TF-IDF with logistic regression; `features`: logistic
            regression on the hidden states of the frozen encoder.
        model: The encoder of `features`; None for other classifiers, like the keys below.
        seq_len: Maximum tokens per row, special tokens included.
        device: Where the encoder computes.
        threads: CPU threads of the encoder; None for all usable cores.
        pad_multiple: The encoder's batches have a length that is a multiple of this, or `seq_len`.
    """

    kind: Literal["baseline"] = "baseline"
    classifier: Classifier
    data: DataSettings
    limits: LimitSettings
    model: ModelSettings | None = None
    seq_len: SeqLen | None = None
    device: DeviceKind | None = None
    threads: Count | None = None
    allocator: Allocator | None = None
    pad_multiple: Count = 1

    @model_validator(mode="after")
    def _has_an_encoder_if_it_needs_one(self) -> Self:
        if self.classifier == "features" and (self.model is None or self.seq_len is None):
            raise ValueError("the baseline `features` with a model and a seq_len")
        return self

    @property
    def on_gpu(self) -> bool:
        """Return whether the baseline computes on a GPU, which only `features` can."""
        return self.device == "gpu"

    @property
    def num_nodes(self) -> int:
        """Return 1: a baseline runs on one machine."""
        return 1


Config = Annotated[FineTuneConfig | BaselineConfig, Field(discriminator="kind")]


class Cell(Settings):
    """One run of one configuration.

    Attributes:
        name: Name of the configuration without seed and repeat; the folder of the cell's records has this name.
        repeat: Index of the run among equal runs of one seed.
        rung: Index of the configuration in a ladder study; None elsewhere.
    """

    study: str
    name: str
    repeat: int
    config: Config
    rung: int | None = None

    @property
    def config_hash(self) -> str:
        """Return the hash of the configuration, which includes the seed and excludes the repeat."""
        return hash_config(self.config)

    @property
    def label(self) -> str:
        """Return the name, followed by the seed and the repeat if these are not 0."""
        seed = self.config.seed if isinstance(self.config, FineTuneConfig) else 0
        return self.name + (f" seed {seed}" if seed else "") + (f" repeat {self.repeat}" if self.repeat else "")


def hash_config(config: FineTuneConfig | BaselineConfig, *, ignore: Iterable[str] = ()) -> str:
    """Hash the parts of a configuration that affect what is measured; return 12 hex digits of SHA-256.

    Args:
        config: The configuration.
        ignore: Further keys to leave out, e.g. `seed` to group the runs of a cell, or `training.lr`.
    """
    return _hash_config(config, frozenset(ignore))


@functools.lru_cache(maxsize=2**14)  # because a report hashes every record and cell several times
def _hash_config(config: FineTuneConfig | BaselineConfig, ignore: frozenset[str]) -> str:
    nested = tuple(sorted(key for key in ignore if "." in key))
    added_later = _ADDED_LATER_TO[config.kind]
    parts = {}
    for key in type(config).model_fields:
        value = getattr(config, key)
        if key in ignore or (key in added_later and value == added_later[key]):
            continue
        parts[key] = _table_json(key, value, nested) if isinstance(value, Settings) else json.dumps(value)
    # The same text as json.dumps(..., sort_keys=True), but made from the tables' cached JSON, which is faster.
    text = "{" + ", ".join(f'"{key}": {parts[key]}' for key in sorted(parts)) + "}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@functools.lru_cache(maxsize=1024)  # because most cells of a study share their tables
def _table_json(name: str, table: Settings, ignore: tuple[str, ...]) -> str:
    """Render the hashed keys of one table as JSON."""
    excluded = {*_NOT_HASHED.get(name, ())}
    excluded |= {key.partition(".")[2] for key in ignore if key.partition(".")[0] == name}
    fields = {key: value for key, value in table.model_dump(mode="json").items() if key not in excluded}
    for key, default in _ADDED_LATER.get(name, {}).items():
        if fields.get(key, default) == default:
            fields.pop(key, None)
    return json.dumps(fields, sort_keys=True)


@functools.lru_cache(maxsize=2**14)  # because charts and tables flatten every configuration many times
def flat_config(config: FineTuneConfig | BaselineConfig) -> Mapping[str, object]:
    """Return a configuration as a flat mapping from each axis and `section.key` to its value, in field order."""
    flat: dict[str, object] = {}
    for key, value in config.model_dump(mode="json").items():
        flat |= {f"{key}.{name}": part for name, part in value.items()} if isinstance(value, dict) else {key: value}
    return flat
