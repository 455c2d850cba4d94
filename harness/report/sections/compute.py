"""What cells compute against what their machine could: the roofline's charts, and the table beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from harness.analysis.summary import ComputeUse
from harness.pricing.cost import Priced
from harness.report.charts.axes import log_axis
from harness.report.charts.base import HEIGHT, SERIES, Chart, chart_text, colour, layout
from harness.report.formatting import number, percent, plural
from harness.report.labels import machine_labels, short_labels
from harness.report.sections.cell_table import Field
from harness.schema.cells import Device, FineTuneConfig

HEADS = (
    *("cell", "GFLOP/s", "of calibrated peak", "calibrated peak, GFLOP/s", "of datasheet peak"),
    *("FLOPs a byte", "FLOPs in padding"),
)
MAX_ROWS = 40
_MAX_CHARTS = 3
_GIGA = 1e9
_AROUND = 1.6  # room on a logarithmic axis, as a factor
_SYMBOLS = ("circle", "square", "diamond", "triangle-up")


@dataclass(frozen=True)
class Roof:
    """What one kind of device reaches in one precision, and the cells under it.

    Attributes:
        peak: FLOP/s of the best product beside any of the cells.
        bandwidth: Bytes/s of the best copy on that device; None where no run was long enough for one.
    """

    name: str
    peak: float
    bandwidth: float | None
    cells: tuple[tuple[Priced, ComputeUse], ...]


def roofline_rows(cells: Sequence[Priced]) -> list[list[Field]]:
    """A row for every cell whose arithmetic is known, in the order of HEADS; the best used peak first."""
    found = _used(cells)
    labels = short_labels([cell for cell, _ in found])
    found.sort(key=lambda pair: -(pair[1].mfu_calibrated or pair[1].mfu_datasheet or 0.0))
    return [
        [
            Field(labels[cell.key], cell.summary.cell, numeric=False),
            _figure(_giga(use.flop_per_s), use.flop_per_s),
            _figure(percent(use.mfu_calibrated), use.mfu_calibrated),
            _figure(_giga(use.peak_flop_per_s), use.peak_flop_per_s),
            _figure(percent(use.mfu_datasheet), use.mfu_datasheet),
            _figure(number(use.flop_per_byte), use.flop_per_byte),
            _figure(percent(use.padding_fraction), use.padding_fraction),
        ]
        for cell, use in found
    ]


def rooflines(cells: Sequence[Priced]) -> list[Chart]:
    """A chart for each machine on which a cell's peak and its least traffic are known; the first few."""
    machines = machine_labels(cells)
    charts: list[Chart] = []
    for machine, label in machines.items():
        roofs = _roofs([cell for cell in cells if cell.summary.machine_id == machine])
        if roofs and len(charts) < _MAX_CHARTS:
            charts.append(_chart(roofs, len(charts), label if len(machines) > 1 else ""))
    return charts


def _used(cells: Sequence[Priced]) -> list[tuple[Priced, ComputeUse]]:
    return [(cell, cell.summary.compute) for cell in cells if cell.summary.compute is not None]


def _roofs(cells: Sequence[Priced]) -> list[Roof]:
    """By precision and device, in the order of their first cell."""
    groups: dict[tuple[str, str], list[tuple[Priced, ComputeUse]]] = {}
    copies: dict[str, list[float]] = {}
    for cell, use in _used(cells):
        config = cell.summary.config
        if isinstance(config, FineTuneConfig) and use.peak_flop_per_s is not None:
            kind = Device.parse(config.device).kind
            copies.setdefault(kind, []).extend([use.copy_bytes_per_s] if use.copy_bytes_per_s is not None else [])
            if use.flop_per_byte is not None:
                groups.setdefault((config.precision, kind), []).append((cell, use))
    several = len({kind for _, kind in groups}) > 1
    return [
        Roof(
            name=f"{precision}, {kind}" if several else precision,
            peak=max(use.peak_flop_per_s or 0.0 for _, use in members),
            bandwidth=max(copies[kind], default=None),
            cells=tuple(members),
        )
        for (precision, kind), members in groups.items()
    ]


def _chart(roofs: Sequence[Roof], index: int, machine: str) -> Chart:
    points = [(use.flop_per_byte or 0.0, use.flop_per_s / _GIGA) for roof in roofs for _, use in roof.cells]
    ridges = [roof.peak / roof.bandwidth for roof in roofs if roof.bandwidth is not None]
    across = [x for x, _ in points] + ridges
    left, right = min(across) / _AROUND, max(across) * _AROUND
    drawn = go.Figure()
    for place, roof in enumerate(roofs):
        drawn.add_trace(_roof_line(roof, left, right, SERIES[place % len(SERIES)]))
        drawn.add_trace(_points(roof, SERIES[place % len(SERIES)], _SYMBOLS[place % len(_SYMBOLS)]))
    layout(drawn, x="FLOPs a byte moved, at most", y="GFLOP/s", height=HEIGHT)
    up = [y for _, y in points] + [roof.peak / _GIGA for roof in roofs]
    drawn.update_layout(
        xaxis=log_axis([left, right], pad=0.0), yaxis=log_axis([min(up) / _AROUND, max(up) * _AROUND], pad=0.0)
    )
    best = max((use.mfu_calibrated or 0.0) for roof in roofs for _, use in roof.cells)
    title = "What cells compute, under what the machine reaches" + (f": {machine}" if machine else "")
    label = (
        f"Roofline of {plural(len(points), 'cell')}: GFLOP/s against FLOPs a byte, on logarithmic axes; "
        f"the best reaches {percent(best)} of the calibrated peak."
    )
    return Chart(f"chart-roofline-{index + 1}", title, label, drawn)


def _roof_line(roof: Roof, left: float, right: float, role: str) -> go.Scatter:
    """Memory's slope up to the ridge, and arithmetic's height from there on."""
    words = f"{roof.name}: at best {_giga(roof.peak)} GFLOP/s"
    x, y = [left, right], [roof.peak / _GIGA] * 2
    if roof.bandwidth is not None:
        words += f", {roof.bandwidth / _GIGA:.0f} GB/s copied"
        ridge = roof.peak / roof.bandwidth
        x = [left, ridge, right] if ridge > left else x
        y = [min(roof.peak, one * roof.bandwidth) / _GIGA for one in x]
    return go.Scatter(
        x=x, y=y, mode="lines", line={"width": 2}, name=chart_text(words), meta=colour(role), hoverinfo="skip"
    )


def _points(roof: Roof, role: str, symbol: str) -> go.Scatter:
    labels = short_labels([cell for cell, _ in roof.cells])
    return go.Scatter(
        x=[use.flop_per_byte for _, use in roof.cells],
        y=[use.flop_per_s / _GIGA for _, use in roof.cells],
        mode="markers",
        marker={"symbol": symbol, "size": 10},
        name=chart_text(f"{roof.name}: cells"),
        meta=colour(role),
        hoverinfo="text",
        hovertext=[_hover(labels[cell.key], use) for cell, use in roof.cells],
    )


def _hover(label: str, use: ComputeUse) -> str:
    lines = [
        label,
        f"{_giga(use.flop_per_s)} GFLOP/s, {percent(use.mfu_calibrated)} of the calibrated peak",
        f"{number(use.flop_per_byte)} FLOPs a byte; {percent(use.padding_fraction)} of the FLOPs in padding",
    ]
    return "<br>".join(chart_text(line) for line in lines)


def _giga(value: float | None) -> str:
    return number(None if value is None else value / _GIGA)


def _figure(text: str, value: float | None) -> Field:
    return Field(text, value) if value is not None else Field("not measured", None)
