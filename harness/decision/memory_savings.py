"""Peak memory by purpose, and the settings that save memory with their cost in speed (pure)."""

from __future__ import annotations

import functools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, get_args

from harness.analysis.estimate import Estimate, ratio_estimate
from harness.analysis.summary import CellKey
from harness.pricing.cost import Priced
from harness.schema.cells import Config, Device, FineTuneConfig, flat_config
from harness.schema.diagnostics_record import MemoryParts
from harness.schema.inputs_record import ModelFacts
from harness.schema.record import Record
from harness.schema.settings import AttentionKind, num_trained_layers
from harness.schema.training_record import MemorySource

BASE, WEIGHTS, OPTIMIZER, GRADIENTS = "process and libraries", "weights", "optimiser state", "gradients"
ACTIVATIONS, WORKSPACE, UNEXPLAINED = "activations", "workspace", "not explained"
PARTS = (BASE, WEIGHTS, OPTIMIZER, GRADIENTS, ACTIVATIONS, WORKSPACE, UNEXPLAINED)

# Configuration keys that only stop runs, or distinguish runs of one cell; they may differ between compared cells.
_IGNORED_KEYS = frozenset({"seed", "training.seeds", "data.store_texts"}) | {
    f"limits.{key}" for key in ("timeout_s", "max_train_s", "budget_minutes", "budget_usd")
}
_BATCHES = frozenset({"batch_size", "global_batch_size"})
_STANDARD_DROPOUT = 0.1  # BERT's default, for records that lack the model's value
_MAX_LAYERS = 1000  # stands in for the unknown number of layers when sorting; more than any BERT has
_PRECISIONS = ("fp32", "tf32", "fp16", "bf16")


@dataclass(frozen=True)
class MemorySaving:
    """A setting that can save memory while all others stay the same.

    Attributes:
        keys: Configuration keys in which compared cells may differ.
        read: Returns a cell's value of the setting.
        order: Sort key of values, from the usual value to the value that saves most.
        chain: True to compare each value with the value before it (batch sizes), False to compare all with the first.
        equal: Returns a further value that must be equal in compared cells.
    """

    name: str
    keys: frozenset[str]
    read: Callable[[Priced, Mapping[str, Any]], Any]
    order: Callable[[Any], Any]
    chain: bool = False
    equal: Callable[[Priced, Mapping[str, Any]], Any] = lambda _cell, _fields: None


@dataclass(frozen=True)
class SavingStep:
    """Two cells that differ in one setting only: the usual cell, and the one with the memory saving.

    Attributes:
        saved_bytes: Reduction of the peak memory of all ranks together; negative if memory increased.
        time_ratio: Seconds per sample divided by those of the usual cell; on one machine, also the ratio of costs.
    """

    way: MemorySaving
    usual: Priced
    taken: Priced
    usual_value: Any
    value: Any
    saved_bytes: int
    time_ratio: Estimate


@dataclass(frozen=True)
class OomFix:
    """A cell that ran out of memory, and the fastest successful cell that differs from it in one setting only.

    Attributes:
        taken, way, value: The successful cell, the differing setting and its value; None if there is no such cell.
        elsewhere: The same change of the setting between two successful cells, which shows the cost of the change.
    """

    lost: Priced
    taken: Priced | None
    way: MemorySaving | None
    value: Any
    elsewhere: SavingStep | None


def split_peak(record: Record) -> dict[str, int] | None:
    """Split rank 0's peak memory by purpose: bytes in the order of PARTS; None if the run has no breakdown.

    The remainder of the peak is `not explained`; it is left out if the parts sum to more than the peak. The memory of
    process and libraries is part of the remainder if it is unknown.
    """
    parts, peak = record.training.memory_parts if record.training is not None else None, rank_peak(record)
    if parts is None or peak is None:
        return None
    by_purpose = explained(parts)
    rest = peak - sum(by_purpose.values())
    return by_purpose | ({UNEXPLAINED: rest} if rest >= 0 else {})


def explained(parts: MemoryParts) -> dict[str, int]:
    """Return the bytes by purpose at a training step's peak, in the order of PARTS."""
    by_purpose = {
        WEIGHTS: parts.weights_bytes - parts.unread_weights_bytes,
        OPTIMIZER: parts.optimizer_bytes,
        GRADIENTS: parts.at_peak.gradients_bytes,
        ACTIVATIONS: parts.at_peak.activations_bytes,
        WORKSPACE: parts.at_peak.workspace_bytes,
    }
    if parts.base_bytes is None:
        return by_purpose
    return {BASE: parts.base_bytes + (parts.libraries_bytes or 0), **by_purpose}


def rank_peak(record: Record, rank: int = 0) -> int | None:
    """Return a rank's peak in bytes: of the GPU memory that PyTorch reserved, or of main memory on a CPU."""
    if record.training is None or not isinstance(record.config, FineTuneConfig):
        return None
    source: MemorySource = "cuda_reserved" if record.config.on_gpu else "rss"
    peaks = [peak.num_bytes for peak in record.training.peak_memory if peak.source == source and peak.rank == rank]
    return max(peaks, default=None)


def split_record(cell: Priced) -> Record | None:
    """Return a cell's newest record with a memory breakdown; None without one."""
    return next((record for record in reversed(cell.summary.ok_records) if split_peak(record) is not None), None)


def memory_savings(cells: Sequence[Priced]) -> list[SavingStep]:
    """Find every pair of successful cells on one machine that differ in one setting only, in the order of WAYS."""
    return [step for way in WAYS for members in _groups(cells, way).values() for step in _steps(way, members)]


def oom_fixes(cells: Sequence[Priced]) -> list[OomFix]:
    """Find, for each cell that ran out of memory in all runs, the fastest cell that differs in one setting only."""
    if not any(map(_ran_out, cells)):
        return []
    steps = memory_savings(cells)
    similar: dict[CellKey, list[tuple[MemorySaving, Priced]]] = defaultdict(list)
    for way in WAYS:
        for members in _groups(cells, way).values():
            for lost in filter(_ran_out, members):
                own = way.read(lost, _flat(lost))
                others = [cell for cell in members if _measured(cell) and way.read(cell, _flat(cell)) != own]
                similar[lost.key] += [(way, cell) for cell in others]
    return [_oom_fix(cell, similar[cell.key], steps) for cell in cells if _ran_out(cell)]


def _oom_fix(lost: Priced, similar: Sequence[tuple[MemorySaving, Priced]], steps: Sequence[SavingStep]) -> OomFix:
    way, taken = max(similar, key=lambda pair: _rate(pair[1]), default=(None, None))
    if way is None or taken is None:
        return OomFix(lost, None, None, None, None)
    value, own = way.read(taken, _flat(taken)), way.read(lost, _flat(lost))
    same = (step for step in steps if step.way is way and step.usual_value == own and step.value == value)
    return OomFix(lost, taken, way, value, next(same, None))


def _groups(cells: Sequence[Priced], way: MemorySaving) -> dict[tuple[str, ...], list[Priced]]:
    """Group cells so that those of a group are on one machine and differ only in the setting's keys."""
    groups: dict[tuple[str, ...], list[Priced]] = defaultdict(list)
    for cell in cells:
        if isinstance(cell.summary.config, FineTuneConfig):
            fields = _flat(cell)
            rest = {key: value for key, value in fields.items() if key not in way.keys}
            key = (cell.summary.machine_id, json.dumps(rest, sort_keys=True), repr(way.equal(cell, fields)))
            groups[key].append(cell)
    return groups


def _steps(way: MemorySaving, members: Sequence[Priced]) -> Iterator[SavingStep]:
    by_value: dict[Any, Priced] = {}
    for cell in members:
        if _measured(cell):
            by_value[way.read(cell, _flat(cell))] = cell
    values = sorted(by_value, key=way.order)
    for before, value in pairwise(values) if way.chain else ((values[0], value) for value in values[1:]):
        usual, taken = by_value[before], by_value[value]
        peak, less = usual.summary.peak_memory_bytes, taken.summary.peak_memory_bytes
        rate, usual_rate = taken.summary.samples_per_s, usual.summary.samples_per_s
        if peak is not None and less is not None and rate is not None and usual_rate is not None:
            yield SavingStep(way, usual, taken, before, value, peak - less, ratio_estimate(usual_rate, rate))


def _measured(cell: Priced) -> bool:
    return cell.summary.num_ok > 0 and cell.summary.samples_per_s is not None


def _ran_out(cell: Priced) -> bool:
    return cell.summary.kind == "fine_tune" and cell.summary.outcome == "oom" and cell.summary.num_ok == 0


def _rate(cell: Priced) -> float:
    return cell.summary.samples_per_s.value if cell.summary.samples_per_s is not None else 0.0


def _flat(cell: Priced) -> Mapping[str, Any]:
    return _flat_config(cell.summary.config)


@functools.lru_cache(maxsize=2**14)  # because it is called for every pair of setting and cell
def _flat_config(config: Config) -> Mapping[str, Any]:
    """Map a configuration's axes and `section.key` names to values, without keys that don't change what is measured."""
    return {key: value for key, value in flat_config(config).items() if key not in _IGNORED_KEYS}


def _read(key: str) -> Callable[[Priced, Mapping[str, Any]], Any]:
    return lambda _cell, fields: fields[key]


def _dropout(cell: Priced, fields: Mapping[str, Any]) -> float:
    set_to = fields["model.attention_dropout"]
    facts = _model_facts(cell)
    own = facts.attention_dropout if facts is not None else None
    return float(set_to if set_to is not None else own if own is not None else _STANDARD_DROPOUT)


def _attention(cell: Priced, fields: Mapping[str, Any]) -> str:
    set_to, facts = fields["model.attention"], _model_facts(cell)
    own = facts.attention if facts is not None else None
    return str(set_to if set_to in get_args(AttentionKind) else own or "sdpa")


def _model_facts(cell: Priced) -> ModelFacts | None:
    return next((record.model for record in reversed(cell.summary.records) if record.model is not None), None)


def _least_trained(trainable: str) -> float:
    """Return a sort key that orders values from training all layers down to training only the head."""
    return -math.inf if trainable == "all" else -num_trained_layers(trainable, _MAX_LAYERS)


def _batch(_cell: Priced, fields: Mapping[str, Any]) -> int:
    return int(fields["batch_size"] or fields["global_batch_size"])


def _global_batch(cell: Priced, _fields: Mapping[str, Any]) -> int | None:
    config = cell.summary.config
    if not isinstance(config, FineTuneConfig):
        return None
    ranks = next((r.training.world_size for r in cell.summary.records if r.training is not None), None)
    return cell.summary.global_batch_size or config.global_batch(ranks or Device.parse(config.device).num_ranks or 1)


WAYS = (
    MemorySaving("gradient accumulation", _BATCHES | {"training.grad_accum"}, _read("training.grad_accum"),
        lambda value: value, chain=True, equal=_global_batch),
    MemorySaving("activation checkpointing", frozenset({"training.activation_checkpointing"}),
        _read("training.activation_checkpointing"), bool),
    MemorySaving("trained layers", frozenset({"trainable"}), _read("trainable"), _least_trained),
    MemorySaving("attention dropout", frozenset({"model.attention_dropout"}), _dropout, lambda value: -value),
    MemorySaving("attention", frozenset({"model.attention"}), _attention, lambda value: value != "sdpa"),
    MemorySaving("multiple of lengths", frozenset({"pad_multiple"}), _read("pad_multiple"), lambda value: value),
    MemorySaving("precision", frozenset({"precision"}), _read("precision"), _PRECISIONS.index),
    MemorySaving("optimiser", frozenset({"training.optimizer"}), _read("training.optimizer"), str),
    MemorySaving("allocator", frozenset({"training.allocator"}), _read("training.allocator"), lambda value: value != "system"),
    MemorySaving("batch size", _BATCHES, _batch, lambda value: -value, chain=True,
        equal=lambda _cell, fields: fields["batch_size"] is None),
)  # fmt: skip
