"""Horizontal bars with their names above and their figures behind them: the form that several charts share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

import plotly.graph_objects as go

from harness.analysis.estimate import Estimate, bound
from harness.report.charts.base import Chart, chart_lines, chart_text, colour, error_bars, layout, text_labels
from harness.report.charts.money import (
    PER_SAMPLE,
    amount_tooltips,
    mark_money,
    recompute_meta,
    text_tooltips,
    tooltip_row,
)
from harness.report.formatting import MoneyFormat

MAX_TICKS = 2
NAME_WIDTH = 42  # characters in a line of a bar's name, which a plot of 300 pixels has room for
BAR_HEIGHT = 16  # pixels
_LINE, _GAP, _FRAME = 16, 8, 44  # pixels: a line of a bar's name, the room below it, the axis
_ROOM = 1.55  # length of the axis / length of the longest bar, to leave room for the bar's text
# The no-break space keeps the text off the error bar; a plain space would be trimmed.
_TEXT_TEMPLATE = "\N{NO-BREAK SPACE}%{text}"


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        name: What the bar is of, shown above it.
        estimate: The drawn value and its interval; None for a text without a bar.
        text: The figure, shown after the bar's end and in the tooltip, already escaped.
        role: Name of the colour; see `colour`.
        cell: Index of the bar's cell in the report; needed only for costs per 1,000 samples, which the page recomputes.
    """

    name: str
    estimate: Estimate | None
    text: str
    role: str
    cell: int | None = None


def bar_lines(name: str) -> list[str]:
    """Wrap a bar's name to the lines that are shown above the bar."""
    return wrap(name, NAME_WIDTH) or [""]


def bar_figure(bars: Sequence[Bar], *, money: MoneyFormat | None = None, basis: str = "") -> go.Figure:
    """Draw bars from the top, each below its name.

    Args:
        bars: The bars.
        money: Format of amounts per 1,000 samples, which the page recomputes; None for other figures.
        basis: How the prices are known, as titles say it; only with `money`.
    """
    figure = go.Figure()
    tops, middles, height = place_bars([len(bar_lines(bar.name)) for bar in bars])
    roles = list(dict.fromkeys(bar.role for bar in bars))
    for role in roles:
        placed = [(bar, middle) for bar, middle in zip(bars, middles, strict=True) if bar.role == role]
        figure.add_traces(_traces(placed, role, is_money=money is not None))
    figure.add_trace(names_above([bar.name for bar in bars], tops))
    layout(figure, x="", y="", height=height + _FRAME, barmode="overlay", showlegend=False)
    highest = max((bound(bar.estimate, "high") for bar in bars if bar.estimate is not None), default=1.0)
    figure.update_xaxes(range=[0, highest * _ROOM], nticks=MAX_TICKS + 1, tickprefix=money.sign if money else "")
    figure.update_yaxes(range=[height, 0], visible=False)
    if money is not None:
        mark_money(figure, basis, "x", kind="zero", room=_ROOM)
    return figure


def place_bars(num_lines: Sequence[int]) -> tuple[list[float], list[float], int]:
    """Return the middle of each bar's name and of each bar, in pixels from the top, and the height of all.

    Args:
        num_lines: The number of lines of each bar's name.
    """
    tops, middles, top = [], [], 0.0
    for lines in num_lines:
        tops.append(top + _LINE * lines / 2)
        middles.append(top + _LINE * lines + BAR_HEIGHT / 2)
        top += _LINE * lines + BAR_HEIGHT + _GAP
    return tops, middles, round(top)


def names_above(names: Sequence[str], tops: Sequence[float]) -> go.Scatter:
    """Write the bars' names above them, from the left edge of the plot."""
    return text_labels([0] * len(names), tops, [chart_lines(*bar_lines(name)) for name in names])


def bar_chart(key: str, title: str, label: str, bars: Sequence[Bar]) -> Chart:
    """Build a chart of bars that the page does not recompute."""
    return Chart(key, title, label, bar_figure(bars))


def _traces(placed: Sequence[tuple[Bar, float]], role: str, *, is_money: bool) -> list[go.Bar]:
    """Return the bars of one colour, and invisible bars that carry the text.

    An invisible bar reaches to the upper end of the interval, so that the text starts after the error bar.
    """
    bars = [bar for bar, _ in placed]
    cells = [bar.cell for bar in bars if bar.cell is not None]
    separated = [f"{chart_text(bar.name)}<br>" for bar in bars]
    drawn = go.Bar(
        orientation="h",
        y=[middle for _, middle in placed],
        x=[None if bar.estimate is None else bar.estimate.value for bar in bars],
        width=BAR_HEIGHT,
        error_x=error_bars([bar.estimate for bar in bars], width=3),
        meta=recompute_meta("x", PER_SAMPLE, cells, role) if is_money else colour(role),
        **(
            amount_tooltips([tooltip_row(bar.text, before=lines) for bar, lines in zip(bars, separated, strict=True)])
            if is_money
            else text_tooltips([lines + bar.text for bar, lines in zip(bars, separated, strict=True)])
        ),
    )
    ends = go.Bar(
        orientation="h",
        y=drawn.y,
        x=[0 if bar.estimate is None else bound(bar.estimate, "high") for bar in bars],
        width=BAR_HEIGHT,
        text=[bar.text for bar in bars],
        texttemplate=_TEXT_TEMPLATE,
        textposition="outside",
        cliponaxis=False,
        marker={"color": "rgba(0,0,0,0)"},
        hoverinfo="skip",
        meta=recompute_meta("x", PER_SAMPLE, cells, end="high") if is_money else None,
    )
    return [drawn, ends]
