"""The answer: the verdict and the choice, and how machines or devices compare, in sentences (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.analysis.estimate import Estimate
from harness.analysis.ranking import rank
from harness.decision.cells import cheapest_per_sample, failed, fastest, has_example_price, measured
from harness.decision.choice import Choice
from harness.decision.scaling import scaling_series
from harness.pricing.cost import Priced
from harness.report.formatting import MoneyFormat, clean, number, plural
from harness.report.labels import basis_word, common_values, describe, machine_labels, spread_label
from harness.report.sections.scaling import scaling_answer
from harness.report.sections.verdict import price_clause, verdict_sentences


def answer(cells: Sequence[Priced], choice: Choice, money: MoneyFormat) -> list[str]:
    """Write the verdict with its evidence, and how machines or devices compare if there are several."""
    if choice.pick is None:
        return [_nothing_measured(cells)]
    if not choice.ways:
        sentences = [_without_accuracy(cells, choice.pick, money)]
    else:
        sentences = verdict_sentences(cells, choice, money)
    return [*sentences, *_places(cells, money), *scaling_answer(cells)]


def _nothing_measured(cells: Sequence[Priced]) -> str:
    failures = failed(cells)
    if not cells:
        return "There is nothing to decide on yet: no records were found."
    if not failures:
        return "There is nothing to decide on yet: no fine-tuning cell was measured."
    return (
        "There is nothing to decide on yet: no fine-tuning cell ended well "
        f"({plural(len(failures), 'cell')} failed, see below)."
    )


def _without_accuracy(cells: Sequence[Priced], pick: Priced, money: MoneyFormat) -> str:
    config = describe(pick, common_values(cells))
    rate, cost = pick.summary.samples_per_s, pick.usd_per_1000_samples
    speed = f"{number(rate.value)} samples/s" if rate else "an unknown rate"
    if cost is not None:
        price = f"{money.amount(cost.value)} per 1,000 samples{price_clause(pick, money)}"
        lead = f"Training is cheapest with {config}: {price}, at {speed}"
    else:
        why = clean(pick.missing or "no price")
        lead = f"Training is fastest with {config}: {speed}; dollars are not known ({why})"
    model = pick.summary.records[-1].model if pick.summary.records else None
    because = ", because the weights were random" if model is not None and model.origin == "random" else ""
    return f"{lead}. Accuracy was not measured{because}, so nothing here says which model is good enough."


def _places(cells: Sequence[Priced], money: MoneyFormat) -> list[str]:
    """Compare machines, or the devices of one machine; empty if there is only one."""
    machines = machine_labels(cells)
    groups: dict[str, list[Priced]] = {}
    # Devices with a scaling series are skipped: `scaling_answer` compares their numbers.
    scaled = (point.cell.summary.config for series in scaling_series(cells) for point in series.more)
    scaled_devices = {getattr(config, "device", "") for config in scaled} if len(machines) == 1 else set()
    for cell in measured(cells):
        config = cell.summary.config
        device = getattr(config, "device", "")
        # Training fewer layers is less work, which would make a machine or device look faster than it is.
        if device in scaled_devices or getattr(config, "trainable", "all") != "all":
            continue
        groups.setdefault(machines.get(cell.summary.machine_id, "") if len(machines) > 1 else device, []).append(cell)
    if len(groups) < 2:  # noqa: PLR2004 - a comparison needs two
        return []
    bests = {name: (fastest(members), cheapest_per_sample(members)) for name, members in groups.items()}
    quickest = _leader({name: _rate(fast) for name, (fast, _) in bests.items()}, most=True)
    has_example = any(cheap is not None and has_example_price(cheap) for _, cheap in bests.values())
    costs = {name: _sample_cost(cheap) for name, (_, cheap) in bests.items()}
    cheapest = None if has_example and len(machines) > 1 else _leader(costs)
    clauses = [f"{'Machines' if len(machines) > 1 else 'Devices'} at their best. {_best_of_each(groups, money)}"]
    if quickest:
        also = " and cheapest per sample" if quickest == cheapest else ""
        clauses.append(f"{quickest} trains fastest{also}")
    if cheapest and cheapest != quickest:
        clauses.append(f"{cheapest} is cheapest per sample")
    if not quickest and not cheapest:
        clauses.append("no significant difference")
    spread = spread_label(cell for best in bests.values() for cell in best if cell is not None)
    return ["; ".join(clauses) + (f" ({spread})." if spread else ".")]


def _rate(cell: Priced | None) -> Estimate | None:
    return None if cell is None else cell.summary.samples_per_s


def _sample_cost(cell: Priced | None) -> Estimate | None:
    return None if cell is None else cell.usd_per_1000_samples


def _best_of_each(groups: Mapping[str, Sequence[Priced]], money: MoneyFormat) -> str:
    parts = []
    for name, members in groups.items():
        cheapest = cheapest_per_sample(members)
        rate, cost = _rate(fastest(members)), _sample_cost(cheapest)
        figures = [f"{number(rate.value)} samples/s"] if rate is not None else []
        if cheapest is not None and cost is not None and cheapest.price is not None:
            figures.append(f"{money.amount(cost.value)} per 1,000 samples ({basis_word(cheapest.price)} price)")
        parts.append(f"{name}: {' at '.join(figures)}" if figures else f"{name} without a rate")
    return "; ".join(parts)


def _leader(figures: Mapping[str, Estimate | None], *, most: bool = False) -> str | None:
    """Return the group whose figure is significantly better than every other; None if there is none."""
    ranking = rank(list(figures.values()), most=most)
    return None if ranking.first is None or ranking.level else list(figures)[ranking.first]
