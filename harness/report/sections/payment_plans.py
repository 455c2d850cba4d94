"""Ways to pay held against each other, and what the measuring itself cost, in sentences (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.analysis.estimate import Estimate
from harness.decision.choice import overlap
from harness.decision.study_cost import StudyCost
from harness.pricing import formulas
from harness.pricing.cost import Priced
from harness.pricing.prices import Price
from harness.pricing.rates import committed_usd_per_hour, own_formula, own_parts
from harness.report.formatting import (
    MoneyFormat,
    clean,
    percent,
    plural,
    seconds,
    times,
)
from harness.report.sections.assumptions import value_origin
from harness.schema.assumptions import Assumptions, PriceBook

PLANS = {
    "on_demand": "on demand",
    "spot": "on spot machines",
    "committed": "under a commitment",
    "own": "as an hour of a machine of one's own",
}
_STATED = "stated"


def spot_sentence(cell: Priced, assumed: Assumptions, money: MoneyFormat) -> str:
    """A run on spot machines against one on demand; empty where neither has a price."""
    demand, spot, book = cell.usd_billed_on_demand, cell.usd_billed_spot, assumed.prices.spot
    if demand is None:
        return ""
    if spot is None:
        if cell.price is not None and cell.price.usd_per_hour_spot is not None:
            return "On spot machines this run would never end: it is interrupted more often than it gets on."
        return "No spot price of this machine is known, so nothing is said of spot machines."
    apart = "which can't be told apart" if overlap(demand, spot) else f"{times(spot.value / demand.value)} as much"
    return (
        f"On spot machines this run is expected to cost {money.with_interval(spot)}, on demand {money.with_interval(demand)}: {apart}. "
        f"That is with {book.interruptions_per_hour:g} interruptions an hour, a checkpoint every "
        f"{seconds(book.checkpoint_every_s)}, and {seconds(book.restart_s)} until training goes on elsewhere "
        f"({value_origin(assumed, 'prices.spot')})."
    )


def hosted_sentence(cell: Priced, book: PriceBook, money: MoneyFormat) -> str:
    """A million predictions against the hosted API whose price the reader stated; none is shipped."""
    own, hosted = cell.usd_per_million_predictions, book.serving.hosted_usd_per_million
    if own is None:
        return ""
    if hosted is None:
        return (
            "No price of a hosted API is stated, so that of a million predictions is held against nothing "
            "(serving.hosted_usd_per_million in prices.toml)."
        )
    lead = f"A million predictions cost {money.with_interval(own)} on this machine and {money.amount(hosted)} at the hosted API's price (yours)"
    if overlap(own, Estimate(hosted, None, None, _STATED)):
        return f"{lead}: the two can't be told apart."
    dearer, ratio = ("the API", hosted / own.value) if own.value < hosted else ("this machine", own.value / hosted)
    return f"{lead}: {dearer} costs {times(ratio)} as much."


def buying_sentences(
    cells: Sequence[Priced], assumed: Assumptions, machines: Mapping[str, str], money: MoneyFormat
) -> Iterator[str]:
    """An hour of a machine of one's own with its formula; from which use on buying, or a commitment, beats renting."""
    book = assumed.prices
    fixed, running = own_parts(book)
    hourly = formulas.own_usd_per_hour(fixed, running, book.own.utilisation_fraction)
    yield (
        f"An hour in use of a machine of your own costs {money.hourly(hourly)}: {own_formula(book).removesuffix(' USD')} = {hourly:.6g} USD "
        f"({value_origin(assumed, 'prices.own')})."
    )
    prices = {cell.summary.machine_id: cell.price for cell in reversed(cells) if cell.price is not None}
    said: list[str] = []
    for machine_id, label in machines.items():
        price = prices.get(machine_id)
        if price is not None and price.usd_per_hour_on_demand is not None:
            name = clean(price.instance if price.plan != "own" and price.instance else label, 60)
            said.append(_against_rent(name, price, price.usd_per_hour_on_demand, fixed, running, money))
            committed = committed_usd_per_hour(price, book)
            if committed is not None:
                said.append(_commitment(name, committed, price.usd_per_hour_on_demand, assumed, money))
    yield from dict.fromkeys(said)  # two machines may have one price


def _against_rent(name: str, price: Price, rent: float, fixed: float, running: float, money: MoneyFormat) -> str:
    share = formulas.break_even_utilisation(fixed, running, rent)
    lead = f"Against renting {name} at {money.hourly(rent)} on demand ({price.basis}), if both do the same work in an hour, buying"
    if share is None:
        return f"{lead} never pays: the electricity of an hour alone costs the rent."
    if share > 1:
        return f"{lead} does not pay: it would have to be in use for {percent(share)} of all hours."
    return f"{lead} pays from {percent(share)} of all hours in use on."


def _commitment(name: str, hourly: float, on_demand: float, assumed: Assumptions, money: MoneyFormat) -> str:
    share = formulas.commitment_break_even(hourly, on_demand)
    lead = f"A commitment to {name} at {money.hourly(hourly)} for every hour ({value_origin(assumed, 'prices.commitment')})"
    if share >= 1:
        return f"{lead} never pays: it is no cheaper than on demand."
    return f"{lead} pays from {percent(share)} of all hours in use on."


def study_sentences(
    study: StudyCost, machines: Mapping[str, str], invoice_usd: float | None, money: MoneyFormat
) -> Iterator[str]:
    """What all runs took and cost, by machine where there are several, and the invoice that was typed in."""
    if not study.num_runs:
        return
    lost = f", {study.num_failed} of which did not end well" if study.num_failed else ""
    yield (
        f"Measuring all this took {plural(study.num_runs, 'run')}{lost}: {seconds(study.seconds)} from their orders to "
        f"their ends, {_cost(study.usd, study.usd_billed, money)}."
    )
    if len(study.machines) > 1:
        for machine in study.machines:
            hosts = f" on {plural(machine.num_hosts, 'host')}" if machine.num_hosts > 1 else ""
            yield (
                f"{machines.get(machine.machine_id, machine.machine_id)}{hosts}: {plural(machine.num_runs, 'run')} "
                f"({machine.num_failed} failed), {seconds(machine.seconds)}, {_cost(machine.usd, machine.usd_billed, money)}."
            )
    if invoice_usd is not None:
        yield _invoice(invoice_usd, study.usd_billed, money)


def _cost(measured: float | None, billed: float | None, money: MoneyFormat) -> str:
    if measured is None or billed is None:
        return "at a price that is not known"
    return f"{money.amount(measured)} of seconds, {money.amount(billed)} on a bill that orders each host once"


def _invoice(invoice_usd: float, estimate_usd: float | None, money: MoneyFormat) -> str:
    typed = "as typed in" if money.code == "USD" else f"from {invoice_usd:.10g} USD as typed in"
    ratio = None if estimate_usd is None else formulas.invoice_ratio(invoice_usd, estimate_usd)
    if ratio is None:
        return f"The invoice, {money.amount(invoice_usd)} {typed}, can't be held against an estimate: there is none."
    return f"Estimate {money.amount(estimate_usd)}, invoice {money.amount(invoice_usd)} {typed}: {ratio:.3g} times the estimate."
