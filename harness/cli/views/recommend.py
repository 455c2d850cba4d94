"""Terminal view and JSON fields of `harness recommend`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from harness.analysis.estimate import Estimate, value_of
from harness.cli.console import print_text
from harness.cli.views.speed_line import print_speed_line
from harness.decision.choice import Choice
from harness.decision.requirements import Requirements, UnmetRequirement
from harness.decision.ways import Way
from harness.pricing.cost import Priced
from harness.report.formatting import MoneyFormat, listed, memory, plural, seconds
from harness.report.labels import OUTCOMES, basis_label, machine_labels
from harness.report.sections.verdict import BASELINE_KINDS, verdict_sentences, way_text


def show_recommendation(
    console: Console,
    choice: Choice,
    unmet: Sequence[UnmetRequirement],
    cells: Sequence[Priced],
    money: MoneyFormat,
) -> None:
    """Print the verdict with its evidence, the chosen cell's price, and why other cells were ruled out.

    Args:
        console: Where to print.
        choice: The choice.
        unmet: Each requirement with the cells that miss it.
        cells: Every cell.
        money: The currency.
    """

    def print_line(text: str, style: str = "") -> None:
        print_text(console, Text(text), style=style)

    if choice.way is None and choice.measured and not choice.ways:
        print_line("Nothing that was measured meets all requirements.", "bold")
    elif choice.ways:
        lead, *rest = verdict_sentences(cells, choice, money)
        print_line(lead, "bold")
        for sentence in rest:
            print_line(f"  {sentence}")
        for line in _details(choice, cells, money):
            print_line(f"  {line}")
    else:
        print_line(_nothing(cells), "bold")
    for line in _ruled_out(choice, unmet, cells, money):
        print_line(line)
    if choice.way is not None and choice.way.kind == "fine_tune":
        print_speed_line(console, choice.compared, choice.way.cell)


def recommendation_fields(
    choice: Choice, requirements: Requirements, unmet: Sequence[UnmetRequirement], cells: Sequence[Priced]
) -> dict[str, object]:
    """Return the fields of `--json`; differences are the pick's score minus the other's, on the same test examples.

    Args:
        choice: The choice.
        requirements: The user's requirements.
        unmet: Each requirement with the cells that miss it.
        cells: Every cell.
    """
    loss = choice.way.loss if choice.way is not None else None
    upgrade = choice.upgrade
    return {
        "goal": vars(choice.goal),
        "asked": vars(requirements),
        "verdict": choice.verdict.kind,
        "reasons": [{"kind": reason.kind, "details": list(reason.details)} for reason in choice.verdict.reasons],
        "decided_by": "usd" if choice.in_dollars else "seconds",
        "pick": _way_fields(choice.way, cells),
        "runner_up": _way_fields(choice.runner_up, cells),
        "upgrade": None
        if upgrade is None
        else {
            "way": _way_fields(upgrade.way, cells),
            "gain": _estimate_fields(upgrade.gain),
            "usd": upgrade.usd,
            "usd_per_point": _estimate_fields(upgrade.usd_per_point),
        },
        "differences": _differences(choice),
        "expected_loss": None if loss is None else loss.mean,
        "largest_loss_not_excluded": None if loss is None else loss.largest,
        "good_enough": [way.name for way in choice.admitted],
        "measure_next": [vars(step) | {"settings": list(step.settings)} for step in choice.verdict.measure_next],
        "num_ways": len(choice.ways),
        "ruled_out": [
            {
                "demand": each.demand,
                "num_cells": each.num_cells,
                "nearest_cell": each.nearest.cell.summary.cell if each.nearest else None,
                "nearest_machine": each.nearest.cell.summary.machine_id if each.nearest else None,
                f"nearest_{each.unit}": each.nearest_value,
            }
            for each in unmet
        ],
        "not_measured": dict(_not_measured(cells)),
        "num_on_another_test_set": choice.num_elsewhere,
    }


def _way_fields(way: Way | None, cells: Sequence[Priced]) -> dict[str, object] | None:
    if way is None:
        return None
    cell = way.cell
    fields: dict[str, object] = {
        "kind": way.kind,
        "cell": way.name,
        "words": way_text(way, cells),
        "score": _estimate_fields(way.score),
        "usd": _estimate_fields(way.usd),
        "seconds": way.seconds,
        "num_seeds": way.num_seeds,
        "num_test_examples": 0 if way.scores is None else way.scores.shape[1],
    }
    if cell is None:
        return fields
    return fields | {
        "machine": cell.summary.machine_id,
        "machine_label": machine_labels(cells).get(cell.summary.machine_id),
        "usd_billed": _estimate_fields(cell.usd_billed),
        "usd_per_run": value_of(cell.usd_per_run),
        "price_basis": None if cell.price is None else basis_label(cell.price),
        "samples_per_s": _estimate_fields(cell.summary.samples_per_s),
        "peak_memory_bytes": cell.summary.peak_memory_bytes,
        "num_runs": cell.summary.num_ok,
        "num_hosts": len({record.machine.host for record in cell.summary.ok_records}),
    }


def _estimate_fields(estimate: Estimate | None) -> Mapping[str, object] | None:
    return None if estimate is None else vars(estimate)


def _differences(choice: Choice) -> dict[str, object]:
    others = {"best": choice.best, "runner_up": choice.runner_up} | {
        kind: choice.best_of(kind) for kind in BASELINE_KINDS
    }
    return {name: _estimate_fields(choice.difference(other)) for name, other in others.items() if other is not None}


def _details(choice: Choice, cells: Sequence[Priced], money: MoneyFormat) -> list[str]:
    """Describe the chosen cell: its name, where its price is from, its time and memory."""
    cell = choice.way.cell if choice.way is not None else None
    if cell is None:
        return []
    price, summary = cell.price, cell.summary
    lines = [
        f"Cell {summary.cell}, on {machine_labels(cells)[summary.machine_id]}: {seconds(choice.way.seconds if choice.way else None)} "
        f"a run, peak memory {memory(summary.peak_memory_bytes)}."
    ]
    if price is None:
        return [*lines, f"No price: {cell.missing}."]
    place = ", ".join(part for part in (price.instance, price.provider, price.region) if part) or "no instance named"
    origin = "; ".join(part for part in (price.as_of, price.source, price.paid, price.note) if part)
    details = f" ({origin})" if origin else ""
    return [*lines, f"Priced at {money.hourly(price.usd_per_hour)} an hour, {basis_label(price)}: {place}{details}."]


def _nothing(cells: Sequence[Priced]) -> str:
    if any(cell.summary.kind == "fine_tune" and cell.summary.num_ok for cell in cells):
        return "Measure more before you decide. Accuracy was not measured, so nothing says which model is good enough."
    return "No fine-tuning cell was measured."


def _ruled_out(
    choice: Choice, unmet: Sequence[UnmetRequirement], cells: Sequence[Priced], money: MoneyFormat
) -> list[str]:
    lines = [_miss(each, cells, money) for each in unmet if each.num_cells]
    if choice.num_elsewhere:
        lines.append(f"Left out, because evaluated on another test set: {plural(choice.num_elsewhere, 'cell')}.")
    if not_measured := _not_measured(cells):
        ended = listed([f"{count} {OUTCOMES[outcome]}" for outcome, count in not_measured.items()])
        lines.append(f"Not measured: {ended}.")
    return lines


def _not_measured(cells: Sequence[Priced]) -> Counter[str]:
    return Counter(
        cell.summary.outcome for cell in cells if cell.summary.kind == "fine_tune" and not cell.summary.num_ok
    )


def _miss(unmet: UnmetRequirement, cells: Sequence[Priced], money: MoneyFormat) -> str:
    line = f"Missed {unmet.demand}: {plural(unmet.num_cells, 'cell')}."
    if unmet.nearest is None or unmet.nearest_value is None:
        return f"{line[:-1]}, none of which has the figure."
    show = {"s": seconds, "usd": money.amount, "bytes": memory}[unmet.unit]
    summary = unmet.nearest.cell.summary
    where = machine_labels(cells).get(summary.machine_id, summary.machine_id)
    return f"{line} The nearest takes {show(unmet.nearest_value)}: {summary.cell} on {where}."
