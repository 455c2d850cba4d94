"""The report's learning curves: test accuracy over examples, seconds, dollars, and dollars with labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from harness.analysis.estimate import Estimate
from harness.analysis.power_law import MAX_EXTRAPOLATION, PowerLaw
from harness.analysis.summary import CellKey
from harness.decision.learning_curve import TWICE, LearningCurve, run_seconds, train_seconds
from harness.pricing import formulas
from harness.report.charts.base import (
    HEIGHT,
    SERIES,
    SYMBOLS,
    Chart,
    chart_text,
    colour,
    cost_axis,
    horizontal,
    horizontal_axis,
    layout,
    log_axis,
    mark_money_axis,
)
from harness.report.charts.cost_accuracy import basis_words, error_bars
from harness.report.formatting import (
    MoneyFormat,
    interval,
    percent,
    plural,
    seconds,
)

MAX_CURVES = 6
_NUM_DRAWN = 40  # points of a fitted line


@dataclass(frozen=True)
class LearningSpot:
    """One mark: measured, or foretold."""

    num_train: float
    accuracy: Estimate
    train_s: float
    run_s: float
    place: int


def learning_charts(
    curves: Sequence[LearningCurve],
    names: Sequence[str],
    places: Mapping[CellKey, int],
    label_usd: float,
    money: MoneyFormat,
) -> list[Chart]:
    """Test accuracy with its intervals over four amounts; the two of money where a price is known.

    What is foretold stands at twice and four times the most examples, with hollow marks.

    Args:
        curves: At most MAX_CURVES.
        names: Of the curves.
        places: By `id` of a cell, its place in the report.
        label_usd: For one label.
    """
    charts = [_chart("samples", "training examples", curves, names, places, lambda spot: spot.num_train, number=True)]
    charts.append(_chart("seconds", "seconds of training", curves, names, places, lambda spot: spot.train_s))
    paid = [(curve, name) for curve, name in zip(curves, names, strict=True) if curve.largest.cell.price is not None]
    if paid:
        priced, told = [curve for curve, _ in paid], [name for _, name in paid]
        charts += [_money_chart(priced, told, places, each, money) for each in (None, label_usd)]
    return charts


def measured_points(curve: LearningCurve, places: Mapping[CellKey, int]) -> list[LearningSpot]:
    """The sizes that were measured."""
    return [
        LearningSpot(point.num_train, point.accuracy, point.train_s, point.run_s, places[point.cell.key])
        for point in curve.points
    ]


def extrapolated_points(curve: LearningCurve, places: Mapping[CellKey, int]) -> list[LearningSpot]:
    """Twice and four times the most examples; none without a law."""
    if not isinstance(curve.law, PowerLaw):
        return []
    place, spots = places[curve.largest.cell.key], []
    for factor in (TWICE, MAX_EXTRAPOLATION):
        num_train = factor * curve.largest.num_train
        accuracy = curve.law.accuracy(num_train)
        if isinstance(accuracy, Estimate):
            spots.append(
                LearningSpot(num_train, accuracy, train_seconds(curve, num_train), run_seconds(curve, num_train), place)
            )
    return spots


def _chart(
    key: str,
    what: str,
    curves: Sequence[LearningCurve],
    names: Sequence[str],
    places: Mapping[CellKey, int],
    across: Callable[[LearningSpot], float],
    *,
    number: bool = False,
) -> Chart:
    figure, everything = go.Figure(), []
    for index, (curve, name) in enumerate(zip(curves, names, strict=True)):
        show = (lambda value: f"{value:,.0f} examples") if number else seconds
        line = number and isinstance(curve.law, PowerLaw)
        for spots, is_measured in ((measured_points(curve, places), True), (extrapolated_points(curve, places), False)):
            if spots:
                x = [across(spot) for spot in spots]
                everything += x
                hover = [
                    _hover(name, spot, show(value), is_measured=is_measured)
                    for spot, value in zip(spots, x, strict=True)
                ]
                figure.add_trace(_marks(index, name, spots, x, hover, is_measured=is_measured, joined=not line))
        if line and isinstance(curve.law, PowerLaw):
            figure.add_trace(_law(index, curve.law))
    _majority(figure, curves)
    layout(figure, x=what, y="test accuracy", height=HEIGHT, xaxis2=horizontal_axis())
    figure.update_layout(xaxis=log_axis(everything), yaxis={"tickformat": ".0%"})
    return _told(key, f"Over {what}", what, curves, figure)


def _money_chart(
    curves: Sequence[LearningCurve],
    names: Sequence[str],
    places: Mapping[CellKey, int],
    label_usd: float | None,
    money: MoneyFormat,
) -> Chart:
    """Over a run's dollars, alone or with those of its labels; the page lays it anew (see report/redraw.js)."""
    figure, everything = go.Figure(), []
    for index, (curve, name) in enumerate(zip(curves, names, strict=True)):
        price = curve.largest.cell.price
        hourly = 0.0 if price is None else price.usd_per_hour
        for spots, is_measured in ((measured_points(curve, places), True), (extrapolated_points(curve, places), False)):
            if not spots:
                continue
            amounts = [
                formulas.upfront_usd(
                    formulas.usd_of_seconds(hourly, spot.run_s) or 0.0,
                    spot.num_train,
                    label_usd or 0.0,
                    engineering_hours=0.0,
                    engineering_usd_per_hour=0.0,
                )
                for spot in spots
            ]
            x = [money.convert(amount) for amount in amounts]
            everything += x
            hover = [
                _hover(name, spot, money.amount(amount), is_measured=is_measured)
                for spot, amount in zip(spots, amounts, strict=True)
            ]
            meta: dict[str, Any] = {"cells": [spot.place for spot in spots], "seconds": [spot.run_s for spot in spots]}
            meta |= {} if label_usd is None else {"labels": [spot.num_train for spot in spots]}
            figure.add_trace(_marks(index, name, spots, x, hover, is_measured=is_measured, joined=True, meta=meta))
    _majority(figure, curves)
    basis = basis_words([point.cell for curve in curves for point in curve.points])
    what = "a run" if label_usd is None else "a run and the labels of its examples"
    layout(figure, x=f"{money.code} of {what}, {basis}", y="test accuracy", height=HEIGHT, xaxis2=horizontal_axis())
    figure.update_layout(xaxis=cost_axis(everything, ends=everything, unit=money.sign), yaxis={"tickformat": ".0%"})
    mark_money_axis(figure, basis, "x", kind="spread")
    said = f"{money.noun} of compute" if label_usd is None else f"{money.noun} of compute and labels"
    return _told("usd" if label_usd is None else "labels", f"Over {said}", said, curves, figure)


def _marks(
    index: int,
    name: str,
    spots: Sequence[LearningSpot],
    x: Sequence[float],
    hover: Sequence[str],
    *,
    is_measured: bool,
    joined: bool,
    meta: Mapping[str, Any] | None = None,
) -> go.Scatter:
    estimates = [spot.accuracy for spot in spots]
    return go.Scatter(
        x=x,
        y=[estimate.value for estimate in estimates],
        error_y=error_bars(estimates),
        mode="lines+markers" if joined and is_measured else "markers",
        line={"width": 2},
        marker={"size": 9, "symbol": SYMBOLS[index] + ("" if is_measured else "-open")},
        name=chart_text(name) if is_measured else f"{chart_text(name)}, foretold",
        meta=colour(SERIES[index]) | dict(meta or {}),
        hoverinfo="text",
        hovertext=list(hover),
    )


def _law(index: int, law: PowerLaw) -> go.Scatter:
    x = np.geomspace(law.smallest, law.max_num_train, _NUM_DRAWN)
    return go.Scatter(
        x=[float(one) for one in x],
        y=[law.fitted(one) for one in x],
        mode="lines",
        line={"width": 1.5, "dash": "dot"},
        showlegend=False,
        meta=colour(SERIES[index]),
        hoverinfo="skip",
    )


def _majority(figure: go.Figure, curves: Sequence[LearningCurve]) -> None:
    """The commonest answer's accuracy, where all curves have one test set."""
    known = {curve.largest.cell.summary.majority_accuracy for curve in curves}
    share = known.pop() if len(known) == 1 else None
    if share is not None:
        figure.add_trace(horizontal(share, f"majority class {percent(share)}", dash="dot"))


def _hover(name: str, spot: LearningSpot, amount: str, *, is_measured: bool) -> str:
    spread = interval(spot.accuracy, "percent")
    lines = [
        name + ("" if is_measured else ", foretold"),
        f"{spot.num_train:,.0f} examples",
        amount,
        percent(spot.accuracy.value) + (f" ({spread})" if spread else ""),
    ]
    return "<br>".join(chart_text(line) for line in dict.fromkeys(lines))


def _told(key: str, title: str, what: str, curves: Sequence[LearningCurve], figure: go.Figure) -> Chart:
    sizes = f"{min(curve.points[0].num_train for curve in curves):,} to {max(curve.largest.num_train for curve in curves):,}"
    label = f"Line chart of test accuracy over {what}, for {plural(len(curves), 'model')} trained on {sizes} examples."
    return Chart(f"chart-learning-{key}", title, label, figure)
