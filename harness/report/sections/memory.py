"""Where the memory went, who else held it, and what made cells fit: rows and sentences (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.estimate import intervals_disjoint
from harness.analysis.summary import CellKey
from harness.decision.memory_savings import MemorySaving, OomFix, SavingStep
from harness.pricing.cost import Priced
from harness.report.formatting import MoneyFormat, clean, listed, memory, number, percent, plural
from harness.report.labels import machine_labels, short_labels, trained_words
from harness.report.sections.cell_table import Field, basis_label
from harness.report.sections.details import warnings_by_text
from harness.report.sections.scaling_words import ratio_interval, ratio_words
from harness.schema.host_record import Load, MemoryUser

HOLDER_HEADS = ("cell", "held by other processes", "memory available", "swap in use")
WAY_HEADS = (
    *("what changed", "from the cell", "peak memory", "saved", "time and dollars a sample", "cost per 1,000 samples"),
    "test accuracy",
)
MAX_ROWS = 16
MAX_WAYS = 24
_HOLDERS_SHOWN = 3
_LONGEST_NAME = 60
_LONGEST_CELL = 120
_SWITCH = {True: "on", False: "off"}
# A value as it follows "the same with".
_WAY_WORDS = {
    "activation checkpointing": "activation checkpointing {}",
    "trained layers": "{} trained",
    "gradient accumulation": "{} micro-batches an update",
    "batch size": "batch size {}",
}


@dataclass(frozen=True)
class MemoryUserRows:
    """Who else held memory when cells began.

    Attributes:
        sentence: The most that one process held; empty where none did.
        notes: How often nobody else held any, or nobody looked.
    """

    sentence: str
    rows: tuple[tuple[Field, ...], ...]
    num_more: int
    notes: tuple[str, ...]


def memory_users(cells: Sequence[Priced]) -> MemoryUserRows:
    """What other processes held when each cell's newest run began, the largest first."""
    labels = short_labels(cells)
    looked = [(cell, _load(cell)) for cell in cells if cell.summary.kind == "fine_tune"]
    known = [(cell, load, load.holders) for cell, load in looked if load is not None and load.holders is not None]
    held = sorted((row for row in known if row[2]), key=lambda row: -max(one.num_bytes for one in row[2]))
    num_unknown = len(looked) - len(known)
    notes = []
    if len(known) > len(held):
        notes.append(f"No other process held 256 MiB or more when {plural(len(known) - len(held), 'cell')} began.")
    if num_unknown and known:
        notes.append(f"Of {plural(num_unknown, 'cell')} it is not known: nobody looked.")
    rows = [
        (
            Field(labels[cell.key], labels[cell.key], numeric=False),
            Field(_held(found), None, numeric=False),
            Field(memory(load.available_memory_bytes), load.available_memory_bytes),
            Field(memory(load.swap_used_bytes), load.swap_used_bytes),
        )
        for cell, load, found in held[:MAX_ROWS]
    ]
    return MemoryUserRows(
        _most_held(held[0][2], labels[held[0][0].key]) if held else "",
        tuple(rows),
        max(0, len(held) - MAX_ROWS),
        tuple(notes),
    )


def _load(cell: Priced) -> Load | None:
    return next((record.load for record in reversed(cell.summary.records) if record.load is not None), None)


def _most_held(found: Sequence[MemoryUser], label: str) -> str:
    most = max(found, key=lambda holder: holder.num_bytes)
    return (
        f"Another process ({clean(most.name, _LONGEST_NAME)}) held {memory(most.num_bytes)} of {_place(most)} when {label} "
        "began: the most of any."
    )


def _place(holder: MemoryUser) -> str:
    return "main memory" if holder.gpu is None else f"GPU {holder.gpu}"


def _held(found: Sequence[MemoryUser]) -> str:
    ranked = sorted(found, key=lambda holder: -holder.num_bytes)
    shown = [
        f"{clean(holder.name, _LONGEST_NAME)} {memory(holder.num_bytes)} of {_place(holder)}"
        for holder in ranked[:_HOLDERS_SHOWN]
    ]
    more = len(ranked) - _HOLDERS_SHOWN
    return "; ".join(shown) + (f"; {more} more" if more > 0 else "")


def memory_warnings(cells: Sequence[Priced]) -> list[tuple[str, str]]:
    """Warnings about memory, with the cells that they are about."""
    return [(text, about) for text, about in warnings_by_text(cells) if "memory" in text.lower()]


def saving_rows(steps: Sequence[SavingStep], cells: Sequence[Priced], money: MoneyFormat) -> list[tuple[Field, ...]]:
    """What each way saved and what it cost, in the order of WAY_HEADS; at most MAX_WAYS."""
    labels = _labels(cells)
    return [_way_row(step, labels, money) for step in steps[:MAX_WAYS]]


def _labels(cells: Sequence[Priced]) -> dict[CellKey, str]:
    """Cells by `cell.key` as their folders name them, and their machine where there are several."""
    machines = machine_labels(cells)
    return {
        cell.key: clean(cell.summary.cell, _LONGEST_CELL)
        + (f" on {machines[cell.summary.machine_id]}" if len(machines) > 1 and cell.summary.records else "")
        for cell in cells
    }


def _way_row(step: SavingStep, labels: dict[CellKey, str], money: MoneyFormat) -> tuple[Field, ...]:
    usual, taken = step.usual.summary, step.taken.summary
    peak, less = usual.peak_memory_bytes or 0, taken.peak_memory_bytes or 0
    share = step.saved_bytes / peak if peak else 0.0
    words = memory(step.saved_bytes) if step.saved_bytes >= 0 else f"{memory(-step.saved_bytes)} more"
    ratio, spread = step.time_ratio, ratio_interval(step.time_ratio)
    one, other = usual.samples_per_s, taken.samples_per_s
    doubt = "" if one is not None and other is not None and intervals_disjoint(one, other) else "can't be told apart"
    before, after = step.usual.usd_per_1000_samples, step.taken.usd_per_1000_samples
    scores = [s.accuracy.value if s.accuracy is not None else None for s in (usual, taken)]
    return (
        Field(f"{step.way.name}: {_value(step.usual_value)} → {_value(step.value)}", step.way.name, numeric=False),
        Field(labels[step.usual.key], None, numeric=False),
        Field(f"{memory(peak)} → {memory(less)}", less),
        Field(words, step.saved_bytes, percent(abs(share))),
        Field(f"{ratio_words(ratio.value)} times", ratio.value, "; ".join(filter(None, (spread, doubt)))),
        Field(f"{money.amount(before.value)} → {money.amount(after.value)}", after.value, basis_label(step.taken.price))
        if before is not None and after is not None
        else Field("not known", None, title=clean(step.taken.missing or "no price")),
        Field(" → ".join(percent(score) for score in scores), scores[1])
        if None not in scores
        else Field("not measured", None, title="the weights were random, or no run reached its test"),
    )


def _value(value: Any) -> str:  # noqa: ANN401 - a setting's
    if isinstance(value, bool):
        return _SWITCH[value]
    return clean(f"{value:g}" if isinstance(value, float) else str(value), _LONGEST_NAME)


def _taken(way: MemorySaving, value: Any) -> str:  # noqa: ANN401 - a setting's
    shown = trained_words(str(value)) if way.name == "trained layers" else _value(value)
    return _WAY_WORDS.get(way.name, f"{way.name} {{}}").format(shown)


def oom_fix_sentences(found: Sequence[OomFix], cells: Sequence[Priced], money: MoneyFormat) -> list[str]:
    """For each cell that ran out of memory, the cheapest measured way to make it fit, or that there is none."""
    labels = _labels(cells)
    said = [_rescue(rescue, labels, money) for rescue in found[:MAX_ROWS]]
    more = len(found) - MAX_ROWS
    return said + ([f"{plural(more, 'more cell')} ran out of memory."] if more > 0 else [])


def _rescue(rescue: OomFix, labels: dict[CellKey, str], money: MoneyFormat) -> str:
    lead = f"{labels[rescue.lost.key]} ran out of memory"
    taken, way, other = rescue.taken, rescue.way, rescue.elsewhere
    if taken is None or way is None:
        return f"{lead}; no cell that differs from it in one way alone was measured to fit."
    rate, each = taken.summary.samples_per_s, taken.usd_per_1000_samples
    figures = [
        *([f"{number(rate.value)} samples/s"] if rate is not None else []),
        *(
            [f"{money.amount(each.value)} per 1,000 samples ({basis_label(taken.price)} price)"]
            if each is not None
            else []
        ),
    ]
    words = (
        f"{lead}; the same with {_taken(way, rescue.value)} ran in {memory(taken.summary.peak_memory_bytes)} "
        f"at {listed(figures)}."
    )
    if other is None:
        return words
    spread = ratio_interval(other.time_ratio)
    return (
        f"{words} Where both ran ({labels[other.usual.key]}), that took {ratio_words(other.time_ratio.value)} times"
        f"{f' ({spread})' if spread else ''} the time and dollars a sample."
    )
