"""Ladders of optimisations: what each step changed, gained and cost, in sentences, charts and a table (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.analysis.estimate import Estimate, intervals_disjoint, value_of
from harness.decision.ladder import Ladder, LadderStep, ladders
from harness.pricing.cost import Priced
from harness.report.charts.base import MEASURE, Chart, chart_text
from harness.report.charts.horizontal_bars import Bar, bar_chart
from harness.report.formatting import MoneyFormat, interval, listed, memory, number, plural, seconds, with_interval
from harness.report.labels import cell_indices, common_values, describe, difference, machine_labels, missed_label
from harness.report.sections.scaling import ratio_text
from harness.report.table import Field, Row, Table, amount_field, join_lines, measured_field, table, text_field

HEADS = (
    *("rung", "samples/s", "speed-up", "to the target", "cost to target", "times cheaper"),
    *("peak memory", "test accuracy"),
)
_WHY_NOT = "no run reached it, or nothing was read"


@dataclass(frozen=True)
class LadderSection:
    """One study's ladder.

    Attributes:
        target: The validation accuracy that steps are compared at.
    """

    ladder: Ladder
    name: str
    target: float
    sentences: tuple[str, ...]
    charts: tuple[Chart, ...]
    table: Table


def ladder_sections(cells: Sequence[Priced], money: MoneyFormat) -> list[LadderSection]:
    """Build a section for each ladder among the cells."""
    return [
        LadderSection(
            ladder=ladder,
            name=ladder.study,
            target=ladder.target,
            sentences=tuple(step_sentences(ladder, cells)),
            charts=tuple(step_charts(ladder, index)),
            table=step_table(ladder, cells, money),
        )
        for index, ladder in enumerate(ladders(cells))
    ]


def step_texts(ladder: Ladder) -> dict[int, str]:
    """Describe, by step number, what each step changes in its base step; the first step is described in full."""
    usual = common_values([step.cell for step in ladder.rungs])
    return {
        step.number: describe(step.cell, usual)
        if step.base is None
        else difference(step.cell, step.base.cell, usual) or "nothing that is told"
        for step in ladder.rungs
    }


def best_step(ladder: Ladder) -> LadderStep | None:
    """Return the step that saves most and is not significantly less accurate than the first; None if none saves.

    Steps that save clearly, whose interval lies above 1, come before the others.
    """
    first = ladder.rungs[0].cell.summary.accuracy
    candidates = [
        step
        for step in ladder.rungs[1:]
        if step.saving is not None and not _is_worse(step.cell.summary.accuracy, first)
    ]
    best = max(candidates, key=lambda step: (_saves_clearly(step), value_of(step.saving) or 0.0), default=None)
    return best if best is not None and (value_of(best.saving) or 0.0) > 1 else None


def _saves_clearly(step: LadderStep) -> bool:
    return step.saving is not None and step.saving.low is not None and step.saving.low > 1


def step_sentences(ladder: Ladder, cells: Sequence[Priced]) -> list[str]:
    """State what the ladder saves, which steps missed the target, and which steps did not help."""
    texts, best, machines = step_texts(ladder), best_step(ladder), machine_labels(cells)
    where = f" on {machines[ladder.machine_id]}" if len(machines) > 1 else ""
    if best is None or best.saving is None:
        lead = f"No rung reaches a validation accuracy of {ladder.target:g} for less than the first one{where}."
    else:
        cheaper = with_interval(f"{ratio_text(best.saving.value)} times cheaper", interval(best.saving, "number"))
        rate = f" at {ratio_text(best.speed_up.value)} times the samples a second" if best.speed_up else ""
        lead = (
            f"{cheaper} to a validation accuracy of {ladder.target:g}{where}: rung {best.number} against rung 0,{rate}. "
            f"Test accuracy {_accuracy(best)} against {_accuracy(ladder.rungs[0])}."
        )
        if not _saves_clearly(best):
            lead += " More seeds would show whether it saves: the interval reaches below 1."
    sentences = [lead]
    names = {step.number: f"rung {step.number} ({texts[step.number]})" for step in ladder.rungs[1:]}
    useless = [step.number for step in ladder.rungs[1:] if _did_not_help(step)]
    missed = [step.number for step in ladder.rungs[1:] if step.saving is None and step.number not in useless]
    if missed:
        sentences.append(f"No run reached it on {listed([names[number] for number in missed])}.")
    if useless:
        sentences.append(f"Did not help the rung below: {listed([names[number] for number in useless])}.")
    return sentences


def step_table(ladder: Ladder, cells: Sequence[Priced], money: MoneyFormat) -> Table:
    """Build a row for every step."""
    texts, indices = step_texts(ladder), cell_indices(cells)
    first = ladder.rungs[0]
    return table(HEADS, [_row(step, texts[step.number], indices[step.cell.key], first, money) for step in ladder.rungs])


def step_charts(ladder: Ladder, index: int) -> list[Chart]:
    """Draw two bar charts relative to the first step: samples/s, and how many times cheaper the target is reached."""
    fastest = max(ladder.rungs, key=lambda step: value_of(step.speed_up) or 0.0)
    speed = f"Rung {fastest.number} trains {ratio_text(value_of(fastest.speed_up) or 1.0)} times as fast as rung 0"
    best = best_step(ladder)
    cost = "No rung is cheaper than rung 0"
    if best is not None and best.saving is not None:
        cost = f"Rung {best.number} is {ratio_text(best.saving.value)} times cheaper than rung 0"
    charts = (
        ("speed", speed, [step.speed_up for step in ladder.rungs]),
        ("cost", cost, [step.saving for step in ladder.rungs]),
    )
    return [_chart(ladder, f"chart-ladder-{index}-{key}", title, ratios) for key, title, ratios in charts]


def _row(step: LadderStep, text: str, index: int, first: LadderStep, money: MoneyFormat) -> Row:
    summary = step.cell.summary
    base = "" if step.base is None or step.base.number == step.number - 1 else f"on rung {step.base.number}"
    to_target, missed = summary.time_to_target_s, missed_label(step.cell)
    rate, accuracy = summary.samples_per_s, summary.accuracy
    worse = _is_worse(accuracy, first.cell.summary.accuracy)
    accuracy_lines = join_lines(interval(accuracy, "number"), "below rung 0" if worse else "")
    return (
        text_field(f"{step.number}: {text}", step.number, base),
        _field(number(value_of(rate)), value_of(rate), interval(rate, "number")),
        _ratio(step.speed_up),
        _field(seconds(value_of(to_target)), value_of(to_target), join_lines(interval(to_target, "seconds"), missed)),
        amount_field(step.cell, index, "usd_to_target", _WHY_NOT, missed, money=money),
        _ratio(step.saving),
        _field(memory(summary.peak_memory_bytes), summary.peak_memory_bytes),
        replace(
            _field("" if accuracy is None else f"{accuracy.value:.3f}", value_of(accuracy), accuracy_lines),
            doubtful=worse,
        ),
    )


def _chart(ladder: Ladder, key: str, title: str, ratios: Sequence[Estimate | None]) -> Chart:
    texts = step_texts(ladder)
    bars = [
        Bar(
            f"{step.number}: {texts[step.number]}",
            ratio,
            chart_text(f"{ratio_text(ratio.value)}×" if ratio is not None else "no run"),
            MEASURE,
        )
        for step, ratio in zip(ladder.rungs, ratios, strict=True)
    ]
    return bar_chart(key, title, f"Bar chart of {plural(len(bars), 'rung')}: {title}.", bars)


def _did_not_help(step: LadderStep) -> bool:
    """Return whether a step is no cheaper than its base, or significantly less accurate.

    If a cost is unknown, speed is compared instead.
    """
    base = step.base
    if base is None:
        return False
    own, other = (step.saving, base.saving) if step.saving and base.saving else (step.speed_up, base.speed_up)
    is_no_gain = own is not None and other is not None and own.value <= other.value
    return is_no_gain or _is_worse(step.cell.summary.accuracy, base.cell.summary.accuracy)


def _is_worse(own: Estimate | None, other: Estimate | None) -> bool:
    return own is not None and other is not None and own.value < other.value and intervals_disjoint(own, other)


def _accuracy(step: LadderStep) -> str:
    accuracy = step.cell.summary.accuracy
    if accuracy is None:
        return "not measured"
    return with_interval(f"{accuracy.value:.3f}", interval(accuracy, "number"))


def _ratio(ratio: Estimate | None) -> Field:
    return _field(
        "" if ratio is None else f"{ratio_text(ratio.value)} times", value_of(ratio), interval(ratio, "number")
    )


def _field(text: str, value: float | None, extra: str = "") -> Field:
    """Build a measured field that, even without a value, keeps its extra line: how many runs reached the target."""
    return replace(measured_field(text, value, _WHY_NOT), extra=extra)
