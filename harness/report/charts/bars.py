"""The report's bars of speed, memory and dollars by precision, device and machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap

import plotly.graph_objects as go

from harness.analysis.estimate import Estimate, map_increasing
from harness.analysis.summary import CellKey
from harness.decision.choice import bound
from harness.pricing.cost import Priced
from harness.report.charts.base import (
    SERIES,
    Chart,
    chart_text,
    colour,
    layout,
    mark_money_axis,
    memory_ticks,
    recompute_meta,
    words_beside,
)
from harness.report.charts.cost_accuracy import basis_words
from harness.report.charts.heat_maps import FIGURES, PER_SAMPLE, HeatMapFigure, ended
from harness.report.formatting import MoneyFormat, plural
from harness.report.labels import axis_word, common_values, config_fields, machine_labels
from harness.schema.cells import FineTuneConfig

_MAX_GROUPS = 6
_FRAME_HEIGHT = 70
_ROW_HEIGHT = 20
_LEGEND_LINE = 20
_LEGEND_SIGNS = 40
_GAP = 0.9  # rows between two places
_EDGE = 0.8  # of a row above the first and below the last
_BAR = 0.86  # of a row
_MAX_TICKS = 2
ROOM = 1.5  # behind the longest bar, for its figure


@dataclass(frozen=True)
class BarGroup:
    """Cells that differ in nothing but precision, device and machine, by these."""

    told: tuple[str, ...]
    cells: dict[str, Priced]


def bars(cells: Sequence[Priced], money: MoneyFormat) -> tuple[list[Chart], int]:
    """A chart for each kind of figure; also how many further groups the table alone holds. Empty if no group has two."""
    groups = sorted((group for group in _groups(cells) if len(group.cells) > 1), key=lambda group: -len(group.cells))
    shown = groups[:_MAX_GROUPS]
    if not shown:
        return [], 0
    places = list(dict.fromkeys(place for group in shown for place in group.cells))
    indices = {cell.key: index for index, cell in enumerate(cells)}
    charts = [_bars(shown, places, figure, indices, money) for figure in FIGURES if _any(shown, figure)]
    return charts, len(groups) - len(shown)


def _groups(cells: Sequence[Priced]) -> list[BarGroup]:
    machines = machine_labels(cells)
    varied = [key for key in common_values(cells) if key not in ("precision", "device")]
    found: dict[tuple[str, ...], BarGroup] = {}
    for cell in cells:
        config = cell.summary.config
        if isinstance(config, FineTuneConfig):
            fields = config_fields(cell)
            words = tuple(axis_word(key, fields[key]) for key in varied if fields[key] is not None)
            place = f"{config.precision}, {config.device}"
            if len(machines) > 1:
                place += f", {machines[cell.summary.machine_id]}"
            group = found.setdefault(words, BarGroup(words, {}))
            if place not in group.cells or cell.summary.num_ok:
                group.cells[place] = cell
    return list(found.values())


def _any(groups: Sequence[BarGroup], figure: HeatMapFigure) -> bool:
    return any(figure.read(cell) is not None for group in groups for cell in group.cells.values())


@dataclass(frozen=True)
class BarRows:
    """Where each bar stands, in rows from the top: only bars that there are take room.

    Attributes:
        at: By place and index of the group.
        middle: Of a place's rows, where its name stands.
        lost: Places of which no cell has the figure: one row, one word.
        num_rows: In all, gaps between places included.
    """

    at: dict[tuple[str, int], float]
    middle: dict[str, float]
    lost: frozenset[str]
    num_rows: float


def _rows(groups: Sequence[BarGroup], places: Sequence[str], figure: HeatMapFigure) -> BarRows:
    """A row for every cell; one for a place of which no cell has the figure."""
    at: dict[tuple[str, int], float] = {}
    middle: dict[str, float] = {}
    lost = frozenset(
        place
        for place in places
        if all(figure.read(group.cells[place]) is None for group in groups if place in group.cells)
    )
    top = 0.0
    for place in places:
        members = [index for index, group in enumerate(groups) if place in group.cells]
        at |= {(place, index): top + (0 if place in lost else row) for row, index in enumerate(members)}
        num_rows = 1 if place in lost else len(members)
        middle[place] = top + (num_rows - 1) / 2
        top += num_rows + _GAP
    return BarRows(at, middle, lost, top - _GAP)


def _bars(
    groups: Sequence[BarGroup],
    places: Sequence[str],
    figure: HeatMapFigure,
    indices: Mapping[CellKey, int],
    money: MoneyFormat,
) -> Chart:
    labels = _labels(groups)
    rows = _rows(groups, places, figure)
    drawn = go.Figure()
    for index, (group, label) in enumerate(zip(groups, labels, strict=True)):
        drawn.add_traces(_traces(group, label, index, rows, figure, indices, money))
    members = [cell for group in groups for cell in group.cells.values()]
    most = max(
        (figure.drawn(bound(e, "high"), money) for cell in members if (e := figure.read(cell)) is not None), default=1.0
    )
    drawn.add_trace(_lost_places(groups, places, rows))
    lines = sum(_legend_name(label).count("<br>") + 1 for label in labels)
    legend = _LEGEND_LINE * (len(groups) > 1) * lines
    layout(drawn, x="", y="", height=round(_FRAME_HEIGHT + _ROW_HEIGHT * rows.num_rows) + legend)
    drawn.update_layout(barmode="overlay", showlegend=len(groups) > 1)
    drawn.update_xaxes(range=[0, most * ROOM], nticks=_MAX_TICKS + 1, tickprefix=money.sign if figure.dollars else "")
    drawn.update_yaxes(
        range=[rows.num_rows - 1 + _EDGE, -_EDGE],
        showgrid=False,
        tickvals=[rows.middle[place] for place in places],
        ticktext=[_tick(place) for place in places],
    )
    if figure.dollars:
        mark_money_axis(drawn, basis_words(members), "x", kind="zero", room=ROOM)
    if figure.key == "memory":
        memory_ticks(drawn, most, num_ticks=_MAX_TICKS)
    title = figure.head(money) + (f", {basis_words(members)}" if figure.dollars else "")
    label = f"Bar chart: {title} for {plural(len(places), 'combination')} of precision and device."
    return Chart(f"chart-bars-{figure.key}", title, label, drawn)


def _labels(groups: Sequence[BarGroup]) -> list[str]:
    """In what each group differs from the others shown."""
    same = set.intersection(*(set(group.told) for group in groups))
    return [", ".join(part for part in group.told if part not in same) or "all" for group in groups]


def _legend_name(label: str) -> str:
    """In lines that a legend has room for; what does not fit is told by a touch."""
    return "<br>".join(chart_text(line) for line in wrap(label, _LEGEND_SIGNS, max_lines=2, placeholder=" …"))


def _traces(
    group: BarGroup,
    label: str,
    index: int,
    rows: BarRows,
    figure: HeatMapFigure,
    indices: Mapping[CellKey, int],
    money: MoneyFormat,
) -> list[go.Bar]:
    places = [place for place in group.cells if place not in rows.lost]
    found = [figure.read(group.cells[place]) for place in places]
    words = [_words(group.cells[place], estimate, figure, money) for place, estimate in zip(places, found, strict=True)]
    return bar_traces(
        [rows.at[place, index] for place in places],
        [
            None if estimate is None else map_increasing(estimate, lambda value: figure.drawn(value, money))
            for estimate in found
        ],
        words,
        name=_legend_name(label),
        role=SERIES[index],
        cells=[indices[group.cells[place].key] for place in places] if figure.dollars else None,
        hover=[
            f"{chart_text(label)}<br>{chart_text(place)}<br>{word}" for place, word in zip(places, words, strict=True)
        ],
    )


def bar_traces(
    at: Sequence[float],
    found: Sequence[Estimate | None],
    words: Sequence[str],
    *,
    name: str,
    role: str,
    hover: Sequence[str],
    cells: Sequence[int] | None = None,
) -> list[go.Bar]:
    """Bars across at these rows with their intervals, and the words behind each; words and hover are escaped already.

    Of USD per 1,000 samples `cells` holds the place in the report of each bar's cell, so that the page can follow.
    """
    bar = go.Bar(
        orientation="h",
        y=list(at),
        x=[None if estimate is None else estimate.value for estimate in found],
        width=_BAR,
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [None if e is None else bound(e, "high") - e.value for e in found],
            "arrayminus": [None if e is None else e.value - bound(e, "low") for e in found],
            "thickness": 1.2,
            "width": 3,
        },
        name=name,
        meta=colour(role) if cells is None else recompute_meta("x", PER_SAMPLE, cells, role),
        hoverinfo="text",
        hovertext=list(hover),
    )
    # An unseen bar up to the interval's end, so that the words stand behind the error bar and not on it.
    ends = go.Bar(
        orientation="h",
        y=bar.y,
        x=[0 if estimate is None else bound(estimate, "high") for estimate in found],
        width=_BAR,
        text=list(words),
        textposition="outside",
        cliponaxis=False,
        marker={"color": "rgba(0,0,0,0)"},
        showlegend=False,
        hoverinfo="skip",
        meta=None if cells is None else recompute_meta("x", PER_SAMPLE, cells, end="high"),
    )
    return [bar, ends]


def _words(cell: Priced, estimate: Estimate | None, figure: HeatMapFigure, money: MoneyFormat) -> str:
    # A space that is not trimmed keeps the words off the error bar.
    return chr(0xA0) + chart_text(figure.text(estimate.value, money) if estimate is not None else ended(cell))


def _lost_places(groups: Sequence[BarGroup], places: Sequence[str], rows: BarRows) -> go.Scatter:
    """Words where a bar would begin, had any of the cells there ended well."""
    lost = [place for place in places if place in rows.lost]
    first = [next(group.cells[place] for group in groups if place in group.cells) for place in lost]
    middles = [rows.middle[place] for place in lost]
    return words_beside([0] * len(lost), middles, [f" {ended(cell)}" for cell in first])


def _tick(place: str) -> str:
    precision, device, *machine = chart_text(place).split(", ", 2)
    return "<br>".join([f"{precision}, {device}", *machine])
