"""Training on chunks of the rows: test accuracy after each chunk, with rows shuffled or as they arrive (pure)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import plotly.graph_objects as go

from harness.analysis.estimate import MIN_RUNS, t_quantile, wilson_interval
from harness.pricing.cost import Priced
from harness.pricing.formulas import usd_of_seconds
from harness.report.charts.base import END_LABEL, HEIGHT, SERIES, SYMBOLS, Chart, chart_text, colour, error_bars, layout
from harness.report.formatting import MoneyFormat, percent, plural, seconds
from harness.report.labels import short_labels
from harness.report.table import Field, Row, Table, table
from harness.schema.cells import FineTuneConfig, hash_config

HEADS = (
    *("after chunk", "shuffled", "its training", "its cost"),
    *("as it arrives", "its training", "its cost"),
)
_ORDERS = {"shuffled": "shuffled", "arrival": "as it arrives"}
_NOT_RUN = "not run"


@dataclass(frozen=True)
class ChunkResult:
    """The state at the end of a chunk, as the mean of the runs that reached it.

    Attributes:
        accuracy: Accuracy on the test set.
        train_s: Seconds of training until then.
        usd: Cost of set-up, training and evaluations until then; None without a price.
    """

    accuracy: float
    train_s: float
    usd: float | None


@dataclass(frozen=True)
class ChunkedTraining:
    """One configuration, trained with the rows in one or both orders: shuffled, or as they arrive.

    Attributes:
        results: The results by order, then by chunk.
        num_runs: Number of successful runs; the smaller number if the two orders differ.
        num_test: Number of examples in the test set.
    """

    label: str
    results: dict[str, dict[int, ChunkResult]]
    num_runs: int
    num_test: int


@dataclass(frozen=True)
class Chunks:
    """The section on training in chunks.

    Attributes:
        tables: Each configuration's label and table.
    """

    chart: Chart
    sentences: tuple[str, ...]
    tables: tuple[tuple[str, Table], ...]


def chunks_section(cells: Sequence[Priced], money: MoneyFormat) -> Chunks | None:
    """Build the section; None if no cell was trained in chunks."""
    trainings = chunked_trainings(cells)
    if not trainings:
        return None
    return Chunks(
        chart=_chart(trainings, money),
        sentences=tuple(filter(None, map(_sentence, trainings))),
        tables=tuple((training.label, _table(training, money)) for training in trainings),
    )


def chunked_trainings(cells: Sequence[Priced]) -> list[ChunkedTraining]:
    """Group cells on one machine that differ only in the order of their chunks."""
    labels = short_labels(cells)
    groups: defaultdict[tuple[str, str], list[tuple[str, Priced]]] = defaultdict(list)
    for cell in cells:
        config = cell.summary.config
        if isinstance(config, FineTuneConfig) and config.training.chunks > 1 and _chunk_results(cell):
            same = hash_config(config, ignore=("seed", "training.chunk_order"))
            groups[cell.summary.machine_id, same].append((config.training.chunk_order, cell))
    return [
        ChunkedTraining(
            label=labels[group[0][1].key],
            results={order: _chunk_results(cell) for order, cell in group},
            num_runs=min(cell.summary.num_ok for _, cell in group),
            num_test=next(cell.summary.data.test.num_rows for _, cell in group if cell.summary.data is not None),
        )
        for group in groups.values()
    ]


def _chunk_results(cell: Priced) -> dict[int, ChunkResult]:
    """Average the test evaluations of a cell's runs by chunk."""
    runs: defaultdict[int, list[tuple[float, float, float]]] = defaultdict(list)
    for record in cell.summary.ok_records:
        evaluate_s = 0.0
        for evaluation in record.training.evaluations if record.training else ():
            evaluate_s += evaluation.evaluate_s
            if evaluation.chunk is not None and evaluation.test_accuracy is not None:
                runs[evaluation.chunk].append((evaluation.test_accuracy, evaluation.train_s, evaluate_s))
    hourly, setup_s = cell.usd_per_hour, cell.summary.setup_s or 0.0
    results = {}
    for chunk, values in sorted(runs.items()):
        accuracy, train_s, evaluate_s = (fmean(column) for column in zip(*values, strict=True))
        paid_s = setup_s + train_s + evaluate_s
        results[chunk] = ChunkResult(accuracy, train_s, None if hourly is None else usd_of_seconds(hourly, paid_s))
    return results


def _cost(result: ChunkResult, money: MoneyFormat) -> str:
    return "no price" if result.usd is None else money.amount(result.usd)


def _chart(trainings: Sequence[ChunkedTraining], money: MoneyFormat) -> Chart:
    figure = go.Figure()
    several = len(trainings) > 1
    for index, training in enumerate(trainings[: len(SERIES)]):
        for order, results in training.results.items():
            arrives = order == "arrival"
            name = chart_text(f"{training.label}, {_ORDERS[order]}" if several else _ORDERS[order])
            bars = [wilson_interval(result.accuracy, training.num_test) for result in results.values()]
            figure.add_trace(
                go.Scatter(
                    x=list(results),
                    y=[result.accuracy for result in results.values()],
                    error_y=error_bars(bars),
                    mode="lines+markers",
                    line={"width": 2, "dash": "dash" if arrives else "solid"},
                    marker={"size": 9, "symbol": SYMBOLS[index] + ("-open" if arrives else "")},
                    name=name,
                    meta=colour(SERIES[index] if several else SERIES[arrives]) | END_LABEL,
                    hoverinfo="text",
                    hovertext=[
                        f"{name}<br>after chunk {chunk}<br>{percent(result.accuracy)} right"
                        f"<br>{seconds(result.train_s)} of training<br>{_cost(result, money)}"
                        for chunk, result in results.items()
                    ],
                )
            )
    layout(figure, x="after chunk", y="test accuracy", height=HEIGHT)
    last = max(chunk for training in trainings for results in training.results.values() for chunk in results)
    figure.update_layout(xaxis={"dtick": max(1, last // 10)}, yaxis={"tickformat": ".0%"}, showlegend=True)
    models = plural(len(trainings), "model")
    label = f"Line chart of test accuracy after each of {last} chunks of the training rows, for {models}."
    return Chart("chart-chunks", _finding(trainings[0]), label, figure)


def _finding(training: ChunkedTraining) -> str:
    """State where each order ends."""
    ends = [
        f"{_ORDERS[order]} {percent(list(results.values())[-1].accuracy)}"
        for order, results in training.results.items()
    ]
    return f"After the last chunk: {', '.join(ends)}"


def _sentence(training: ChunkedTraining) -> str:
    """Compare how both orders end, and state the largest loss between chunks; empty if an order was not run."""
    if not all(training.results.get(order) for order in _ORDERS):
        return ""
    shuffled, arrived = (list(training.results[order].values()) for order in _ORDERS)
    lost = max((before.accuracy - after.accuracy for before, after in pairwise(arrived)), default=0.0)
    falls = (
        f"From one chunk to the next it fell by up to {100 * lost:.1f} points on the way"
        if lost > 0
        else "It never fell from one chunk to the next"
    )
    spread = "" if training.num_runs >= MIN_RUNS else "; the spread between runs is not known"
    # Both orders are tested on the same set; treating it as two independent sets gives a conservative interval.
    variance = 2 * fmean(result.accuracy * (1 - result.accuracy) for result in arrived) / training.num_test
    chance = 100 * t_quantile(math.inf) * variance**0.5
    return (
        f"{training.label}: trained on chunk after chunk as it arrives, test accuracy ends at "
        f"{_end(arrived[-1])} of training; on the same rows shuffled, at {_end(shuffled[-1])}. {falls} "
        f"({plural(training.num_runs, 'run')} each{spread}). "
        f"With {training.num_test:,} test examples less than {chance:.1f} points may be chance."
    )


def _end(result: ChunkResult) -> str:
    return f"{percent(result.accuracy)} after {seconds(result.train_s)}"


def _table(training: ChunkedTraining, money: MoneyFormat) -> Table:
    chunks = sorted({chunk for results in training.results.values() for chunk in results})
    return table(
        HEADS,
        [
            (
                Field(str(chunk), chunk),
                *(field for order in _ORDERS for field in _fields(training.results.get(order, {}).get(chunk), money)),
            )
            for chunk in chunks
        ],
    )


def _fields(result: ChunkResult | None, money: MoneyFormat) -> Row:
    if result is None:
        return (Field(_NOT_RUN, None), Field("", None), Field("", None))
    return (
        Field(percent(result.accuracy), result.accuracy),
        Field(seconds(result.train_s), result.train_s),
        Field(_cost(result, money), result.usd),
    )
