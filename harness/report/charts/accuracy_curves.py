"""The report's charts of accuracy over time and over dollars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from harness.analysis.summary import CellKey
from harness.decision.choice import Choice
from harness.pricing.cost import Priced, usd_of_seconds
from harness.report.charts.base import (
    HEIGHT,
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
    mark_money_axis,
)
from harness.report.charts.cost_accuracy import basis_words
from harness.report.formatting import (
    MoneyFormat,
    percent,
    seconds,
)
from harness.report.labels import short_labels
from harness.schema.cells import BaselineConfig
from harness.schema.record import Record

_MAX_NAMED = 6

Curve = list[tuple[float, float]]
Meta = dict[str, list[Any]]


def accuracy_curves(cells: Sequence[Priced], choice: Choice, money: MoneyFormat) -> list[Chart]:
    """Validation accuracy over the training clock, and over dollars (set-up included), baselines as lines."""
    by_time = [cell for cell in choice.compared if _curve(cell, dollars=False)]
    by_usd = [cell for cell in choice.compared if _curve(cell, dollars=True)]
    charts = [_curves(by_time, cells, choice, money, dollars=False)] if by_time else []
    return charts + ([_curves(by_usd, cells, choice, money, dollars=True)] if by_usd else [])


def _curves(
    shown: Sequence[Priced], cells: Sequence[Priced], choice: Choice, money: MoneyFormat, *, dollars: bool
) -> Chart:
    labels = short_labels(list(choice.compared))
    places = {cell.key: index for index, cell in enumerate(cells)}
    named = _to_name(shown, choice)
    show = money.amount if dollars else seconds
    curves = {cell.key: _curve(cell, dollars=dollars) for cell in shown}
    hovers = {
        key: [f"{chart_text(labels[key])}<br>{show(x)}: {percent(y)}" for x, y in curve]
        for key, curve in curves.items()
    }
    metas = {cell.key: _meta(cell, places[cell.key]) if dollars else {} for cell in shown}
    if dollars:
        curves = {key: [(money.convert(x), y) for x, y in curve] for key, curve in curves.items()}
    figure = go.Figure(_quiet_curves([key for key in curves if key not in named], curves, hovers, metas))
    for key, index in named.items():
        figure.add_trace(
            go.Scatter(
                x=[x for x, _ in curves[key]],
                y=[y for _, y in curves[key]],
                mode="lines+markers",
                name=chart_text(labels[key]),
                line={"width": 2.5},
                marker={"size": 8, "symbol": SYMBOLS[index]},
                meta=colour(SERIES[index]) | metas[key],
                hoverinfo="text",
                hovertext=hovers[key],
            )
        )
    for value, name, dash in _validation_baselines(cells, shown):
        figure.add_trace(horizontal(value, f"{name} {percent(value)}", dash=dash))
    unit = f"{money.code} of set-up and training, {basis_words(shown)}" if dollars else "seconds of training"
    layout(figure, x=unit, y="validation accuracy", height=HEIGHT, xaxis2=horizontal_axis())
    everything = [x for curve in curves.values() for x, _ in curve]
    ends = [curve[-1][0] for curve in curves.values()]
    axis = cost_axis(everything, ends=ends, unit=money.sign if dollars else "")
    figure.update_layout(xaxis=axis, yaxis={"tickformat": ".0%"})
    if dollars:
        mark_money_axis(figure, basis_words(shown), "x", kind="cost")
    what = money.noun if dollars else "seconds of training"
    return Chart(
        f"chart-curve-{'usd' if dollars else 's'}",
        f"Over {what}",
        f"Line chart of validation accuracy over {what} for {len(shown)} configurations, with the baselines as lines.",
        figure,
    )


def _quiet_curves(
    keys: Sequence[CellKey], curves: dict[CellKey, Curve], hovers: dict[CellKey, list[str]], metas: dict[CellKey, Meta]
) -> list[go.Scatter]:
    """The cells without a name as one trace, a gap between two of them: hundreds of traces would weigh the page down."""
    if not keys:
        return []
    points = [point for key in keys for point in [*curves[key], (None, None)]]
    told = [metas[key] for key in keys if metas[key]]
    meta = {name: [one for found in told for one in [*found[name], None]] for name in (told[0] if told else ())}
    return [
        go.Scatter(
            x=[x for x, _ in points],
            y=[y for _, y in points],
            mode="lines+markers",
            name="other cells",
            line={"width": 1},
            marker={"size": 4},
            meta=colour(QUIET) | meta,
            hoverinfo="text",
            hovertext=[text for key in keys for text in [*hovers[key], ""]],
        )
    ]


def _to_name(shown: Sequence[Priced], choice: Choice) -> dict[CellKey, int]:
    """Which cells get a colour and a name, and which: the choice, the best, the front, then by accuracy."""
    first = [cell for cell in (choice.pick, choice.best) if cell is not None and cell in shown]
    rest = sorted(shown, key=lambda c: c.summary.accuracy.value if c.summary.accuracy else 0.0, reverse=True)
    ids = dict.fromkeys(cell.key for cell in [*first, *rest])
    return {key: index for index, key in enumerate(list(ids)[:_MAX_NAMED])}


def _curve(cell: Priced, *, dollars: bool) -> Curve:
    """The newest run's validations as (seconds of training, accuracy), or as (USD of set-up and training, accuracy)."""
    record = _charted(cell)
    if record is None or record.training is None:
        return []
    looks = record.training.evaluations
    if not dollars:
        return [(look.train_s, look.accuracy) for look in looks]
    if cell.price is None:
        return []
    setup_s = cell.summary.setup_s or 0.0
    spent = [usd_of_seconds(cell.price.usd_per_hour, setup_s + look.train_s) for look in looks]
    return [(paid, look.accuracy) for paid, look in zip(spent, looks, strict=True) if paid is not None]


def _charted(cell: Priced) -> Record | None:
    good = [r for r in cell.summary.records if r.outcome == "ok" and r.training is not None and r.training.evaluations]
    return good[-1] if good else None


def _validation_baselines(cells: Sequence[Priced], shown: Sequence[Priced]) -> list[tuple[float, str, str]]:
    """The baselines' validation accuracy on the curves' own validation set: like is held against like."""
    sets = {record.data.val.sha256 for cell in shown for record in cell.summary.records if record.data is not None}
    found: dict[str, tuple[float, str, str]] = {}
    for cell in cells:
        config = cell.summary.config
        for record in cell.summary.records:
            if not isinstance(config, BaselineConfig) or record.baseline is None or record.data is None:
                continue
            if record.data.val.sha256 in sets:
                majority = config.classifier == "majority"
                name, dash = ("majority class", "dot") if majority else ("TF-IDF", "dash")
                found[config.classifier] = (record.baseline.val_accuracy, name, dash)
    return list(found.values())


def _meta(cell: Priced, place: int) -> Meta:
    """By which the page lays a curve over dollars anew: each point's cell, and the seconds that are paid up to it."""
    record = _charted(cell)
    looks = record.training.evaluations if record is not None and record.training is not None else ()
    setup_s = cell.summary.setup_s or 0.0
    return {"cells": [place] * len(looks), "seconds": [setup_s + look.train_s for look in looks]}
