"""The answer, in sentences that a decision maker can act on (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from harness.analysis.estimate import Estimate, value_of
from harness.decision.choice import Choice, bound, cheapest_per_sample, failed, fastest, measured, overlap, run_seconds
from harness.decision.scaling import scaling_series
from harness.pricing.cost import Priced
from harness.pricing.prices import Price
from harness.report.formatting import (
    MoneyFormat,
    clean,
    interval,
    listed,
    number,
    percent,
    plural,
    seconds,
    times,
)
from harness.report.labels import common_values, describe, difference, machine_labels
from harness.report.sections.scaling_words import answer_over_devices

# Within a hundredth nobody calls one run dearer than another.
_NEARLY_ONE = 1.01
# How an hour is paid, after its price; on demand goes without saying.
_PAID = {"on_demand": "", "spot": " on spot machines", "committed": " in use of a commitment", "own": " in use"}


def answer(cells: Sequence[Priced], choice: Choice, money: MoneyFormat) -> list[str]:
    """The answer, its caveat where it has one, and how machines or devices compare where there are several."""
    if choice.pick is None:
        return [_nothing_measured(cells)]
    if choice.best is None:
        said = [_unjudged(cells, choice.pick, money)]
    else:
        said = [*_recommendation(cells, choice, choice.best, money), *_worth(choice, money)]
    return [*said, *_places(cells, money), *answer_over_devices(cells)]


def _nothing_measured(cells: Sequence[Priced]) -> str:
    lost = failed(cells)
    if not cells:
        return "There is nothing to decide on yet: no records were found."
    if not lost:
        return "There is nothing to decide on yet: no fine-tuning cell was measured."
    return f"There is nothing to decide on yet: no fine-tuning cell ended well ({plural(len(lost), 'cell')} failed, see below)."


def _unjudged(cells: Sequence[Priced], pick: Priced, money: MoneyFormat) -> str:
    words = describe(pick, common_values(cells))
    rate = pick.summary.samples_per_s
    figures = f"{number(rate.value)} samples/s" if rate else "an unknown rate"
    if pick.usd_per_1000_samples is not None:
        lead = f"Training is cheapest with {words}: {money.amount(pick.usd_per_1000_samples.value)} per 1,000 samples{price_clause(pick, money)}, at {figures}"
    else:
        lead = (
            f"Training is fastest with {words}: {figures}; dollars are not known ({clean(pick.missing or 'no price')})"
        )
    return f"{lead}. Accuracy was not measured{_why_unjudged(pick)}, so nothing here says which model is good enough."


def _why_unjudged(pick: Priced) -> str:
    model = pick.summary.records[-1].model if pick.summary.records else None
    return ", because the weights were random" if model is not None and model.origin == "random" else ""


def _recommendation(cells: Sequence[Priced], choice: Choice, best: Priced, money: MoneyFormat) -> list[str]:
    pick = choice.pick or best
    words = describe(pick, common_values(cells))
    accuracy = f"{percent(value_of(pick.summary.accuracy))} test accuracy{_within(pick.summary.accuracy, 'percent')}"
    lead = f"Fine-tune with {words}{_where(cells, pick)}: {cost_words(pick, money)}, for {accuracy}"
    if len(choice.compared) == 1:
        return [f"{lead}.", "It is the only configuration measured, so nothing says that it is a good choice."]
    if pick is best:
        others = len(choice.rivals) - 1
        if not others:
            return [f"{lead}, the highest of {len(choice.compared)} measured configurations and clear of every other."]
        return [
            f"{lead}, the highest measured and the cheapest of the {len(choice.rivals)} whose intervals overlap{_level(choice)}."
        ]
    apart = difference(best, pick, common_values(cells)) or f"cell {clean(best.summary.cell, 120)}"
    return [
        f"{lead}.",
        f"The highest measured, {percent(value_of(best.summary.accuracy))}{_within(best.summary.accuracy, 'percent')} "
        f"with {apart}{_where(cells, best)}, {_costs_more(best, pick)}, and the two accuracies' intervals overlap{_level(choice)}.",
    ]


def cost_words(cell: Priced, money: MoneyFormat) -> str:
    """A run's dollars with their assumption, or its duration with why there are no dollars."""
    if cell.usd_per_run is not None:
        return f"{money.amount(cell.usd_per_run.value)} a run{price_clause(cell, money)}"
    return f"{seconds(run_seconds(cell))} a run; dollars are not known ({clean(cell.missing or 'no price was found')})"


def price_clause(cell: Priced, money: MoneyFormat) -> str:
    """The hourly price and how we know it, ready to follow an amount."""
    price = cell.price
    if price is None:
        return ""
    name = f", {clean(price.instance)}" if price.instance else ""
    doubt = "; the stated and the seen hardware disagree" if disagrees(price) else ""
    return f" (at {_article(price.basis)} {money.hourly(price.usd_per_hour)} an hour{_PAID[price.plan]}{name}{doubt})"


def disagrees(price: Price | None) -> bool:
    """Whether the user's word about the machine contradicts what was seen of it."""
    return price is not None and price.basis in ("stated", "detected") and bool(price.note)


def _article(basis: str) -> str:
    return f"an {basis}" if basis[0] in "aeiou" else f"a {basis}"


def _level(choice: Choice) -> str:
    return (
        f" ({plural(len(choice.level), 'other')} of them at a cost whose interval overlaps too)" if choice.level else ""
    )


def _costs_more(best: Priced, pick: Priced) -> str:
    dear, cheap = (
        (best.usd_per_run.value, pick.usd_per_run.value)
        if best.usd_per_run is not None and pick.usd_per_run is not None
        else (run_seconds(best), run_seconds(pick))
    )
    verb = "costs" if best.usd_per_run is not None else "takes"
    if not dear or not cheap or dear / cheap < _NEARLY_ONE:
        return f"{verb} about the same"
    if overlap(best.usd_per_run, pick.usd_per_run):
        return f"{verb} {times(dear / cheap)} as much (within the noise)"
    return f"{verb} {times(dear / cheap)} as much"


def _worth(choice: Choice, money: MoneyFormat) -> list[str]:
    """What fine-tuning buys over the baselines; said of the best cell, so that a no is a no for all."""
    best = choice.best.summary.accuracy if choice.best is not None else None
    if best is None:
        return []
    if choice.majority is not None and bound(best, "low") <= choice.majority:
        return [
            f"Do not use it yet: the interval of even the best accuracy reaches down to always answering with the commonest "
            f"class ({percent(choice.majority)})."
        ]
    against = []
    if choice.majority is not None:
        against.append(f"always answering with the commonest class gives {percent(choice.majority)}")
    rival = choice.tfidf
    if rival is not None and rival.summary.accuracy is not None:
        dollars = f" for {amount}" if (amount := _amount(rival, money)) else ""
        against.append(f"TF-IDF with logistic regression {percent(rival.summary.accuracy.value)}{dollars}")
        if overlap(best, rival.summary.accuracy):
            return [
                f"BERT's gain is within the noise: TF-IDF with logistic regression gives "
                f"{percent(rival.summary.accuracy.value)}{_within(rival.summary.accuracy, 'percent')}{dollars}."
            ]
    return [f"In comparison, {listed(against)}."] if against else []


def tfidf_cost(choice: Choice, money: MoneyFormat) -> str:
    """What the TF-IDF baseline costs, in words; empty where its dollars are not known."""
    amount = _amount(choice.tfidf, money) if choice.tfidf is not None else ""
    return f"TF-IDF with logistic regression, {amount}" if amount else ""


def _amount(cell: Priced, money: MoneyFormat) -> str:
    basis = f" ({cell.price.basis} price)" if cell.price is not None else ""
    return f"{money.amount(cell.usd_per_run.value)} a run{basis}" if cell.usd_per_run is not None else ""


def _places(cells: Sequence[Priced], money: MoneyFormat) -> list[str]:
    """How machines compare, or devices of one machine; empty with one of each."""
    machines = machine_labels(cells)
    groups: dict[str, list[Priced]] = {}
    # What more devices of one kind gain has a sentence of its own.
    more = (point.cell.summary.config for series in scaling_series(cells) for point in series.more)
    several = {getattr(config, "device", "") for config in more} if len(machines) == 1 else set()
    for cell in measured(cells):
        config = cell.summary.config
        if getattr(config, "device", "") in several:
            continue
        if getattr(config, "trainable", "all") != "all":
            continue  # training the head alone is other work, and would make its place look quick
        name = machines.get(cell.summary.machine_id, "") if len(machines) > 1 else getattr(config, "device", "")
        groups.setdefault(name, []).append(cell)
    if len(groups) < 2:  # noqa: PLR2004 - a comparison needs two
        return []
    quick, cheap = _leader(groups, "rate"), _leader(groups, "cost")
    said = [f"{'Machines' if len(machines) > 1 else 'Devices'} at their best. {_at_best(groups, money)}"]
    if quick:
        said.append(f"{quick} trains fastest" if cheap != quick else f"{quick} trains fastest and cheapest per sample")
    if cheap and cheap != quick:
        said.append(f"{cheap} is cheapest per sample")
    if not quick and not cheap:
        said.append("they can't be told apart")
    return ["; ".join(said) + "."]


def _at_best(groups: dict[str, list[Priced]], money: MoneyFormat) -> str:
    parts = []
    for name, members in groups.items():
        quick, cheap = fastest(members), cheapest_per_sample(members)
        words = []
        if quick is not None and quick.summary.samples_per_s is not None:
            words.append(f"{number(quick.summary.samples_per_s.value)} samples/s")
        if cheap is not None and cheap.usd_per_1000_samples is not None and cheap.price is not None:
            words.append(
                f"{money.amount(cheap.usd_per_1000_samples.value)} per 1,000 samples ({cheap.price.basis} price)"
            )
        parts.append(f"{name}: {' at '.join(words)}" if words else f"{name} without a rate")
    return "; ".join(parts)


def _leader(groups: dict[str, list[Priced]], by: str) -> str | None:
    """The group whose best figure is clear of every other's, or None."""
    figures: dict[str, Estimate] = {}
    for name, members in groups.items():
        cell = fastest(members) if by == "rate" else cheapest_per_sample(members)
        figure = None if cell is None else cell.summary.samples_per_s if by == "rate" else cell.usd_per_1000_samples
        if figure is not None:
            figures[name] = figure
    if len(figures) < 2:  # noqa: PLR2004
        return None
    pick = max if by == "rate" else min
    name = pick(figures, key=lambda key: figures[key].value)
    clear = not any(overlap(figures[name], figure) for other, figure in figures.items() if other != name)
    return name if clear else None


def _where(cells: Sequence[Priced], pick: Priced) -> str:
    machines = machine_labels(cells)
    return f" on {machines[pick.summary.machine_id]}" if len(machines) > 1 else ""


def _within(estimate: Estimate | None, unit: Literal["percent", "number"]) -> str:
    found = interval(estimate, unit)
    return f" ({found})" if found else ""
