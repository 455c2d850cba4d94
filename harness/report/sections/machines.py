"""Machines side by side: sentences, charts, a table of machines and a table of the cells that they share (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.analysis.summary import CellKey
from harness.decision.differences import Difference, describe_difference
from harness.decision.side_by_side import (
    PER_1000,
    SPEED,
    ComparedCell,
    LineVerdict,
    MachineType,
    Ranking,
    SideBySide,
    hosts_of,
    side_by_side,
)
from harness.decision.side_by_side import (
    verdicts as line_verdicts,
)
from harness.pricing.cost import Priced
from harness.report.charts.base import Chart
from harness.report.charts.machines import machine_charts
from harness.report.formatting import MoneyFormat, clean, interval, listed, number, percent, plural, seconds
from harness.report.labels import OUTCOMES, basis_label, cell_indices, cell_labels, machine_labels, missed_label
from harness.report.sections.machine_verdicts import cautions, type_names, verdicts
from harness.report.table import Field, Row, Table, join_lines, table, text_field
from harness.schema.assumptions import Assumptions

_MAX_LINES = 30
_MAX_REASON = 120
_HEADS = {
    "fastest": "fastest, samples/s",
    "per_1000": "cheapest per 1,000 samples",
    "run": "cheapest run",
    "to_target": "cheapest to target",
    "in_time": "cheapest within {}, as billed",
}


@dataclass(frozen=True)
class Machines:
    """The section on machines side by side.

    Attributes:
        verdicts: Sentences on which machine leads by which figure.
        cautions: Sentences on what limits the verdicts.
        differences: Sentences on settings or software that differ between records but should be equal.
        types: A row for every machine type.
        shared: A row for every configuration and a column for every machine type.
        num_more_bars: Number of cells that the charts leave out.
        recompute: JSON from which assets/machine_comparison.js recomputes both tables; None if cells of several machine
            ids were pooled, which the page can't do.
    """

    verdicts: tuple[str, ...]
    cautions: tuple[str, ...]
    differences: tuple[str, ...]
    types: Table
    shared: Table
    charts: tuple[Chart, ...]
    num_more_bars: int
    recompute: dict[str, Any] | None


@dataclass(frozen=True)
class _Comparison:
    """A comparison with the names that both tables use.

    Attributes:
        names: Names of the machine types.
        labels: Labels of the comparison's lines.
        indices: Each cell's index in the report; empty if the page can't recompute the tables.
    """

    side_by_side: SideBySide
    names: Sequence[str]
    labels: Sequence[str]
    indices: Mapping[CellKey, int]

    def recomputed(self, field: Field, index: int | None, figure: str) -> Field:
        """Mark a field for the page to recompute; `index` is that of the figure's machine type, line or cell."""
        return replace(field, cell=index, figure=f"side.{figure}") if self.indices and index is not None else field


def machines_section(
    cells: Sequence[Priced],
    assumptions: Assumptions,
    money: MoneyFormat,
    *,
    differences: Sequence[Difference] = (),
    deadline_s: float | None = None,
) -> Machines | None:
    """Build the section; None if there is only one machine.

    Args:
        cells: Every cell of the report.
        assumptions: The assumptions that priced the cells.
        money: The report's currency.
        differences: Settings or software that differ between records but should be equal.
        deadline_s: Seconds allowed from ordering a machine to the end of a run. If set, machines are also compared by
            the runs that meet this deadline.
    """
    compared = side_by_side(cells, assumptions, deadline_s=deadline_s)
    if compared is None:
        return None
    names, labels, machine_names = type_names(compared, cells), _line_labels(compared.lines), machine_labels(cells)
    shared = {line.example.key for line in compared.shared}
    shared_labels = [label for line, label in zip(compared.lines, labels, strict=True) if line.example.key in shared]
    charts, num_more_bars = machine_charts(compared, names, shared_labels, cells, money)
    # The page can recompute only the report's own cells, not those pooled from several hosts.
    indices = {} if compared.is_pooled else cell_indices(cells)
    recompute = _recompute(compared, names, labels, indices, list(machine_names)) if indices else None
    comparison = _Comparison(compared, names, labels, indices)
    return Machines(
        verdicts=tuple(verdicts(compared, names, money)),
        cautions=tuple(cautions(compared, names)),
        differences=tuple(clean(describe_difference(difference, machine_names)) for difference in differences),
        types=table(_heads(compared), _type_rows(comparison, money)),
        shared=table(("cell", "verdict", *names), _line_rows(comparison, money), _MAX_LINES),
        charts=tuple(charts),
        num_more_bars=num_more_bars,
        recompute=recompute,
    )


def _recompute(
    compared: SideBySide,
    names: Sequence[str],
    labels: Sequence[str],
    indices: Mapping[CellKey, int],
    machine_ids: Sequence[str],
) -> dict[str, Any]:
    """Return the JSON from which the page recomputes the tables.

    Args:
        compared: The comparison.
        names: Names of the machine types.
        labels: Labels of the comparison's lines.
        indices: Each cell's index in the report.
        machine_ids: All machine ids, in the report's order.
    """
    ranked = {line.example.key for line in compared.ranked}
    return {
        "names": list(names),
        "machines": [machine_ids.index(machine.machine_ids[0]) for machine in compared.types],
        "figures": [ranking.figure.key for ranking in compared.rankings],
        "lines": [
            {
                "label": label,
                "squares": [None if cell is None else indices[cell.key] for cell in line.squares],
                "is_ranked": line.example.key in ranked,
            }
            for label, line in zip(labels, compared.lines, strict=True)
        ],
        "deadline_s": compared.deadline_s,
    }


def _line_labels(lines: Sequence[ComparedCell]) -> list[str]:
    """Label each line like a cell, with the number of devices but without their kind."""
    examples = [line.example for line in lines]
    labels = cell_labels(examples, hidden=("device",))
    num_devices = [str(getattr(cell.summary.config, "device", "")).partition("-")[2] for cell in examples]
    return [f"{labels[cell.key]} {number_of}".rstrip() for cell, number_of in zip(examples, num_devices, strict=True)]


def _heads(compared: SideBySide) -> tuple[str, ...]:
    figures = (_HEADS[ranking.figure.key].format(seconds(compared.deadline_s)) for ranking in compared.rankings)
    return ("machine", *figures, "an hour", "cells")


def _type_rows(comparison: _Comparison, money: MoneyFormat) -> list[Row]:
    compared = comparison.side_by_side
    cell_names = {
        cell.key: label
        for line, label in zip(compared.lines, comparison.labels, strict=True)
        for cell in line.squares
        if cell is not None
    }
    return [
        (
            text_field(name, name, f"slice: {machine.slice}" if machine.slice and machine.slice not in name else ""),
            *(
                comparison.recomputed(
                    _best(ranking, index, cell_names, machine.missing, money), index, ranking.figure.key
                )
                for ranking in compared.rankings
            ),
            comparison.recomputed(_hourly_price(machine, compared, index, money), index, "hour"),
            _cell_counts(compared, index),
        )
        for index, (name, machine) in enumerate(zip(comparison.names, compared.types, strict=True))
    ]


def _hourly_price(machine: MachineType, compared: SideBySide, index: int, money: MoneyFormat) -> Field:
    """Build a field of the hourly price, with its basis, place and date, and how far the machine's hosts differ."""
    hosts = [hosts_of(cell) for line in compared.lines if (cell := line.squares[index]) is not None]
    spreads = [(each.fastest - each.slowest) / each.samples_per_s.value for each in hosts if each is not None]
    spread = f"up to {percent(max(spreads))} apart" if spreads else "spread unknown"
    host_text = f"{plural(machine.num_hosts, 'host')}, {spread}"
    price = machine.price
    if price is None:
        return Field("not known", None, host_text, title=clean(machine.missing or "no price was found"))
    place = ", ".join(clean(part) for part in (price.instance, price.region) if part)
    lines = join_lines(basis_label(price), place, clean(price.as_of or ""), host_text)
    return Field(money.hourly(price.usd_per_hour), price.usd_per_hour, lines)


def _cell_counts(compared: SideBySide, index: int) -> Field:
    tried = [cell for line in compared.lines if (cell := line.squares[index]) is not None]
    failed = Counter(OUTCOMES[cell.summary.outcome] for cell in tried if not cell.summary.num_ok)
    num_ok = sum(1 for cell in tried if cell.summary.num_ok)
    if len(compared.lines) > len(tried):
        failed["not tried"] = len(compared.lines) - len(tried)
    return Field(
        f"{num_ok} of {len(compared.lines)}", num_ok, join_lines(*(f"{count} {end}" for end, count in failed.items()))
    )


def _best(
    ranking: Ranking, index: int, labels: Mapping[CellKey, str], missing: str | None, money: MoneyFormat
) -> Field:
    """Build a machine's best value of a figure, with its interval, its cell and its rank.

    Args:
        ranking: The ranking of the machine types by the figure.
        index: Index of the machine type.
        labels: Labels of the cells, by `cell.key`.
        missing: Why the machine has no price; None if it has one.
        money: The report's currency.
    """
    cell, estimate, is_speed = ranking.best[index], ranking.estimate(index), ranking.figure.most
    if cell is None or estimate is None:
        why = (
            "no measured cell is within it"
            if ranking.figure.key == "in_time"
            else "none of these cells has this figure"
        )
        return Field("none", None, title=clean(missing) if missing and not is_speed else why)
    leads = index == ranking.first or index in ranking.level
    rank = ("level with the best" if ranking.level else "best, and clear") if leads else ""
    spread = interval(estimate, "number") if is_speed else money.interval(estimate)
    text = number(estimate.value) if is_speed else money.amount(estimate.value)
    missed = missed_label(cell) if ranking.figure.key == "to_target" else ""
    return Field(text, estimate.value, join_lines(spread, missed, labels[cell.key], rank))


def _line_rows(comparison: _Comparison, money: MoneyFormat) -> list[Row]:
    lines = comparison.side_by_side.lines
    squares = [line.squares for line in lines]
    results = zip(line_verdicts(squares, SPEED), line_verdicts(squares, PER_1000), strict=True)
    return [
        (
            text_field(label, label),
            comparison.recomputed(_line_verdict(speed, dollars, comparison.names), index, "verdict"),
            *(
                comparison.recomputed(
                    _shared_cell(cell, money), None if cell is None else comparison.indices.get(cell.key), "square"
                )
                for cell in line.squares
            ),
        )
        for index, (line, label, (speed, dollars)) in enumerate(zip(lines, comparison.labels, results, strict=True))
    ]


def _shared_cell(cell: Priced | None, money: MoneyFormat) -> Field:
    if cell is None:
        return Field("not tried", None)
    rate, cost, hosts = cell.summary.samples_per_s, cell.usd_per_1000_samples, hosts_of(cell)
    if rate is None:
        reason = clean(cell.summary.reason or "no reason was recorded", _MAX_REASON, is_message=True)
        return Field(OUTCOMES[cell.summary.outcome], None, reason.replace("; ", ", "), title=reason)
    lines = join_lines(
        interval(rate, "number"),
        f"{plural(hosts.num_hosts, 'host')}: {number(hosts.slowest)} to {number(hosts.fastest)}" if hosts else "",
        f"{money.amount(cost.value)} per 1,000" if cost else "",
        money.interval(cost),
    )
    return Field(f"{number(rate.value)}/s", rate.value, lines)


def _line_verdict(speed: LineVerdict, dollars: LineVerdict, names: Sequence[str]) -> Field:
    leads, ties = [], []
    for (first, level), predicate in ((speed, "fastest"), (dollars, "cheapest")):
        if first is None:
            continue
        leads.append(f"{predicate}: {'none clearly' if level else names[first]}")
        if level:
            tied = listed([names[index] for index in (first, *level)])
            ties.append(f"{predicate}: {tied} do not differ significantly")
    head, *rest = leads or ["measured on one machine alone"]
    return text_field(head, head, join_lines(*rest), join_lines(*ties))
