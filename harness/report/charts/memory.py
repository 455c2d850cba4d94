"""Stacked bars of what each cell's peak memory was used for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from harness.decision.memory_savings import ACTIVATIONS, PARTS, UNEXPLAINED, rank_peak, split_peak, split_record
from harness.pricing.cost import Priced
from harness.report.charts.axes import set_memory_ticks
from harness.report.charts.base import PARTS as PART_COLOURS
from harness.report.charts.base import QUIET, Chart, chart_lines, colour, layout, text_labels
from harness.report.charts.horizontal_bars import BAR_HEIGHT, bar_lines, names_above, place_bars
from harness.report.charts.money import text_tooltips
from harness.report.formatting import memory, percent, plural
from harness.report.labels import short_labels
from harness.schema.record import Record

_MAX_CELLS = 16
_FRAME_HEIGHT = 100  # pixels, for the axis and the legend
_MAX_KINDS = 6
_ROOM = 1.38  # length of the axis / length of the longest bar, to leave room for the bar's text


def memory_chart(cells: Sequence[Priced]) -> tuple[Chart | None, int]:
    """Draw a bar for each cell with a breakdown of its peak, largest first; also return how many cells are left out."""
    pairs = [(cell, record) for cell in cells if (record := split_record(cell)) is not None]
    pairs.sort(key=lambda pair: -(rank_peak(pair[1]) or 0))
    shown = pairs[:_MAX_CELLS]
    chart = _chart([cell for cell, _ in shown], [record for _, record in shown]) if shown else None
    return chart, len(pairs) - len(shown)


def _chart(cells: Sequence[Priced], records: Sequence[Record]) -> Chart:
    labels = [short_labels(cells)[cell.key] for cell in cells]
    tops, middles, height = place_bars([len(bar_lines(label)) for label in labels])
    splits = [split_peak(record) or {} for record in records]
    peaks = [rank_peak(record) or 0 for record in records]
    figure = go.Figure()
    for index, part in enumerate(PARTS):
        if any(part in split for split in splits):
            figure.add_trace(
                go.Bar(
                    orientation="h",
                    y=middles,
                    width=BAR_HEIGHT,
                    x=[split.get(part) for split in splits],
                    name=part,
                    meta=colour(QUIET if part == UNEXPLAINED else PART_COLOURS[index]),
                    marker={"pattern": {"shape": "/" if part == UNEXPLAINED else ""}},
                    **text_tooltips(
                        [_tooltip(part, *fields) for fields in zip(splits, peaks, records, labels, strict=True)]
                    ),
                )
            )
    ends = [max(sum(split.values()), peak) for split, peak in zip(splits, peaks, strict=True)]
    figure.add_trace(text_labels(ends, middles, [f" {memory(peak)}" for peak in peaks]))
    figure.add_trace(names_above(labels, tops))
    layout(figure, x="", y="", height=height + _FRAME_HEIGHT)
    figure.update_layout(barmode="stack", legend_traceorder="normal")
    figure.update_xaxes(range=[0, max(ends) * _ROOM])
    set_memory_ticks(figure, max(ends), max_ticks=3)
    figure.update_yaxes(range=[height, 0], visible=False)
    has_ranks = any(record.training is not None and record.training.world_size > 1 for record in records)
    return Chart(
        "chart-memory",
        _finding(splits[0], labels[0]) + (" (rank 0)" if has_ranks else ""),
        f"Stacked bar chart of the peak memory by what it was for, of {plural(len(cells), 'cell')}.",
        figure,
    )


def _finding(split: Mapping[str, int], label: str) -> str:
    """Name the largest part of the highest peak."""
    part = max(split, key=lambda name: split[name])
    return f"The largest part of the highest peak, {label}: {part}, {percent(split[part] / sum(split.values()))}"


def _tooltip(part: str, split: Mapping[str, int], peak: int, record: Record, label: str) -> str:
    """Return the tooltip of one part of a bar.

    Args:
        part: Name of the part.
        split: Bytes of each part of the cell's peak.
        peak: Measured peak, in bytes.
        record: The record that holds the breakdown.
        label: Label of the cell.
    """
    if part not in split:
        return ""
    lines = [label, f"{part}: {memory(split[part])}, {percent(split[part] / peak)} of the peak of {memory(peak)}"]
    parts = record.training.memory_parts if record.training is not None else None
    if part == ACTIVATIONS and parts is not None:
        kinds = sorted(parts.activations_bytes.items(), key=lambda pair: -pair[1])[:_MAX_KINDS]
        lines += ["all that the forward pass saved:", *(f"  {name}: {memory(size)}" for name, size in kinds)]
    if UNEXPLAINED not in split:
        lines.append(f"the parts come to {memory(sum(split.values()))}, more than the measured peak")
    return chart_lines(*lines)
