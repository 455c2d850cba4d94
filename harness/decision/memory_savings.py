"""Where a cell's peak memory went, and what made it smaller at which price (pure)."""

from __future__ import annotations

import functools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from harness.analysis.estimate import Estimate, ratio_estimate
from harness.analysis.summary import CellKey
from harness.pricing.cost import Priced
from harness.schema.cells import Config, Device, FineTuneConfig, flat_config
from harness.schema.diagnostics_record import MemoryParts
from harness.schema.record import Record
from harness.schema.settings import num_trained_layers
from harness.schema.training_record import MemorySource

BASE, WEIGHTS, OPTIMIZER, GRADIENTS = "process and libraries", "weights", "optimiser state", "gradients"
ACTIVATIONS, WORKSPACE, UNEXPLAINED = "activations", "workspace", "not explained"
PARTS = (BASE, WEIGHTS, OPTIMIZER, GRADIENTS, ACTIVATIONS, WORKSPACE, UNEXPLAINED)

# They say only when to stop, or tell runs of one cell apart.
_UNTOLD = frozenset({"seed", "training.seeds", "data.store_texts"}) | {
    f"limits.{key}" for key in ("timeout_s", "max_train_s", "budget_minutes", "budget_usd")
}
_BATCHES = frozenset({"batch_size", "global_batch_size"})
_STANDARD_DROPOUT = 0.1  # BERT's own, where the model's is not on the record
_MOST_LAYERS = 1000  # more than any BERT has
_PRECISIONS = ("fp32", "tf32", "fp16", "bf16")


@dataclass(frozen=True)
class MemorySaving:
    """One setting that may make a cell smaller, while all others stay.

    Attributes:
        keys: Of the configuration, which may differ.
        read: A cell's value.
        order: Of a value: what is tried later stands higher.
        chain: Whether each value is held against the one before it (batch sizes) or all against the first.
        equal: What must be equal besides all other keys.
    """

    name: str
    keys: frozenset[str]
    read: Callable[[Priced, Mapping[str, Any]], Any]
    order: Callable[[Any], Any]
    chain: bool = False
    equal: Callable[[Priced, Mapping[str, Any]], Any] = lambda _cell, _fields: None


@dataclass(frozen=True)
class SavingStep:
    """Two cells that differ in one way alone: the usual one, and the one with the way taken.

    Attributes:
        saved_bytes: Of the peak, all ranks together; below 0 where it took more.
        time_ratio: Seconds a sample over the usual one's. Dollars a sample too: it is the same machine.
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
    """A cell that ran out of memory, and the cheapest measured one that differs from it in one way alone.

    Attributes:
        taken, way, value: None where no such cell ended well.
        elsewhere: The same way between two cells that both ran: what it costs.
    """

    lost: Priced
    taken: Priced | None
    way: MemorySaving | None
    value: Any
    elsewhere: SavingStep | None


def split_peak(record: Record) -> dict[str, int] | None:
    """Rank 0's peak by what it was for, in bytes and in the order of PARTS; None where nobody looked.

    What stood all the while (the process with its libraries, weights, optimiser state), and what a step of its own held
    at its fullest moment; what is left of the peak is `not explained`, which is missing where the parts come to more than
    the peak. A process that is not known is missing, and then stands in what is not explained.
    """
    parts, peak = record.training.memory_parts if record.training is not None else None, rank_peak(record)
    if parts is None or peak is None:
        return None
    found = explained(parts)
    rest = peak - sum(found.values())
    return found | ({UNEXPLAINED: rest} if rest >= 0 else {})


def explained(parts: MemoryParts) -> dict[str, int]:
    """What these parts held at the step's fullest moment, in bytes and in the order of PARTS."""
    found = {
        WEIGHTS: parts.weights_bytes - parts.unread_weights_bytes,
        OPTIMIZER: parts.optimizer_bytes,
        GRADIENTS: parts.at_peak.gradients_bytes,
        ACTIVATIONS: parts.at_peak.activations_bytes,
        WORKSPACE: parts.at_peak.workspace_bytes,
    }
    return found if parts.base_bytes is None else {BASE: parts.base_bytes + (parts.libraries_bytes or 0), **found}


def rank_peak(record: Record, rank: int = 0) -> int | None:
    """One rank's own peak in bytes: of the GPU's memory as PyTorch reserved it, else of main memory."""
    if record.training is None or not isinstance(record.config, FineTuneConfig):
        return None
    source: MemorySource = "cuda_reserved" if record.config.on_gpu else "rss"
    found = [peak.num_bytes for peak in record.training.peak_memory if peak.source == source and peak.rank == rank]
    return max(found, default=None)


def split_record(cell: Priced) -> Record | None:
    """The newest run whose peak can be split."""
    return next((record for record in reversed(cell.summary.ok_records) if split_peak(record) is not None), None)


def memory_savings(cells: Sequence[Priced]) -> list[SavingStep]:
    """Every pair of measured cells on one machine that differ in one way alone, in the order of WAYS."""
    return [step for way in WAYS for members in _groups(cells, way).values() for step in _steps(way, members)]


def oom_fixes(cells: Sequence[Priced]) -> list[OomFix]:
    """For each cell of which no run ended well, for want of memory, the cheapest way out that was measured."""
    if not any(map(_ran_out, cells)):
        return []
    steps = memory_savings(cells)
    kin: dict[CellKey, list[tuple[MemorySaving, Priced]]] = defaultdict(list)
    for way in WAYS:
        for members in _groups(cells, way).values():
            for lost in filter(_ran_out, members):
                own = way.read(lost, _flat(lost))
                near = [cell for cell in members if _measured(cell) and way.read(cell, _flat(cell)) != own]
                kin[lost.key] += [(way, cell) for cell in near]
    return [_rescue(cell, kin[cell.key], steps) for cell in cells if _ran_out(cell)]


def _rescue(lost: Priced, kin: Sequence[tuple[MemorySaving, Priced]], steps: Sequence[SavingStep]) -> OomFix:
    way, taken = max(kin, key=lambda pair: _rate(pair[1]), default=(None, None))
    if way is None or taken is None:
        return OomFix(lost, None, None, None, None)
    value, own = way.read(taken, _flat(taken)), way.read(lost, _flat(lost))
    same = (step for step in steps if step.way is way and step.usual_value == own and step.value == value)
    return OomFix(lost, taken, way, value, next(same, None))


def _groups(cells: Sequence[Priced], way: MemorySaving) -> dict[tuple[str, ...], list[Priced]]:
    """Cells on one machine whose configurations are equal but for the way's keys."""
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


@functools.lru_cache(maxsize=2**14)  # each way to fit asks for every cell's
def _flat_config(config: Config) -> Mapping[str, Any]:
    """A configuration as axis or `section.key` -> value, without what changes no figure."""
    return {key: value for key, value in flat_config(config).items() if key not in _UNTOLD}


def _read(key: str) -> Callable[[Priced, Mapping[str, Any]], Any]:
    return lambda _cell, fields: fields[key]


def _dropout(cell: Priced, fields: Mapping[str, Any]) -> float:
    set_to = fields["model.attention_dropout"]
    facts = next((record.model for record in reversed(cell.summary.records) if record.model is not None), None)
    own = facts.attention_dropout if facts is not None else None
    return float(set_to if set_to is not None else own if own is not None else _STANDARD_DROPOUT)


def _least_trained(trainable: str) -> float:
    """Orders what is trained from all of it down to the head alone."""
    return -math.inf if trainable == "all" else -num_trained_layers(trainable, _MOST_LAYERS)


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
    MemorySaving("precision", frozenset({"precision"}), _read("precision"), _PRECISIONS.index),
    MemorySaving("optimiser", frozenset({"training.optimizer"}), _read("training.optimizer"), str),
    MemorySaving("allocator", frozenset({"training.allocator"}), _read("training.allocator"), lambda value: value != "system"),
    MemorySaving("batch size", _BATCHES, _batch, lambda value: -value, chain=True,
        equal=lambda _cell, fields: fields["batch_size"] is None),
)  # fmt: skip
