"""Ranges and ticks of the charts' axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from harness.report.formatting import memory

_LOG_FROM_RATIO = 10  # an axis is logarithmic if its largest value is over this many times the smallest
_MAX_LOG_TICKS = 8


def span(values: Sequence[float], *, pad: float = 0.06, floor: float | None = None) -> list[float]:
    """Return a linear axis range around these values.

    Args:
        values: Every value that is drawn.
        pad: Share of the values' span that is added at each end.
        floor: The lowest allowed start of the range; None for no limit.
    """
    low, high = min(values), max(values)
    padding = (high - low) * pad or abs(high) * pad or pad
    return [low - padding if floor is None else max(floor, low - padding), high + padding]


def needs_log(values: Sequence[float]) -> bool:
    """Return whether positive values span so wide a range that a linear axis would hide the small ones."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > _LOG_FROM_RATIO


def cost_axis(values: Sequence[float], *, ends: Sequence[float], unit: str = "") -> dict[str, Any]:
    """Return an axis for amounts: logarithmic if `ends` span a wide range, else linear.

    Args:
        values: Every amount that is drawn.
        ends: The amounts whose range decides: each curve's last amount, or all amounts.
        unit: Prefix of each tick's label, such as a currency sign.
    """
    if not needs_log(ends):
        return {"range": span(values, pad=0.12, floor=0.0), "tickprefix": unit}
    return log_axis([value for value in values if value > 0], unit=unit)


def log_axis(values: Sequence[float], *, unit: str = "", pad: float = 0.08) -> dict[str, Any]:
    """Return a logarithmic axis around positive values, with ticks at 1, 2 and 5 times powers of ten.

    Args:
        values: Every value that is drawn.
        unit: Prefix of each tick's label, such as a currency sign.
        pad: Share of the values' span that is added at each end.
    """
    low, high = math.log10(min(values)), math.log10(max(values))
    pad *= high - low
    steps = [
        digit * 10.0**power for power in range(math.floor(low - pad), math.ceil(high + pad)) for digit in (1, 2, 5)
    ]
    ticks = [step for step in steps if low - pad <= math.log10(step) <= high + pad]
    if len(ticks) > _MAX_LOG_TICKS:
        ticks = [tick for tick in ticks if f"{tick:e}".startswith("1")]
    return {
        "type": "log",
        "range": [low - pad, high + pad],
        "tickvals": ticks,
        "ticktext": [f"{unit}{_plain(tick)}" for tick in ticks],
    }


def _plain(value: float) -> str:
    """Format a round number without an exponent or trailing zeros."""
    return f"{value:.12f}".rstrip("0").rstrip(".")


def set_memory_ticks(figure: go.Figure, highest: float, *, max_ticks: int) -> None:
    """Put the x axis's ticks at multiples of a power of two of bytes, which Plotly can't do itself."""
    step = next(2**power for power in range(20, 60) if highest / 2**power <= max_ticks)
    ticks = list(range(0, int(highest) + step, step))
    figure.update_xaxes(tickvals=ticks, ticktext=[memory(tick).replace(".00 ", " ") if tick else "0" for tick in ticks])
