"""Training rows that come in chunks: what was reached after each, shuffled and as they arrive (pure)."""

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
from harness.report.charts.base import HEIGHT, SERIES, SYMBOLS, Chart, chart_text, colour, error_bars, layout
from harness.report.formatting import MoneyFormat, percent, plural, seconds
from harness.report.labels import short_labels
from harness.report.sections.cell_table import Field
from harness.schema.cells import FineTuneConfig, hash_config

HEADS = (
    *("after chunk", "shuffled", "its training", "its cost"),
    *("as it arrives", "its training", "its cost"),
)
_ORDERS = ("shuffled", "arrival")
_ORDER_WORDS = {"shuffled": "shuffled", "arrival": "as it arrives"}
_NOT_RUN = "not run"


@dataclass(frozen=True)
class Look:
    """The end of a chunk, mean of the runs that had it.

    Attributes:
        accuracy: On the test set.
        train_s: The training clock.
        usd: Set-up, training and validations until then; None without a price.
    """

    accuracy: float
    train_s: float
    usd: float | None


@dataclass(frozen=True)
class Chunked:
    """One configuration in both orders, or in one.

    Attributes:
        looks: By order, then by chunk.
        num_test: Examples of the test set.
    """

    label: str
    looks: dict[str, dict[int, Look]]
    num_runs: int
    num_test: int


@dataclass(frozen=True)
class ChunkWords:
    """What the report says of chunks, and draws."""

    chart: Chart
    sentences: tuple[str, ...]
    tables: tuple[tuple[str, tuple[tuple[Field, ...], ...]], ...]


def chunk_words(cells: Sequence[Priced], money: MoneyFormat) -> ChunkWords | None:
    """All that is said; None where no cell's rows came in chunks."""
    found = chunked(cells)
    if not found:
        return None
    return ChunkWords(
        chart=_chart(found, money),
        sentences=tuple(filter(None, map(_sentence, found))),
        tables=tuple((one.label, _rows(one, money)) for one in found),
    )


def chunked(cells: Sequence[Priced]) -> list[Chunked]:
    """Cells that differ in nothing but the order of their chunks, on one machine, side by side."""
    labels = short_labels(cells)
    groups: defaultdict[tuple[str, str], list[Priced]] = defaultdict(list)
    for cell in cells:
        config = cell.summary.config
        if isinstance(config, FineTuneConfig) and config.training.chunks > 1 and _looks(cell):
            same = hash_config(config, ignore=("seed", "training.chunk_order"))
            groups[cell.summary.machine_id, same].append(cell)
    return [
        Chunked(
            label=labels[group[0].key],
            looks={_order(cell): _looks(cell) for cell in group},
            num_runs=min(cell.summary.num_ok for cell in group),
            num_test=_num_test(group[0]),
        )
        for group in groups.values()
    ]


def _order(cell: Priced) -> str:
    config = cell.summary.config
    assert isinstance(config, FineTuneConfig)  # noqa: S101 - chosen so
    return config.training.chunk_order


def _num_test(cell: Priced) -> int:
    data = cell.summary.data
    assert data is not None  # noqa: S101 - its test set was looked at
    return data.test.num_rows


def _looks(cell: Priced) -> dict[int, Look]:
    """By chunk."""
    seen: defaultdict[int, list[tuple[float, float, float]]] = defaultdict(list)
    for record in cell.summary.ok_records:
        spent_s = 0.0
        for one in record.training.evaluations if record.training else ():
            spent_s += one.evaluate_s
            if one.chunk is not None and one.test_accuracy is not None:
                seen[one.chunk].append((one.test_accuracy, one.train_s, spent_s))
    hourly, setup_s = cell.price.usd_per_hour if cell.price else None, cell.summary.setup_s or 0.0
    looks = {}
    for chunk, told in sorted(seen.items()):
        accuracy, train_s, spent_s = (fmean(column) for column in zip(*told, strict=True))
        paid_s = setup_s + train_s + spent_s
        looks[chunk] = Look(accuracy, train_s, None if hourly is None else usd_of_seconds(hourly, paid_s))
    return looks


def _chart(found: Sequence[Chunked], money: MoneyFormat) -> Chart:
    figure = go.Figure()
    for index, one in enumerate(found[: len(SERIES)]):
        for order, looks in one.looks.items():
            arrives = order == "arrival"
            name = _ORDER_WORDS[order] if len(found) == 1 else f"{one.label}, {_ORDER_WORDS[order]}"
            spent = [money.amount(look.usd) if look.usd is not None else "no price" for look in looks.values()]
            figure.add_trace(
                go.Scatter(
                    x=list(looks),
                    y=[look.accuracy for look in looks.values()],
                    error_y=error_bars([wilson_interval(look.accuracy, one.num_test) for look in looks.values()]),
                    mode="lines+markers",
                    line={"width": 2, "dash": "dash" if arrives else "solid"},
                    marker={"size": 9, "symbol": SYMBOLS[index] + ("-open" if arrives else "")},
                    name=chart_text(name),
                    meta=colour(SERIES[index] if len(found) > 1 else SERIES[arrives]),
                    hoverinfo="text",
                    hovertext=[
                        f"{chart_text(name)}<br>after chunk {chunk}<br>{percent(look.accuracy)} right"
                        f"<br>{seconds(look.train_s)} of training<br>{paid}"
                        for (chunk, look), paid in zip(looks.items(), spent, strict=True)
                    ],
                )
            )
    layout(figure, x="after chunk", y="test accuracy", height=HEIGHT)
    most = max(chunk for one in found for looks in one.looks.values() for chunk in looks)
    figure.update_layout(xaxis={"dtick": max(1, most // 10)}, yaxis={"tickformat": ".0%"}, showlegend=True)
    label = f"Line chart of test accuracy after each of {most} chunks of the training rows, for {plural(len(found), 'model')}."
    return Chart("chart-chunks", "After each chunk", label, figure)


def _sentence(one: Chunked) -> str:
    """How the two orders end, and what the second forgot on its way; empty where one of them was not run."""
    if not all(one.looks.get(order) for order in _ORDERS):
        return ""
    shuffled, arrived = (list(one.looks[order].values()) for order in _ORDERS)
    lost = max((before.accuracy - after.accuracy for before, after in pairwise(arrived)), default=0.0)
    falls = (
        f"From one chunk to the next it fell by up to {100 * lost:.1f} points on the way"
        if lost > 0
        else "It never fell from one chunk to the next"
    )
    spread = "" if one.num_runs >= MIN_RUNS else "; the spread between runs is not known"
    # As of two test sets: of two models on one it is wide.
    variance = 2 * fmean(look.accuracy * (1 - look.accuracy) for look in arrived) / one.num_test
    told = 100 * t_quantile(math.inf) * variance**0.5
    return (
        f"{one.label}: trained on chunk after chunk as it arrives, test accuracy ends at "
        f"{percent(arrived[-1].accuracy)} after {seconds(arrived[-1].train_s)} of training; on the same rows shuffled, at "
        f"{percent(shuffled[-1].accuracy)} after {seconds(shuffled[-1].train_s)}. {falls} "
        f"({plural(one.num_runs, 'run')} each{spread}). With {one.num_test:,} test examples less than {told:.1f} points may be chance."
    )


def _rows(one: Chunked, money: MoneyFormat) -> tuple[tuple[Field, ...], ...]:
    chunks = sorted({chunk for looks in one.looks.values() for chunk in looks})
    return tuple(
        (
            Field(str(chunk), chunk),
            *(field for order in _ORDERS for field in _fields(one.looks.get(order, {}).get(chunk), money)),
        )
        for chunk in chunks
    )


def _fields(look: Look | None, money: MoneyFormat) -> tuple[Field, ...]:
    if look is None:
        return (Field(_NOT_RUN, None), Field("", None), Field("", None))
    return (
        Field(percent(look.accuracy), look.accuracy),
        Field(seconds(look.train_s), look.train_s),
        Field(money.amount(look.usd) if look.usd is not None else "no price", look.usd),
    )
