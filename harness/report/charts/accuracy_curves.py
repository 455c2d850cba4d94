"""Validation accuracy over the seconds and the dollars of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from harness.analysis.summary import CellKey
from harness.decision.choice import Choice
from harness.pricing.cost import Priced
from harness.pricing.formulas import usd_of_seconds
from harness.report.charts.axes import cost_axis
from harness.report.charts.base import (
    END_LABEL,
    HEIGHT,
    MODELS,
    PICK,
    QUIET,
    SYMBOLS,
    Chart,
    chart_text,
    colour,
    layout,
    reference_axis,
    reference_line,
)
from harness.report.charts.money import TooltipRow, amount_tooltips, basis_text, mark_money, tooltip_row
from harness.report.formatting import MoneyFormat, percent, seconds
from harness.report.labels import short_labels
from harness.schema.cells import BaselineConfig, Classifier

_MAX_NAMED = len(MODELS)
# Name and dash of each baseline's line.
_BASELINE_LINES: dict[Classifier, tuple[str, str]] = {
    "majority": ("majority class", "dot"),
    "tfidf": ("TF-IDF", "dash"),
    "features": ("frozen encoder", "dashdot"),
}


@dataclass(frozen=True)
class AccuracyCurve:
    """The evaluations of a cell's newest run.

    Attributes:
        x: Seconds of training, or the cost of set-up and training in the report's currency.
        y: Validation accuracies.
        tooltips: A tooltip for each point.
        meta: For costs, each point's cell index and paid seconds, from which the page recomputes the cost.
    """

    cell: Priced
    x: tuple[float, ...]
    y: tuple[float, ...]
    tooltips: tuple[TooltipRow, ...]
    meta: Mapping[str, Sequence[float]]


def accuracy_curves(cells: Sequence[Priced], choice: Choice, money: MoneyFormat) -> list[Chart]:
    """Draw validation accuracy over seconds of training and over cost (set-up included), with baselines as lines."""
    labels = short_labels(list(choice.compared))
    indices = {cell.key: index for index, cell in enumerate(cells)}
    charts = []
    for currency in (None, money):
        curves = [_curve(cell, labels[cell.key], indices[cell.key], currency) for cell in choice.compared]
        shown = [curve for curve in curves if curve is not None and curve.x]
        if shown:
            charts.append(_chart(shown, cells, choice, currency))
    return charts


def _curve(cell: Priced, label: str, index: int, money: MoneyFormat | None) -> AccuracyCurve | None:
    runs = [r for r in cell.summary.records if r.outcome == "ok" and r.training is not None and r.training.evaluations]
    training = runs[-1].training if runs else None
    if training is None or (money is not None and cell.price is None):
        return None
    accuracies = tuple(evaluation.accuracy for evaluation in training.evaluations)
    elapsed = [evaluation.train_s for evaluation in training.evaluations]
    x, texts = elapsed, [seconds(s) for s in elapsed]
    meta: dict[str, Sequence[float]] = {}
    if cell.usd_per_hour is not None and money is not None:
        paid_s = [(cell.summary.setup_s or 0.0) + s for s in elapsed]
        amounts = [usd_of_seconds(cell.usd_per_hour, s) or 0.0 for s in paid_s]
        x, texts = [money.convert(usd) for usd in amounts], [money.amount(usd) for usd in amounts]
        meta = {"cells": [index] * len(paid_s), "seconds": paid_s}
    before = f"{chart_text(label)}<br>"
    tooltips = [
        tooltip_row(text, before=before, after=f": {percent(y)}") for text, y in zip(texts, accuracies, strict=True)
    ]
    return AccuracyCurve(cell, tuple(x), accuracies, tuple(tooltips), meta)


def _chart(
    curves: Sequence[AccuracyCurve], cells: Sequence[Priced], choice: Choice, money: MoneyFormat | None
) -> Chart:
    named = _to_name(curves, choice)
    others = [curve for curve in curves if curve.cell.key not in {each.cell.key for each in named}]
    labels = short_labels(list(choice.compared))
    shown = [curve.cell for curve in curves]
    figure = go.Figure([_other_curves(others)] if others else [])
    for index, curve in enumerate(named):
        figure.add_trace(
            go.Scatter(
                x=curve.x,
                y=curve.y,
                mode="lines+markers",
                name=chart_text(labels[curve.cell.key]),
                line={"width": 2.5},
                marker={"size": 8, "symbol": SYMBOLS[index]},
                meta=colour(PICK if curve.cell is choice.pick else MODELS[index]) | END_LABEL | dict(curve.meta),
                **amount_tooltips(curve.tooltips),
            )
        )
    for value, name, dash in _validation_baselines(cells, shown):
        figure.add_trace(reference_line(value, f"{name} {percent(value)}", dash=dash))
    unit = f"{money.code} of set-up and training, {basis_text(shown)}" if money else "seconds of training"
    layout(figure, x=unit, y="validation accuracy", height=HEIGHT, xaxis2=reference_axis())
    axis = cost_axis(
        [x for curve in curves for x in curve.x],
        ends=[curve.x[-1] for curve in curves],
        unit=money.sign if money else "",
    )
    figure.update_layout(xaxis=axis, yaxis={"tickformat": ".0%"})
    if money:
        mark_money(figure, basis_text(shown), "x", kind="cost")
    over = money.noun if money else "seconds of training"
    label = (
        f"Line chart of validation accuracy over {over} for {len(shown)} configurations, with the baselines as lines."
    )
    return Chart(f"chart-curve-{'usd' if money else 's'}", _finding(curves, labels, over), label, figure)


def _finding(curves: Sequence[AccuracyCurve], labels: Mapping[CellKey, str], over: str) -> str:
    """Name the curve with the highest accuracy at its end."""
    best = max(curves, key=lambda curve: curve.y[-1])
    return f"{labels[best.cell.key]} ends highest, at {percent(best.y[-1])}, over {over}"


def _other_curves(curves: Sequence[AccuracyCurve]) -> go.Scatter:
    """Draw all unnamed curves as one trace with gaps: hundreds of traces would slow the page down."""
    meta = {
        name: [value for curve in curves if curve.meta for value in [*curve.meta[name], None]]
        for name in curves[0].meta
    }
    return go.Scatter(
        x=[x for curve in curves for x in [*curve.x, None]],
        y=[y for curve in curves for y in [*curve.y, None]],
        mode="lines+markers",
        name="other cells",
        line={"width": 1},
        marker={"size": 4},
        meta=colour(QUIET) | meta,
        **amount_tooltips([row for curve in curves for row in [*curve.tooltips, tooltip_row("")]]),
    )


def _to_name(curves: Sequence[AccuracyCurve], choice: Choice) -> list[AccuracyCurve]:
    """Return the curves that get a colour and a name: the chosen cell's, the best cell's, then by test accuracy."""
    best = choice.best.cell if choice.best is not None else None

    def order(curve: AccuracyCurve) -> tuple[bool, bool, float]:
        accuracy = curve.cell.summary.accuracy
        return curve.cell is not choice.pick, curve.cell is not best, -(accuracy.value if accuracy else 0.0)

    return sorted(curves, key=order)[:_MAX_NAMED]


def _validation_baselines(cells: Sequence[Priced], shown: Sequence[Priced]) -> list[tuple[float, str, str]]:
    """Return the accuracy, name and dash of each baseline that was evaluated on a validation set of the curves."""
    sets = {record.data.val.sha256 for cell in shown for record in cell.summary.records if record.data is not None}
    baselines: dict[str, tuple[float, str, str]] = {}
    for cell in cells:
        config = cell.summary.config
        for record in cell.summary.records:
            if not isinstance(config, BaselineConfig) or record.baseline is None or record.data is None:
                continue
            if record.data.val.sha256 in sets:
                baselines[config.classifier] = (record.baseline.val_accuracy, *_BASELINE_LINES[config.classifier])
    return list(baselines.values())
