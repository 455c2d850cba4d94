"""Compute: what cells reach of their machine's peak, as roofline charts and a table (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from harness.analysis.summary import ComputeUse
from harness.pricing.cost import Priced
from harness.report.charts.axes import log_axis
from harness.report.charts.base import HEIGHT, PRECISIONS, Chart, chart_text, colour, layout
from harness.report.formatting import number, percent, plural
from harness.report.labels import machine_labels, short_labels
from harness.report.table import Row, Table, measured_field, table, text_field
from harness.schema.cells import Device, FineTuneConfig

HEADS = (
    *("cell", "GFLOP/s", "of calibrated peak", "calibrated peak, GFLOP/s", "of datasheet peak"),
    *("FLOPs a byte", "FLOPs in padding"),
)
_MAX_ROWS = 40
_MAX_CHARTS = 3
_GIGA = 1e9
_MARGIN = 1.6  # factor by which a logarithmic axis extends beyond its outermost points
_SYMBOLS = ("circle", "square", "diamond", "triangle-up")


@dataclass(frozen=True)
class Compute:
    """The section on the share of the machine's peak that cells reach."""

    charts: tuple[Chart, ...]
    table: Table


@dataclass(frozen=True)
class Roof:
    """The limits of one kind of device in one precision, and the cells that ran under these limits.

    Attributes:
        peak: Calibrated peak in FLOP/s: the fastest matrix product timed beside any of the cells.
        bandwidth: Bytes/s of the fastest copy on that device; None if no run was long enough to measure one.
    """

    name: str
    peak: float
    bandwidth: float | None
    cells: tuple[tuple[Priced, ComputeUse], ...]


def compute_section(cells: Sequence[Priced]) -> Compute | None:
    """Build the section; None if no cell's FLOPs are known."""
    rows = compute_rows(cells)
    return Compute(tuple(rooflines(cells)), table(HEADS, rows, _MAX_ROWS)) if rows else None


def compute_rows(cells: Sequence[Priced]) -> list[Row]:
    """Build a row for every cell whose FLOPs are known, in the order of HEADS, highest share of the peak first."""
    known = _with_compute(cells)
    labels = short_labels([cell for cell, _ in known])
    known.sort(key=lambda pair: -(pair[1].mfu_calibrated or pair[1].mfu_datasheet or 0.0))
    return [
        (
            text_field(labels[cell.key], cell.summary.cell),
            measured_field(_giga(use.flop_per_s), use.flop_per_s),
            measured_field(percent(use.mfu_calibrated), use.mfu_calibrated),
            measured_field(_giga(use.peak_flop_per_s), use.peak_flop_per_s),
            measured_field(percent(use.mfu_datasheet), use.mfu_datasheet),
            measured_field(number(use.flop_per_byte), use.flop_per_byte),
            measured_field(percent(use.padding_fraction), use.padding_fraction),
        )
        for cell, use in known
    ]


def rooflines(cells: Sequence[Priced]) -> list[Chart]:
    """Draw a roofline for each of the first few machines with a cell whose peak and FLOPs per byte are known."""
    machines = machine_labels(cells)
    charts: list[Chart] = []
    for machine, label in machines.items():
        roofs = _roofs([cell for cell in cells if cell.summary.machine_id == machine])
        if roofs and len(charts) < _MAX_CHARTS:
            charts.append(_chart(roofs, len(charts), label if len(machines) > 1 else ""))
    return charts


def _with_compute(cells: Sequence[Priced]) -> list[tuple[Priced, ComputeUse]]:
    return [(cell, cell.summary.compute) for cell in cells if cell.summary.compute is not None]


def _roofs(cells: Sequence[Priced]) -> list[Roof]:
    """Group cells by precision and kind of device, in the order of each group's first cell."""
    groups: dict[tuple[str, str], list[tuple[Priced, ComputeUse]]] = {}
    copies: dict[str, list[float]] = {}
    for cell, use in _with_compute(cells):
        config = cell.summary.config
        if isinstance(config, FineTuneConfig) and use.peak_flop_per_s is not None:
            kind = Device.parse(config.device).kind
            copies.setdefault(kind, []).extend([use.copy_bytes_per_s] if use.copy_bytes_per_s is not None else [])
            if use.flop_per_byte is not None:
                groups.setdefault((config.precision, kind), []).append((cell, use))
    several_kinds = len({kind for _, kind in groups}) > 1
    return [
        Roof(
            name=f"{precision}, {kind}" if several_kinds else precision,
            peak=max(use.peak_flop_per_s or 0.0 for _, use in members),
            bandwidth=max(copies[kind], default=None),
            cells=tuple(members),
        )
        for (precision, kind), members in groups.items()
    ]


def _chart(roofs: Sequence[Roof], index: int, machine: str) -> Chart:
    points = [(use.flop_per_byte or 0.0, use.flop_per_s / _GIGA) for roof in roofs for _, use in roof.cells]
    ridges = [roof.peak / roof.bandwidth for roof in roofs if roof.bandwidth is not None]
    x_values = [x for x, _ in points] + ridges
    y_values = [y for _, y in points] + [roof.peak / _GIGA for roof in roofs]
    left, right = min(x_values) / _MARGIN, max(x_values) * _MARGIN
    figure = go.Figure()
    for place, roof in enumerate(roofs):
        role = PRECISIONS[place % len(PRECISIONS)]
        figure.add_trace(_roof_line(roof, left, right, role))
        figure.add_trace(_points(roof, role, _SYMBOLS[place % len(_SYMBOLS)]))
    layout(figure, x="FLOPs a byte moved, at most", y="GFLOP/s", height=HEIGHT)
    figure.update_layout(
        xaxis=log_axis([left, right], pad=0.0),
        yaxis=log_axis([min(y_values) / _MARGIN, max(y_values) * _MARGIN], pad=0.0),
    )
    best = max((use.mfu_calibrated or 0.0) for roof in roofs for _, use in roof.cells)
    title = f"Cells reach at most {percent(best)} of the calibrated peak" + (f": {machine}" if machine else "")
    label = (
        f"Roofline of {plural(len(points), 'cell')}: GFLOP/s against FLOPs a byte, on logarithmic axes; "
        f"the best reaches {percent(best)} of the calibrated peak."
    )
    return Chart(f"chart-roofline-{index + 1}", title, label, figure)


def _roof_line(roof: Roof, left: float, right: float, role: str) -> go.Scatter:
    """Draw a roof: it rises with memory bandwidth up to the ridge, and is level at the peak from there on."""
    name = f"{roof.name}: at best {_giga(roof.peak)} GFLOP/s"
    x, y = [left, right], [roof.peak / _GIGA] * 2
    if roof.bandwidth is not None:
        name += f", {roof.bandwidth / _GIGA:.0f} GB/s copied"
        ridge = roof.peak / roof.bandwidth
        x = [left, ridge, right] if ridge > left else x
        y = [min(roof.peak, intensity * roof.bandwidth) / _GIGA for intensity in x]
    return go.Scatter(
        x=x, y=y, mode="lines", line={"width": 2}, name=chart_text(name), meta=colour(role), hoverinfo="skip"
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
