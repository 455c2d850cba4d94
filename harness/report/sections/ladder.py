"""A ladder's charts and table: what each rung changed, and what it gained and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from textwrap import wrap

import plotly.graph_objects as go

from harness.analysis.estimate import Estimate, intervals_disjoint, value_of
from harness.analysis.summary import CellKey
from harness.decision.choice import bound
from harness.decision.ladder import Ladder, LadderStep
from harness.pricing.cost import Priced
from harness.report.charts.base import SERIES, Chart, chart_text, layout
from harness.report.charts.horizontal_bars import Bar, BarSeries, bar_traces
from harness.report.formatting import MoneyFormat, interval, listed, memory, number, plural, seconds
from harness.report.labels import common_values, describe, difference, machine_labels
from harness.report.sections.cell_table import Field, amount_field, known
from harness.report.sections.scaling_words import ratio_words

HEADS = (
    *("rung", "samples/s", "speed-up", "to the target", "cost to target", "times cheaper"),
    *("peak memory", "test accuracy"),
)
_ROW_HEIGHT, _FRAME_HEIGHT, _ROOM = 44, 60, 1.4
_WHY_NOT = "not every run reached it, or nothing was read"
_TICK_SIGNS = 30


def step_words(ladder: Ladder) -> dict[int, str]:
    """By number: what a rung changed of the one that it stands on; of the first, what it is."""
    usual = common_values([rung.cell for rung in ladder.rungs])
    found = {}
    for rung in ladder.rungs:
        if rung.base is None:
            found[rung.number] = describe(rung.cell, usual)
        else:
            found[rung.number] = difference(rung.cell, rung.base.cell, usual) or "nothing that is told"
    return found


def best_step(ladder: Ladder) -> LadderStep | None:
    """The cheapest to the target among rungs that cost no accuracy that could be told; None where none is cheaper."""
    first = ladder.rungs[0].cell.summary.accuracy
    known = [
        rung
        for rung in ladder.rungs[1:]
        if rung.saving is not None and not _is_worse(rung.cell.summary.accuracy, first)
    ]
    best = max(known, key=lambda rung: value_of(rung.saving) or 0.0, default=None)
    return best if best is not None and (value_of(best.saving) or 0.0) > 1 else None


def step_sentences(ladder: Ladder, cells: Sequence[Priced]) -> list[str]:
    """What the ladder comes to, and which rungs did not help."""
    words, best, machines = step_words(ladder), best_step(ladder), machine_labels(cells)
    where = f" on {machines[ladder.machine_id]}" if len(machines) > 1 else ""
    said = []
    if best is None or best.saving is None:
        said.append(f"No rung reaches a validation accuracy of {ladder.target:g} for less than the first one{where}.")
    else:
        spread = interval(best.saving, "number")
        rate = f" at {ratio_words(best.speed_up.value)} times the samples a second" if best.speed_up else ""
        said.append(
            f"{ratio_words(best.saving.value)} times cheaper{f' ({spread})' if spread else ''} to a validation accuracy of "
            f"{ladder.target:g}{where}: rung {best.number} against rung 0,{rate}. Test accuracy "
            f"{_accuracy(best)} against {_accuracy(ladder.rungs[0])}."
        )
    named = {rung.number: f"rung {rung.number} ({words[rung.number]})" for rung in ladder.rungs[1:]}
    missed = [named[rung.number] for rung in ladder.rungs[1:] if rung.saving is None and not _hurt(rung)]
    if missed:
        said.append(f"Not every run reached it on {listed(missed)}.")
    lost = [named[rung.number] for rung in ladder.rungs[1:] if _hurt(rung)]
    if lost:
        said.append(f"Did not help the rung below: {listed(lost)}.")
    return said


def step_rows(ladder: Ladder, cells: Sequence[Priced], money: MoneyFormat) -> list[list[Field]]:
    """Every rung, in the order of HEADS."""
    words, places = step_words(ladder), {cell.key: index for index, cell in enumerate(cells)}
    return [_row(rung, words, places, ladder.rungs[0], money) for rung in ladder.rungs]


def step_charts(ladder: Ladder, index: int) -> list[Chart]:
    """Two rows of bars, over the first rung: samples a second, and cheapness to the target."""
    words = step_words(ladder)
    return [
        _chart(
            ladder,
            words,
            f"chart-ladder-{index}-speed",
            "Samples/s, times rung 0",
            [rung.speed_up for rung in ladder.rungs],
            SERIES[0],
        ),
        _chart(
            ladder,
            words,
            f"chart-ladder-{index}-cost",
            f"Times cheaper to a validation accuracy of {ladder.target:g}",
            [rung.saving for rung in ladder.rungs],
            SERIES[1],
        ),
    ]


def _row(
    rung: LadderStep, words: Mapping[int, str], places: Mapping[CellKey, int], first: LadderStep, money: MoneyFormat
) -> list[Field]:
    summary = rung.cell.summary
    on = "" if rung.base is None or rung.base.number == rung.number - 1 else f"on rung {rung.base.number}"
    reached = "" if rung.num_reached == rung.num_runs else f"{rung.num_reached} of {rung.num_runs} runs reached it"
    worse = _is_worse(summary.accuracy, first.cell.summary.accuracy)
    return [
        Field(f"{rung.number}: {words[rung.number]}", rung.number, on, numeric=False),
        _known(
            None if summary.samples_per_s is None else number(summary.samples_per_s.value),
            value_of(summary.samples_per_s),
            interval(summary.samples_per_s, "number"),
        ),
        _ratio(rung.speed_up),
        _known(
            None if summary.time_to_target_s is None else seconds(summary.time_to_target_s),
            summary.time_to_target_s,
            reached,
        ),
        amount_field(rung.cell, places[rung.cell.key], "usd_to_target", _WHY_NOT, money=money),
        _ratio(rung.saving),
        _known(
            None if summary.peak_memory_bytes is None else memory(summary.peak_memory_bytes), summary.peak_memory_bytes
        ),
        replace(
            _known(
                None if summary.accuracy is None else f"{summary.accuracy.value:.3f}",
                value_of(summary.accuracy),
                "; ".join(filter(None, (interval(summary.accuracy, "number"), "below rung 0" if worse else ""))),
            ),
            doubtful=worse,
        ),
    ]


def _chart(
    ladder: Ladder, words: Mapping[int, str], key: str, title: str, found: Sequence[Estimate | None], role: str
) -> Chart:
    shown = [f"{ratio_words(e.value)}×" if e is not None else "not every run" for e in found]
    drawn = go.Figure()
    rows = list(range(len(ladder.rungs)))
    names = [f"{rung.number}: {words[rung.number]}" for rung in ladder.rungs]
    fields = zip(rows, found, map(chart_text, shown), map(chart_text, names), strict=True)
    drawn.add_traces(bar_traces(BarSeries(title, role, tuple(Bar(*each) for each in fields))))
    most = max((bound(e, "high") for e in found if e is not None), default=1.0)
    layout(drawn, x="", y="", height=_FRAME_HEIGHT + _ROW_HEIGHT * len(rows))
    drawn.update_layout(barmode="overlay", showlegend=False)
    drawn.update_xaxes(range=[0, most * _ROOM], nticks=5)
    ticks = ["<br>".join(map(chart_text, wrap(name, _TICK_SIGNS, max_lines=2, placeholder=" …"))) for name in names]
    drawn.update_yaxes(range=[len(rows) - 0.5, -0.5], showgrid=False, tickvals=rows, ticktext=ticks)
    label = f"Bar chart: {title}, for {plural(len(rows), 'rung')}."
    return Chart(key, title, label, drawn)


def _hurt(rung: LadderStep) -> bool:
    """Whether a rung is no cheaper than the one that it stands on (no faster, where that can't be told), or clearly less accurate."""
    base = rung.base
    if base is None:
        return False
    own, other = (rung.saving, base.saving) if rung.saving and base.saving else (rung.speed_up, base.speed_up)
    is_no_gain = own is not None and other is not None and own.value <= other.value
    return is_no_gain or _is_worse(rung.cell.summary.accuracy, base.cell.summary.accuracy)


def _is_worse(own: Estimate | None, other: Estimate | None) -> bool:
    return own is not None and other is not None and own.value < other.value and intervals_disjoint(own, other)


def _accuracy(rung: LadderStep) -> str:
    found = rung.cell.summary.accuracy
    if found is None:
        return "not measured"
    spread = interval(found, "number")
    return f"{found.value:.3f}" + (f" ({spread})" if spread else "")


def _ratio(found: Estimate | None) -> Field:
    return _known(
        None if found is None else f"{ratio_words(found.value)} times", value_of(found), interval(found, "number")
    )


def _known(text: str | None, value: float | None, extra: str = "") -> Field:
    """As `known`, with the extra line where there is no figure too: how many runs reached the target."""
    return replace(known(text, value, _WHY_NOT), extra=extra)
