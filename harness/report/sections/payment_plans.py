"""Sentences that compare ways to pay, and that state what measuring itself cost (pure)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from harness.analysis.estimate import bound
from harness.decision.study_cost import StudyCost
from harness.pricing import formulas
from harness.pricing.cost import Priced
from harness.pricing.prices import Price
from harness.pricing.rates import committed_usd_per_hour, own_formula, own_parts
from harness.report.formatting import MoneyFormat, clean, percent, plural, seconds, times
from harness.report.labels import basis_word
from harness.report.sections.assumptions import value_origin
from harness.schema.assumptions import Assumptions, PriceBook

PLANS = {
    "on_demand": "on demand",
    "spot": "on spot machines",
    "committed": "under a commitment",
    "own": "as an hour of a machine of one's own",
}


def spot_sentence(cell: Priced, assumptions: Assumptions, money: MoneyFormat) -> str:
    """Compare a run on spot machines with one on demand; empty without an on-demand price."""
    on_demand, spot, terms = cell.usd_billed_on_demand, cell.usd_billed_spot, assumptions.prices.spot
    if on_demand is None:
        return ""
    if spot is None:
        if cell.price is not None and cell.price.usd_per_hour_spot is not None:
            return "On spot machines this run would never end: it is interrupted too often to finish."
        return "No spot price of this machine is known, so spot machines are not compared."
    ratio = f"{times(spot.value / on_demand.value)} as much"  # of the same measured seconds
    return (
        f"On spot machines this run is expected to cost {money.with_interval(spot)}, "
        f"on demand {money.with_interval(on_demand)}: {ratio}. "
        f"That is with {terms.interruptions_per_hour:g} interruptions an hour, a checkpoint every "
        f"{seconds(terms.checkpoint_every_s)}, and {seconds(terms.restart_s)} until training goes on elsewhere "
        f"({value_origin(assumptions, 'prices.spot')})."
    )


def hosted_sentence(cell: Priced, book: PriceBook, money: MoneyFormat) -> str:
    """Compare the cost of a million predictions with a hosted API's price, which only the user can state."""
    own, hosted = cell.usd_per_million_predictions, book.serving.hosted_usd_per_million
    if own is None:
        return ""
    if hosted is None:
        return (
            "No price of a hosted API is stated to compare a million predictions with "
            "(serving.hosted_usd_per_million in prices.toml)."
        )
    lead = (
        f"A million predictions cost {money.with_interval(own)} on this machine and {money.amount(hosted)} at the "
        "hosted API's price (yours)"
    )
    if bound(own, "low") <= hosted <= bound(own, "high") or math.isclose(own.value, hosted, rel_tol=0.005):
        return f"{lead}: no significant difference."
    expensive, ratio = ("the API", hosted / own.value) if own.value < hosted else ("this machine", own.value / hosted)
    return f"{lead}: {expensive} costs {times(ratio)} as much."


def buying_sentences(
    cells: Sequence[Priced], assumptions: Assumptions, machines: Mapping[str, str], money: MoneyFormat
) -> Iterator[str]:
    """State an own machine's cost per hour, and from which utilisation buying or a commitment is cheaper than renting.

    Args:
        cells: Every cell of the report.
        assumptions: The assumptions that priced the cells.
        machines: Labels by machine id.
        money: The report's currency.
    """
    book = assumptions.prices
    fixed, running = own_parts(book)
    hourly = formulas.own_usd_per_hour(fixed, running, book.own.utilisation_fraction)
    formula = own_formula(book).removesuffix(" USD")
    yield (
        f"An hour in use of a machine of your own costs {money.hourly(hourly)}: {formula} = {hourly:.6g} USD "
        f"({value_origin(assumptions, 'prices.own')})."
    )
    prices = {cell.summary.machine_id: cell.price for cell in reversed(cells) if cell.price is not None}
    sentences: list[str] = []
    for machine_id, label in machines.items():
        price = prices.get(machine_id)
        if price is not None and price.usd_per_hour_on_demand is not None:
            name = clean(price.instance if price.plan != "own" and price.instance else label, 60)
            sentences.append(_buying(name, price, price.usd_per_hour_on_demand, (fixed, running), money))
            committed = committed_usd_per_hour(price, book)
            if committed is not None:
                sentences.append(_commitment(name, committed, price.usd_per_hour_on_demand, assumptions, money))
    yield from dict.fromkeys(sentences)  # machines with the same instance give the same sentence


def _buying(name: str, price: Price, rent: float, own: tuple[float, float], money: MoneyFormat) -> str:
    """State the break-even utilisation of buying.

    Args:
        name: Name of the rented machine.
        price: Price of the rented machine.
        rent: On-demand price of the rented machine, in USD per hour.
        own: USD per hour of an own machine: the fixed cost of every hour, and the extra cost of an hour in use.
        money: The report's currency.
    """
    utilisation = formulas.break_even_utilisation(*own, rent)
    lead = (
        f"Against renting {name} at {money.hourly(rent)} on demand ({basis_word(price)}), if both do the same work in an "
        "hour, buying"
    )
    if utilisation is None:
        return f"{lead} never pays: the electricity of an hour alone costs the rent."
    if utilisation > 1:
        return f"{lead} does not pay: it would have to be in use for {percent(utilisation)} of all hours."
    return f"{lead} pays from {percent(utilisation)} of all hours in use on."


def _commitment(name: str, hourly: float, on_demand: float, assumptions: Assumptions, money: MoneyFormat) -> str:
    """State the break-even utilisation of a commitment.

    Args:
        name: Name of the machine.
        hourly: USD for every hour under the commitment.
        on_demand: USD for an hour on demand.
        assumptions: The assumptions, which hold the commitment's terms.
        money: The report's currency.
    """
    utilisation = formulas.commitment_break_even(hourly, on_demand)
    origin = value_origin(assumptions, "prices.commitment")
    lead = f"A commitment to {name} at {money.hourly(hourly)} for every hour ({origin})"
    if utilisation >= 1:
        return f"{lead} never pays: it is no cheaper than on demand."
    return f"{lead} pays from {percent(utilisation)} of all hours in use on."


def study_sentences(
    study: StudyCost, machines: Mapping[str, str], invoice_usd: float | None, money: MoneyFormat
) -> Iterator[str]:
    """State the duration and cost of all runs, also by machine if there are several; compare the cost with the invoice.

    Args:
        study: The cost of measuring.
        machines: Labels by machine id.
        invoice_usd: The invoice that the user typed in; None without one.
        money: The report's currency.
    """
    if not study.num_runs:
        return
    failed = f", {study.num_failed} of which did not end well" if study.num_failed else ""
    yield (
        f"Measuring all this took {plural(study.num_runs, 'run')}{failed}: {seconds(study.seconds)} from their orders "
        f"to their ends, {_study_cost(study.usd, study.usd_billed, money)}."
    )
    for machine in study.machines if len(study.machines) > 1 else ():
        hosts = f" on {plural(machine.num_hosts, 'host')}" if machine.num_hosts > 1 else ""
        cost = _study_cost(machine.usd, machine.usd_billed, money)
        yield (
            f"{machines.get(machine.machine_id, machine.machine_id)}{hosts}: {plural(machine.num_runs, 'run')} "
            f"({machine.num_failed} failed), {seconds(machine.seconds)}, {cost}."
        )
    if invoice_usd is not None:
        yield _invoice(invoice_usd, study.usd_billed, money)


def _study_cost(measured: float | None, billed: float | None, money: MoneyFormat) -> str:
    if measured is None or billed is None:
        return "at a price that is not known"
    return f"{money.amount(measured)} of seconds, {money.amount(billed)} on a bill that orders each host once"


def _invoice(invoice_usd: float, estimate_usd: float | None, money: MoneyFormat) -> str:
    source = "as typed in" if money.code == "USD" else f"from {invoice_usd:.10g} USD as typed in"
    invoice = f"{money.amount(invoice_usd)} {source}"
    ratio = None if estimate_usd is None else formulas.invoice_ratio(invoice_usd, estimate_usd)
    if ratio is None:
        return f"The invoice, {invoice}, can't be compared with an estimate: there is none."
    return f"Estimate {money.amount(estimate_usd)}, invoice {invoice}: {ratio:.3g} times the estimate."
