"""The report's stacked bars of what each cell's memory was used for."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

import plotly.graph_objects as go

from harness.decision.memory_savings import ACTIVATIONS, PARTS, UNEXPLAINED, rank_peak, split_peak, split_record
from harness.pricing.cost import Priced
from harness.report.charts.base import QUIET, SERIES, Chart, chart_text, colour, layout, memory_ticks, words_beside
from harness.report.formatting import memory, percent, plural
from harness.report.labels import short_labels
from harness.schema.record import Record

_MAX_CELLS = 16
_FRAME_HEIGHT = 100
_ROW_HEIGHT = 12
_TICK_LINE = 15
_TICK_SIGNS = 20
_KINDS_SHOWN = 6
_ROOM = 1.38  # behind the longest bar, for its figure


def memory_chart(cells: Sequence[Priced]) -> tuple[Chart | None, int]:
    """A bar for each cell whose peak was split, largest first; also how many more there are. None without any."""
    found = [(cell, record) for cell in cells if (record := split_record(cell)) is not None]
    found.sort(key=lambda pair: -(rank_peak(pair[1]) or 0))
    if not found:
        return None, 0
    shown = found[:_MAX_CELLS]
    return _chart([cell for cell, _ in shown], [record for _, record in shown]), len(found) - len(shown)


def _chart(cells: Sequence[Priced], records: Sequence[Record]) -> Chart:
    labels = short_labels(cells)
    # Cells of equal names (those of two studies) would be one bar: a number keeps them apart.
    places = list(range(len(cells)))
    splits = [split_peak(record) or {} for record in records]
    peaks = [rank_peak(record) or 0 for record in records]
    drawn = go.Figure()
    for index, part in enumerate(PARTS):
        if any(part in split for split in splits):
            role = QUIET if part == UNEXPLAINED else SERIES[index]
            drawn.add_trace(
                go.Bar(
                    orientation="h",
                    y=places,
                    x=[split.get(part) for split in splits],
                    name=part,
                    meta=colour(role),
                    marker={"pattern": {"shape": "/" if part == UNEXPLAINED else ""}},
                    hoverinfo="text",
                    hovertext=[
                        _hover(part, split, peak, record, labels[cell.key])
                        for split, peak, record, cell in zip(splits, peaks, records, cells, strict=True)
                    ],
                )
            )
    ends = [max(sum(split.values()), peak) for split, peak in zip(splits, peaks, strict=True)]
    drawn.add_trace(words_beside(ends, places, [f" {memory(peak)}" for peak in peaks]))
    # Long names in few columns leave a narrow page room for the bars.
    ticks = [
        [chart_text(line) for line in wrap(labels[cell.key], _TICK_SIGNS, break_long_words=False)] for cell in cells
    ]
    row_height = _ROW_HEIGHT + _TICK_LINE * max(len(lines) for lines in ticks)
    layout(drawn, x="", y="", height=_FRAME_HEIGHT + row_height * len(cells))
    drawn.update_layout(barmode="stack", bargap=0.3, legend_traceorder="normal")
    drawn.update_xaxes(range=[0, max(ends) * _ROOM])
    memory_ticks(drawn, max(ends), num_ticks=6)
    drawn.update_yaxes(
        range=[len(cells) - 0.5, -0.5],
        tickvals=places,
        ticktext=["<br>".join(lines) for lines in ticks],
        showgrid=False,
    )
    several = any(record.training is not None and record.training.world_size > 1 for record in records)
    title = "Peak memory by what it was for" + (", of rank 0" if several else "")
    return Chart("chart-memory", title, f"Stacked bar chart: {title} for {plural(len(cells), 'cell')}.", drawn)


def _hover(part: str, split: dict[str, int], peak: int, record: Record, label: str) -> str:
    if part not in split:
        return ""
    lines = [label, f"{part}: {memory(split[part])}, {percent(split[part] / peak)} of the peak of {memory(peak)}"]
    parts = record.training.memory_parts if record.training is not None else None
    if part == ACTIVATIONS and parts is not None:
        kinds = sorted(parts.activations_bytes.items(), key=lambda pair: -pair[1])[:_KINDS_SHOWN]
        lines += ["all that the forward pass saved:", *(f"  {name}: {memory(size)}" for name, size in kinds)]
    total = sum(split.values())
    if UNEXPLAINED not in split:
        lines.append(f"the parts come to {memory(total)}, more than the measured peak")
    return "<br>".join(chart_text(line) for line in lines)
