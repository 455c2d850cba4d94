"""The report's chart of cost against accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import plotly.graph_objects as go

from harness.analysis.estimate import Estimate
from harness.analysis.summary import CellKey
from harness.decision.choice import Choice, bound, measured, pareto_front, run_seconds
from harness.pricing.cost import Priced
from harness.report.charts.base import (
    HEIGHT,
    INK,
    PICK,
    QUIET,
    SERIES,
    SYMBOLS,
    Chart,
    chart_text,
    colour,
    cost_axis,
    horizontal,
    horizontal_axis,
    layout,
    log_ticks,
)
from harness.report.formatting import (
    MoneyFormat,
    interval,
    number,
    percent,
    seconds,
)
from harness.report.labels import cell_labels, machine_labels, short_labels

_MANY = 40
_LEFT_EDGE = 0.06
_ROOM_ACROSS = 0.3
_ROOM_UP = 0.15


def basis_words(cells: Sequence[Priced]) -> str:
    """How the prices behind these cells are known, for an axis title: `assumed price`."""
    bases = sorted({cell.price.basis for cell in cells if cell.price is not None})
    return f"{' and '.join(bases)} price" if bases else "no price"


def priced_cells(cells: Sequence[Priced]) -> bool:
    """Whether any run's dollars are known; without them, seconds stand on the cost axis."""
    return any(cell.usd_per_run is not None for cell in measured(cells))


def cost_and_accuracy(cells: Sequence[Priced], choice: Choice, money: MoneyFormat) -> Chart | None:
    """Dollars (or seconds) of a run against test accuracy, with the Pareto front and the baselines."""
    dollars = priced_cells(cells)
    cost = partial(_amount, money=money) if dollars else run_seconds
    shown = [cell for cell in choice.compared if cell.summary.accuracy is not None and cost(cell) is not None]
    if not shown:
        return None
    points = [(cost(cell) or 0.0, cell.summary.accuracy.value if cell.summary.accuracy else 0.0) for cell in shown]
    front = pareto_front(points)
    labels = short_labels(shown)
    names = cell_labels(shown)  # the symbol tells the machine
    wide = log_ticks([point[0] for point in points])
    named = _to_label(shown, points, front, choice, wide=wide)
    figure = go.Figure()
    texts = {key: chart_text(label) if key in named else "" for key, label in names.items()}
    for trace in _scatter_groups(shown, choice, labels, texts, cost, money):
        figure.add_trace(trace)
    figure.add_trace(
        go.Scatter(
            x=[points[i][0] for i in front],
            y=[points[i][1] for i in front],
            mode="lines",
            zorder=-1,
            line={"shape": "hv", "width": 2, "dash": "dot"},
            name="front of cost and accuracy",
            meta=colour(PICK),
            hoverinfo="skip",
        )
    )
    x_values = [point[0] for point in points]
    if choice.tfidf is not None and choice.tfidf.summary.accuracy is not None:
        value = choice.tfidf.summary.accuracy.value
        figure.add_trace(horizontal(value, f"TF-IDF {percent(value)}", dash="dash"))
    if choice.majority is not None:
        figure.add_trace(horizontal(choice.majority, f"majority class {percent(choice.majority)}", dash="dot"))
    unit = f"{money.code} a run, {basis_words(shown)}" if dollars else "seconds a run (no price)"
    layout(figure, x=unit, y="test accuracy", height=HEIGHT, xaxis2=horizontal_axis())
    axis = cost_axis(x_values, ends=x_values, unit=money.sign if dollars else "")
    figure.update_layout(xaxis=axis, yaxis={"tickformat": ".0%"})
    lead = f"{len(shown)} configurations; front from {percent(points[front[0]][1])} to {percent(points[front[-1]][1])}"
    return Chart(
        "chart-cost",
        "A run's cost and its test accuracy, by batch × tokens",
        f"Scatter plot of the cost of a run against test accuracy: {lead}.",
        figure,
    )


def _amount(cell: Priced, money: MoneyFormat) -> float | None:
    return None if cell.usd_per_run is None else money.convert(cell.usd_per_run.value)


def _to_label(
    shown: Sequence[Priced], points: Sequence[tuple[float, float]], front: Sequence[int], choice: Choice, *, wide: bool
) -> set[CellKey]:
    """Ids of the cells whose names are written: the choice, the best, and of the front what leaves names readable."""
    across = [math.log10(x) if wide else x for x, _ in points]
    width, height = max(across) - min(across) or 1.0, max(y for _, y in points) - min(y for _, y in points) or 1.0
    first = [index for index, cell in enumerate(shown) if cell is choice.pick or cell is choice.best]
    accepted: list[int] = []
    for index in [*first, *reversed(front)]:
        near = [
            other
            for other in accepted
            if abs(across[index] - across[other]) < _ROOM_ACROSS * width
            and abs(points[index][1] - points[other][1]) < _ROOM_UP * height
        ]
        if not near:
            accepted.append(index)
    return {shown[index].key for index in accepted}


def _scatter_groups(
    shown: Sequence[Priced],
    choice: Choice,
    labels: dict[CellKey, str],
    texts: dict[CellKey, str],
    cost: Callable[[Priced], float | None],
    money: MoneyFormat,
) -> list[go.Scatter]:
    """A trace each for the pick, the others that overlap the best, and those that are clearly below it.

    Colour tells these apart; where there are several machines, the symbol tells the machine.
    """
    rivals = {cell.key for cell in choice.rivals}
    machines = machine_labels(shown)
    symbols = {one: SYMBOLS[index % len(SYMBOLS)] for index, one in enumerate(machines)} if len(machines) > 1 else {}
    groups = [
        ("chosen: the cheapest of these", PICK, "star", 17, [c for c in shown if c is choice.pick]),
        ("interval overlaps the highest accuracy's", SERIES[0], "circle", 10,
         [c for c in shown if c.key in rivals and c is not choice.pick]),
        ("accuracy clearly below", QUIET, "circle-open", 10, [c for c in shown if c.key not in rivals]),
    ]  # fmt: skip
    costs = [found for cell in shown if (found := cost(cell)) is not None]
    traces = []
    for name, role, symbol, size, members in groups:
        if not members:
            continue
        accuracies = [cell.summary.accuracy for cell in members if cell.summary.accuracy is not None]
        traces.append(
            go.Scatter(
                x=[cost(cell) for cell in members],
                y=[accuracy.value for accuracy in accuracies],
                error_y=error_bars(accuracies, thickness=1, width=3) | {"visible": len(shown) <= _MANY},
                mode="markers+text",
                marker={"symbol": [_symbol(cell, symbols, symbol) for cell in members], "size": size},
                text=[texts[cell.key] for cell in members],
                textposition=[_label_side(cost(cell), costs) for cell in members],
                cliponaxis=False,
                name=name,
                meta=colour(role),
                hoverinfo="text",
                hovertext=[_hover(cell, labels, money) for cell in members],
            )
        )
    return [*traces, *(_machine_in_legend(label, symbols[one]) for one, label in machines.items() if symbols)]


def _symbol(cell: Priced, symbols: Mapping[str, str], alone: str) -> str:
    """The machine's, hollow where that of its group is."""
    found = symbols.get(cell.summary.machine_id)
    return alone if found is None else found + ("-open" if alone.endswith("-open") else "")


def _machine_in_legend(label: str, symbol: str) -> go.Scatter:
    """A line of the legend alone."""
    return go.Scatter(
        x=[None],
        y=[None],
        mode="markers",
        marker={"symbol": symbol, "size": 10},
        name=chart_text(label),
        meta=colour(INK),
        hoverinfo="skip",
    )


def _label_side(value: float | None, values: Sequence[float]) -> str:
    """Up and to the left of a point of the front nothing else can lie; at the plot's left edge there is no room."""
    low, high = min(values), max(values)
    if value is not None and log_ticks(values):
        low, high, value = math.log10(low), math.log10(high), math.log10(value)
    return "bottom right" if value is None or value - low < (high - low) * _LEFT_EDGE else "top left"


def error_bars(estimates: Sequence[Estimate], *, thickness: float = 1.2, width: int = 4) -> dict[str, object]:
    """A trace's bars over the intervals of its values; none where one has none."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [bound(estimate, "high") - estimate.value for estimate in estimates],
        "arrayminus": [estimate.value - bound(estimate, "low") for estimate in estimates],
        "thickness": thickness,
        "width": width,
    }


def _hover(cell: Priced, labels: dict[CellKey, str], money: MoneyFormat) -> str:
    summary = cell.summary
    basis = f" ({cell.price.basis} price)" if cell.price is not None else ""
    cost = cell.usd_per_run
    spread = interval(summary.accuracy, "percent") or "no interval"
    lines = [
        labels[cell.key],
        f"accuracy {percent(summary.accuracy.value if summary.accuracy else None)} ({spread})",
        f"a run {money.amount(cost.value)}{basis}" if cost else f"a run {seconds(run_seconds(cell))}",
        f"{number(summary.samples_per_s.value if summary.samples_per_s else None)} samples/s",
        f"updates {summary.num_updates:,}" if summary.num_updates is not None else "",
    ]
    return "<br>".join(chart_text(line) for line in lines if line)
