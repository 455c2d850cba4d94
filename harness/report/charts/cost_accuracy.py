"""Scatter plot of a run's cost against its test accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import plotly.graph_objects as go

from harness.analysis.summary import CellKey
from harness.decision.cells import comparable_in_dollars, measured, run_seconds
from harness.decision.choice import Choice, pareto_front
from harness.pricing.cost import Priced
from harness.report.charts.axes import cost_axis, needs_log
from harness.report.charts.base import (
    HEIGHT,
    INK,
    MEASURE,
    PICK,
    QUIET,
    SYMBOLS,
    Chart,
    chart_lines,
    chart_text,
    colour,
    error_bars,
    layout,
    reference_axis,
    reference_line,
)
from harness.report.charts.money import basis_text, text_tooltips
from harness.report.formatting import MoneyFormat, interval, number, percent, points, seconds
from harness.report.labels import basis_word, cell_labels, machine_labels, short_labels

# scatter.js draws the same chart under the reader's assumptions, with the same constants.
_MAX_ERROR_BARS = 40  # points, above which error bars would cover each other
# Two labelled points must be at least these shares of the plot's width or height apart.
_LABEL_WIDTH = 0.3
_LABEL_HEIGHT = 0.15
_EXAMPLES = "prices are examples"


@dataclass(frozen=True)
class CostPoint:
    """A cell with its place on the chart.

    Attributes:
        cost: Cost of a run in the report's currency; seconds if no costs are known, or they may not be compared.
    """

    cell: Priced
    cost: float
    accuracy: float


def has_prices(cells: Sequence[Priced]) -> bool:
    """Return whether the cost of any run is known."""
    return any(cell.usd_billed is not None for cell in measured(cells))


def cost_and_accuracy(cells: Sequence[Priced], choice: Choice, money: MoneyFormat) -> Chart | None:
    """Draw the cost (or seconds) of a run against test accuracy, with the Pareto front and the baselines."""
    is_priced = has_prices(cells)
    is_money = is_priced and comparable_in_dollars(choice.compared)
    chosen = [choice.pick] if choice.pick is not None and choice.pick.summary.kind == "baseline" else []
    drawn = _points([*choice.compared, *chosen], partial(_amount, money=money) if is_money else run_seconds)
    if not drawn:
        return None
    shown = [point.cell for point in drawn]
    costs = [point.cost for point in drawn]
    front = [drawn[index] for index in pareto_front([(point.cost, point.accuracy) for point in drawn])]
    figure = go.Figure(_point_traces(drawn, choice, _labelled(drawn, front, choice), money))
    figure.add_trace(
        go.Scatter(
            x=[point.cost for point in front],
            y=[point.accuracy for point in front],
            mode="lines",
            zorder=-1,
            line={"shape": "hv", "width": 2, "dash": "dot"},
            name="front of cost and accuracy",
            showlegend=False,
            meta=colour(PICK),
            hoverinfo="skip",
        )
    )
    for name, baseline, dash in (("frozen encoder", choice.features, "dashdot"), ("TF-IDF", choice.tfidf, "dash")):
        if baseline is not None and baseline.summary.accuracy is not None:
            value = baseline.summary.accuracy.value
            figure.add_trace(reference_line(value, f"{name} {percent(value)}", dash=dash))
    if choice.majority is not None:
        figure.add_trace(reference_line(choice.majority, f"majority class {percent(choice.majority)}", dash="dot"))
    unit = (
        f"{money.code} a training, on the bill ({basis_text(shown)})"
        if is_money
        else f"seconds a training ({_EXAMPLES if is_priced else 'no price'})"
    )
    layout(figure, x=unit, y="test accuracy", height=HEIGHT, xaxis2=reference_axis())
    axis = cost_axis(costs, ends=costs, unit=money.sign if is_money else "")
    figure.update_layout(xaxis=axis, yaxis={"tickformat": ".0%"})
    reach = f"front from {percent(front[0].accuracy)} to {percent(front[-1].accuracy)}"
    return Chart(
        "chart-cost",
        _finding(choice, is_money=is_money, money=money),
        f"Scatter plot of the cost of a training against test accuracy: {len(shown)} configurations; {reach}.",
        figure,
    )


def _finding(choice: Choice, *, is_money: bool, money: MoneyFormat) -> str:
    """State what the choice gets right and costs."""
    pick = choice.pick
    if pick is None or pick.summary.accuracy is None:
        return "What a training costs, and how many texts it gets right"
    cost = money.prose(pick.usd_billed.value if pick.usd_billed else None) if is_money else seconds(run_seconds(pick))
    paid = "in" if not is_money else "for"
    subject = "The choice" if choice.way is not None and choice.way.cell is pick else "The best model"
    return f"{subject} gets {percent(pick.summary.accuracy.value)} of texts right {paid} {cost} a training"


def _amount(cell: Priced, money: MoneyFormat) -> float | None:
    return None if cell.usd_billed is None else money.convert(cell.usd_billed.value)


def _points(cells: Sequence[Priced], read: Callable[[Priced], float | None]) -> list[CostPoint]:
    return [
        CostPoint(cell, cost, cell.summary.accuracy.value)
        for cell in cells
        if cell.summary.accuracy is not None and (cost := read(cell)) is not None
    ]


def _labelled(drawn: Sequence[CostPoint], front: Sequence[CostPoint], choice: Choice) -> set[CellKey]:
    """Return the keys of the cells to label: the chosen, the best, and those on the Pareto front with enough room."""
    is_log = needs_log([point.cost for point in drawn])

    def across(point: CostPoint) -> float:
        return math.log10(point.cost) if is_log else point.cost

    width = max(map(across, drawn)) - min(map(across, drawn)) or 1.0
    height = max(point.accuracy for point in drawn) - min(point.accuracy for point in drawn) or 1.0
    labelled: list[CostPoint] = []
    chosen = [point for point in drawn if point.cell is choice.pick or (choice.best and point.cell is choice.best.cell)]
    for point in [*chosen, *reversed(front)]:
        is_crowded = any(
            abs(across(point) - across(other)) < _LABEL_WIDTH * width
            and abs(point.accuracy - other.accuracy) < _LABEL_HEIGHT * height
            for other in labelled
        )
        if not is_crowded:
            labelled.append(point)
    return {point.cell.key for point in labelled}


def _point_traces(
    shown: Sequence[CostPoint], choice: Choice, labelled: set[CellKey], money: MoneyFormat
) -> list[go.Scatter]:
    """Return one trace for the chosen cell, one for other cells that are good enough, and one for all others.

    Colours tell the three traces apart; with several machines, symbols tell the machines apart.
    """
    cells = [point.cell for point in shown]
    admitted = {way.cell.key for way in choice.admitted if way.cell is not None}
    enough = f"loses at most {points(choice.goal.tolerance)} (expected)"
    if choice.goal.target is not None:
        enough = f"reaches {percent(choice.goal.target)}"
    machines = machine_labels(cells)
    symbols = {key: SYMBOLS[index % len(SYMBOLS)] for index, key in enumerate(machines)} if len(machines) > 1 else {}
    names, marks = short_labels(cells), cell_labels(cells)
    groups = [
        ("chosen: the cheapest of these", PICK, "star", 17, [p for p in shown if p.cell is choice.pick]),
        (enough, MEASURE, "circle", 10,
         [p for p in shown if p.cell.key in admitted and p.cell is not choice.pick]),
        ("loses more", QUIET, "circle-open", 10,
         [p for p in shown if p.cell.key not in admitted and p.cell is not choice.pick]),
    ]  # fmt: skip
    traces = [
        go.Scatter(
            x=[point.cost for point in members],
            y=[point.accuracy for point in members],
            error_y=error_bars([point.cell.summary.accuracy for point in members], thickness=1, width=3)
            | {"visible": len(shown) <= _MAX_ERROR_BARS},
            mode="markers",
            marker={"symbol": [_symbol(point.cell, symbols, symbol) for point in members], "size": size},
            cliponaxis=False,
            name=name,
            meta=colour(role)
            | {"point_labels": [marks[point.cell.key] if point.cell.key in labelled else "" for point in members]},
            **text_tooltips([_tooltip(point.cell, names, money) for point in members]),
        )
        for name, role, symbol, size, members in groups
        if members
    ]
    return [*traces, *(_machine_in_legend(machines[key], symbol) for key, symbol in symbols.items())]


def _symbol(cell: Priced, symbols: Mapping[str, str], default: str) -> str:
    """Return the symbol of a cell's machine, hollow if `default` is hollow; `default` if all cells share a machine."""
    symbol = symbols.get(cell.summary.machine_id)
    return default if symbol is None else symbol + ("-open" if default.endswith("-open") else "")


def _machine_in_legend(label: str, symbol: str) -> go.Scatter:
    """Return a trace without points, which adds a machine's symbol to the legend."""
    return go.Scatter(
        x=[None],
        y=[None],
        mode="markers",
        marker={"symbol": symbol, "size": 10},
        name=chart_text(label),
        meta=colour(INK),
        hoverinfo="skip",
    )


def _tooltip(cell: Priced, labels: Mapping[CellKey, str], money: MoneyFormat) -> str:
    summary, cost = cell.summary, cell.usd_billed
    basis = f" ({basis_word(cell.price)} price)" if cell.price is not None else ""
    spread = interval(summary.accuracy, "percent") or "no interval"
    return chart_lines(
        labels[cell.key],
        f"accuracy {percent(summary.accuracy.value if summary.accuracy else None)} ({spread})",
        f"{money.amount(cost.value)} on the bill{basis}" if cost else f"a training {seconds(run_seconds(cell))}",
        f"{number(summary.samples_per_s.value if summary.samples_per_s else None)} samples/s",
        f"{summary.num_updates:,} updates" if summary.num_updates is not None else "",
    )
