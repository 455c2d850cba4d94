"""Training speed of each run of a cell over dates, which shows whether the speed changed or only scatters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median

import plotly.graph_objects as go

from harness.analysis.throughput import measure_windows
from harness.pricing.cost import Priced
from harness.report.charts.axes import span
from harness.report.charts.base import INK, MACHINES, Chart, chart_lines, colour, layout
from harness.report.charts.money import text_tooltips
from harness.report.formatting import clean, number, plural
from harness.report.labels import short_labels
from harness.schema.cells import BaselineConfig, FineTuneConfig, hash_config
from harness.schema.record import Record

MIN_RUNS = 6
MAX_CHARTS = 6
_HEIGHT = 240  # pixels
_MAX_TICKS = 4

Run = tuple[Record, float]  # a record and its samples/s


def runs_charts(cells: Sequence[Priced], records: Iterable[Record]) -> tuple[list[Chart], int]:
    """Draw samples/s over dates for each cell with MIN_RUNS runs; also return the number of such cells left out.

    Cells with the most runs come first. All records count, including those that a newer run of the same repeat replaces
    in every other chart.
    """
    runs = {key: _measured(own) for key, own in _by_cell(records).items() if len(own) >= MIN_RUNS}
    pairs = [(cell, runs.get((cell.summary.machine_id, _hash(cell.summary.config)), [])) for cell in cells]
    shown = sorted((pair for pair in pairs if len(pair[1]) >= MIN_RUNS), key=lambda pair: -len(pair[1]))
    labels = short_labels([cell for cell, _ in shown])
    charts = [
        _chart(f"chart-runs-{index}", labels[cell.key], own) for index, (cell, own) in enumerate(shown[:MAX_CHARTS])
    ]
    return charts, max(0, len(shown) - MAX_CHARTS)


def _hash(config: FineTuneConfig | BaselineConfig) -> str:
    return hash_config(config, ignore=("seed",))


def _by_cell(records: Iterable[Record]) -> dict[tuple[str, str], list[Record]]:
    """Group successful trainings by machine and configuration.

    A run that was read twice, from a folder and from an archive, counts once.
    """
    runs: dict[tuple[str, str], dict[object, Record]] = defaultdict(dict)
    for record in records:
        if record.outcome == "ok" and record.training:
            key = record.started_at, record.machine.host, record.repeat
            runs[record.machine.id, _hash(record.config)][key] = record
    return {key: list(own.values()) for key, own in runs.items()}


def _measured(records: Iterable[Record]) -> list[Run]:
    """Return the runs with a known training speed, by date."""
    runs = [
        (record, windows[-1].samples_per_s)
        for record in records
        if (windows := measure_windows([record.training] if record.training else []))
    ]
    return sorted(runs, key=lambda run: run[0].started_at)


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
                meta=colour(MACHINES[index % len(MACHINES)]),
                **text_tooltips([_tooltip(record, rate) for record, rate in own]),
            )
        )
    middle = median(rates)
    figure.add_trace(
        go.Scatter(
            x=[f"{record.started_at:%Y-%m-%d %H:%M:%S}" for record, _ in (runs[0], runs[-1])],
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
    figure.update_layout(xaxis={"nticks": _MAX_TICKS, "type": "date"}, yaxis={"range": span(rates, pad=0.15)})
    count = plural(len(runs), "run")
    return Chart(
        key,
        f"{clean(label)}: {count}, median {number(middle)}",
        f"Line chart of samples a second of {count} over their dates: {number(min(rates))} to {number(max(rates))}, "
        f"median {number(middle)}.",
        figure,
    )


def _tooltip(record: Record, rate: float) -> str:
    commit = record.git.commit if record.git is not None else None
    return chart_lines(
        f"{record.started_at:%Y-%m-%d %H:%M} UTC",
        f"{number(rate)} samples/s",
        f"commit {commit[:7]}" if commit else "",
        f"torch {record.packages['torch']}" if "torch" in record.packages else "",
    )
