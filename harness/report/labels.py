"""What cells and machines are called on the page (pure)."""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from harness.analysis.summary import CellKey
from harness.decision.differences import slice_words
from harness.pricing.cost import Priced
from harness.report.formatting import clean, plural
from harness.schema.cells import BaselineConfig, FineTuneConfig, flat_config
from harness.schema.host_record import Machine

STUDY = "study"

# Always said, because a figure means little without them.
_ALWAYS = ("batch_size", "global_batch_size", "seq_len")
_FIRST = (*_ALWAYS, "precision", "device")
_AXES = (*_FIRST, "padding", "trainable", "threads")
# Follow from other keys, are told in the runs' own column, or say only when to stop.
_UNTOLD = frozenset(
    {"training.seeds", "training.checkpoint_every_s", "data.store_texts"}
    | {f"limits.{key}" for key in ("timeout_s", "max_train_s", "budget_minutes", "budget_usd")}
)
_BASELINES = {"majority": "majority class", "tfidf": "TF-IDF with logistic regression"}
_PHRASES = {
    "batch_size": "batch {}",
    "global_batch_size": "global batch {}",
    "seq_len": "{} tokens",
    "threads": "{} threads",
    "limits.memory_limit_gib": "under a cap of {} GiB",
    "padding": "padded to {}",
    "trainable": "training {}",
}
_WORDS = {
    "padding": {"longest": "the batch's longest", "max": "the maximum", "grouped": "the longest, grouped by length"},
}
_MAX_LABEL = 60
_EMBELLISHMENTS = re.compile(r"\((?:R|TM)\)|\bCPU\b|\b\d+-Core\b|\bProcessor\b|@ .*")


@functools.lru_cache(maxsize=2**14)  # each chart and table asks for every cell's
def flat(config: FineTuneConfig | BaselineConfig) -> Mapping[str, Any]:
    """A configuration as axis or `section.key` -> value, without what changes no figure."""
    fields = flat_config(config)
    keys = [*(axis for axis in _AXES if axis in fields), *(key for key in fields if "." in key)]
    return {key: fields[key] for key in keys if key not in _UNTOLD}


def config_fields(cell: Priced) -> dict[str, Any]:
    """What can be said of a cell: its configuration, and its study."""
    return {**flat(cell.summary.config), STUDY: cell.summary.study}


def common_values(cells: Iterable[Priced]) -> dict[str, str]:
    """For each key in which these fine-tuning cells differ, axes first, its commonest value: it goes without saying.

    With several studies, what is the same throughout each of them is told by the study's name.
    """
    shown = [cell for cell in cells if cell.summary.kind == "fine_tune"]
    counts = Counter(chain.from_iterable(map(_words, shown)))
    seen: dict[str, dict[str, int]] = defaultdict(dict)
    for (key, word), count in counts.items():
        seen[key][word] = count
    varied = {key: max(words, key=words.__getitem__) for key, words in seen.items() if len(words) > 1}
    pairs = {(cell.summary.study, key, word) for cell in shown for key, word in _words(cell) if key in varied}
    by_study = Counter((study, key) for study, key, _ in pairs)
    changing = {key for (_, key), num_words in by_study.items() if num_words > 1}
    fixed = {key for key in varied if "." in key and key not in changing}
    return {key: value for key, value in varied.items() if key not in fixed and (key != STUDY or fixed)}


def _words(cell: Priced) -> Iterable[tuple[str, str]]:
    """What `told` tells, each value as a word."""
    return chain(_flat_words(cell.summary.config), [(STUDY, cell.summary.study)])


@functools.lru_cache(maxsize=2**14)
def _flat_words(config: FineTuneConfig | BaselineConfig) -> tuple[tuple[str, str], ...]:
    return tuple((key, str(value)) for key, value in flat(config).items())


def describe(cell: Priced, usual: Mapping[str, str]) -> str:
    """A configuration in words: batch, tokens, precision and device, and what else is not as usual in this report."""
    config = cell.summary.config
    if isinstance(config, BaselineConfig):
        return _BASELINES[config.classifier]
    fields = config_fields(cell)
    keys = [*_FIRST, *(key for key in usual if key not in _FIRST and str(fields[key]) != usual[key])]
    return ", ".join(_phrase(key, fields[key]) for key in keys if fields[key] is not None)


def difference(cell: Priced, other: Priced, usual: Mapping[str, str]) -> str:
    """In what a cell differs from another, in words; empty if in nothing that is told."""
    fields, others = config_fields(cell), config_fields(other)
    keys = [key for key in usual if fields[key] != others[key] and fields[key] is not None]
    return ", ".join(_phrase(key, fields[key]) for key in keys)


def _phrase(key: str, value: object) -> str:
    words = trained_words(str(value)) if key == "trainable" else _WORDS.get(key, {}).get(str(value), _plain(value))
    shown = clean(words, _MAX_LABEL)
    if key == STUDY:
        return f"as in study {shown}"
    return _PHRASES[key].format(shown) if key in _PHRASES else shown if key in _AXES else f"{key} {shown}"


def trained_words(trainable: str) -> str:
    """What is trained, in words."""
    last = trainable.removeprefix("top")
    if last == trainable:
        return {"all": "all layers", "head": "the head alone"}[trainable]
    return f"the last {'layer' if last == '1' else f'{last} layers'} and the head"


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def short_labels(cells: Sequence[Priced]) -> dict[CellKey, str]:
    """A label for each cell of a chart, by `cell.key`: that of `cell_labels`, and the machine where there are several."""
    labels, machines = cell_labels(cells), machine_labels(cells)
    if len(machines) > 1:
        return {cell.key: f"{labels[cell.key]} {machines[cell.summary.machine_id]}" for cell in cells}
    return labels


def cell_labels(cells: Sequence[Priced], *, untold: Sequence[str] = ()) -> dict[CellKey, str]:
    """By `cell.key`, in the cells' order: batch x tokens, and what is not as usual among these cells, less `untold`."""
    usual = {key: value for key, value in common_values(cells).items() if key not in (*_ALWAYS, *untold)}
    labels = {}
    for cell in cells:
        config = cell.summary.config
        if isinstance(config, BaselineConfig):
            parts = [_BASELINES[config.classifier]]
        else:
            fields = config_fields(cell)
            odd = [key for key in usual if str(fields[key]) != usual[key] and fields[key] is not None]
            batch = f"{config.batch_size}" if config.batch_size else f"global {config.global_batch_size}"
            parts = [f"{batch}×{config.seq_len}", *(_short(key, fields[key]) for key in odd)]
        labels[cell.key] = " ".join(parts)
    return labels


def _short(key: str, value: object) -> str:
    shown = clean(_plain(value), _MAX_LABEL)
    if key == STUDY:
        return f"({shown})"
    if key == "trainable":
        return {"head": "head only", "all": "all layers"}.get(shown, shown)
    if isinstance(value, bool):
        return ("" if value else "no ") + key.rpartition(".")[2].replace("_", " ")
    return shown if key in _AXES and key != "threads" else f"{key.rpartition('.')[2]}={shown}"


def machine_labels(cells: Iterable[Priced]) -> dict[str, str]:
    """A name for each machine id, in order of first appearance: instance if priced as one, else GPU or CPU."""
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
    """The GPUs, or else the CPU without its maker's embellishments; of a slice, what part of the whole it is."""
    if machine.gpus:
        count = f"{len(machine.gpus)} × " if len(machine.gpus) > 1 else ""
        return _with_slice(clean(count + machine.gpus[0].name, _MAX_LABEL), machine)
    cpu = machine.cpu
    name = clean(" ".join(_EMBELLISHMENTS.sub(" ", cpu.model).split()) or cpu.model, _MAX_LABEL)
    # Of a slice in CPUs its words say how many.
    return _with_slice(name, machine, plural(cpu.num_usable, "CPU") if cpu.num_usable >= cpu.num_logical else "")


def _with_slice(name: str, machine: Machine, more: str = "") -> str:
    part = slice_words(machine)
    config_fields = ", ".join(filter(None, (more, f"slice: {part}" if part else "")))
    return f"{name} ({config_fields})" if config_fields else name


_NAMED = {"batch_size": "batch", "threads": "threads", "study": "study"}


_GROUP_WORDS = {
    "max": "padded to the maximum",
    "longest": "padded to the longest",
    "grouped": "grouped by length",
    "all": "all layers",
    "head": "head only",
}


_AXIS_WORDS = {
    "batch_size": "batch {}",
    "global_batch_size": "global batch {}",
    "seq_len": "{} tokens",
    "threads": "{} threads",
}


def group_word(key: str, value: object) -> str:
    """A key's value as it reads in the name of a group."""
    shown = clean(f"{value:g}" if isinstance(value, float) else str(value), 60)
    if "." in key or key in _NAMED:
        return f"{_NAMED.get(key, key)} {shown}"
    return _GROUP_WORDS.get(shown, shown)


def axis_word(key: str, value: object) -> str:
    """The same where batch and length may be among the keys."""
    return _AXIS_WORDS[key].format(value) if key in _AXIS_WORDS else group_word(key, value)
