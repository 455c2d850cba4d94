"""Horizontal bars in blocks of rows, with error bars and figures as text: the form that several charts share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from harness.analysis.estimate import Estimate, bound
from harness.pricing.cost import Priced
from harness.report.charts.base import colour, error_bars, layout
from harness.report.charts.metrics import ChartMetric
from harness.report.charts.money import (
    PER_SAMPLE,
    amount_tooltips,
    basis_text,
    mark_money,
    recompute_meta,
    text_tooltips,
    tooltip_row,
)

LEGEND_LINE = 20  # pixels
MAX_TICKS = 2
_FRAME_HEIGHT = 70  # pixels, for the axis and margins
_EDGE = 0.8  # rows above the first bar and below the last
_WIDTH = 0.86  # thickness of a bar, in rows
_ROOM = 1.5  # length of the axis / length of the longest bar, to leave room for the bar's text
# The no-break space keeps the text off the error bar; a plain space would be trimmed.
_TEXT_TEMPLATE = "\N{NO-BREAK SPACE}%{text}"


@dataclass(frozen=True)
class Bar:
    """One bar; `text` and `tooltip` are already escaped.

    Attributes:
        row: The bar's distance from the top, in rows.
        estimate: The drawn value and its interval; None for a text without a bar.
        text: The figure, shown after the bar's end and in the tooltip.
        tooltip: The tooltip's first lines.
        cell: Index of the bar's cell in the report; needed only for costs per 1,000 samples, which the page recomputes.
    """

    row: float
    estimate: Estimate | None
    text: str
    tooltip: str
    cell: int | None = None


@dataclass(frozen=True)
class BarSeries:
    """Bars of one colour.

    Attributes:
        name: The series' name in the legend, already escaped.
        role: Name of the colour; see `colour`.
    """

    name: str
    role: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class RowBlocks:
    """Rows of bars, in blocks with gaps between them.

    Attributes:
        rows: For each block, each member's row, counted from the top.
        middles: Each block's middle row, which gets the tick.
        num_rows: Total number of rows, gaps included.
    """

    rows: tuple[dict[int, float], ...]
    middles: tuple[float, ...]
    num_rows: float


def stack_blocks(blocks: Sequence[Sequence[int]], gap: float) -> RowBlocks:
    """Give each member of each block a row; `gap` is the number of empty rows between two blocks."""
    rows, middles, top = [], [], 0.0
    for members in blocks:
        rows.append({member: top + offset for offset, member in enumerate(members)})
        middles.append(top + (len(members) - 1) / 2)
        top += len(members) + gap
    return RowBlocks(tuple(rows), tuple(middles), top - gap)


def bar_traces(series: BarSeries, *, is_money: bool = False) -> list[go.Bar]:
    """Return the traces of a series: its bars, and invisible bars that carry the text.

    An invisible bar reaches to the upper end of the interval, so that the text starts after the error bar.
    """
    bars = series.bars
    cells = [bar.cell for bar in bars if bar.cell is not None]
    separated = [f"{bar.tooltip}<br>" for bar in bars]
    drawn = go.Bar(
        orientation="h",
        y=[bar.row for bar in bars],
        x=[None if bar.estimate is None else bar.estimate.value for bar in bars],
        width=_WIDTH,
        error_x=error_bars([bar.estimate for bar in bars], width=3),
        name=series.name,
        meta=recompute_meta("x", PER_SAMPLE, cells, series.role) if is_money else colour(series.role),
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
        width=_WIDTH,
        text=[bar.text for bar in bars],
        texttemplate=_TEXT_TEMPLATE,
        textposition="outside",
        cliponaxis=False,
        marker={"color": "rgba(0,0,0,0)"},
        showlegend=False,
        hoverinfo="skip",
        meta=recompute_meta("x", PER_SAMPLE, cells, end="high") if is_money else None,
    )
    return [drawn, ends]


def bar_figure(
    metric: ChartMetric[Priced],
    series: Sequence[BarSeries],
    cells: Sequence[Priced],
    blocks: RowBlocks,
    ticks: Sequence[str],
    *,
    row_height: int,
    legend_lines: int,
) -> go.Figure:
    """Draw bars of one metric.

    Args:
        metric: What the bars show.
        series: The bars, in the order of the legend.
        cells: The cells whose highest figure decides the axis's range.
        blocks: The rows of the bars.
        ticks: Escaped name of each block.
        row_height: Height of a row in pixels.
        legend_lines: Lines of text in the legend; 0 hides the legend.
    """
    figure = go.Figure([trace for each in series for trace in bar_traces(each, is_money=metric.money is not None)])
    highest = max((bound(e, "high") for cell in cells if (e := metric.drawn(cell)) is not None), default=1.0)
    height = round(_FRAME_HEIGHT + row_height * blocks.num_rows) + LEGEND_LINE * legend_lines
    layout(figure, x="", y="", height=height, barmode="overlay", showlegend=legend_lines > 0)
    figure.update_xaxes(
        range=[0, highest * _ROOM], nticks=MAX_TICKS + 1, tickprefix=metric.money.sign if metric.money else ""
    )
    figure.update_yaxes(
        range=[blocks.num_rows - 1 + _EDGE, -_EDGE], showgrid=False, tickvals=list(blocks.middles), ticktext=ticks
    )
    if metric.money:
        mark_money(figure, basis_text(cells), "x", kind="zero", room=_ROOM)
    return figure
