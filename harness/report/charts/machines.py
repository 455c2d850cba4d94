"""The bars of the same cells on several machines: speed, and dollars per 1,000 samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from harness.analysis.estimate import map_increasing
from harness.analysis.summary import CellKey
from harness.decision.choice import bound
from harness.decision.side_by_side import PER_1000, SPEED, ComparedCell, MachineFigure, SideBySide
from harness.pricing.cost import Priced
from harness.report.charts.bars import ROOM, bar_traces
from harness.report.charts.base import SERIES, Chart, chart_text, layout, mark_money_axis
from harness.report.charts.cost_accuracy import basis_words
from harness.report.charts.heat_maps import ended
from harness.report.formatting import MoneyFormat, number, plural

MAX_LINES = 8
_ROW_HEIGHT = 22
_FRAME_HEIGHT = 70
_LEGEND_LINE = 20
_GAP = 0.7  # rows between two cells
_EDGE = 0.8  # of a row above the first and below the last


@dataclass(frozen=True)
class _Kind:
    key: str
    title: str
    figure: MachineFigure
    show: Callable[[float], str] = number
    dollars: bool = False

    def head(self, money: MoneyFormat) -> str:
        """Return the title in the report's currency."""
        return self.title.format(money=money.code)

    def drawn(self, value: float, money: MoneyFormat) -> float:
        """Return a value as the chart draws it."""
        return money.convert(value) if self.dollars else value

    def text(self, value: float, money: MoneyFormat) -> str:
        """Format a value as the reader sees it."""
        return money.amount(value) if self.dollars else self.show(value)


_KINDS = (
    _Kind("speed", "Training speed, samples/s", SPEED),
    _Kind("usd", "{money} per 1,000 samples", PER_1000, dollars=True),
)


def machine_charts(
    found: SideBySide, names: Sequence[str], labels: Sequence[str], cells: Sequence[Priced], money: MoneyFormat
) -> tuple[list[Chart], int]:
    """A chart of each figure that any of the shared cells has; also how many more such cells the table alone holds.

    Args:
        found: The machines.
        names: Of the types.
        labels: Of `found.shared`.
        cells: All of the report.
    """
    # Every machine has its colour; more of them than colours stand in the table alone.
    shown = list(zip(found.shared, labels, strict=True))[:MAX_LINES]
    kinds = [
        kind
        for kind in _KINDS
        if any(kind.figure.read(cell) is not None for line, _ in shown for cell in line.measured)
    ]
    places = {cell.key: index for index, cell in enumerate(cells)}
    return [_chart(shown, names[: len(SERIES)], kind, places, money) for kind in kinds], max(
        0, len(found.shared) - MAX_LINES
    )


def _chart(
    shown: Sequence[tuple[ComparedCell, str]],
    names: Sequence[str],
    kind: _Kind,
    indices: Mapping[CellKey, int],
    money: MoneyFormat,
) -> Chart:
    at, middles, num_rows = _rows(shown, len(names))
    drawn = go.Figure()
    for index, name in enumerate(names):
        places = [place for place in at if place[1] == index]
        cells = [cell for line, _ in places if (cell := shown[line][0].squares[index]) is not None]
        found = [kind.figure.read(cell) for cell in cells]
        words = [
            chr(0xA0)
            + (chart_text(kind.text(estimate.value, money)) if estimate is not None else chart_text(_why(cell)))
            for cell, estimate in zip(cells, found, strict=True)
        ]
        hover = [
            f"{chart_text(name)}<br>{chart_text(shown[place[0]][1])}<br>{word}"
            for place, word in zip(places, words, strict=True)
        ]
        drawn.add_traces(
            bar_traces(
                [at[place] for place in places],
                [
                    None if estimate is None else map_increasing(estimate, lambda value: kind.drawn(value, money))
                    for estimate in found
                ],
                words,
                name=chart_text(name),
                role=SERIES[index],
                hover=hover,
                cells=[indices[cell.key] for cell in cells] if kind.dollars else None,
            )
        )
    members = [cell for line, _ in shown for cell in line.measured]
    most = max(
        (kind.drawn(bound(each, "high"), money) for cell in members if (each := kind.figure.read(cell)) is not None),
        default=1.0,
    )
    layout(drawn, x="", y="", height=round(_FRAME_HEIGHT + _ROW_HEIGHT * num_rows) + _LEGEND_LINE * len(names))
    drawn.update_layout(barmode="overlay", showlegend=True)
    drawn.update_xaxes(range=[0, most * ROOM], nticks=3, tickprefix=money.sign if kind.dollars else "")
    if kind.dollars:
        mark_money_axis(drawn, basis_words(members), "x", kind="zero", room=ROOM)
    drawn.update_yaxes(
        range=[num_rows - 1 + _EDGE, -_EDGE],
        showgrid=False,
        tickvals=middles,
        ticktext=[chart_text(label).replace(" ", "<br>", 1) for _, label in shown],
    )
    title = kind.head(money) + (f", {basis_words(members)}" if kind.dollars else "")
    label = f"Bar chart: {title} of {plural(len(shown), 'cell')} on {plural(len(names), 'machine')}, side by side."
    return Chart(f"chart-machines-{kind.key}", title, label, drawn)


def _rows(
    shown: Sequence[tuple[ComparedCell, str]], num_types: int
) -> tuple[dict[tuple[int, int], float], list[float], float]:
    """Where each bar stands, by line and type, in rows from the top; the middle of each line; and rows in all."""
    at: dict[tuple[int, int], float] = {}
    middles: list[float] = []
    top = 0.0
    for index, (line, _) in enumerate(shown):
        members = [kind for kind in range(num_types) if line.squares[kind] is not None]
        at |= {(index, kind): top + row for row, kind in enumerate(members)}
        middles.append(top + (len(members) - 1) / 2)
        top += len(members) + _GAP
    return at, middles, top - _GAP


def _why(cell: Priced) -> str:
    return ended(cell) if cell.summary.num_ok == 0 else "no figure"
