"""Learning curves: test accuracy over training examples, seconds, dollars, and dollars with labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from harness.analysis.estimate import Estimate
from harness.analysis.power_law import PowerLaw
from harness.analysis.summary import CellKey
from harness.decision.learning_curve import LearningCurve, forecast_gains, run_seconds, train_seconds
from harness.pricing import formulas
from harness.report.charts.axes import cost_axis, log_axis
from harness.report.charts.base import (
    END_LABEL,
    HEIGHT,
    INK,
    SERIES,
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
from harness.report.charts.money import TooltipRow, amount_tooltips, basis_text, mark_money, tooltip_row
from harness.report.formatting import MoneyFormat, interval, percent, plural, seconds
from harness.report.formatting import points as points_text

MAX_CURVES = len(SERIES) + 1
_NUM_FITTED = 40  # points of a fitted line


@dataclass(frozen=True)
class LearningPoint:
    """One point of a curve, measured or forecast.

    Attributes:
        train_s: Seconds of training.
        run_s: Seconds of a whole run.
        usd_per_hour: Price of all machines that the curve's cells occupy; 0 without a price.
        index: Index in the report of the point's cell; a forecast point has that of the curve's largest cell.
    """

    num_train: float
    accuracy: Estimate
    train_s: float
    run_s: float
    usd_per_hour: float
    index: int
    is_measured: bool


@dataclass(frozen=True)
class LearningAxis:
    """A horizontal axis for learning curves.

    Attributes:
        read: Returns a point's value on the axis.
        show: Returns that value as text.
        money: Format of amounts; None for examples and seconds.
        label_usd: Price of one label; None if the amounts exclude labels.
    """

    key: str
    name: str
    title: str
    read: Callable[[LearningPoint], float]
    show: Callable[[LearningPoint], str]
    money: MoneyFormat | None = None
    label_usd: float | None = None


_EXAMPLES = LearningAxis(
    "samples",
    "training examples",
    "training examples",
    lambda point: point.num_train,
    lambda point: f"{point.num_train:,.0f} examples",
)
_SECONDS = LearningAxis(
    "seconds",
    "seconds of training",
    "seconds of training",
    lambda point: point.train_s,
    lambda point: seconds(point.train_s),
)


def learning_charts(
    curves: Sequence[LearningCurve],
    names: Sequence[str],
    indices: Mapping[CellKey, int],
    label_usd: float,
    money: MoneyFormat,
) -> list[Chart]:
    """Draw test accuracy over examples and seconds and, where a price is known, over cost without and with labels.

    Hollow marks are forecasts for twice the most examples.

    Args:
        curves: At most MAX_CURVES curves.
        names: Names of the curves.
        indices: Each cell's index in the report, by `cell.key`.
        label_usd: Price of one label.
        money: Format of amounts.
    """
    named = list(zip(curves, names, strict=True))
    priced = [(curve, name) for curve, name in named if curve.largest.cell.price is not None]
    basis = basis_text([point.cell for curve, _ in priced for point in curve.points])
    axes = [(axis, named) for axis in (_EXAMPLES, _SECONDS)]
    axes += [(_money_axis(price, basis, money), priced) for price in (None, label_usd) if priced]
    return [_chart(axis, shown, indices, basis) for axis, shown in axes]


def measured_points(curve: LearningCurve, indices: Mapping[CellKey, int]) -> list[LearningPoint]:
    """Return a point for each measured number of training examples."""
    return [
        LearningPoint(
            point.num_train, point.accuracy, point.train_s, point.run_s, _hourly(curve), indices[point.cell.key], True
        )
        for point in curve.points
    ]


def forecast_points(curve: LearningCurve, indices: Mapping[CellKey, int]) -> list[LearningPoint]:
    """Return the point at twice the most examples: accuracy as measured plus the forecast gain; none without a fit."""
    index, measured, points = indices[curve.largest.cell.key], curve.largest.accuracy.value, []
    for gain in forecast_gains(curve)[:1]:
        low, high = (None if end is None else measured + end for end in (gain.accuracy.low, gain.accuracy.high))
        accuracy = Estimate(measured + gain.accuracy.value, low, high, gain.accuracy.basis)
        train_s, run_s = train_seconds(curve, gain.end), run_seconds(curve, gain.end)
        points.append(LearningPoint(gain.end, accuracy, train_s, run_s, _hourly(curve), index, False))
    return points


def _hourly(curve: LearningCurve) -> float:
    return curve.largest.cell.usd_per_hour or 0.0


def _money_axis(label_usd: float | None, basis: str, money: MoneyFormat) -> LearningAxis:
    def amount(point: LearningPoint) -> float:
        return formulas.upfront_usd(
            formulas.usd_of_seconds(point.usd_per_hour, point.run_s) or 0.0,
            point.num_train,
            label_usd or 0.0,
            engineering_hours=0.0,
            engineering_usd_per_hour=0.0,
        )

    labels = "a run" if label_usd is None else "with labels"
    return LearningAxis(
        key="usd" if label_usd is None else "labels",
        name=f"{money.noun} of compute" + ("" if label_usd is None else " and labels"),
        title=f"{money.code} {labels}, {basis}",
        read=lambda point: money.convert(amount(point)),
        show=lambda point: money.amount(amount(point)),
        money=money,
        label_usd=label_usd,
    )


def _chart(
    axis: LearningAxis, named: Sequence[tuple[LearningCurve, str]], indices: Mapping[CellKey, int], basis: str
) -> Chart:
    """Draw all curves over one axis.

    Args:
        axis: What accuracy is drawn over.
        named: The curves and their names.
        indices: Each cell's index in the report, by `cell.key`.
        basis: How prices are known, as text.
    """
    curves = [curve for curve, _ in named]
    figure = go.Figure()
    values: list[float] = []
    for index, (curve, name) in enumerate(named):
        role = INK if curve.largest.cell.summary.kind == "baseline" else SERIES[index % len(SERIES)]
        law = curve.law if axis is _EXAMPLES and isinstance(curve.law, PowerLaw) else None
        forecast = forecast_points(curve, indices)
        for points in (measured_points(curve, indices), forecast):
            if points:
                values += [axis.read(point) for point in points]
                figure.add_trace(
                    _marks((index, role), name, points, axis, is_joined=law is None and points[0].is_measured)
                )
        if law is not None:
            figure.add_trace(_law_line(role, law, forecast))
    shares = {curve.largest.cell.summary.majority_accuracy for curve in curves}
    share = shares.pop() if len(shares) == 1 else None  # curves of several test sets share no majority class
    if share is not None:
        figure.add_trace(reference_line(share, f"majority class {percent(share)}", dash="dot"))
    layout(figure, x=axis.title, y="test accuracy", height=HEIGHT, xaxis2=reference_axis())
    xaxis = cost_axis(values, ends=values, unit=axis.money.sign) if axis.money else log_axis(values)
    figure.update_layout(xaxis=xaxis, yaxis={"tickformat": ".0%"})
    if axis.money:
        mark_money(figure, basis, "x", kind="spread")
    least, most = min(curve.points[0].num_train for curve in curves), max(curve.largest.num_train for curve in curves)
    label = (
        f"Line chart of test accuracy over {axis.name}, for {plural(len(curves), 'model')} "
        f"trained on {least:,} to {most:,} examples."
    )
    return Chart(f"chart-learning-{axis.key}", _finding(axis, curves[0]), label, figure)


def _finding(axis: LearningAxis, curve: LearningCurve) -> str:
    """State what more examples gave on the first curve, over what the axis shows."""
    first, last = curve.points[0], curve.largest
    gain = f"{points_text(last.accuracy.value - first.accuracy.value)} more with {last.num_train:,} than with {first.num_train:,}"
    return f"{gain} training examples" if axis is _EXAMPLES else f"{gain} examples, over {axis.name}"


def _marks(
    place: tuple[int, str], name: str, points: Sequence[LearningPoint], axis: LearningAxis, *, is_joined: bool
) -> go.Scatter:
    """Draw measured or forecast points of a curve.

    Args:
        place: Number of the curve, which decides its symbol, and its colour.
        name: Name of the curve.
        points: Points that are either all measured or all forecast.
        axis: What accuracy is drawn over.
        is_joined: Whether lines join the points.
    """
    (index, role), is_measured = place, points[0].is_measured
    estimates = [point.accuracy for point in points]
    meta: dict[str, Any] = {}
    if axis.money:
        meta = {"cells": [point.index for point in points], "seconds": [point.run_s for point in points]}
        meta |= {} if axis.label_usd is None else {"labels": [point.num_train for point in points]}
    return go.Scatter(
        x=[axis.read(point) for point in points],
        y=[estimate.value for estimate in estimates],
        error_y=error_bars(estimates),
        mode="lines+markers" if is_joined else "markers",
        line={"width": 2},
        marker={"size": 9, "symbol": SYMBOLS[index] + ("" if is_measured else "-open")},
        name=chart_text(name) if is_measured else f"{chart_text(name)}, forecast",
        showlegend=is_measured,
        meta=colour(role) | (END_LABEL if is_measured else {}) | meta,
        **amount_tooltips([_tooltip(name, point, axis) for point in points]),
    )


def _law_line(role: str, law: PowerLaw, forecast: Sequence[LearningPoint]) -> go.Scatter:
    """Draw the most likely curve through the fitted sizes, and on to the forecast points."""
    x = np.geomspace(law.smallest, law.largest, _NUM_FITTED)
    return go.Scatter(
        x=[*x.tolist(), *(point.num_train for point in forecast)],
        y=[*law.fitted(x).tolist(), *(point.accuracy.value for point in forecast)],
        mode="lines",
        line={"width": 1.5, "dash": "dot"},
        showlegend=False,
        meta=colour(role),
        hoverinfo="skip",
    )


def _tooltip(name: str, point: LearningPoint, axis: LearningAxis) -> TooltipRow:
    spread = interval(point.accuracy, "percent")
    title = name + ("" if point.is_measured else ", forecast")
    size = "" if axis is _EXAMPLES else f"{point.num_train:,.0f} examples"
    accuracy = percent(point.accuracy.value) + (f" ({spread})" if spread else "")
    return tooltip_row(
        chart_text(axis.show(point)),
        before=f"{chart_lines(title, size)}<br>",
        after=f"<br>{chart_text(accuracy)}",
    )
