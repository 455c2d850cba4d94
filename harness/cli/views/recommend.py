"""Terminal view and JSON fields of `harness recommend`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape

from harness.analysis.estimate import Estimate, value_of
from harness.analysis.summary import CellKey
from harness.decision.recommend import Recommendation, Recommended, UnmetRequirement
from harness.decision.requirements import Candidate
from harness.pricing.cost import Priced
from harness.report.formatting import (
    MoneyFormat,
    interval,
    listed,
    memory,
    number,
    percent,
    plural,
    seconds,
)
from harness.report.labels import OUTCOMES, basis_label, common_values, describe, machine_labels

BALANCE = (
    "Balanced: of those that no other beats in both, the nearest to the least cost and the least time, by the distance "
    "of the logarithms"
)


def show_recommendation(
    console: Console, recommendation: Recommendation, cells: Sequence[Priced], money: MoneyFormat
) -> None:
    """Print the recommended configurations, the unmet requirements and the baselines."""

    def print_line(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    names, usual = machine_labels(cells), common_values(cells)
    for group in _together(recommendation.choices):
        first = group[0].candidate
        print_line(f"[bold]{escape(listed([choice.role for choice in group]).capitalize())}[/]")
        for line in _lines(first, names, usual, money):
            print_line(f"  {escape(line)}")
        for choice in group:
            if choice.level:
                print_line(
                    f"  {plural(len(choice.level), 'other')} can't be told from it as the {choice.role}: their intervals meet"
                )
    if recommendation.choices:
        fulfil = "fulfils" if recommendation.num_qualifying == 1 else "fulfil"
        predicate = f"{fulfil} all that was asked" if recommendation.ruled_out else "could be chosen"
        print_line(
            f"{recommendation.num_qualifying} of {plural(recommendation.num_measured, 'measured configuration')} {predicate}. {BALANCE}."
        )
    else:
        print_line(
            "[bold]Nothing that was measured fulfils all that was asked.[/]"
            if recommendation.num_measured
            else _NOTHING
        )
    for line in _why_not(recommendation, names, money):
        print_line(escape(line))
    for baseline in recommendation.baselines:
        print_line(escape(f"Without fine-tuning: {_baseline(baseline, names, usual, money)}"))


_NOTHING = "[bold]No fine-tuning cell was measured.[/]"


def recommendation_fields(recommendation: Recommendation, cells: Sequence[Priced]) -> dict[str, object]:
    """Return the fields of `--json`."""
    names, usual = machine_labels(cells), common_values(cells)
    return {
        "asked": vars(recommendation.asked),
        "num_measured": recommendation.num_measured,
        "num_qualifying": recommendation.num_qualifying,
        "choices": {
            choice.role: _candidate_fields(choice.candidate, names, usual)
            | {"level_with": [other.cell.summary.cell for other in choice.level]}
            for choice in recommendation.choices
        },
        "ruled_out": [
            {
                "demand": unmet.demand,
                "num_cells": unmet.num_cells,
                "nearest_cell": unmet.nearest.cell.summary.cell if unmet.nearest else None,
                "nearest_machine": unmet.nearest.cell.summary.machine_id if unmet.nearest else None,
                f"nearest_{unmet.unit}": unmet.nearest_value,
            }
            for unmet in recommendation.ruled_out
        ],
        "not_measured": recommendation.not_measured,
        "num_on_another_test_set": recommendation.num_elsewhere,
        "baselines": [_candidate_fields(baseline, names, usual) for baseline in recommendation.baselines],
    }


def _together(choices: Sequence[Recommended]) -> list[list[Recommended]]:
    """Group choices by cell, because all roles of a cell are printed as one paragraph."""
    groups: dict[CellKey, list[Recommended]] = {}
    for choice in choices:
        groups.setdefault(choice.candidate.cell.key, []).append(choice)
    return list(groups.values())


def _lines(candidate: Candidate, names: Mapping[str, str], usual: Mapping[str, str], money: MoneyFormat) -> list[str]:
    summary = candidate.cell.summary
    billed = (
        _figure(money.amount(value_of(candidate.usd)), money.interval(candidate.usd)) if candidate.usd else "no dollars"
    )
    alone = (
        f" ({money.amount(value_of(candidate.cell.usd_per_run))} of measured seconds alone)"
        if candidate.cell.usd_per_run
        else ""
    )
    return [
        f"{describe(candidate.cell, usual)}, on {names.get(summary.machine_id, summary.machine_id)} (cell {summary.cell})",
        f"{billed} a run as billed{alone}; {_waited(candidate.waited_s)} from order to end; accuracy "
        f"{_figure(percent(value_of(summary.accuracy)), interval(summary.accuracy, 'percent'))}; "
        f"{_figure(number(value_of(summary.samples_per_s)), interval(summary.samples_per_s, 'number'))} samples/s; "
        f"peak memory {memory(summary.peak_memory_bytes)}",
        _priced_at(candidate.cell, money),
        *(f"note: {doubt}" for doubt in candidate.unsure),
    ]


def _priced_at(cell: Priced, money: MoneyFormat) -> str:
    price = cell.price
    if price is None:
        return f"no price: {cell.missing}"
    place = ", ".join(part for part in (price.instance, price.provider, price.region) if part) or "no instance named"
    origin = "; ".join(part for part in (price.as_of, price.source, price.paid, price.note) if part)
    details = f" ({origin})" if origin else ""
    return f"priced at {money.hourly(price.usd_per_hour)} an hour, {basis_label(price)}: {place}{details}"


def _why_not(recommendation: Recommendation, names: Mapping[str, str], money: MoneyFormat) -> list[str]:
    lines = [_ruled_out(unmet, names, money) for unmet in recommendation.ruled_out if unmet.num_cells]
    if recommendation.num_elsewhere:
        lines.append(f"Left out, because judged on another test set: {recommendation.num_elsewhere}.")
    if recommendation.not_measured:
        ended = listed([f"{count} {OUTCOMES[outcome]}" for outcome, count in recommendation.not_measured.items()])
        lines.append(f"Not measured: {ended}.")
    return lines


def _ruled_out(unmet: UnmetRequirement, names: Mapping[str, str], money: MoneyFormat) -> str:
    verb = "misses" if unmet.num_cells == 1 else "miss"
    lead = f"{plural(unmet.num_cells, 'configuration')} {verb} {unmet.demand}"
    if unmet.nearest is None or unmet.nearest_value is None:
        return f"{lead}: the figure is not known."
    show = {"accuracy": percent, "s": seconds, "usd": money.amount, "bytes": memory}[unmet.unit]
    summary = unmet.nearest.cell.summary
    where = names.get(summary.machine_id, summary.machine_id)
    # The cell's name, because a description in words can be long for a cell of another study.
    cell = f"{summary.cell} of study {summary.study}"
    return f"{lead}; nearest: {cell}, on {where}, with {show(unmet.nearest_value)}."


def _baseline(candidate: Candidate, names: Mapping[str, str], usual: Mapping[str, str], money: MoneyFormat) -> str:
    summary = candidate.cell.summary
    return (
        f"{describe(candidate.cell, usual)} on {names.get(summary.machine_id, summary.machine_id)} fulfils it too: accuracy "
        f"{percent(value_of(summary.accuracy))}, {money.amount(value_of(candidate.usd))} a run as billed."
    )


def _candidate_fields(candidate: Candidate, names: Mapping[str, str], usual: Mapping[str, str]) -> dict[str, object]:
    summary, price = candidate.cell.summary, candidate.cell.price
    return {
        "cell": summary.cell,
        "study": summary.study,
        "machine": summary.machine_id,
        "machine_name": names.get(summary.machine_id),
        "configuration": describe(candidate.cell, usual),
        **_ends("usd_billed", candidate.usd),
        **_ends("usd_per_run", candidate.cell.usd_per_run),
        **_ends("waited_s", candidate.waited_s),
        **_ends("accuracy", summary.accuracy),
        **_ends("samples_per_s", summary.samples_per_s),
        "peak_memory_bytes": summary.peak_memory_bytes,
        "gpu_peak_bytes": candidate.gpu_peak_bytes,
        "usd_per_hour": price.usd_per_hour if price else None,
        "price_basis": price.basis if price else None,
        "plan": price.plan if price else None,
        "instance": price.instance if price else None,
        "provider": price.provider if price else None,
        "region": price.region if price else None,
        "price_as_of": price.as_of if price else None,
        "missing_price": candidate.cell.missing,
        "unsure": list(candidate.unsure),
    }


def _ends(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    return {
        name: value_of(estimate),
        f"{name}_low": estimate.low if estimate else None,
        f"{name}_high": estimate.high if estimate else None,
    }


def _waited(estimate: Estimate | None) -> str:
    if estimate is None or estimate.low is None or estimate.high is None:
        return seconds(value_of(estimate))
    low, high = seconds(estimate.low), seconds(estimate.high)
    return _figure(seconds(estimate.value), f"{low} to {high}" if low != high else "")


def _figure(value: str, spread: str) -> str:
    return f"{value} ({spread})" if spread else value
