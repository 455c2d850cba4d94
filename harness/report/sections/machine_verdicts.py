"""Sentences that compare machines: their names, the leading machine, and how far to trust the verdict (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from harness.analysis.estimate import value_of
from harness.decision.side_by_side import PER_1000, SPEED, MachineType, Ranking, SideBySide
from harness.decision.side_by_side import verdicts as line_verdicts
from harness.pricing.cost import Priced
from harness.report.formatting import MoneyFormat, clean, listed, number, plural, seconds
from harness.report.labels import machine_labels, spread_label

# By figure: the predicate of a machine that leads, and the noun for machines that tie.
_LEADS = {
    "fastest": "trains fastest",
    "per_1000": "is cheapest per 1,000 samples",
    "run": "has the cheapest run",
    "to_target": "is cheapest to the target",
    "in_time": "is cheapest within {}, as billed",
}
_TIES = {
    "fastest": "speed",
    "per_1000": "dollars per 1,000 samples",
    "run": "dollars a run",
    "to_target": "dollars to the target",
    "in_time": "dollars of a run within {}",
}


def type_names(comparison: SideBySide, cells: Sequence[Priced]) -> list[str]:
    """Name each machine type as the rest of the page does; if several machine ids form a type, name its instance."""
    labels = machine_labels(cells)
    names = [_type_name(machine, labels) for machine in comparison.types]
    counts = Counter(names)
    return [
        f"{name} ({clean(machine.price.region or '')})" if counts[name] > 1 and machine.price is not None else name
        for name, machine in zip(names, comparison.types, strict=True)
    ]


def _type_name(machine: MachineType, labels: Mapping[str, str]) -> str:
    if len(machine.machine_ids) == 1 or machine.price is None or machine.price.instance is None:
        return labels[machine.machine_ids[0]]
    return clean(machine.price.instance, 60) + (f" (slice: {machine.slice})" if machine.slice else "")


def verdicts(comparison: SideBySide, names: Sequence[str], money: MoneyFormat) -> list[str]:
    """State which machine's best cell leads by each figure, and in how many cells each machine leads."""
    if not comparison.shared:
        return ["No cell was measured on two machines, so nothing can be ranked."]
    leaders: dict[int, list[str]] = {}
    ties: dict[tuple[int, ...], list[str]] = {}
    deadline = seconds(comparison.deadline_s)
    for ranking in comparison.rankings:
        if ranking.first is None:
            continue
        key = ranking.figure.key
        if ranking.level:
            ties.setdefault(tuple(sorted((ranking.first, *ranking.level))), []).append(_TIES[key].format(deadline))
        else:
            lead = f"{_LEADS[key].format(deadline)} ({_best_value(ranking, money)})"
            leaders.setdefault(ranking.first, []).append(lead)
    clauses = [f"{names[index]} {listed(leads)}" for index, leads in leaders.items()]
    clauses += [
        f"{listed([names[index] for index in tied])} do not differ significantly in {listed(figures)}"
        for tied, figures in ties.items()
    ]
    by_cell = _cell_by_cell(comparison, names)
    if not clauses:
        return by_cell
    shared = plural(len(comparison.shared), "cell")
    return [
        f"Of the {shared} that two machines or more measured, each machine at its best: {'; '.join(clauses)}.",
        *by_cell,
    ]


def _best_value(ranking: Ranking, money: MoneyFormat) -> str:
    value = value_of(ranking.estimate(ranking.first or 0))
    return f"{number(value)} samples/s" if ranking.figure.most else money.amount(value)


def _cell_by_cell(comparison: SideBySide, names: Sequence[str]) -> list[str]:
    clauses = []
    for figure, predicate in ((SPEED, "fastest"), (PER_1000, "cheapest per sample")):
        results = line_verdicts([line.squares for line in comparison.shared], figure)
        wins = Counter(first for first, level in results if first is not None and not level)
        num_ties = sum(1 for first, level in results if first is not None and level)
        parts = [f"{names[index]} in {count}" for index, count in wins.most_common()]
        parts += [f"none clearly in {num_ties}"] if num_ties else []
        if parts:
            clauses.append(f"{predicate} is {', '.join(parts)}")
    return [f"Cell by cell, {'; '.join(clauses)}."] if clauses else []


def cautions(comparison: SideBySide, names: Sequence[str]) -> list[str]:
    """State what limits the verdicts: few runs, single hosts, slices, cells that one machine alone tried."""
    sentences = []
    examples = [
        name
        for name, machine in zip(names, comparison.types, strict=True)
        if machine.price is not None and machine.price.stands_in
    ]
    if examples:
        sentences.append(
            f"The price of {listed(examples)} is an example, so machines are not ranked by cost: enter your prices."
        )
    spread = spread_label(cell for line in comparison.shared for cell in line.measured)
    if spread:
        sentences.append(f"Some cells have {spread}.")
    named = list(zip(names, comparison.types, strict=True))
    single = [name for name, machine in named if machine.num_hosts == 1]
    if single:
        subject = "each machine" if len(single) == len(names) else listed(single)
        sentences.append(
            f"One host of {subject} was measured: how far hosts of one kind differ is not in these intervals, so a "
            "verdict is about these hosts."
        )
    sliced = [name for name, machine in named if machine.slice]
    if sliced:
        sentences.append(
            f"{listed(sliced)}: a slice is priced as the whole machine, unless an instance is stated for it "
            "(--price-as MACHINE=NAME)."
        )
    if comparison.num_alone:
        verb = "was" if comparison.num_alone == 1 else "were"
        sentences.append(f"{plural(comparison.num_alone, 'more cell')} {verb} tried on one machine alone.")
    return sentences
