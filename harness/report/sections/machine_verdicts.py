"""What is said of machines side by side: their names, who leads, and with what caution (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness.analysis.estimate import value_of
from harness.decision.side_by_side import PER_1000, SPEED, MachineType, Ranking, SideBySide, verdict
from harness.pricing.cost import Priced
from harness.report.formatting import MoneyFormat, clean, listed, number, plural, seconds
from harness.report.labels import machine_labels

# Who leads in a figure, and in what machines can't be told apart.
_LEADS = {
    "fastest": "trains fastest",
    "per_1000": "is cheapest per 1,000 samples",
    "run": "has the cheapest run",
    "to_target": "is cheapest to the target",
    "in_time": "is cheapest within {}, as billed",
}
_IN = {
    "fastest": "speed",
    "per_1000": "dollars per 1,000 samples",
    "run": "dollars a run",
    "to_target": "dollars to the target",
    "in_time": "dollars of a run within {}",
}


def type_names(found: SideBySide, cells: Sequence[Priced]) -> list[str]:
    """What each type of machine is called: as on the rest of the page, or by the instance that several ids share."""
    labels = machine_labels(cells)
    names = [_type_name(one, labels) for one in found.types]
    counts = Counter(names)
    return [
        f"{name} ({clean(one.price.region or '')})" if counts[name] > 1 and one.price is not None else name
        for name, one in zip(names, found.types, strict=True)
    ]


def _type_name(one: MachineType, labels: dict[str, str]) -> str:
    if len(one.machine_ids) == 1 or one.price is None or one.price.instance is None:
        return labels[one.machine_ids[0]]
    return clean(one.price.instance, 60) + (f" (slice: {one.slice})" if one.slice else "")


def verdicts(found: SideBySide, names: Sequence[str], money: MoneyFormat) -> list[str]:
    """Who leads at its best, by each figure; then cell by cell, by speed and dollars a sample."""
    if not found.shared:
        return ["No cell was measured on two machines, so nothing can be ranked."]
    leaders: dict[int, list[str]] = {}
    tied: dict[tuple[int, ...], list[str]] = {}
    for one in found.rankings:
        if one.first is None:
            continue
        if one.level:
            words = _IN[one.figure.key].format(seconds(found.deadline_s))
            tied.setdefault(tuple(sorted((one.first, *one.level))), []).append(words)
        else:
            words = _LEADS[one.figure.key].format(seconds(found.deadline_s))
            leaders.setdefault(one.first, []).append(f"{words} ({_value(one, money)})")
    said = [f"{names[index]} {listed(words)}" for index, words in leaders.items()]
    said += [
        f"{listed([names[i] for i in those])} can't be told apart in {listed(words)}" for those, words in tied.items()
    ]
    lead = f"Of the {plural(len(found.shared), 'cell')} that two machines or more measured, each machine at its best"
    return [f"{lead}: {'; '.join(said)}.", *_cell_by_cell(found, names)] if said else _cell_by_cell(found, names)


def _value(ranking: Ranking, money: MoneyFormat) -> str:
    value = value_of(ranking.estimate(ranking.first or 0))
    return f"{number(value)} samples/s" if ranking.figure.most else money.amount(value)


def _cell_by_cell(found: SideBySide, names: Sequence[str]) -> list[str]:
    said = []
    for figure, predicate in ((SPEED, "fastest"), (PER_1000, "cheapest per sample")):
        results = [verdict(line.squares, figure) for line in found.shared]
        wins = Counter(first for first, level in results if first is not None and not level)
        ties = sum(1 for first, level in results if first is not None and level)
        parts = [f"{names[index]} in {count}" for index, count in wins.most_common()]
        parts += [f"none clearly in {ties}"] if ties else []
        if parts:
            said.append(f"{predicate} is {', '.join(parts)}")
    return [f"Cell by cell, {'; '.join(said)}."] if said else []


def cautions(found: SideBySide, names: Sequence[str]) -> list[str]:
    """What speaks against reading too much into the verdicts."""
    said = []
    alone = [name for name, one in zip(names, found.types, strict=True) if one.num_hosts == 1]
    if alone:
        whose = "each machine" if len(alone) == len(names) else listed(alone)
        said.append(
            f"One host of {whose} was measured: how far hosts of one kind differ is not in these intervals, so a verdict "
            "is about these hosts."
        )
    sliced = [f"{name}" for name, one in zip(names, found.types, strict=True) if one.slice]
    if sliced:
        said.append(
            f"{listed(sliced)}: a slice is priced as the whole machine, unless an instance is stated for it "
            "(--instance MACHINE=NAME)."
        )
    if found.num_alone:
        verb = "was" if found.num_alone == 1 else "were"
        said.append(f"{plural(found.num_alone, 'more cell')} {verb} tried on one machine alone.")
    return said
