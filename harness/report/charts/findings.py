"""Titles of charts that say what the chart shows: the best of what is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from harness.decision.cells import has_example_price
from harness.pricing.cost import Priced
from harness.report.charts.base import chart_text
from harness.report.charts.metrics import ChartMetric
from harness.report.charts.money import basis_text

_PREDICATES = {"speed": "trains fastest", "memory": "needs the least memory", "usd": "costs least per 1,000 samples"}


def best_title(metric: ChartMetric[Priced], named: Sequence[tuple[str, Priced]]) -> str:
    """Name the best of these cells by a metric; costs also say how the prices are known.

    Args:
        metric: What the chart draws.
        named: The drawn cells with their names.
    """
    known = [(estimate.value, name) for name, cell in named if (estimate := metric.read(cell)) is not None]
    cells = [cell for _, cell in named]
    several_machines = len({cell.summary.machine_id for cell in cells}) > 1
    is_example = metric.money is not None and several_machines and any(map(has_example_price, cells))
    if not known or is_example:  # an example price ranks no machines
        return metric.heading(cells)
    best = (max if metric.key == "speed" else min)(known, key=lambda pair: pair[0])[1]
    basis = f" ({basis_text(cells)})" if metric.money else ""
    return f"{best} {_PREDICATES[metric.key]}{basis}"


def mark_best(figure: go.Figure, names: Mapping[int, str]) -> None:
    """Let the page name the best again when prices change.

    Args:
        figure: A figure marked by `mark_money`, which is changed in place.
        names: Name of each drawn cell, by its index in the report.
    """
    meta: dict[str, Any] = dict(figure.layout.meta)
    best = {"names": {str(index): chart_text(name) for index, name in names.items()}, "predicate": _PREDICATES["usd"]}
    figure.update_layout(meta=meta | {"best": best})
