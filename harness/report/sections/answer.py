"""The answer: what to train, what it costs, and whether it is better than a baseline, in sentences (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from harness.analysis.estimate import Estimate, value_of
from harness.decision.choice import Choice, bound, cheapest_per_sample, failed, fastest, measured, overlap, run_seconds
from harness.decision.scaling import scaling_series
from harness.pricing.cost import Priced
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
    with_interval,
)
from harness.report.labels import common_values, describe, difference, disagrees, machine_labels
from harness.report.sections.scaling import scaling_answer

# Costs that differ by less than 1 % are said to be about the same.
_MIN_COST_RATIO = 1.01
# By plan, the text after the hourly price; on demand is the default and not mentioned.
_PLAN_TEXTS = {"on_demand": "", "spot": " on spot machines", "committed": " in use of a commitment", "own": " in use"}


def answer(cells: Sequence[Priced], choice: Choice, money: MoneyFormat) -> list[str]:
    """Write the answer, its caveats, and how machines or devices compare if there are several."""
    if choice.pick is None:
        return [_nothing_measured(cells)]
    if choice.best is None:
        sentences = [_without_accuracy(cells, choice.pick, money)]
    else:
        sentences = [*_recommendation(cells, choice, choice.best, money), *_against_baselines(choice, money)]
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


def _recommendation(cells: Sequence[Priced], choice: Choice, best: Priced, money: MoneyFormat) -> list[str]:
    pick = choice.pick or best
    usual = common_values(cells)
    accuracy = f"{percent(value_of(pick.summary.accuracy))} test accuracy{_in_brackets(pick.summary.accuracy)}"
    cost = _run_cost(pick, money)
    lead = f"Fine-tune with {describe(pick, usual)}{_where(cells, pick)}: {cost}, for {accuracy}"
    num_compared, num_rivals = len(choice.compared), len(choice.rivals)
    if num_compared == 1:
        return [f"{lead}.", "It is the only configuration measured, so nothing says that it is a good choice."]
    if pick is best and num_rivals == 1:
        return [f"{lead}, the highest of {num_compared} measured configurations and clear of every other."]
    if pick is best:
        overlapping = f"the {num_rivals} whose intervals overlap{_level(choice)}"
        return [f"{lead}, the highest measured and the cheapest of {overlapping}."]
    differing = difference(best, pick, usual) or f"cell {clean(best.summary.cell, 120)}"
    highest = f"{percent(value_of(best.summary.accuracy))}{_in_brackets(best.summary.accuracy)}"
    return [
        f"{lead}.",
        f"The highest measured, {highest} with {differing}{_where(cells, best)}, {_compare_costs(best, pick)}, "
        f"and the two accuracies' intervals overlap{_level(choice)}.",
    ]


def _run_cost(cell: Priced, money: MoneyFormat) -> str:
    """State a run's cost and its price, or its duration and why the cost is not known."""
    if cell.usd_per_run is not None:
        return f"{money.amount(cell.usd_per_run.value)} a run{price_clause(cell, money)}"
    return f"{seconds(run_seconds(cell))} a run; dollars are not known ({clean(cell.missing or 'no price was found')})"


def price_clause(cell: Priced, money: MoneyFormat) -> str:
    """State the hourly price and how it is known, in brackets; the clause follows an amount."""
    price = cell.price
    if price is None:
        return ""
    article = "an" if price.basis[0] in "aeiou" else "a"
    name = f", {clean(price.instance)}" if price.instance else ""
    doubt = "; the stated and the seen hardware disagree" if disagrees(price) else ""
    hourly = f"{money.hourly(price.usd_per_hour)} an hour{_PLAN_TEXTS[price.plan]}"
    return f" (at {article} {price.basis} {hourly}{name}{doubt})"


def _level(choice: Choice) -> str:
    """Count the cells whose cost does not differ significantly from the chosen cell's, in brackets; empty if none."""
    if not choice.level:
        return ""
    return f" ({plural(len(choice.level), 'other')} of them at a cost whose interval overlaps too)"


def _compare_costs(best: Priced, pick: Priced) -> str:
    """Compare the cost of a run of the best cell with that of the chosen cell; without prices, compare durations."""
    best_cost, pick_cost, verb = run_seconds(best), run_seconds(pick), "takes"
    if best.usd_per_run is not None:
        verb = "costs"
        if pick.usd_per_run is not None:
            best_cost, pick_cost = best.usd_per_run.value, pick.usd_per_run.value
    if not best_cost or not pick_cost or best_cost / pick_cost < _MIN_COST_RATIO:
        return f"{verb} about the same"
    noise = " (within the noise)" if overlap(best.usd_per_run, pick.usd_per_run) else ""
    return f"{verb} {times(best_cost / pick_cost)} as much{noise}"


def _against_baselines(choice: Choice, money: MoneyFormat) -> list[str]:
    """Compare the best cell with the baselines: if the best does not beat them, no cell does."""
    best = choice.best.summary.accuracy if choice.best is not None else None
    if best is None:
        return []
    if choice.majority is not None and bound(best, "low") <= choice.majority:
        return [
            "Do not use it yet: the interval of even the best accuracy reaches down to always answering with the "
            f"commonest class ({percent(choice.majority)})."
        ]
    comparisons = []
    if choice.majority is not None:
        comparisons.append(f"always answering with the commonest class gives {percent(choice.majority)}")
    tfidf = choice.tfidf
    if tfidf is not None and tfidf.summary.accuracy is not None:
        accuracy, cost = tfidf.summary.accuracy, _baseline_cost(tfidf, money)
        paid = f" for {cost}" if cost else ""
        comparisons.append(f"TF-IDF with logistic regression {percent(accuracy.value)}{paid}")
        if overlap(best, accuracy):
            reached = f"{percent(accuracy.value)}{_in_brackets(accuracy)}{paid}"
            return [f"BERT's gain is within the noise: TF-IDF with logistic regression gives {reached}."]
    return [f"In comparison, {listed(comparisons)}."] if comparisons else []


def tfidf_cost(choice: Choice, money: MoneyFormat) -> str:
    """State what the TF-IDF baseline costs; empty if that is not known."""
    cost = _baseline_cost(choice.tfidf, money) if choice.tfidf is not None else ""
    return f"TF-IDF with logistic regression, {cost}" if cost else ""


def _baseline_cost(cell: Priced, money: MoneyFormat) -> str:
    basis = f" ({cell.price.basis} price)" if cell.price is not None else ""
    return f"{money.amount(cell.usd_per_run.value)} a run{basis}" if cell.usd_per_run is not None else ""


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
    rates = {name: _rate(fastest(members)) for name, members in groups.items()}
    costs = {name: _sample_cost(cheapest_per_sample(members)) for name, members in groups.items()}
    quickest, cheapest = _leader(rates, "max"), _leader(costs, "min")
    clauses = [f"{'Machines' if len(machines) > 1 else 'Devices'} at their best. {_best_of_each(groups, money)}"]
    if quickest:
        also = " and cheapest per sample" if quickest == cheapest else ""
        clauses.append(f"{quickest} trains fastest{also}")
    if cheapest and cheapest != quickest:
        clauses.append(f"{cheapest} is cheapest per sample")
    if not quickest and not cheapest:
        clauses.append("they can't be told apart")
    return ["; ".join(clauses) + "."]


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
            figures.append(f"{money.amount(cost.value)} per 1,000 samples ({cheapest.price.basis} price)")
        parts.append(f"{name}: {' at '.join(figures)}" if figures else f"{name} without a rate")
    return "; ".join(parts)


def _leader(figures: Mapping[str, Estimate | None], best: Literal["max", "min"]) -> str | None:
    """Return the group with the best figure; None if it overlaps another figure or fewer than two are known."""
    known = {name: figure for name, figure in figures.items() if figure is not None}
    if len(known) < 2:  # noqa: PLR2004
        return None
    pick = max if best == "max" else min
    name = pick(known, key=lambda key: known[key].value)
    overlaps = any(overlap(known[name], figure) for other, figure in known.items() if other != name)
    return None if overlaps else name


def _where(cells: Sequence[Priced], pick: Priced) -> str:
    machines = machine_labels(cells)
    return f" on {machines[pick.summary.machine_id]}" if len(machines) > 1 else ""


def _in_brackets(accuracy: Estimate | None) -> str:
    return with_interval("", interval(accuracy, "percent"))
