"""The section on machines side by side: its tables, in words (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.analysis.summary import CellKey
from harness.decision.differences import Difference, describe_difference
from harness.decision.side_by_side import (
    PER_1000,
    SPEED,
    ComparedCell,
    MachineType,
    Ranking,
    SideBySide,
    hosts_of,
    side_by_side,
    verdict,
)
from harness.pricing.cost import Priced
from harness.report.charts.base import Chart
from harness.report.charts.machines import machine_charts
from harness.report.formatting import (
    MoneyFormat,
    clean,
    interval,
    listed,
    number,
    percent,
    plural,
    seconds,
)
from harness.report.labels import cell_labels, machine_labels
from harness.report.sections.cell_table import OUTCOMES, Field, basis_label
from harness.report.sections.machine_verdicts import cautions, type_names, verdicts
from harness.schema.assumptions import Assumptions

_MAX_LINES = 30
_LONGEST_REASON = 120
_HEADS = {
    "fastest": "fastest, samples/s",
    "per_1000": "cheapest per 1,000 samples",
    "run": "cheapest run",
    "to_target": "cheapest to target",
    "in_time": "cheapest within {}, as billed",
}


@dataclass(frozen=True)
class Machines:
    """What the section shows.

    Attributes:
        verdicts: Who leads in what.
        cautions: What speaks against reading too much into that.
        differences: In what records differ that stand side by side.
        heads, rows: Of the price-performance table.
        line_heads, line_rows: Of the same cells side by side.
        live: What assets/machine_comparison.js needs to write both tables anew; None where hosts of several ids stand for one
            machine, which the page can't pool.
    """

    verdicts: tuple[str, ...]
    cautions: tuple[str, ...]
    differences: tuple[str, ...]
    heads: tuple[str, ...]
    rows: tuple[tuple[Field, ...], ...]
    line_heads: tuple[str, ...]
    line_rows: tuple[tuple[Field, ...], ...]
    num_more_lines: int
    charts: tuple[Chart, ...]
    num_more_bars: int
    live: dict[str, Any] | None


def machines(
    cells: Sequence[Priced],
    assumed: Assumptions,
    money: MoneyFormat,
    *,
    differences: Sequence[Difference] = (),
    deadline_s: float | None = None,
) -> Machines | None:
    """The section; None with one machine."""
    found = side_by_side(cells, assumed, deadline_s=deadline_s)
    if found is None:
        return None
    names, of_line = type_names(found, cells), _line_labels(found.lines)
    shared = {line.example.key for line in found.shared}
    of_shared = [label for line, label in zip(found.lines, of_line, strict=True) if line.example.key in shared]
    charts, num_more_bars = machine_charts(found, names, of_shared, cells, money)
    places = {cell.key: index for index, cell in enumerate(cells)}
    # The page can recompute the report's own cells only.
    live = None if found.is_pooled else _live(found, names, of_line, places, list(machine_labels(cells)))
    return Machines(
        verdicts=tuple(verdicts(found, names, money)),
        cautions=tuple(cautions(found, names)),
        differences=tuple(clean(describe_difference(one, machine_labels(cells))) for one in differences),
        heads=_heads(found),
        rows=tuple(_rows(found, names, of_line, money, is_live=live is not None)),
        line_heads=("cell", "verdict", *names),
        line_rows=tuple(_line_rows(found, names, of_line, places if live is not None else {}, money)),
        num_more_lines=max(0, len(of_line) - _MAX_LINES),
        charts=tuple(charts),
        num_more_bars=num_more_bars,
        live=live,
    )


def _live(
    found: SideBySide,
    names: Sequence[str],
    labels: Sequence[str],
    places: dict[CellKey, int],
    machine_ids: Sequence[str],
) -> dict[str, Any]:
    ranked = {line.example.key for line in found.ranked}
    return {
        "names": list(names),
        "machines": [machine_ids.index(one.machine_ids[0]) for one in found.types],
        "figures": [one.figure.key for one in found.rankings],
        "lines": [
            {
                "label": label,
                "squares": [None if cell is None else places[cell.key] for cell in line.squares],
                "is_ranked": line.example.key in ranked,
            }
            for label, line in zip(labels, found.lines, strict=True)
        ],
        "deadline_s": found.deadline_s,
    }


def _line_labels(lines: Sequence[ComparedCell]) -> list[str]:
    """Of each line, batch x tokens and what is not as usual among them; of the device only whether there are several."""
    examples = [line.example for line in lines]
    labels = cell_labels(examples, untold=("device",))
    ranks = [str(getattr(one.summary.config, "device", "")).partition("-")[2] for one in examples]
    return [f"{labels[one.key]} {rank}".rstrip() for one, rank in zip(examples, ranks, strict=True)]


def _heads(found: SideBySide) -> tuple[str, ...]:
    figures = (_HEADS[one.figure.key].format(seconds(found.deadline_s)) for one in found.rankings)
    return ("machine", *figures, "an hour", "cells")


def _rows(
    found: SideBySide, names: Sequence[str], labels: Sequence[str], money: MoneyFormat, *, is_live: bool
) -> list[tuple[Field, ...]]:
    of_cell = {
        cell.key: label
        for line, label in zip(found.lines, labels, strict=True)
        for cell in line.squares
        if cell is not None
    }

    def alive(field: Field, place: int, figure: str) -> Field:
        return replace(field, cell=place, figure=f"side.{figure}") if is_live else field

    return [
        (
            Field(name, name, f"slice: {one.slice}" if one.slice and one.slice not in name else "", numeric=False),
            *(
                alive(_best(ranking, index, of_cell, one.missing, money), index, ranking.figure.key)
                for ranking in found.rankings
            ),
            alive(_hour(one, found, index, money), index, "hour"),
            _cells(found, index),
        )
        for index, (name, one) in enumerate(zip(names, found.types, strict=True))
    ]


def _hour(one: MachineType, found: SideBySide, index: int, money: MoneyFormat) -> Field:
    """The price, and what stands beside it: how it is known, how old it is, and how far hosts differ."""
    spreads = [hosts_of(cell) for line in found.lines if (cell := line.squares[index]) is not None]
    widest = max(((s.fastest - s.slowest) / s.samples_per_s.value for s in spreads if s is not None), default=None)
    hosts = f"{plural(one.num_hosts, 'host')}" + (
        f", up to {percent(widest)} apart" if widest is not None else ", spread unknown"
    )
    if one.price is None:
        return Field("not known", None, hosts, title=clean(one.missing or "no price was found"))
    place = ", ".join(clean(part) for part in (one.price.instance, one.price.region) if part)
    told = "; ".join(filter(None, (basis_label(one.price), place, clean(one.price.as_of or ""), hosts)))
    return Field(money.hourly(one.price.usd_per_hour), one.price.usd_per_hour, told)


def _cells(found: SideBySide, index: int) -> Field:
    tried = [cell for line in found.lines if (cell := line.squares[index]) is not None]
    lost = Counter(OUTCOMES[cell.summary.outcome] for cell in tried if not cell.summary.num_ok)
    ran = sum(1 for cell in tried if cell.summary.num_ok)
    if left := len(found.lines) - len(tried):
        lost["not tried"] = left
    return Field(f"{ran} of {len(found.lines)}", ran, "; ".join(f"{count} {ended}" for ended, count in lost.items()))


def _best(ranking: Ranking, index: int, labels: dict[CellKey, str], missing: str | None, money: MoneyFormat) -> Field:
    cell, figure = ranking.best[index], ranking.estimate(index)
    if cell is None or figure is None:
        why = (
            "no measured cell is within it"
            if ranking.figure.key == "in_time"
            else "none of these cells has this figure"
        )
        return Field("none", None, title=clean(missing) if missing and not ranking.figure.most else why)
    most = ranking.figure.most
    leads = index == ranking.first or index in ranking.level
    standing = ("level with the best" if ranking.level else "best, and clear") if leads else ""
    lines = (interval(figure, "number") if most else money.interval(figure), labels[cell.key], standing)
    return Field(
        number(figure.value) if most else money.amount(figure.value), figure.value, "; ".join(filter(None, lines))
    )


def _line_rows(
    found: SideBySide, names: Sequence[str], labels: Sequence[str], places: dict[CellKey, int], money: MoneyFormat
) -> list[tuple[Field, ...]]:
    def alive(field: Field, place: int | None, figure: str) -> Field:
        return field if place is None or not places else replace(field, cell=place, figure=f"side.{figure}")

    return [
        (
            Field(label, label, numeric=False),
            alive(_line_verdict(line, names), index, "verdict"),
            *(
                alive(_square(cell, money), None if cell is None else places.get(cell.key), "square")
                for cell in line.squares
            ),
        )
        for index, (line, label) in enumerate(list(zip(found.lines, labels, strict=True))[:_MAX_LINES])
    ]


def _square(cell: Priced | None, money: MoneyFormat) -> Field:
    if cell is None:
        return Field("not tried", None)
    rate, dollars, spread = cell.summary.samples_per_s, cell.usd_per_1000_samples, hosts_of(cell)
    if rate is None:
        reason = clean(cell.summary.reason or "no reason was recorded", _LONGEST_REASON)
        return Field(OUTCOMES[cell.summary.outcome], None, reason.replace("; ", ", "), title=reason)
    lines = (
        interval(rate, "number"),
        f"{plural(spread.num_hosts, 'host')}: {number(spread.slowest)} to {number(spread.fastest)}" if spread else "",
        f"{money.amount(dollars.value)} per 1,000" if dollars else "",
        money.interval(dollars),
    )
    return Field(f"{number(rate.value)}/s", rate.value, "; ".join(filter(None, lines)))


def _line_verdict(line: ComparedCell, names: Sequence[str]) -> Field:
    said, tied = [], []
    for figure, predicate in ((SPEED, "fastest"), (PER_1000, "cheapest")):
        first, level = verdict(line.squares, figure)
        if first is not None:
            said.append(f"{predicate}: {'none clearly' if level else names[first]}")
            tied += [f"{predicate}: {listed([names[i] for i in (first, *level)])} can't be told apart"] * bool(level)
    head, *rest = said or ["measured on one machine alone"]
    return Field(head, head, "; ".join(rest), title="; ".join(tied), numeric=False)
