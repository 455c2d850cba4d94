"""Expand a study into its cells: all combinations of the matrix, minus `exclude`, plus `include`, plus baselines."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, TypeVar

from pydantic import ValidationError

from harness.errors import UserError
from harness.schema.cells import BaselineConfig, Cell, Device, FineTuneConfig, hash_config
from harness.schema.settings import (
    AXES,
    PACKAGED_DATA,
    SECTIONS,
    DataSettings,
    LimitSettings,
    ModelSettings,
    Settings,
    Study,
    TrainingSettings,
)
from harness.schema.study_file import format_validation_error

_MAX_VALUE_CHARS = 40  # limits a swept value in a cell's name, because that is also a folder name
_BATCH_AXES = frozenset({"batch_size", "global_batch_size"})
_DEFAULT_BATCH_SIZE = 16

Value = TypeVar("Value")

# The values of one cell: one for each axis and each swept `section.key`.
Assignment = Mapping[str, Any]


def expand(study: Study) -> list[Cell]:
    """List a study's runs by repeat, then by seed, so that drift of the machine affects every cell alike.

    Raises:
        UserError: When cells have contradictory settings; the message has one line for each contradiction.
    """
    _require_few_runs(study)
    problems: dict[str, None] = {}
    configs: dict[str, list[FineTuneConfig]] = {}
    tables: dict[tuple[object, ...], Settings] = {}
    for unsplit in _assignments(study):
        assignment = _split_global_batch(study, unsplit)
        name = _cell_name(assignment)
        try:
            seeds = _configure(study, assignment, tables)
        except ValidationError as error:
            problems |= dict.fromkeys(f"cell {name}: {line}" for line in format_validation_error(error, FineTuneConfig))
        else:
            problems |= dict.fromkeys(f"cell {name}: {line}" for line in _find_conflicts(seeds[0]))
            _add_configs(configs, name, seeds)
    if problems:
        raise UserError("\n".join([f"study {study.name}: contradictory cells", *(f"  {p}" for p in problems)]))
    cells: dict[tuple[str, int], Cell] = {}
    for cell in _in_order(study, configs):
        # An [[include]] may repeat a swept cell under another name: keep the first of the two.
        cells.setdefault((cell.config_hash, cell.repeat), cell)
    return list(cells.values())


def _require_few_runs(study: Study) -> None:
    """Count the runs before any is made: a study of 10^9 repeats would fill memory."""
    axes = [values for axis in AXES if (values := getattr(study.matrix, axis))]
    num_cells = math.prod(len(values) for values in (*axes, *study.sweeps.values())) + len(study.include)
    seeds = study.sweeps.get("training.seeds", ()) or (study.training.seeds,)
    num_runs = num_cells * study.repeats * max(len(values) for values in seeds)
    if num_runs > study.max_runs:
        raise UserError(
            f"study {study.name}: {num_runs:,} runs before [[exclude]], more than max_runs = {study.max_runs:,}; "
            f"if you mean them: --set max_runs={num_runs}"
        )


def _add_configs(configs: dict[str, list[FineTuneConfig]], name: str, seeds: list[FineTuneConfig]) -> None:
    known = configs.setdefault(name, seeds)
    if known == seeds:
        return
    if hash_config(known[0], ignore=("seed",)) == hash_config(seeds[0], ignore=("seed",)):
        configs[name] = known + seeds  # the same cell with more seeds; `expand` removes repeated seeds
    else:
        # Different cells have this name, since names leave out what folder names can't hold: append the hash.
        configs[f"{name}-{hash_config(seeds[0])[:6]}"] = seeds


def _in_order(study: Study, configs: Mapping[str, list[FineTuneConfig]]) -> Iterator[Cell]:
    most_seeds = max((len(seeds) for seeds in configs.values()), default=0)
    # Without accuracy there is nothing to compare with a baseline.
    baselines = _baselines(configs) if study.baselines and study.measure == "all" else {}
    for repeat in range(study.repeats):
        for name, baseline in baselines.items():
            yield Cell(study=study.name, name=name, repeat=repeat, config=baseline)
        for seed_index in range(most_seeds):
            for index, (name, seeds) in enumerate(configs.items()):
                if seed_index < len(seeds):
                    rung = index if study.ladder else None
                    yield Cell(study=study.name, name=name, repeat=repeat, config=seeds[seed_index], rung=rung)


def _baselines(configs: Mapping[str, list[FineTuneConfig]]) -> dict[str, BaselineConfig]:
    cells = [config for seeds in configs.values() for config in seeds]
    sources = list(dict.fromkeys(config.data for config in cells))
    limits = cells[0].limits if cells else LimitSettings()
    baselines: dict[str, BaselineConfig] = {}
    # More rows don't change the majority class: of sources that differ only in `num_train`, only the last gets that
    # baseline.
    last = {data.model_copy(update={"num_train": "all"}): index for index, data in enumerate(sources)}
    for index, data in enumerate(sources):
        suffix = "" if len(sources) == 1 else f"-data{index + 1}"
        for classifier in ("majority", "tfidf") if index in last.values() else ("tfidf",):
            baselines[f"baseline-{classifier}{suffix}"] = BaselineConfig(
                classifier=classifier, data=data, limits=limits
            )
        baselines |= _features_baselines(f"baseline-features{suffix}", [c for c in cells if c.data == data], limits)
    return baselines


def _features_baselines(name: str, cells: Sequence[FineTuneConfig], limits: LimitSettings) -> dict[str, BaselineConfig]:
    """Configure the baseline `features` for each pretrained model of the cells; random weights have no features.

    It sees as much of each text as any cell does, and computes on a GPU if all cells of its model do. A setting of attention
    or of the multiple of lengths that all cells share holds for it too; only a training chooses its attention.

    Args:
        name: The baseline's name; of several models, each appends its number.
        cells: The cells of one data source.
        limits: The limits of all baselines.
    """
    by_model: dict[str, list[FineTuneConfig]] = {}
    for cell in cells:
        if cell.model.init == "pretrained":
            by_model.setdefault(cell.model.name, []).append(cell)
    baselines = {}
    for index, (model, group) in enumerate(by_model.items()):
        baselines[name if len(by_model) == 1 else f"{name}-model{index + 1}"] = BaselineConfig(
            classifier="features",
            data=group[0].data,
            limits=limits,
            model=ModelSettings(
                name=model,
                num_layers=_largest(cell.model.num_layers for cell in group),
                attention=_common({cell.model.attention for cell in group} - {"auto"}, None),
            ),
            seq_len=max(cell.seq_len for cell in group),
            device="gpu" if all(cell.on_gpu for cell in group) else "cpu",
            threads=_largest(cell.threads for cell in group),
            allocator=group[0].training.allocator,
            pad_multiple=_common({cell.pad_multiple for cell in group}, 1),
        )
    return baselines


def _common(values: Set[Value], default: Value) -> Value:
    """Return the value that all share; the default if there are several."""
    return next(iter(values)) if len(values) == 1 else default


def _largest(values: Iterable[int | None]) -> int | None:
    """Return the largest value, where None stands for all that there is."""
    known = list(values)
    return None if None in known else max(value for value in known if value is not None)


def _assignments(study: Study) -> Iterator[Assignment]:
    """Yield the assignment of each cell; the cells of `include` come last."""
    axes: dict[str, tuple[Any, ...]] = {axis: getattr(study.matrix, axis) or (None,) for axis in AXES}
    if study.matrix.batch_size is None and study.matrix.global_batch_size is None:
        axes["batch_size"] = (_DEFAULT_BATCH_SIZE,)
    swept = axes | study.sweeps
    for values in itertools.product(*swept.values()):
        assignment = dict(zip(swept, values, strict=True))
        if not any(_matches(assignment, rule) for rule in study.exclude):
            yield assignment
    for row in study.include:
        defaults: dict[str, Any] = {axis: values[0] for axis, values in swept.items()}
        if _BATCH_AXES & row.keys():
            defaults |= dict.fromkeys(_BATCH_AXES)  # a batch axis of the row replaces both batch axes of the matrix
        yield defaults | row


def _split_global_batch(study: Study, assignment: Assignment) -> Assignment:
    """Replace a global batch size by the batch size per device, if the number of devices is known and divides it."""
    global_batch = assignment["global_batch_size"]
    ranks = Device.parse(assignment["device"]).num_ranks
    if global_batch is None or assignment["batch_size"] is not None or ranks is None:
        return assignment
    parts = ranks * assignment.get("training.grad_accum", study.training.grad_accum)
    if global_batch % parts != 0:
        return assignment
    return {**assignment, "batch_size": global_batch // parts, "global_batch_size": None}


def _matches(assignment: Assignment, rule: Mapping[str, tuple[Any, ...]]) -> bool:
    return bool(rule) and all(key in assignment and assignment[key] in values for key, values in rule.items())


def _configure(
    study: Study, assignment: Assignment, tables: dict[tuple[object, ...], Settings]
) -> list[FineTuneConfig]:
    """Build one configuration per seed; `tables` caches the settings that cells have in common."""
    sections: dict[str, Settings] = {}
    for name, kind in SECTIONS.items():
        swept = {key.partition(".")[2]: value for key, value in assignment.items() if key.startswith(f"{name}.")}
        key = (name, *swept.items())
        if key not in tables:
            own: Settings = getattr(study, name)
            tables[key] = kind.model_validate(own.model_dump() | swept) if swept else own
        sections[name] = tables[key]
    training = sections["training"]
    assert isinstance(training, TrainingSettings)  # noqa: S101 - tells mypy the type, which SECTIONS ensures
    axes = {axis: assignment[axis] for axis in AXES}
    return [
        FineTuneConfig.model_validate(axes | sections | {"seed": seed, "measure": study.measure})
        for seed in training.seeds
    ]


def _find_conflicts(config: FineTuneConfig) -> list[str]:
    model = config.model
    problems = []
    if model.shape is not None and model.init != "random":
        problems.append(f'model.shape: {model.shape!r} has no weights here; set model.init = "random"')
    if model.attention == "auto" and config.training.compile:
        problems.append(
            'model.attention: "auto" times steps without torch.compile; set sdpa or eager where training.compile = true'
        )
    return problems + _find_measure_conflicts(config) + _find_data_conflicts(config.data)


def _find_measure_conflicts(config: FineTuneConfig) -> list[str]:
    training = config.training
    if config.measure == "all":
        return [] if config.limits.until is None else [
            'limits.until: ends a training before its model is judged; set measure = "speed" too'
        ]  # fmt: skip
    kept = 'training.keep_model: keeps the model of the best validation; leave it out, or set measure = "all"'
    return [kept] if training.keep_model else []


def _find_data_conflicts(data: DataSettings) -> list[str]:
    problems = []
    if data.source == PACKAGED_DATA:
        keys = ("pair", "group_by", "time_by", "stratify", "val_source", "test_source")
        problems += [
            f"data.{key}: the packaged reviews have no such column, and are split by film; name a source"
            for key in keys
            if getattr(data, key)
        ]
    elif data.label in (columns := data.text_columns) or data.label == data.pair:
        problems.append(f"data.label: found {data.label!r}; allowed: another column than data.text and data.pair")
    elif data.pair in columns:
        problems.append(f"data.pair: found {data.pair!r}; allowed: another column than data.text")
    split_keys = [key for key in ("group_by", "time_by", "stratify") if getattr(data, key)]
    if len(split_keys) > 1:
        problems.append(f"data.{split_keys[1]}: can't be combined with data.{split_keys[0]}")
    return problems


def _cell_name(assignment: Assignment) -> str:
    threads = f"-t{assignment['threads']}" if assignment["threads"] else ""
    multiple = f"-pad{assignment['pad_multiple']}" if assignment["pad_multiple"] != 1 else ""
    batch = f"b{assignment['batch_size']}" if assignment["batch_size"] else f"g{assignment['global_batch_size']}"
    name = (
        f"{batch}-s{assignment['seq_len']}-{assignment['precision']}-{assignment['device']}"
        f"-{assignment['padding']}{multiple}-{assignment['trainable']}{threads}"
    )
    for key, value in assignment.items():
        if "." in key and key != "training.seeds":  # the seed is part of the cell's label instead
            # Names show only the last part of a key: a test checks that no two tables share a key name.
            shown = f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
            name += f"-{key.partition('.')[2]}={re.sub(r'[^A-Za-z0-9._+]+', '_', shown).strip('_')[:_MAX_VALUE_CHARS]}"
    return name
