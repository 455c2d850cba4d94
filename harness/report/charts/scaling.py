"""The report's charts over the number of devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import plotly.graph_objects as go

from harness.analysis.estimate import Estimate
from harness.analysis.summary import CellKey
from harness.decision.choice import bound
from harness.decision.scaling import ScalingPoint, Series
from harness.pricing.cost import Priced
from harness.report.charts.base import QUIET, SERIES, Chart, chart_text, colour, layout, mark_money_axis, recompute_meta
from harness.report.charts.cost_accuracy import basis_words
from harness.report.charts.heat_maps import PER_SAMPLE
from harness.report.formatting import (
    MoneyFormat,
    interval,
    number,
    percent,
    plural,
)
from harness.report.labels import machine_labels
from harness.report.series_labels import MAX_SERIES, legend_names

_HEIGHT = 330
_LEGEND_LINE = 17
_TITLES = {"cpu": "CPU processes", "gpu": "GPUs"}
_SHARE = "usd_per_1000_samples_of_share|usd_per_1000_samples"  # where all are in use, that of the machine
_ROOM = 1.1  # above the highest point
_DODGE = 0.05  # of the axis between two series, so that their error bars do not lie on each other


@dataclass(frozen=True)
class ScalingFigure:
    """One figure that is drawn over devices; `{money}` is the currency."""

    key: str
    title: str
    read: Callable[[ScalingPoint], Estimate | None]
    show: Callable[[float], str]
    unit: Literal["number", "percent", "usd"]

    def head(self, money: MoneyFormat) -> str:
        """Return the title in the report's currency."""
        return self.title.format(money=money.code)

    def drawn(self, value: float, money: MoneyFormat) -> float:
        """Return a value as the chart draws it."""
        return money.convert(value) if self.unit == "usd" else value

    def text(self, value: float, money: MoneyFormat) -> str:
        """Format a value as the reader sees it."""
        return money.amount(value) if self.unit == "usd" else self.show(value)

    def interval(self, estimate: Estimate, money: MoneyFormat) -> str:
        """Format an interval without its value."""
        return money.interval(estimate) if self.unit == "usd" else interval(estimate, self.unit)


FIGURES = (
    ScalingFigure("speed", "Training speed, samples/s", lambda point: point.samples_per_s, number, "number"),
    ScalingFigure(
        "efficiency", "Efficiency against the fewest devices", lambda point: point.efficiency, percent, "percent"
    ),
    ScalingFigure("usd", "{money} per 1,000 samples", lambda point: point.cell.usd_per_1000_samples, number, "usd"),
)


def scaling_charts(series: Sequence[Series], cells: Sequence[Priced], money: MoneyFormat) -> dict[str, list[Chart]]:
    """Speed, efficiency with its ideal, and dollars over devices, by kind of device and machine.

    Strong scaling is drawn through, weak dashed. CPU and GPU stand apart: on one axis the slower could not be read.
    """
    machines = machine_labels(cells)
    groups: dict[tuple[str, str], list[Series]] = {}
    for one in series[:MAX_SERIES]:
        groups.setdefault((one.device, one.base.cell.summary.machine_id), []).append(one)
    charts, places = {}, {cell.key: index for index, cell in enumerate(cells)}
    for index, ((device, machine_id), members) in enumerate(groups.items()):
        name = ", ".join([_TITLES[device], *([machines[machine_id]] if len(machines) > 1 else [])])
        own = [cell for cell in cells if cell.summary.machine_id == machine_id]
        names = legend_names(members, own)
        charts[name] = [
            _chart(members, names, figure, f"chart-scaling-{index}-{figure.key}", places, money)
            for figure in FIGURES
            if any(figure.read(point) is not None for one in members for point in one.points)
        ]
    return charts


def _chart(
    series: Sequence[Series],
    names: Sequence[Sequence[str]],
    figure: ScalingFigure,
    key: str,
    places: Mapping[CellKey, int],
    money: MoneyFormat,
) -> Chart:
    sizes = sorted({point.num_devices for one in series for point in one.points})
    room = (sizes[-1] - sizes[0]) * 0.18
    drawn = go.Figure()
    if figure.key == "efficiency":
        drawn.add_trace(_ideal(sizes[0] - room, sizes[-1] + room))
    for index, (one, name) in enumerate(zip(series, names, strict=True)):
        shift = (index - (len(series) - 1) / 2) * _DODGE * (sizes[-1] - sizes[0]) / max(1, len(series) - 1)
        drawn.add_trace(_trace(one, name, figure, index, shift, places, money))
        if figure.key == "usd" and any(point.cell.usd_per_1000_samples_of_share for point in one.points):
            drawn.add_trace(_share_trace(one, name, index, shift, places, money))
    values = [
        figure.drawn(bound(e, "high"), money)
        for one in series
        for point in one.points
        if (e := figure.read(point)) is not None
    ]
    lines = sum(1 + trace.name.count("<br>") for trace in drawn.data)
    layout(drawn, x="devices", y="", height=_HEIGHT + _LEGEND_LINE * lines)
    drawn.update_layout(showlegend=True)
    drawn.update_xaxes(
        range=[sizes[0] - room, sizes[-1] + room], tickvals=sizes, ticktext=[f"{size}" for size in sizes]
    )
    top = max([*values, 1.0] if figure.key == "efficiency" else values)
    drawn.update_yaxes(range=[0, top * _ROOM], rangemode="tozero", nticks=6)
    if figure.key == "efficiency":
        drawn.update_yaxes(tickformat=".0%")
    cells = [point.cell for one in series for point in one.points]
    if figure.key == "usd":
        drawn.update_yaxes(tickprefix=money.sign)
        mark_money_axis(drawn, basis_words(cells), "y", kind="zero", room=_ROOM)
    title = figure.head(money) + (f", {basis_words(cells)}" if figure.key == "usd" else "")
    said = "; ".join(", ".join(name) for name in names)
    label = f"Line chart: {title} over {plural(len(sizes), 'number')} of devices, for {said}."
    return Chart(key, title, label, drawn)


def _trace(
    series: Series,
    name: Sequence[str],
    figure: ScalingFigure,
    index: int,
    shift: float,
    places: Mapping[CellKey, int],
    money: MoneyFormat,
) -> go.Scatter:
    found = [(point, estimate) for point in series.points if (estimate := figure.read(point)) is not None]
    meta = recompute_meta("y", PER_SAMPLE, [places[point.cell.key] for point, _ in found], SERIES[index])
    return go.Scatter(
        x=[point.num_devices + shift for point, _ in found],
        y=[figure.drawn(estimate.value, money) for _, estimate in found],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [figure.drawn(bound(estimate, "high") - estimate.value, money) for _, estimate in found],
            "arrayminus": [figure.drawn(estimate.value - bound(estimate, "low"), money) for _, estimate in found],
            "thickness": 1.2,
            "width": 4,
        },
        mode="lines+markers",
        line={"width": 2.5, "dash": "solid" if series.kind == "strong" else "dash"},
        marker={"size": 9, "symbol": "circle" if series.kind == "strong" else "square"},
        name=_lines(name),
        meta=meta if figure.key == "usd" else colour(SERIES[index]),
        hoverinfo="text",
        hovertext=[_hover(point, estimate, name, figure, money) for point, estimate in found],
    )


def _share_trace(
    series: Series, name: Sequence[str], index: int, shift: float, places: Mapping[CellKey, int], money: MoneyFormat
) -> go.Scatter:
    """The price of the GPUs in use alone; where all are in use, that of the machine."""
    found = [
        (point, estimate)
        for point in series.points
        if (estimate := point.cell.usd_per_1000_samples_of_share or point.cell.usd_per_1000_samples) is not None
    ]
    figure = ScalingFigure("share", "", lambda point: point.cell.usd_per_1000_samples_of_share, number, "usd")
    return go.Scatter(
        x=[point.num_devices + shift for point, _ in found],
        y=[figure.drawn(estimate.value, money) for _, estimate in found],
        mode="lines+markers",
        line={"width": 1.5, "dash": "dot"},
        marker={"size": 8, "symbol": "circle-open"},
        name=_lines([*name, "GPUs in use alone"]),
        meta=recompute_meta("y", _SHARE, [places[point.cell.key] for point, _ in found], SERIES[index]),
        hoverinfo="text",
        hovertext=[_hover(point, estimate, [*name, "GPUs in use alone"], figure, money) for point, estimate in found],
    )


def _lines(name: Sequence[str]) -> str:
    return "<br>".join(chart_text(part) for part in name)


def _ideal(first: float, last: float) -> go.Scatter:
    return go.Scatter(
        x=[first, last],
        y=[1, 1],
        mode="lines",
        line={"width": 1.5, "dash": "dot"},
        name="ideal: all devices at full use",
        meta=colour(QUIET),
        hoverinfo="skip",
    )


def _hover(
    point: ScalingPoint, estimate: Estimate, name: Sequence[str], figure: ScalingFigure, money: MoneyFormat
) -> str:
    spread = figure.interval(estimate, money)
    basis = f" ({point.cell.price.basis} price)" if figure.unit == "usd" and point.cell.price is not None else ""
    lines = [
        ", ".join(name),
        f"{plural(point.num_devices, 'device')}, batch {point.device_batch_size} a device, {point.global_batch_size} in all",
        figure.text(estimate.value, money) + (f" ({spread})" if spread else "") + basis,
    ]
    return "<br>".join(chart_text(line) for line in lines)
