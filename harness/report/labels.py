"""Names of cells, machines, prices and outcomes as the report shows them (pure)."""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from harness.analysis.estimate import MIN_RUNS
from harness.analysis.summary import CellKey
from harness.decision.differences import slice_words
from harness.pricing.cost import Priced
from harness.pricing.prices import Price
from harness.report.formatting import clean, listed, number, plural, times
from harness.schema.cells import BaselineConfig, Classifier, FineTuneConfig, flat_config
from harness.schema.host_record import Machine
from harness.schema.record import Record
from harness.schema.training_record import CLEAR_SPEED_UP, AttentionChoice

STUDY = "study"
OUTCOMES = {
    "ok": "measured",
    "oom": "out of memory",
    "timeout": "ran out of time",
    "crashed": "crashed",
    "diverged": "diverged",
    "unsupported": "unsupported here",
    "skipped": "skipped",
    "interrupted": "interrupted",
    "preempted": "pre-empted",
}

# Labels always show these settings, because a figure means little without them.
_ALWAYS = ("batch_size", "global_batch_size", "seq_len")
_FIRST = (*_ALWAYS, "precision", "device")
_AXES = (*_FIRST, "padding", "pad_multiple", "trainable", "threads")
# Labels never show these settings: they follow from others, have their own column (the runs), or only limit a run.
_HIDDEN = frozenset(
    {"training.seeds", "training.checkpoint_every_s", "data.store_texts"}
    | {
        f"limits.{key}"
        for key in ("timeout_s", "max_train_s", "budget_minutes", "budget_usd", "wait_for_quiet_s", "quiet_below")
    }
)
_BASELINES: dict[Classifier, str] = {
    "majority": "majority class",
    "tfidf": "TF-IDF with logistic regression",
    "features": "frozen encoder + logistic regression",
}
_SIZE_PHRASES = {
    "batch_size": "batch {}",
    "global_batch_size": "global batch {}",
    "seq_len": "{} tokens",
    "threads": "{} threads",
}
_PHRASES = _SIZE_PHRASES | {
    "limits.memory_limit_gib": "under a cap of {} GiB",
    "training.lr": "learning rate {}",
    "training.epochs": "{} epochs",
    "training.chunks": "in {} chunks",
    "training.chunk_order": "chunks in order of {}",
    "data.num_train": "{} training texts",
    "model.attention_dropout": "attention dropout {}",
    "model.hidden_dropout": "hidden dropout {}",
    "model.attention": "attention {}",
    "padding": "padded to {}",
    "pad_multiple": "lengths in multiples of {}",
    "trainable": "training {}",
}
_PADDING = {"longest": "the batch's longest", "max": "the maximum", "grouped": "the longest, grouped by length"}
_GROUP_NAMES = {
    "batch_size": "batch",
    "threads": "threads",
    "study": "study",
    "pad_multiple": "lengths in multiples of",
}
_GROUP_VALUES = {
    "max": "padded to the maximum",
    "longest": "padded to the longest",
    "grouped": "grouped by length",
    "all": "all layers",
    "head": "head only",
}
_MAX_LABEL = 60
_CPU_NAME_NOISE = re.compile(r"\((?:R|TM)\)|\bCPU\b|\b\d+-Core\b|\bProcessor\b|@ .*")


@functools.lru_cache(maxsize=2**14)  # every chart and table needs every configuration
def flat(config: FineTuneConfig | BaselineConfig) -> Mapping[str, Any]:
    """Flatten a configuration to values by axis or `section.key`, without keys that change no figure."""
    fields = flat_config(config)
    keys = [*(axis for axis in _AXES if axis in fields), *(key for key in fields if "." in key)]
    return {key: fields[key] for key in keys if key not in _HIDDEN}


def config_fields(cell: Priced) -> dict[str, Any]:
    """Return the settings that labels may show: the flat configuration and the study."""
    return {**flat(cell.summary.config), STUDY: cell.summary.study}


def common_values(cells: Iterable[Priced]) -> dict[str, str]:
    """Return the most common value of each key in which the fine-tuning cells differ; labels omit these values.

    Dotted keys that differ only between studies are left out: labels show the study's name instead.
    """
    fine_tuned = [cell for cell in cells if cell.summary.kind == "fine_tune"]
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for (key, value), count in Counter(chain.from_iterable(map(_field_items, fine_tuned))).items():
        counts[key][value] = count
    varied = {key: max(values, key=values.__getitem__) for key, values in counts.items() if len(values) > 1}
    per_study = {
        (cell.summary.study, key, value) for cell in fine_tuned for key, value in _field_items(cell) if key in varied
    }
    num_values = Counter((study, key) for study, key, _ in per_study)
    changing = {key for (_, key), count in num_values.items() if count > 1}
    fixed = {key for key in varied if "." in key and key not in changing}
    return {key: value for key, value in varied.items() if key not in fixed and (key != STUDY or fixed)}


def _field_items(cell: Priced) -> Iterable[tuple[str, str]]:
    """Return the items of `config_fields` with values as text."""
    return chain(_flat_items(cell.summary.config), [(STUDY, cell.summary.study)])


@functools.lru_cache(maxsize=2**14)
def _flat_items(config: FineTuneConfig | BaselineConfig) -> tuple[tuple[str, str], ...]:
    return tuple((key, str(value)) for key, value in flat(config).items())


def describe(cell: Priced, usual: Mapping[str, str]) -> str:
    """Describe a configuration: batch, tokens, precision, device, and every setting that differs from `usual`."""
    config = cell.summary.config
    if isinstance(config, BaselineConfig):
        return _BASELINES[config.classifier]
    fields = config_fields(cell)
    keys = [*_FIRST, *(key for key in usual if key not in _FIRST and str(fields[key]) != usual[key])]
    return ", ".join(_phrase(key, fields[key]) for key in keys if fields[key] is not None)


def plain_description(cell: Priced, usual: Mapping[str, str]) -> str:
    """Describe a configuration for a sentence: the device only if the machine's name does not say it."""
    config = cell.summary.config
    if isinstance(config, BaselineConfig):
        return _BASELINES[config.classifier]
    fields = config_fields(cell)
    precision = f" in {clean(str(fields['precision']), _MAX_LABEL)}"
    device = "" if config.device in ("cpu", "gpu") else f"on {clean(config.device, _MAX_LABEL)}"
    keys = [key for key in usual if key not in _FIRST and str(fields[key]) != usual[key] and fields[key] is not None]
    sizes = ", ".join(_phrase(key, fields[key]) for key in _ALWAYS if fields[key] is not None)
    return ", ".join(filter(None, (sizes + precision, device, *(_phrase(key, fields[key]) for key in keys))))


def difference(cell: Priced, other: Priced, usual: Mapping[str, str]) -> str:
    """Describe the settings in which a cell differs from another, among the keys of `usual`; empty if in none."""
    fields, others = config_fields(cell), config_fields(other)
    keys = [key for key in usual if fields[key] != others[key] and fields[key] is not None]
    return ", ".join(_phrase(key, fields[key]) for key in keys)


def _phrase(key: str, value: object) -> str:
    text = trained_words(str(value)) if key == "trainable" else _plain(value)
    if key == "padding":
        text = _PADDING.get(text, text)
    shown = clean(text, _MAX_LABEL)
    if key == STUDY:
        return f"as in study {shown}"
    return _PHRASES[key].format(shown) if key in _PHRASES else shown if key in _AXES else f"{_words(key)} {shown}"


def _words(key: str) -> str:
    """Write a setting's key as words."""
    return key.rpartition(".")[2].replace("_", " ")


def trained_words(trainable: str) -> str:
    """Describe which layers are trained."""
    last = trainable.removeprefix("top")
    if last == trainable:
        return {"all": "all layers", "head": "the head alone"}[trainable]
    return f"the last {'layer' if last == '1' else f'{last} layers'} and the head"


def attention_text(choices: Sequence[AttentionChoice]) -> str:
    """Describe the attention that runs chose by timed steps, and how much faster it was than the other.

    Args:
        choices: Choices of the same attention.
    """
    slowest, fastest = (pick(choice.speed_up for choice in choices) for pick in (min, max))
    name, other = choices[0].implementation, choices[0].other
    if fastest < CLEAR_SPEED_UP:
        return f"{name}, chosen: no clear difference from {other} on this study's shapes"
    low, high = number(slowest, 2), times(fastest)
    speed_up = high if high == f"{low} times" else f"{low} to {high}"
    return f"{name}, chosen: {speed_up} as fast as {other} on this study's shapes"


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def cell_indices(cells: Sequence[Priced]) -> dict[CellKey, int]:
    """Return each cell's index in the report, by `cell.key`; the page identifies cells by this index."""
    return {cell.key: index for index, cell in enumerate(cells)}


def short_labels(cells: Sequence[Priced]) -> dict[CellKey, str]:
    """Label each cell, by `cell.key`, as `cell_labels` does; if there are several machines, add the machine."""
    labels, machines = cell_labels(cells), machine_labels(cells)
    if len(machines) > 1:
        return {cell.key: f"{labels[cell.key]} {machines[cell.summary.machine_id]}" for cell in cells}
    return labels


def cell_labels(cells: Sequence[Priced], *, hidden: Sequence[str] = ()) -> dict[CellKey, str]:
    """Label each cell, by `cell.key`: batch x tokens, and settings other than the most common ones, except `hidden`."""
    usual = {key: value for key, value in common_values(cells).items() if key not in (*_ALWAYS, *hidden)}
    labels = {}
    for cell in cells:
        config = cell.summary.config
        if isinstance(config, BaselineConfig):
            parts = [_BASELINES[config.classifier]]
        else:
            fields = config_fields(cell)
            unusual = [key for key in usual if str(fields[key]) != usual[key] and fields[key] is not None]
            batch = f"{config.batch_size}" if config.batch_size else f"global {config.global_batch_size}"
            parts = [f"{batch}×{config.seq_len}", *(_short(key, fields[key]) for key in unusual)]
        labels[cell.key] = " ".join(parts)
    return labels


def _short(key: str, value: object) -> str:
    shown = clean(_plain(value), _MAX_LABEL)
    if key == STUDY:
        return f"({shown})"
    if key == "trainable":
        return {"head": "head only", "all": "all layers"}.get(shown, shown)
    if key == "pad_multiple":
        return f"pad {shown}"
    if isinstance(value, bool):
        return ("" if value else "no ") + key.rpartition(".")[2].replace("_", " ")
    return shown if key in _AXES and key != "threads" else f"{key.rpartition('.')[2]}={shown}"


def machine_labels(cells: Iterable[Priced]) -> dict[str, str]:
    """Label each machine id by its stated or detected instance, else by its hardware; in order of first appearance."""
    labels: dict[str, str] = {}
    for cell in cells:
        if cell.summary.machine_id not in labels and cell.summary.records:
            labels[cell.summary.machine_id] = _machine_label(cell, cell.summary.records[-1].machine)
    counts = Counter(labels.values())
    return {key: f"{label} ({clean(key[-6:])})" if counts[label] > 1 else label for key, label in labels.items()}


def _machine_label(cell: Priced, machine: Machine) -> str:
    price = cell.price
    if price is not None and price.instance and price.basis in ("stated", "detected"):
        return _with_slice(clean(price.instance, _MAX_LABEL), machine)
    return hardware(machine)


def hardware(machine: Machine) -> str:
    """Name the GPUs, or else the CPU without marketing words; if only a part of the machine was measured, add it."""
    if machine.gpus:
        count = f"{len(machine.gpus)} × " if len(machine.gpus) > 1 else ""
        return _with_slice(clean(count + machine.gpus[0].name, _MAX_LABEL), machine)
    cpu = machine.cpu
    name = clean(" ".join(_CPU_NAME_NOISE.sub(" ", cpu.model).split()) or cpu.model, _MAX_LABEL)
    # The number of CPUs is added only if all were used; otherwise the text about the slice holds it.
    return _with_slice(name, machine, plural(cpu.num_usable, "CPU") if cpu.num_usable >= cpu.num_logical else "")


def _with_slice(name: str, machine: Machine, cpus: str = "") -> str:
    part = slice_words(machine)
    details = ", ".join(filter(None, (cpus, f"slice: {part}" if part else "")))
    return f"{name} ({details})" if details else name


def group_word(key: str, value: object) -> str:
    """Format a setting for the name of a group of cells."""
    shown = clean(_plain(value), _MAX_LABEL)
    if "." in key:
        return _phrase(key, value)
    if key in _GROUP_NAMES:
        return f"{_GROUP_NAMES[key]} {shown}"
    return _GROUP_VALUES.get(shown, shown)


def axis_word(key: str, value: object) -> str:
    """Format a setting as `group_word` does, but sizes as phrases such as `128 tokens`."""
    return _SIZE_PHRASES[key].format(value) if key in _SIZE_PHRASES else group_word(key, value)


def disagrees(price: Price | None) -> bool:
    """Return whether the stated or detected instance contradicts the hardware found."""
    return price is not None and price.basis in ("stated", "detected") and bool(price.note)


def basis_word(price: Price) -> str:
    """Say how a price is known: given, stated or detected; a stand-in's price is an example."""
    return price.basis_word


def basis_label(price: Price | None) -> str:
    """Say how a price is known, and whether the hardware contradicts it."""
    if price is None:
        return "no price"
    return f"{basis_word(price)}, hardware disagrees" if disagrees(price) else basis_word(price)


def spread_label(cells: Iterable[Priced]) -> str:
    """Say which spread between runs a ranking of these cells rests on; empty if each has 3 runs or more."""
    used = dict.fromkeys(cell.summary.run_spread.basis for cell in cells if cell.summary.run_spread is not None)
    return f"fewer than {MIN_RUNS} runs, with {listed(list(used))}" if used else ""


def missed_label(cell: Priced) -> str:
    """Say how many runs missed the target; empty if none did. Tables show it with seconds and dollars to the target."""
    reached, missed = cell.summary.num_reached_target or 0, cell.summary.num_missed_target or 0
    return f"{missed} of {plural(reached + missed, 'run')} missed it" if missed else ""


def commit_label(record: Record) -> str | None:
    """Return the harness's commit, marked if the working tree had uncommitted changes."""
    return None if record.git is None else record.git.commit[:12] + ("+dirty" if record.git.dirty else "")
