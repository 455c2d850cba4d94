"""Speed, efficiency and dollars over the number of devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from harness.analysis.estimate import Estimate, bound
from harness.analysis.summary import CellKey
from harness.decision.scaling import ScalingPoint, Series
from harness.pricing.cost import Priced
from harness.report.charts.base import END_LABEL, QUIET, SERIES, Chart, chart_lines, colour, error_bars, layout
from harness.report.charts.findings import best_title, mark_best
from harness.report.charts.metrics import ChartMetric, usd_per_1000
from harness.report.charts.money import (
    PER_SAMPLE,
    TooltipRow,
    amount_tooltips,
    basis_text,
    mark_money,
    recompute_meta,
    tooltip_row,
)
from harness.report.formatting import MoneyFormat, number, percent, plural
from harness.report.labels import basis_word, machine_labels
from harness.report.series_labels import MAX_SERIES, count_text, legend_names, size_text

_HEIGHT = 330  # pixels
_LEGEND_LINE = 17  # pixels
_TITLES = {"cpu": "CPU processes", "gpu": "GPUs"}
_SHARE = "share"  # key of the metric that counts only the cost of the GPUs in use
_SIDE_ROOM = 0.18  # free room at each end of the axis, as a share of the range of devices
_TOP_ROOM = 1.1  # height of the axis / height of the highest point
_DODGE = 0.05  # sideways spread of the series, as a share of the range of devices; separates their error bars

EFFICIENCY: ChartMetric[ScalingPoint] = ChartMetric(
    "efficiency", "Efficiency against the fewest devices", lambda point: point.efficiency, percent, "percent"
)
SPEED: ChartMetric[ScalingPoint] = ChartMetric(
    "speed", "Training speed, samples/s", lambda point: point.samples_per_s, number
)


def _usd(money: MoneyFormat) -> ChartMetric[ScalingPoint]:
    title = f"{money.code} per 1,000 samples"
    return ChartMetric("usd", title, lambda point: point.cell.usd_per_1000_samples, money.amount, money=money)


def _usd_of_share(money: MoneyFormat) -> ChartMetric[ScalingPoint]:
    def read(point: ScalingPoint) -> Estimate | None:
        return point.cell.usd_per_1000_samples_of_share or point.cell.usd_per_1000_samples

    return ChartMetric(_SHARE, "", read, money.amount, money=money)


def scaling_charts(series: Sequence[Series], cells: Sequence[Priced], money: MoneyFormat) -> dict[str, list[Chart]]:
    """Draw the charts of each kind of device on each machine, by the title of the group.

    Lines are solid for strong scaling and dashed for weak scaling. CPU and GPU have separate charts, because the slower
    device's values could not be read on a common axis.
    """
    machines = machine_labels(cells)
    groups: dict[tuple[str, str], list[Series]] = {}
    for each in series[:MAX_SERIES]:
        groups.setdefault((each.device, each.base.cell.summary.machine_id), []).append(each)
    charts, indices = {}, {cell.key: index for index, cell in enumerate(cells)}
    for index, ((device, machine_id), members) in enumerate(groups.items()):
        title = ", ".join([_TITLES[device], *([machines[machine_id]] if len(machines) > 1 else [])])
        names = legend_names(members, [cell for cell in cells if cell.summary.machine_id == machine_id])
        points = [point for each in members for point in each.points]
        charts[title] = [
            _chart(members, names, metric, f"chart-scaling-{index}-{metric.key}", indices)
            for metric in (SPEED, EFFICIENCY, _usd(money))
            if any(metric.read(point) is not None for point in points)
        ]
    return charts


def _chart(
    series: Sequence[Series],
    names: Sequence[Sequence[str]],
    metric: ChartMetric[ScalingPoint],
    key: str,
    indices: Mapping[CellKey, int],
) -> Chart:
    points = [point for each in series for point in each.points]
    cells = [point.cell for point in points]
    sizes = sorted({point.num_devices for point in points})
    left, right = sizes[0], sizes[-1]
    room = (right - left) * _SIDE_ROOM
    figure = go.Figure()
    if metric is EFFICIENCY:
        figure.add_trace(_ideal(left - room, right + room))
    for index, (each, name) in enumerate(zip(series, names, strict=True)):
        shift = (index - (len(series) - 1) / 2) * _DODGE * (right - left) / max(1, len(series) - 1)
        figure.add_trace(_trace(each, name, metric, index, shift, indices))
        if metric.money and any(point.cell.usd_per_1000_samples_of_share for point in each.points):
            figure.add_trace(
                _trace(each, [*name, "GPUs in use alone"], _usd_of_share(metric.money), index, shift, indices)
            )
    lines = sum(1 + trace.name.count("<br>") for trace in figure.data)
    layout(figure, x="devices", y="", height=_HEIGHT + _LEGEND_LINE * lines, showlegend=True)
    figure.update_xaxes(range=[left - room, right + room], tickvals=sizes, ticktext=[f"{size}" for size in sizes])
    highest = max(bound(e, "high") for point in points if (e := metric.drawn(point)) is not None)
    if metric is EFFICIENCY:
        highest = max(highest, 1.0)
        figure.update_yaxes(tickformat=".0%")
    figure.update_yaxes(range=[0, highest * _TOP_ROOM], rangemode="tozero", nticks=6)
    if metric.money:
        figure.update_yaxes(tickprefix=metric.money.sign)
        mark_money(figure, basis_text(cells), "y", kind="zero", room=_TOP_ROOM)
    title = _finding(series[0], metric, cells)
    if metric.money:
        mark_best(figure, {indices[point.cell.key]: _count_text(point, series[0]) for point in series[0].points})
    all_names = "; ".join(", ".join(name) for name in names)
    label = f"Line chart: {metric.heading(cells)} over {plural(len(sizes), 'number')} of devices, for {all_names}."
    return Chart(key, title, label, figure)


def _count_text(point: ScalingPoint, series: Series) -> str:
    return f"{series.kind} scaling, batch {series.batch_size}: {count_text(point, series)}"


def _finding(series: Series, metric: ChartMetric[ScalingPoint], cells: Sequence[Priced]) -> str:
    """State what the most devices of the first series give, or which number costs least."""
    most = series.points[-1]
    if metric is SPEED:
        times = f"{most.speed_up.value:.2f} times as fast as {size_text(series.base)}"
        return f"{count_text(most, series)} train {times} ({series.kind} scaling)"
    if metric is EFFICIENCY:
        return f"{count_text(most, series)} reach {percent(most.efficiency.value)} of the ideal speed ({series.kind} scaling)"
    named = [(_count_text(point, series), point.cell) for point in series.points]
    return best_title(usd_per_1000(metric.money), named) if metric.money else metric.heading(cells)


def _trace(
    series: Series,
    name: Sequence[str],
    metric: ChartMetric[ScalingPoint],
    index: int,
    shift: float,
    indices: Mapping[CellKey, int],
) -> go.Scatter:
    """Draw one series with error bars; for the cost of only the GPUs in use, draw it dotted and without error bars.

    Args:
        series: The series; points without a figure are left out.
        name: Lines of the series' name in the legend.
        metric: The figure to draw.
        index: Number of the series in the chart, which decides its colour.
        shift: Sideways shift, added to the number of devices.
        indices: Each cell's index in the report, by `cell.key`.
    """
    points = [point for point in series.points if metric.read(point) is not None]
    estimates = [metric.drawn(point) for point in points]
    cells = [indices[point.cell.key] for point in points]
    is_share, is_strong = metric.key == _SHARE, series.kind == "strong"
    figure = f"usd_per_1000_samples_of_share|{PER_SAMPLE}" if is_share else PER_SAMPLE
    meta = recompute_meta("y", figure, cells, SERIES[index % len(SERIES)], style="with_interval_and_basis")
    symbol = "circle-open" if is_share else "circle" if is_strong else "square"
    return go.Scatter(
        x=[point.num_devices + shift for point in points],
        y=[None if estimate is None else estimate.value for estimate in estimates],
        error_y=None if is_share else error_bars(estimates),
        mode="lines+markers",
        line={"width": 1.5, "dash": "dot"} if is_share else {"width": 2.5, "dash": "solid" if is_strong else "dash"},
        marker={"size": 8 if is_share else 9, "symbol": symbol},
        name=chart_lines(*name),
        meta=(meta if metric.money else colour(SERIES[index % len(SERIES)])) | END_LABEL,
        **amount_tooltips(_tooltips(points, name, metric)),
    )


def _ideal(first: float, last: float) -> go.Scatter:
    return go.Scatter(
        x=[first, last],
        y=[1, 1],
        mode="lines",
        line={"width": 1.5, "dash": "dot"},
        name="ideal",
        meta=colour(QUIET) | END_LABEL,
        hoverinfo="skip",
    )


def _tooltips(
    points: Sequence[ScalingPoint], name: Sequence[str], metric: ChartMetric[ScalingPoint]
) -> list[TooltipRow]:
    rows = []
    for point in points:
        estimate = metric.read(point)
        if estimate is None:
            continue
        spread = metric.interval(estimate)
        basis = f" ({basis_word(point.cell.price)} price)" if metric.money and point.cell.price is not None else ""
        batch = f"batch {point.device_batch_size} a device, {point.global_batch_size} in all"
        machines = f" on {point.num_nodes} machines" if point.num_nodes > 1 else ""
        before = chart_lines(", ".join(name), f"{plural(point.num_devices, 'device')}{machines}, {batch}")
        amount = metric.show(estimate.value) + (f" ({spread})" if spread else "") + basis
        rows.append(tooltip_row(chart_lines(amount), before=f"{before}<br>"))
    return rows
