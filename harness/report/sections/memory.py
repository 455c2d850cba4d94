"""Memory: what it is used for, which other processes use it, and what made cells fit (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.estimate import intervals_disjoint
from harness.analysis.summary import CellKey
from harness.decision.memory_savings import MemorySaving, OomFix, SavingStep, memory_savings, oom_fixes
from harness.pricing.cost import Priced
from harness.report.cell_columns import load_before
from harness.report.charts.base import Chart
from harness.report.charts.memory import memory_chart
from harness.report.formatting import MoneyFormat, clean, listed, memory, number, percent, plural, with_interval
from harness.report.labels import basis_label, machine_labels, short_labels, trained_words
from harness.report.sections.details import warnings_by_text
from harness.report.sections.scaling import ratio_interval, ratio_text
from harness.report.table import Field, Row, Table, join_lines, table, text_field
from harness.schema.host_record import MemoryUser

USER_HEADS = ("cell", "held by other processes", "memory available", "swap in use")
SAVING_HEADS = (
    *("what changed", "from the cell", "peak memory", "saved", "time and dollars a sample", "cost per 1,000 samples"),
    "test accuracy",
)
MAX_ROWS = 16
MAX_SAVINGS = 24
_MAX_USERS = 3
_MAX_NAME = 60
_MAX_CELL = 120
# How a setting and its value read in the sentence "the same with ... ran in".
_FIX_TEXTS = {
    "activation checkpointing": "activation checkpointing {}",
    "trained layers": "{} trained",
    "attention": "{} attention",
    "multiple of lengths": "lengths in multiples of {}",
    "gradient accumulation": "{} micro-batches an update",
    "batch size": "batch size {}",
}


@dataclass(frozen=True)
class MemoryUsers:
    """Other processes that used memory when cells began.

    Attributes:
        sentence: States which process held the most memory; empty without other processes.
        notes: Sentences that count the cells without other processes, and the cells without a reading.
    """

    sentence: str
    table: Table
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Memory:
    """The section on memory.

    Attributes:
        chart: Peaks by use of memory; None if no record has this breakdown.
        num_more: Number of cells that the chart leaves out.
        any_cap: Whether a cell ran under an exact memory cap.
        warnings: Each warning with the labels of its cells.
        fixes: A sentence for each out-of-memory cell on how it could fit.
        savings: What each memory-saving setting saved and cost.
    """

    chart: Chart | None
    num_more: int
    any_cap: bool
    warnings: tuple[tuple[str, str], ...]
    users: MemoryUsers
    fixes: tuple[str, ...]
    savings: Table


def memory_section(cells: Sequence[Priced], money: MoneyFormat) -> Memory | None:
    """Build the section; None if no record says anything about memory."""
    chart, num_more = memory_chart(cells)
    caps = (record.cap for cell in cells for record in cell.summary.records)
    section = Memory(
        chart=chart,
        num_more=num_more,
        any_cap=any(cap is not None and cap.exact for cap in caps),
        warnings=tuple(memory_warnings(cells)),
        users=memory_users(cells),
        fixes=tuple(oom_fix_sentences(oom_fixes(cells), cells, money)),
        savings=savings_table(memory_savings(cells), cells, money),
    )
    users = section.users
    contents = (chart, section.warnings, users.table, users.notes, section.fixes, section.savings)
    return section if any(contents) else None


def memory_users(cells: Sequence[Priced]) -> MemoryUsers:
    """List, for each cell, the memory of other processes when its newest run began; largest first."""
    labels = short_labels(cells)
    loads = [(cell, load_before(cell)) for cell in cells if cell.summary.kind == "fine_tune"]
    known = [(cell, load, load.holders) for cell, load in loads if load is not None and load.holders is not None]
    shared = [(cell, load, users) for cell, load, users in known if users]
    shared.sort(key=lambda row: -max(user.num_bytes for user in row[2]))
    notes = []
    if len(known) > len(shared):
        num_alone = plural(len(known) - len(shared), "cell")
        notes.append(f"No other process held 256 MiB or more when {num_alone} began.")
    if len(loads) > len(known) > 0:
        notes.append(f"It was not recorded for {plural(len(loads) - len(known), 'cell')}.")
    rows = [
        (
            text_field(labels[cell.key], labels[cell.key]),
            text_field(_user_text(users)),
            Field(memory(load.available_memory_bytes), load.available_memory_bytes),
            Field(memory(load.swap_used_bytes), load.swap_used_bytes),
        )
        for cell, load, users in shared
    ]
    sentence = ""
    if shared:
        cell, _, users = shared[0]
        largest = max(users, key=lambda user: user.num_bytes)
        sentence = (
            f"Another process ({clean(largest.name, _MAX_NAME)}) held {memory(largest.num_bytes)} of {_place(largest)} "
            f"when {labels[cell.key]} began: the most of any."
        )
    return MemoryUsers(sentence, table(USER_HEADS, rows, MAX_ROWS), tuple(notes))


def _place(user: MemoryUser) -> str:
    return "main memory" if user.gpu is None else f"GPU {user.gpu}"


def _user_text(users: Sequence[MemoryUser]) -> str:
    ranked = sorted(users, key=lambda user: -user.num_bytes)
    shown = [
        f"{clean(user.name, _MAX_NAME)} {memory(user.num_bytes)} of {_place(user)}" for user in ranked[:_MAX_USERS]
    ]
    num_more = len(ranked) - _MAX_USERS
    return join_lines(*shown, f"{num_more} more" if num_more > 0 else "")


def memory_warnings(cells: Sequence[Priced]) -> list[tuple[str, str]]:
    """Return warnings about memory, with the labels of their cells."""
    return [(warning, labels) for warning, labels in warnings_by_text(cells) if "memory" in warning.lower()]


def savings_table(steps: Sequence[SavingStep], cells: Sequence[Priced], money: MoneyFormat) -> Table:
    """Build a row for each change of a setting: what it saved and cost."""
    labels = _cell_names(cells)
    return table(SAVING_HEADS, [_saving_row(step, labels, money) for step in steps], MAX_SAVINGS)


def _cell_names(cells: Sequence[Priced]) -> dict[CellKey, str]:
    """Return each cell's folder name, by `cell.key`, with the machine's name if there are several machines."""
    machines = machine_labels(cells)
    return {
        cell.key: clean(cell.summary.cell, _MAX_CELL)
        + (f" on {machines[cell.summary.machine_id]}" if len(machines) > 1 and cell.summary.records else "")
        for cell in cells
    }


def _saving_row(step: SavingStep, labels: Mapping[CellKey, str], money: MoneyFormat) -> Row:
    usual, taken = step.usual.summary, step.taken.summary
    peak, lower_peak = usual.peak_memory_bytes or 0, taken.peak_memory_bytes or 0
    share = step.saved_bytes / peak if peak else 0.0
    saved = memory(step.saved_bytes) if step.saved_bytes >= 0 else f"{memory(-step.saved_bytes)} more"
    before, after = usual.samples_per_s, taken.samples_per_s
    is_clear = before is not None and after is not None and intervals_disjoint(before, after)
    time_lines = join_lines(ratio_interval(step.time_ratio), "" if is_clear else "no significant difference")
    return (
        text_field(f"{step.way.name}: {_value(step.usual_value)} → {_value(step.value)}", step.way.name),
        text_field(labels[step.usual.key]),
        Field(f"{memory(peak)} → {memory(lower_peak)}", lower_peak),
        Field(saved, step.saved_bytes, percent(abs(share))),
        Field(f"{ratio_text(step.time_ratio.value)} times", step.time_ratio.value, time_lines),
        _cost_change(step, money),
        _accuracy_change(step),
    )


def _cost_change(step: SavingStep, money: MoneyFormat) -> Field:
    before, after = step.usual.usd_per_1000_samples, step.taken.usd_per_1000_samples
    if before is None or after is None:
        return Field("not known", None, title=clean(step.taken.missing or "no price"))
    change = f"{money.amount(before.value)} → {money.amount(after.value)}"
    return Field(change, after.value, basis_label(step.taken.price))


def _accuracy_change(step: SavingStep) -> Field:
    before, after = step.usual.summary.accuracy, step.taken.summary.accuracy
    if before is None or after is None:
        return Field("not measured", None, title="the weights were random, or no run reached its test")
    return Field(f"{percent(before.value)} → {percent(after.value)}", after.value)


def _value(value: Any) -> str:  # noqa: ANN401 - settings have values of several types
    if isinstance(value, bool):
        return "on" if value else "off"
    return clean(f"{value:g}" if isinstance(value, float) else str(value), _MAX_NAME)


def _fix_text(way: MemorySaving, value: Any) -> str:  # noqa: ANN401 - settings have values of several types
    text = trained_words(str(value)) if way.name == "trained layers" else _value(value)
    return _FIX_TEXTS.get(way.name, f"{way.name} {{}}").format(text)


def oom_fix_sentences(fixes: Sequence[OomFix], cells: Sequence[Priced], money: MoneyFormat) -> list[str]:
    """State, for each out-of-memory cell, the cheapest measured change of one setting that fits, or that none does."""
    labels = _cell_names(cells)
    sentences = [_fix_sentence(fix, labels, money) for fix in fixes[:MAX_ROWS]]
    num_more = len(fixes) - MAX_ROWS
    return sentences + ([f"{plural(num_more, 'more cell')} ran out of memory."] if num_more > 0 else [])


def _fix_sentence(fix: OomFix, labels: Mapping[CellKey, str], money: MoneyFormat) -> str:
    lead = f"{labels[fix.lost.key]} ran out of memory"
    taken, way = fix.taken, fix.way
    if taken is None or way is None:
        return f"{lead}; no cell that differs from it in one way alone was measured to fit."
    rate, cost = taken.summary.samples_per_s, taken.usd_per_1000_samples
    figures = [f"{number(rate.value)} samples/s"] if rate is not None else []
    if cost is not None:
        figures.append(f"{money.amount(cost.value)} per 1,000 samples ({basis_label(taken.price)} price)")
    sentence = (
        f"{lead}; the same with {_fix_text(way, fix.value)} ran in {memory(taken.summary.peak_memory_bytes)} "
        f"at {listed(figures)}."
    )
    other = fix.elsewhere
    if other is None:
        return sentence
    ratio = with_interval(f"{ratio_text(other.time_ratio.value)} times", ratio_interval(other.time_ratio))
    return f"{sentence} Where both ran ({labels[other.usual.key]}), that took {ratio} the time and dollars a sample."
