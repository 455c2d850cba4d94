"""A study's cells and their names (pure)."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from harness.errors import UserError
from harness.schema.settings import (
    AXES,
    PACKAGED_DATA,
    SECTIONS,
    Count,
    DataSettings,
    DeviceKind,
    DeviceName,
    LimitSettings,
    ModelSettings,
    Padding,
    Precision,
    SeqLen,
    Settings,
    Study,
    Trainable,
    TrainingSettings,
)
from harness.schema.study_file import format_validation_error

_SHOWN_SIGNS = 40  # of a swept value in a cell's name, which is a folder's
# These say when to stop or to keep what there is, not what is measured: a change of one makes no record stale.
_NOT_HASHED: dict[str, tuple[str, ...]] = {
    "limits": ("timeout_s", "budget_minutes", "budget_usd"),
    "training": ("seeds", "checkpoint_every_s"),
}
# Settings that came later, each with the value that is as if it had not been there: older records keep their hash.
_SINCE: dict[str, dict[str, Any]] = {
    "data": {
        "pair": None,
        "on_bad_row": "stop",
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
    "limits": {"memory_limit_gib": None},
}
_BATCHES = frozenset({"batch_size", "global_batch_size"})
DEFAULT_BATCH_SIZE = 16


@dataclass(frozen=True)
class Device:
    """A parsed device name such as `gpu-ddp4`.

    Attributes:
        num_ranks: Processes, one a device; None for `gpu-ddp`, which uses every visible GPU.
        ddp: Whether ranks are joined by DDP; `cpu-ddp1` is one rank with DDP.
    """

    kind: DeviceKind
    num_ranks: int | None = 1
    ddp: bool = False

    @classmethod
    def parse(cls, name: str) -> Device:
        """Parse a device name that the study reader has checked."""
        kind, ddp, ranks = name.partition("-ddp")
        num_ranks = (int(ranks) if ranks else None) if ddp else 1
        return cls("cpu" if kind == "cpu" else "gpu", num_ranks, bool(ddp))

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.kind == "gpu"


class FineTuneConfig(Settings):
    """All that a fine-tuning cell depends on.

    Attributes:
        batch_size: Examples a device and micro-batch; None where `global_batch_size` can't be shared out evenly, or
            among a number of devices that only the machine knows.
        threads: None for all usable cores.
    """

    kind: Literal["fine_tune"] = "fine_tune"
    batch_size: Count | None
    global_batch_size: Count | None = None
    seq_len: SeqLen
    precision: Precision
    device: DeviceName
    padding: Padding
    trainable: Trainable
    threads: Count | None
    seed: int
    model: ModelSettings
    data: DataSettings
    training: TrainingSettings
    limits: LimitSettings

    @model_validator(mode="after")
    def _one_batch(self) -> Self:
        if (self.batch_size is None) == (self.global_batch_size is None):
            raise ValueError("either batch_size or global_batch_size")
        return self

    @property
    def on_gpu(self) -> bool:
        """Whether the cell computes on GPUs."""
        return Device.parse(self.device).on_gpu

    @property
    def nominal_batch(self) -> int:
        """The batch as the cell's name has it: a device's, or the global one where no device's is told."""
        return self.batch_size or self.global_batch_size or 0

    def global_batch(self, world_size: int) -> int:
        """Examples an update, over all devices and micro-batches."""
        return self.global_batch_size or (self.batch_size or 0) * self.training.grad_accum * world_size

    def device_batch(self, world_size: int) -> int:
        """Most examples of one device and micro-batch."""
        return self.batch_size or -(-(self.global_batch_size or 0) // (self.training.grad_accum * world_size))


class BaselineConfig(Settings):
    """All that a baseline depends on."""

    kind: Literal["baseline"] = "baseline"
    classifier: Literal["majority", "tfidf"]
    data: DataSettings
    limits: LimitSettings

    @property
    def on_gpu(self) -> bool:
        """False: baselines run on the CPU."""
        return False


Config = Annotated[FineTuneConfig | BaselineConfig, Field(discriminator="kind")]


class Cell(Settings):
    """One run of one configuration.

    Attributes:
        name: Stands for the configuration without seed and repeat; the folder of its records.
        repeat: From 0; runs of one seed differ in nothing else.
        rung: Place among a ladder's cells, from 0; None elsewhere.
    """

    study: str
    name: str
    repeat: int
    config: Config
    rung: int | None = None

    @property
    def config_hash(self) -> str:
        """12 hex digits of SHA-256 over the configuration that is measured, seed included, repeat left out."""
        return hash_config(self.config)

    @property
    def label(self) -> str:
        """The name, with seed and repeat where they tell runs apart."""
        seed = self.config.seed if isinstance(self.config, FineTuneConfig) else 0
        return self.name + (f" seed {seed}" if seed else "") + (f" repeat {self.repeat}" if self.repeat else "")


def hash_config(config: FineTuneConfig | BaselineConfig, *, ignore: Iterable[str] = ()) -> str:
    """Hash what a configuration measures; `ignore` names more keys to leave out (`seed`, to group runs; `training.lr`)."""
    return _hash_config(config, frozenset(ignore))


@functools.lru_cache(maxsize=2**14)  # a report asks for each record's and each cell's, in several ways
def _hash_config(config: FineTuneConfig | BaselineConfig, left_out: frozenset[str]) -> str:
    inside = tuple(sorted(key for key in left_out if "." in key))
    parts = {}
    for key in type(config).model_fields:
        value = getattr(config, key)
        if key in left_out or (key == "global_batch_size" and value is None):
            continue
        parts[key] = _table_json(key, value, inside) if isinstance(value, Settings) else json.dumps(value)
    # As json.dumps would have it, with sorted keys.
    text = "{" + ", ".join(f'"{key}": {parts[key]}' for key in sorted(parts)) + "}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@functools.lru_cache(maxsize=1024)  # most cells of a study share their tables
def _table_json(name: str, table: Settings, ignore: tuple[str, ...]) -> str:
    """One table of a configuration as its hash sees it."""
    left_out = {*_NOT_HASHED.get(name, ())}
    left_out |= {key.partition(".")[2] for key in ignore if key.partition(".")[0] == name}
    fields = {key: value for key, value in table.model_dump(mode="json").items() if key not in left_out}
    for key, absent in _SINCE.get(name, {}).items():
        if fields.get(key, absent) == absent:
            fields.pop(key, None)
    return json.dumps(fields, sort_keys=True)


@functools.lru_cache(maxsize=2**14)  # charts and tables ask again and again for every cell's
def flat_config(config: FineTuneConfig | BaselineConfig) -> Mapping[str, Any]:
    """A configuration as axis or `section.key` -> value, in its own order."""
    flat: dict[str, Any] = {}
    for key, value in config.model_dump(mode="json").items():
        flat |= {f"{key}.{name}": part for name, part in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def expand(study: Study) -> list[Cell]:
    """List a study's runs: repeats outermost, then seeds, so that drift of the machine hits every cell alike.

    Raises:
        UserError: With every combination that makes no sense, one line each.
    """
    problems: dict[str, None] = {}
    configs: dict[str, list[FineTuneConfig]] = {}
    tables: dict[tuple[Any, ...], Settings] = {}
    for assignment in _assignments(study):
        assignment = _split_global_batch(study, assignment)
        name = _cell_name(assignment)
        try:
            seeds = _configure(study, assignment, tables)
        except ValidationError as error:
            problems |= dict.fromkeys(f"cell {name}: {line}" for line in format_validation_error(error, FineTuneConfig))
        else:
            problems |= dict.fromkeys(f"cell {name}: {line}" for line in _find_conflicts(seeds[0]))
            known = configs.setdefault(name, seeds)
            if known == seeds:
                continue
            if hash_config(known[0], ignore=("seed",)) == hash_config(seeds[0], ignore=("seed",)):
                configs[name] = known + seeds  # one cell, on more seeds; those said twice are measured once
            else:
                # Only signs that no folder's name holds tell them apart.
                configs[f"{name}-{hash_config(seeds[0])[:6]}"] = seeds
    if problems:
        raise UserError("\n".join([f"study {study.name}: cells that make no sense", *(f"  {p}" for p in problems)]))
    cells: dict[tuple[str, str, int], Cell] = {}
    for cell in _in_order(study, configs):
        # Two names may stand for one measurement (an [[include]] that repeats a swept cell): the first is kept.
        cells.setdefault((cell.config_hash, "", cell.repeat), cell)
    return list(cells.values())


def _in_order(study: Study, configs: Mapping[str, list[FineTuneConfig]]) -> Iterator[Cell]:
    most_seeds = max((len(seeds) for seeds in configs.values()), default=0)
    baselines = _baselines(configs) if study.baselines else {}
    for repeat in range(study.repeats):
        for name, baseline in baselines.items():
            yield Cell(study=study.name, name=name, repeat=repeat, config=baseline)
        for turn in range(most_seeds):
            for place, (name, seeds) in enumerate(configs.items()):
                if turn < len(seeds):
                    rung = place if study.ladder else None
                    yield Cell(study=study.name, name=name, repeat=repeat, config=seeds[turn], rung=rung)


def _baselines(configs: Mapping[str, list[FineTuneConfig]]) -> dict[str, BaselineConfig]:
    sources = list(dict.fromkeys(config.data for seeds in configs.values() for config in seeds))
    limits = next((seeds[0].limits for seeds in configs.values()), LimitSettings())
    named: dict[str, BaselineConfig] = {}
    # More rows do not make the commonest label another: of sources that differ in their number the last has its baseline.
    last = {data.model_copy(update={"num_train": "all"}): index for index, data in enumerate(sources)}
    for index, data in enumerate(sources):
        suffix = "" if len(sources) == 1 else f"-data{index + 1}"
        for classifier in ("majority", "tfidf") if index in last.values() else ("tfidf",):
            named[f"baseline-{classifier}{suffix}"] = BaselineConfig(
                classifier=classifier,
                data=data,
                limits=limits,
            )
    return named


def _assignments(study: Study) -> Iterator[dict[str, Any]]:
    """Each cell's value on every axis, then the sweeps it names."""
    axes: dict[str, tuple[Any, ...]] = {axis: getattr(study.matrix, axis) or (None,) for axis in AXES}
    if study.matrix.batch_size is None and study.matrix.global_batch_size is None:
        axes["batch_size"] = (DEFAULT_BATCH_SIZE,)
    swept = axes | study.sweeps
    for values in itertools.product(*swept.values()):
        assignment = dict(zip(swept, values, strict=True))
        if not any(_matches(assignment, rule) for rule in study.exclude):
            yield assignment
    for row in study.include:
        unsaid: dict[str, Any] = {axis: values[0] for axis, values in swept.items()}
        if _BATCHES & row.keys():
            unsaid |= dict.fromkeys(_BATCHES)  # a row's own way of saying its batch replaces the matrix's
        yield unsaid | row


def _split_global_batch(study: Study, assignment: dict[str, Any]) -> dict[str, Any]:
    """Say a global batch as each device's, where the number of devices is told and divides it."""
    whole = assignment["global_batch_size"]
    ranks = Device.parse(assignment["device"]).num_ranks
    if whole is None or assignment["batch_size"] is not None or ranks is None:
        return assignment
    parts = ranks * assignment.get("training.grad_accum", study.training.grad_accum)
    return assignment | ({"batch_size": whole // parts, "global_batch_size": None} if whole % parts == 0 else {})


def _matches(assignment: Mapping[str, Any], rule: Mapping[str, tuple[Any, ...]]) -> bool:
    return bool(rule) and all(key in assignment and assignment[key] in values for key, values in rule.items())


def _configure(
    study: Study, assignment: Mapping[str, Any], tables: dict[tuple[Any, ...], Settings]
) -> list[FineTuneConfig]:
    """One configuration a seed; `tables` keeps what other cells have of their settings in common."""
    sections: dict[str, Settings] = {}
    for name, kind in SECTIONS.items():
        swept = {key.partition(".")[2]: value for key, value in assignment.items() if key.startswith(f"{name}.")}
        key = (name, *swept.items())
        if key not in tables:
            own: Settings = getattr(study, name)
            tables[key] = kind.model_validate(own.model_dump() | swept) if swept else own
        sections[name] = tables[key]
    training = sections["training"]
    assert isinstance(training, TrainingSettings)  # noqa: S101 - made above
    axes = {axis: assignment[axis] for axis in AXES}
    return [FineTuneConfig.model_validate(axes | sections | {"seed": seed}) for seed in training.seeds]


def _find_conflicts(config: FineTuneConfig) -> list[str]:
    model = config.model
    problems = []
    if model.shape is not None and model.init != "random":
        problems.append(f'model.shape: {model.shape!r} has no weights here; set model.init = "random"')
    return problems + _find_data_conflicts(config.data)


def _find_data_conflicts(data: DataSettings) -> list[str]:
    problems = []
    if data.source == PACKAGED_DATA:
        keys = ("pair", "group_by", "time_by", "stratify", "val_source", "test_source")
        said = [key for key in keys if getattr(data, key)]
        problems += [
            f"data.{key}: the packaged reviews have no such column, and are split by film; name a source"
            for key in said
        ]
    elif data.label in (columns := data.text_columns) or data.label == data.pair:
        problems.append(f"data.label: found {data.label!r}; allowed: another column than data.text and data.pair")
    elif data.pair in columns:
        problems.append(f"data.pair: found {data.pair!r}; allowed: another column than data.text")
    ways = [key for key in ("group_by", "time_by", "stratify") if getattr(data, key)]
    if len(ways) > 1:
        problems.append(f"data.{ways[1]}: allowed without data.{ways[0]}: rows are split in one way")
    return problems


def _cell_name(assignment: Mapping[str, Any]) -> str:
    threads = f"-t{assignment['threads']}" if assignment["threads"] else ""
    batch = f"b{assignment['batch_size']}" if assignment["batch_size"] else f"g{assignment['global_batch_size']}"
    name = (
        f"{batch}-s{assignment['seq_len']}-{assignment['precision']}-{assignment['device']}"
        f"-{assignment['padding']}-{assignment['trainable']}{threads}"
    )
    for key, value in assignment.items():
        if "." in key and key != "training.seeds":  # a run's own seed is on its label
            # The last part tells a key: no two tables share one (a test holds this).
            shown = f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
            name += f"-{key.partition('.')[2]}={re.sub(r'[^A-Za-z0-9._+]+', '_', shown).strip('_')[:_SHOWN_SIGNS]}"
    return name
