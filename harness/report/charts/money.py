"""Data with which the page recomputes charts of money when its reader changes an assumption (see assets/redraw.js).

A trace's `meta` says which figure of which cell each point shows. The trace's tooltip is a Plotly template over
`customdata`. The amount has its own column there: the page replaces that column and leaves the others unchanged. The
amount is text, because Plotly's number formats can't write it with the digits that the tables show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import plotly.graph_objects as go

from harness.pricing.cost import Priced
from harness.report.labels import basis_word

PER_SAMPLE = "usd_per_1000_samples"  # the figure of `Priced` that most charts of money show
_TOOLTIP = "%{customdata[1]}%{customdata[0]}%{customdata[2]}<extra></extra>"  # an empty `extra` hides the trace's name

AmountStyle = Literal["amount", "with_basis", "with_interval_and_basis"]
TooltipRow = tuple[str, str, str]


def basis_text(cells: Sequence[Priced]) -> str:
    """Return how the prices of these cells are known, such as `assumed price`, for titles."""
    bases = sorted({basis_word(cell.price) for cell in cells if cell.price is not None})
    return f"{' and '.join(bases)} price" if bases else "no price"


def tooltip_row(amount: str, *, before: str = "", after: str = "") -> TooltipRow:
    """Return one point's `customdata`.

    Args:
        amount: The text that the page replaces, already escaped.
        before: Escaped text before the amount, line breaks included.
        after: Escaped text after the amount, line breaks included.
    """
    return amount, before, after


def amount_tooltips(rows: Sequence[TooltipRow] | Sequence[Sequence[TooltipRow]]) -> dict[str, object]:
    """Return a trace's keywords for tooltips of these rows, whose amounts the page can replace."""
    return {"customdata": rows, "hovertemplate": _TOOLTIP}


def text_tooltips(texts: Sequence[str] | Sequence[Sequence[str]]) -> dict[str, object]:
    """Return a trace's keywords for tooltips that never change."""
    return {"hoverinfo": "text", "hovertext": texts}


def recompute_meta(
    axis: str,
    figure: str,
    cells: Sequence[int] | Sequence[Sequence[int | None]],
    role: str | None = None,
    *,
    style: AmountStyle = "amount",
    end: str | None = None,
) -> dict[str, Any]:
    """Return the `meta` of a trace that shows one figure of each cell.

    Args:
        axis: Axis of the trace that holds the figure: x, y or z.
        figure: Field of `Priced`; if it is several fields separated by `|`, the first known one counts.
        cells: Index in the report of each point's cell, in the shape of the axis's values; None where there is no cell.
        role: Colour of the trace; see `colour`.
        style: How tooltips write the amount.
        end: `low` or `high` to draw that end of the interval instead of the value.
    """
    return {
        **({"colour": role} if role else {}),
        "axis": axis,
        "figure": figure,
        "cells": list(cells),
        "style": style,
        **({"end": end} if end else {}),
    }


def mark_money(figure: go.Figure, basis: str, axis: str | None = None, **more: object) -> None:
    """Mark a figure as a chart of money, so that the page updates its titles and its axis.

    Args:
        figure: The figure, which is changed in place.
        basis: How prices are known, as the titles say it; the page replaces this text.
        axis: The axis of amounts, x or y, whose range the page updates; None without one.
        more: `kind` says how the axis gets its range: "cost" from where curves end, "spread" from every amount (both
            as `cost_axis` does), "zero" from 0 to the highest amount times `room`.
    """
    figure.update_layout(meta={"basis": basis, "axis": axis, **more})
