"""What every plotly figure of the report shares: escaping, layout, and the page's own colours by name."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from harness.report.formatting import clean, memory

# Names of CSS variables, which page.js turns into colours of the reader's light or dark scheme.
PICK = "pick"
QUIET = "quiet"
INK = "ink"
SERIES = tuple(f"series-{index}" for index in range(1, 7))
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"
HEIGHT = 440  # pixels of a chart that has the page's width


@dataclass(frozen=True)
class Chart:
    """One figure of the page.

    Attributes:
        key: Its element's id.
        label: What a screen reader says instead of the drawing.
        group: The choice of the selector under which it is shown, or None.
    """

    key: str
    title: str
    label: str
    figure: go.Figure
    group: str | None = None


def chart_text(text: str) -> str:
    """Escape for plotly, which renders a subset of HTML in every label."""
    return html.escape(clean(text), quote=False)


def layout(figure: go.Figure, *, x: str, y: str, height: int, **more: Any) -> go.Figure:  # noqa: ANN401 - plotly's own
    """Give a figure the report's quiet look; axis titles are our own words or already escaped."""
    axis = {
        "automargin": True,
        "zeroline": False,
        "exponentformat": "none",
        "tickangle": 0,
        "ticks": "",
        "fixedrange": True,
        "title": {"standoff": 10, "font": {"size": 13}},
    }
    figure.update_layout(
        template=go.layout.Template(),
        font={"family": FONT, "size": 13},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 8, "r": 16, "t": 12, "b": 8},
        height=height,
        hovermode="closest",
        hoverlabel={"align": "left", "namelength": -1, "font": {"family": FONT}},
        legend={
            "orientation": "h",
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            "y": 0,
            "yref": "container",
            "yanchor": "bottom",
        },
        dragmode=False,
    )
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    figure.update_layout(**more)
    figure.update_xaxes(title_text=x)
    figure.update_yaxes(title_text=y)
    return figure


def colour(role: str) -> dict[str, str]:
    """A trace's `meta`, by which page.js finds its colour."""
    return {"colour": role}


def recompute_meta(
    axis: str, figure: str, cells: Sequence[Any], role: str | None = None, **more: object
) -> dict[str, Any]:
    """A trace's `meta`, by which the page lays it anew for other assumptions (see report/redraw.js).

    Args:
        axis: Of the trace, on which the figure stands: x, y or z.
        figure: One of Priced's; of several with a bar between them, the first that there is.
        cells: The place in the report of each point's cell, in the shape of the axis's values; None where there is none.
        role: See `colour`.
        more: `end`: the interval's end that is drawn instead of the value.
    """
    return {**({"colour": role} if role else {}), "axis": axis, "figure": figure, "cells": list(cells), **more}


def mark_money_axis(figure: go.Figure, basis: str, axis: str | None = None, **more: object) -> None:
    """Mark a figure as one of money: its titles name `basis`, and `axis` is ranged by the amounts on it.

    With `kind="cost"` as `cost_axis` by where curves end, with `kind="spread"` by every amount; with `kind="zero"` from 0 to the highest amount times `room`.
    """
    figure.update_layout(meta={"basis": basis, "axis": axis, **more})


def horizontal(y: float, text: str, *, dash: str) -> go.Scatter:
    """A reference line across the whole plot: its ends are far outside, so it needs no range of its own."""
    return go.Scatter(
        x=[0, 1],
        y=[y, y],
        xaxis="x2",
        mode="lines+text",
        line={"dash": dash, "width": 1.5},
        text=["", text],
        textposition="top left",
        textfont={"size": 12},
        name=text,
        showlegend=False,
        meta=colour(INK),
        hoverinfo="skip",
    )


def words_beside(x: Sequence[Any], y: Sequence[Any], text: Sequence[str]) -> go.Scatter:
    """Words to the right of each point, in the page's ink, that no legend or touch tells of."""
    return go.Scatter(
        x=x,
        y=y,
        mode="text",
        text=text,
        textposition="middle right",
        textfont={"size": 12},
        cliponaxis=False,
        showlegend=False,
        meta=colour(INK),
        hoverinfo="skip",
    )


def horizontal_axis() -> dict[str, Any]:
    """The hidden axis from 0 to 1 on which `horizontal` draws."""
    return {"overlaying": "x", "range": [0, 1], "visible": False, "fixedrange": True, "tickmode": "auto"}


def span(values: Sequence[float], *, pad: float = 0.06, floor: float | None = None) -> list[float]:
    """An axis range around these values, in their own unit."""
    low, high = min(values), max(values)
    room = (high - low) * pad or abs(high) * pad or pad
    return [low - room if floor is None else max(floor, low - room), high + room]


def log_ticks(values: Sequence[float]) -> bool:
    """Whether positive values lie so far apart that only a logarithmic axis shows them all."""
    widest = 10
    return bool(values) and min(values) > 0 and max(values) / min(values) > widest


def cost_axis(values: Sequence[float], *, ends: Sequence[float], unit: str = "") -> dict[str, Any]:
    """An axis for amounts, in their own unit: logarithmic, with ticks at 1, 2 and 5, where `ends` lie far apart."""
    if not log_ticks(ends):
        return {"range": span(values, pad=0.12, floor=0.0), "tickprefix": unit}
    return log_axis([value for value in values if value > 0], unit=unit)


def log_axis(values: Sequence[float], *, unit: str = "", room: float = 0.08) -> dict[str, Any]:
    """A logarithmic axis around positive values, with ticks at 1, 2 and 5; `room` is a share of it, left at each end."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room *= high - low
    steps = [
        digit * 10.0**power for power in range(math.floor(low - room), math.ceil(high + room)) for digit in (1, 2, 5)
    ]
    ticks = [step for step in steps if low - room <= math.log10(step) <= high + room]
    most = 8
    ticks = ticks if len(ticks) <= most else [tick for tick in ticks if f"{tick:e}".startswith("1")]
    return {
        "type": "log",
        "range": [low - room, high + room],
        "tickvals": ticks,
        "ticktext": [f"{unit}{_plain(tick)}" for tick in ticks],
    }


def _plain(value: float) -> str:
    """A round figure without exponent or needless zeros."""
    return f"{value:.12f}".rstrip("0").rstrip(".")


def memory_ticks(figure: go.Figure, most: float, *, num_ticks: int) -> None:
    """Ticks across at whole steps of bytes in binary units, which plotly doesn't know."""
    step = next(2**power for power in range(20, 60) if most / 2**power <= num_ticks)
    ticks = list(range(0, int(most) + step, step))
    figure.update_xaxes(tickvals=ticks, ticktext=[memory(tick).replace(".00 ", " ") if tick else "0" for tick in ticks])


def as_json(charts: Sequence[Chart]) -> str:
    """All figures as JSON that can stand inside a script element.

    No character of it can end the element or a line: `<`, `>`, `&` and the two Unicode line ends are escaped.
    """
    figures = [
        {"key": chart.key, "group": chart.group, "figure": json.loads(chart.figure.to_json())} for chart in charts
    ]
    return script_safe(json.dumps(figures, sort_keys=True, allow_nan=False, separators=(",", ":")))


def script_safe(text: str) -> str:
    """Escape JSON for a script element."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
