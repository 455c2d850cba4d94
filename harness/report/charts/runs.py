"""The report's lines of a cell's runs over dates: did something change, or does it only scatter?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median

import plotly.graph_objects as go

from harness.analysis.throughput import ThroughputWindow, measure_windows
from harness.pricing.cost import Priced
from harness.report.charts.base import INK, SERIES, Chart, chart_text, colour, layout, span
from harness.report.formatting import clean, number, plural
from harness.report.labels import short_labels
from harness.schema.cells import hash_config
from harness.schema.record import Record

FEWEST_RUNS = 6
MAX_CHARTS = 6
_HEIGHT = 240
_MOST_TICKS = 4

Run = tuple[Record, float]


def runs_charts(cells: Sequence[Priced], records: Iterable[Record]) -> tuple[list[Chart], int]:
    """Samples a second of every run over its date, a chart for each cell that has more than 5; how many more there are.

    Of all records, those too that a newer one of the same repeat replaces in every other figure. Most runs first.
    """
    by_cell: dict[tuple[str, str], dict[object, Record]] = defaultdict(dict)
    for record in records:
        if record.outcome == "ok" and record.training:
            # One run may have been read twice, out of a folder and out of an archive.
            key = record.started_at, record.machine.host, record.repeat
            by_cell[record.machine.id, _configuration(record)][key] = record
    runs = {
        key: {name: (record, window.samples_per_s) for name, record in found.items() for window in _windows(record)}
        for key, found in by_cell.items()
        if len(found) >= FEWEST_RUNS
    }
    shown = [(cell, sorted(found.values(), key=lambda run: run[0].started_at))
             for cell in cells if len(found := runs.get(_of_cell(cell), {})) >= FEWEST_RUNS]  # fmt: skip
    shown.sort(key=lambda pair: -len(pair[1]))
    labels = short_labels([cell for cell, _ in shown])
    charts = [_chart(f"chart-runs-{index}", labels[cell.key], found) for index, (cell, found) in enumerate(shown)]
    return charts[:MAX_CHARTS], max(0, len(charts) - MAX_CHARTS)


def _windows(record: Record) -> list[ThroughputWindow]:
    return measure_windows([record.training] if record.training else [])


def _of_cell(cell: Priced) -> tuple[str, str]:
    return cell.summary.machine_id, hash_config(cell.summary.config, ignore=("seed",))


def _configuration(record: Record) -> str:
    return hash_config(record.config, ignore=("seed",))


def _chart(key: str, label: str, runs: Sequence[Run]) -> Chart:
    rates = [rate for _, rate in runs]
    hosts = list(dict.fromkeys(record.machine.host for record, _ in runs))
    figure = go.Figure()
    for index, host in enumerate(hosts):
        own = [(record, rate) for record, rate in runs if record.machine.host == host]
        figure.add_trace(
            go.Scatter(
                x=[f"{record.started_at:%Y-%m-%d %H:%M:%S}" for record, _ in own],
                y=[rate for _, rate in own],
                mode="lines+markers",
                line={"width": 1.5},
                marker={"size": 6},
                name=f"host {index + 1}",
                showlegend=len(hosts) > 1,
                meta=colour(SERIES[index % len(SERIES)]),
                hoverinfo="text",
                hovertext=[_hover(record, rate) for record, rate in own],
            )
        )
    middle, ends = median(rates), [f"{runs[place][0].started_at:%Y-%m-%d %H:%M:%S}" for place in (0, -1)]
    figure.add_trace(
        go.Scatter(
            x=ends,
            y=[middle, middle],
            mode="lines",
            line={"width": 1, "dash": "dot"},
            name=f"median {number(middle)}",
            showlegend=False,
            meta=colour(INK),
            hoverinfo="skip",
        )
    )
    layout(figure, x="UTC", y="samples/s", height=_HEIGHT)
    figure.update_layout(xaxis={"nticks": _MOST_TICKS, "type": "date"}, yaxis={"range": span(rates, pad=0.15)})
    return Chart(
        key,
        f"{clean(label)}: {plural(len(runs), 'run')}, median {number(middle)}",
        f"Line chart of samples a second of {plural(len(runs), 'run')} over their dates: {number(min(rates))} to "
        f"{number(max(rates))}, median {number(middle)}.",
        figure,
    )


def _hover(record: Record, rate: float) -> str:
    lines = [
        f"{record.started_at:%Y-%m-%d %H:%M} UTC",
        f"{number(rate)} samples/s",
        *([f"commit {record.git.commit[:7]}"] if record.git is not None and record.git.commit else []),
        *([f"torch {record.packages['torch']}"] if "torch" in record.packages else []),
    ]
    return "<br>".join(chart_text(line) for line in lines)
