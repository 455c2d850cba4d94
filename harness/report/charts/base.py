"""What all charts of the report share: the chart itself, colours, layout, text, error bars and JSON."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from harness.analysis.estimate import Estimate, bound
from harness.report.formatting import clean

# Names of CSS variables in page.css: drawing.js reads their values, so that charts follow the light or dark scheme.
# A colour stands for one thing on the whole page: orange for the choice, grey for what is left out, a hue for each kind of
# thing, and its shades for the members of that kind.
PICK = "pick"
QUIET = "quiet"
INK = "ink"  # baselines
MEASURE = "measure"  # a figure that has a chart of its own
MODELS = tuple(f"model-{index}" for index in range(1, 6))
MACHINES = tuple(f"machine-{index}" for index in range(1, 5))
PARTS = tuple(f"part-{index}" for index in range(1, 7))
PRECISIONS = tuple(f"precision-{index}" for index in range(1, 5))
SERIES = tuple(f"series-{index}" for index in range(1, 5))  # learning curves, scaling series, orders of chunks
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"
HEIGHT = 440  # pixels, of a chart as wide as the page


@dataclass(frozen=True)
class Chart:
    """One chart of the page.

    Attributes:
        key: Id of its HTML element.
        label: Description for screen readers.
        group: Option of the page's selector that shows this chart; None if it is always shown.
    """

    key: str
    title: str
    label: str
    figure: go.Figure
    group: str | None = None


def chart_text(text: str) -> str:
    """Escape text for Plotly, which renders a subset of HTML in every label."""
    return html.escape(clean(text), quote=False)


def chart_lines(*lines: str) -> str:
    """Escape the lines that aren't empty, and join them with line breaks."""
    return "<br>".join(chart_text(line) for line in lines if line)


def layout(figure: go.Figure, *, x: str, y: str, height: int, **more: Any) -> go.Figure:  # noqa: ANN401 - any keyword
    """Apply the report's style to a figure.

    Args:
        figure: The figure, which is changed in place and returned.
        x: Title of the horizontal axis, already escaped.
        y: Title of the vertical axis, already escaped.
        height: Height in pixels.
        more: Further keywords of Plotly's `update_layout`.
    """
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
    """Return a trace's `meta`, from which drawing.js picks the trace's colour."""
    return {"colour": role}


# A trace with this `meta` has its name written at its end instead of in the legend, where the plot is wide enough.
END_LABEL = {"end_label": True}


def error_bars(estimates: Sequence[Estimate | None], *, thickness: float = 1.2, width: int = 4) -> dict[str, object]:
    """Return Plotly's error bars for these estimates' intervals; an estimate without an interval gets none."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [None if e is None else bound(e, "high") - e.value for e in estimates],
        "arrayminus": [None if e is None else e.value - bound(e, "low") for e in estimates],
        "thickness": thickness,
        "width": width,
    }


def reference_line(y: float, text: str, *, dash: str) -> go.Scatter:
    """Draw a horizontal line across the whole plot, on the hidden axis of `reference_axis`, labelled at its end."""
    return go.Scatter(
        x=[0, 1],
        y=[y, y],
        xaxis="x2",
        mode="lines",
        line={"dash": dash, "width": 1.5},
        name=text,
        meta=colour(INK) | END_LABEL,
        hoverinfo="skip",
    )


def reference_axis() -> dict[str, Any]:
    """Return the hidden axis from 0 to 1 that `reference_line` uses, so that lines don't stretch the visible axis."""
    return {"overlaying": "x", "range": [0, 1], "visible": False, "fixedrange": True, "tickmode": "auto"}


def text_labels(x: Sequence[float], y: Sequence[float], text: Sequence[str]) -> go.Scatter:
    """Write text to the right of each point, without a legend entry or tooltip."""
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


def as_json(charts: Sequence[Chart]) -> str:
    """Serialise all figures as JSON for a script element."""
    figures = [
        {"key": chart.key, "group": chart.group, "figure": json.loads(chart.figure.to_json())} for chart in charts
    ]
    return script_safe(json.dumps(figures, sort_keys=True, allow_nan=False, separators=(",", ":")))


def script_safe(text: str) -> str:
    """Escape the characters of JSON that could end a script element or a line of JavaScript."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
