"""Scaling over devices: what more devices gain and cost, in sentences, charts and a table (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.estimate import Estimate
from harness.decision.scaling import ScalingPoint, Series, best_cost, scaling_series, several_gpus_ran
from harness.pricing.cost import Priced, gpu_share
from harness.report.charts.base import Chart
from harness.report.charts.scaling import scaling_charts
from harness.report.formatting import (
    MoneyFormat,
    clean,
    interval,
    listed,
    memory,
    number,
    percent,
    with_interval,
)
from harness.report.labels import cell_indices, missed_label, spread_label
from harness.report.series_labels import (
    DEVICE_NOUNS,
    MAX_SERIES,
    count_text,
    series_names,
    series_parts,
    size_text,
)
from harness.report.table import Field, Row, Table, amount_field, measured_field, table, text_field

HEADS = (
    *("scaling", "devices", "batch a device", "global batch", "samples/s", "speed-up", "efficiency"),
    *("cost per 1,000 samples", "cost to target", "exposed communication", "peak memory"),
)
NEVER_RUN = (
    "gpu-ddp over several GPUs has never been run by this project: no record of it that ended well is among those "
    "shown here."
)
_NO_COMMUNICATION = "one device has none; with several, no run measured it"
_NO_TARGET = "the target was not reached, or the study sets none"
_MAX_ANSWERS = 2
_PLACES = {"cpu": "on this CPU", "gpu": "of this machine"}
_MIN_WHOLE_RATIO = 10  # smaller ratios get two decimals; from here on, hundredths are noise


@dataclass(frozen=True)
class Scaling:
    """The section on scaling over devices.

    Attributes:
        charts: The charts by group; a group is one kind of device on one machine.
        num_more: Number of series without a chart.
        shares_cores: Whether a series runs several processes on one CPU, where they share its cores.
    """

    series: tuple[Series, ...]
    sentences: tuple[str, ...]
    charts: Mapping[str, Sequence[Chart]]
    num_more: int
    shares_cores: bool
    table: Table


def scaling_section(cells: Sequence[Priced], money: MoneyFormat) -> Scaling | None:
    """Build the section; None without a series."""
    every_series = scaling_series(cells)
    if not every_series:
        return None
    return Scaling(
        series=tuple(every_series),
        sentences=tuple(scaling_sentences(every_series, cells)),
        charts=scaling_charts(every_series, cells, money),
        num_more=max(0, len(every_series) - MAX_SERIES),
        shares_cores=any(series.device == "cpu" for series in every_series),
        table=scaling_table(every_series, cells, money),
    )


def scaling_table(every_series: Sequence[Series], cells: Sequence[Priced], money: MoneyFormat) -> Table:
    """Build a row for every point of every series."""
    parts, indices = series_parts(every_series, cells), cell_indices(cells)
    rows = [
        _row(point, series, ", ".join(names), indices[point.cell.key], money)
        for series, names in zip(every_series, parts, strict=True)
        for point in series.points
    ]
    return table(HEADS, rows)


def _row(point: ScalingPoint, series: Series, name: str, index: int, money: MoneyFormat) -> Row:
    cell, summary = point.cell, point.cell.summary
    communication = point.communication_fraction
    base = "the base" if point is series.base else ""
    return (
        text_field(series.kind, series.kind, name),
        Field(count_text(point, series), point.num_devices),
        Field(f"{point.device_batch_size}", point.device_batch_size),
        Field(f"{point.global_batch_size}", point.global_batch_size),
        Field(number(point.samples_per_s.value), point.samples_per_s.value, interval(point.samples_per_s, "number")),
        Field(ratio_text(point.speed_up.value), point.speed_up.value, base or ratio_interval(point.speed_up)),
        Field(percent(point.efficiency.value), point.efficiency.value, base or interval(point.efficiency, "percent")),
        amount_field(
            cell, index, "usd_per_1000_samples", cell.missing or "no rate", _share_text(cell, money), money=money
        ),
        amount_field(cell, index, "usd_to_target", _NO_TARGET, missed_label(cell), money=money),
        Field(communication_text(point), communication, title="" if communication is not None else _NO_COMMUNICATION),
        measured_field(
            memory(summary.peak_memory_bytes),
            summary.peak_memory_bytes,
            "not read",
            summary.peak_memory_source or "",
        ),
    )


def _share_text(cell: Priced, money: MoneyFormat) -> str:
    """State the cost of only the GPUs in use; empty if the cell used all GPUs of its machine."""
    share, cost = gpu_share(cell.summary), cell.usd_per_1000_samples_of_share
    if share is None or cost is None:
        return ""
    return f"{money.amount(cost.value)} for {share[0]} of {share[1]} GPUs"


def scaling_sentences(every_series: Sequence[Series], cells: Sequence[Priced]) -> list[str]:
    """State for each series how speed and cost change with devices, and whether several GPUs ever ran."""
    names = series_names(every_series, cells)
    sentences = [
        f"{capital(name)}: {_point_clauses(series)}. {capital(verdict(series))}.{_network_sentence(series)}"
        for series, name in zip(every_series[:MAX_SERIES], names, strict=False)
    ]
    return sentences + ([] if not every_series or several_gpus_ran(cells) else [NEVER_RUN])


def scaling_answer(cells: Sequence[Priced]) -> list[str]:
    """State the first verdict of each kind of device and machine, for the answer; empty without a series."""
    every_series = scaling_series(cells)
    first: dict[tuple[str, str], str] = {}
    for series, name in zip(every_series, series_names(every_series, cells), strict=True):
        key = (series.base.cell.summary.machine_id, series.device)
        first.setdefault(key, f"Over devices, {verdict(series)}, by {name}.")
    return list(first.values())[:_MAX_ANSWERS]


def verdict(series: Series) -> str:
    """State at which number of devices a sample costs less or more, or that the cost does not differ significantly.

    With fewer than 3 runs of a cell, the sentence says which spread between runs was used.
    """
    base, best, nouns = series.base, best_cost(series), DEVICE_NOUNS[series.device][1]
    paid = ", the whole machine paid for" if series.device == "gpu" else ""
    paid = ", every machine paid for" if series.over_nodes else paid
    start = count_text(base, series)
    spread = spread_label(point.cell for point in series.points)
    used = f" ({spread})" if spread else ""
    if best is not base:
        return f"the money goes down from {start} to {size_text(best)}{paid}{_after_best(series, best)}{used}"
    more = [point for point in series.more if point.cost == "more"]
    level = [point for point in series.more if point.cost == "level"]
    if not level:
        return f"more {nouns} do not pay: the money goes up from {start} to {size_text(more[0])}{paid}{used}"
    why = used if _have_intervals(level, base) else " (an interval is not known)"
    level_text = f"{_numbers(level)} {nouns} and {size_text(base)} do not differ significantly in cost{why}"
    return f"{level_text}, and {_numbers(more)} cost more: more {nouns} are not shown to pay" if more else level_text


def _after_best(series: Series, best: ScalingPoint) -> str:
    """Compare larger numbers of devices with the cheapest number; empty if there are none."""
    after = series.points[series.points.index(best) + 1 :]
    more_expensive = [point for point in after if series.costs_more(point, best)]
    level = [point for point in after if point not in more_expensive]
    up = f" and up again at {_numbers(more_expensive)}" if more_expensive else ""
    return up + (f"; no significant difference between {_numbers(level)} and {size_text(best)}" if level else "")


def _network_sentence(series: Series) -> str:
    """State what the network between the machines gave, for the most machines; empty if it was not measured."""
    network = next((point.network for point in reversed(series.points) if point.network is not None), None)
    if network is None:
        return ""
    return (
        f" Between the machines ({', '.join(map(clean, network.interfaces))}, {network.backend}), an all-reduce of "
        f"{_size(network.smallest_bytes)} takes {number(1000 * network.latency_s)} ms, and one of "
        f"{_size(network.best_bytes)} runs at "
        f"{number(network.bytes_per_s / 1e9)} GB/s ({number(network.bus_bytes_per_s / 1e9)} GB/s on each rank's link)."
    )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**10:.0f} KiB" if num_bytes < 2**20 else memory(num_bytes)


def _have_intervals(points: Sequence[ScalingPoint], base: ScalingPoint) -> bool:
    return all(point.samples_per_s.low is not None for point in (*points, base))


def _numbers(points: Sequence[ScalingPoint]) -> str:
    return listed([size_text(point) for point in points])


def _point_clauses(series: Series) -> str:
    first, *others = series.more
    lead = (
        f"{count_text(first, series)}{f' {_PLACES[series.device]}' if first.num_nodes == 1 else ''} train at "
        f"{with_interval(f'{_times(first.speed_up)} the speed of {size_text(series.base)}', ratio_interval(first.speed_up))}"
        f" and cost {_cost_ratio(first, series)}"
    )
    rest = [
        f"{size_text(point)} at "
        f"{with_interval(f'{_times(point.speed_up)} the speed', ratio_interval(point.speed_up))}"
        f" cost {_short_cost_ratio(point)}"
        for point in others
    ]
    return "; ".join([lead, *rest])


def _cost_ratio(point: ScalingPoint, series: Series) -> str:
    whole = f"{_times(point.cost_ratio)} as much a sample"
    if point.share_cost_ratio is None:
        return whole
    share = _times(point.share_cost_ratio)
    paid = "every machine" if series.over_nodes else "the whole machine"
    return f"{whole} where {paid} is paid for, {share} at the price of the GPUs in use alone"


def _short_cost_ratio(point: ScalingPoint) -> str:
    if point.share_cost_ratio is None:
        return _times(point.cost_ratio)
    return f"{ratio_text(point.cost_ratio.value)} and {_times(point.share_cost_ratio)}"


def capital(text: str) -> str:
    """Capitalise the first letter."""
    return text[:1].upper() + text[1:]


def _times(ratio: Estimate) -> str:
    return f"{ratio_text(ratio.value)} times"


def ratio_text(value: float) -> str:
    """Format a ratio: two decimals below 10, three significant digits above."""
    return f"{value:.2f}" if value < _MIN_WHOLE_RATIO else number(value)


def ratio_interval(ratio: Estimate) -> str:
    """Format a ratio's interval; empty without an interval."""
    if ratio.low is None or ratio.high is None:
        return ""
    return f"{ratio_text(ratio.low)} to {ratio_text(ratio.high)}"


def communication_text(point: ScalingPoint) -> str:
    """Format the share of a forward and backward pass that waits for all-reduce."""
    if point.num_devices == 1:
        return "does not apply"
    return "none found" if point.communication_fraction == 0 else percent(point.communication_fraction)
