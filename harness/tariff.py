"""What an hour is paid: the table's price under the reader's plan, discounts, contracts and own hardware (pure)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from harness import formulas
from harness.assumptions import PriceBook, Rate
from harness.prices import Price
from harness.statistics import Summary


def pay(find_price: Callable[[Summary], Price | str], book: PriceBook) -> Callable[[Summary], Price | str]:
    """Put the reader's plan on the prices that `find_price` gives.

    Returns:
        What gives a summary's price, or says why it has none and what to give.
    """
    return lambda summary: pay_for(find_price(summary), book, summary.machine_id)


def pay_for(found: Price | str, book: PriceBook, machine_id: str) -> Price | str:
    """The price of a useful hour under the reader's plan.

    A price given by --usd-per-hour stands as it is. A machine of one's own needs no row of the table.
    """
    if isinstance(found, Price) and found.basis == "given":
        return found
    if book.plan == "own" and book.own.machine in (None, machine_id):
        return _own(found, book)
    if isinstance(found, str):
        return found
    known = _rented(found, book)
    if book.plan == "spot":
        return _spot(known, book)
    if book.plan == "committed":
        return _committed(known, book)
    return known


def _rented(price: Price, book: PriceBook) -> Price:
    """On demand, after contracts and discounts; with what a spot machine costs."""
    on_demand, told = _on_demand(price, book)
    rate, spot = _rate(book, price, "on_demand"), _rate(book, price, "spot")
    known = replace(
        price,
        usd_per_hour=on_demand,
        usd_per_hour_on_demand=on_demand,
        usd_per_hour_spot=spot.usd_per_hour if spot else price.usd_per_hour_spot,
        paid=told,
    )
    return _dated(known, rate)


def _dated(price: Price, rate: Rate | None) -> Price:
    """A contract's price is as old as the contract, whatever the table's row says."""
    if rate is None:
        return price
    return replace(price, as_of=None if rate.as_of is None else rate.as_of.isoformat(), source=rate.source)


def _rate(book: PriceBook, price: Price, plan: str) -> Rate | None:
    """The reader's own rate; one that names the region before one that names none."""
    fitting = [
        rate
        for rate in book.rate
        if rate.plan == plan and rate.instance == price.instance and rate.region in (None, price.region)
    ]
    return max(fitting, key=lambda rate: rate.region is not None, default=None)


def _on_demand(price: Price, book: PriceBook) -> tuple[float, str | None]:
    listed = price.usd_per_hour_listed
    if listed is None:
        listed = price.usd_per_hour
    if (rate := _rate(book, price, "on_demand")) is not None:
        return rate.usd_per_hour, f"by {rate.source}, instead of {listed:.10g} USD listed"
    if book.discount_percent:
        less = formulas.discounted(listed, book.discount_percent)
        return less, f"{listed:.10g} USD listed, less {book.discount_percent:.10g}%"
    return listed, None


def _spot(price: Price, book: PriceBook) -> Price | str:
    rate = _rate(book, price, "spot")
    if price.usd_per_hour_spot is None:
        where = f" {price.instance}" if price.instance else " this machine"
        return f'no spot price of{where} is known: add a [[rate]] with plan = "spot" to prices.toml'
    told = f"spot, by {rate.source}" if rate else "spot"
    return _dated(replace(price, usd_per_hour=price.usd_per_hour_spot, plan="spot", paid=told), rate)


def committed_usd_per_hour(price: Price, book: PriceBook) -> float:
    """What a commitment costs in every hour, used or not: the reader's rate, else on demand less its discount."""
    rate = _rate(book, price, "committed")
    on_demand = price.usd_per_hour_on_demand
    return (
        rate.usd_per_hour
        if rate is not None
        else formulas.discounted(
            price.usd_per_hour if on_demand is None else on_demand, book.commitment.discount_percent
        )
    )


def _committed(price: Price, book: PriceBook) -> Price:
    hourly, used = committed_usd_per_hour(price, book), book.commitment.utilisation_fraction
    told = f"{hourly:.10g} USD committed for every hour, in use for {used:.0%} of them"
    if not book.commitment.model_fields_set:
        told += " (example values)"
    useful = formulas.committed_usd_per_useful_hour(hourly, used)
    return _dated(replace(price, usd_per_hour=useful, plan="committed", paid=told), _rate(book, price, "committed"))


def _own(found: Price | str, book: PriceBook) -> Price:
    """A useful hour of the reader's own machine; beside it what renting one would cost, where that is known.

    Without a purchase of the reader's it is an example, and its price assumed.
    """
    is_stated = "purchase_usd" in book.own.model_fields_set
    rented = _rented(found, book) if isinstance(found, Price) else None
    own = Price(
        usd_per_hour=formulas.own_usd_per_hour(*own_parts(book), book.own.utilisation_fraction),
        instance=book.own.name or "own machine",
        provider=None,
        region=None,
        basis="stated" if is_stated else "assumed",
        as_of=None,
        source="own hardware, as stated" if is_stated else "own hardware, an example",
        note=None if is_stated else "an example of a machine of one's own: set [own] in prices.toml",
        plan="own",
        paid=own_formula(book),
    )
    if rented is None:
        return own
    return replace(
        own,
        usd_per_hour_listed=rented.usd_per_hour_listed,
        usd_per_hour_on_demand=rented.usd_per_hour_on_demand,
        usd_per_hour_spot=rented.usd_per_hour_spot,
        # Of the bill for the rented one: an hour of one's own is rounded to nothing.
        granularity_s=rented.granularity_s,
        minimum_s=rented.minimum_s,
    )


def own_parts(book: PriceBook) -> tuple[float, float]:
    """USD of an hour of owning, and what an hour of use adds to it."""
    own, energy = book.own, book.energy
    fixed = formulas.own_fixed_usd_per_hour(
        own.purchase_usd, own.resale_usd, own.years, own.idle_watts, energy.pue, energy.usd_per_kwh,
        own.hosting_usd_per_year, own.staff_usd_per_year,
    )  # fmt: skip
    return fixed, formulas.own_running_usd_per_hour(own.busy_watts, own.idle_watts, energy.pue, energy.usd_per_kwh)


def own_formula(book: PriceBook) -> str:
    """The formula of a useful hour, with its numbers."""
    own, energy = book.own, book.energy
    return (
        f"((({own.purchase_usd:.10g} - {own.resale_usd:.10g}) / {own.years:.10g} + {own.hosting_usd_per_year:.10g} + "
        f"{own.staff_usd_per_year:.10g}) / 8760 + {own.idle_watts:.10g} / 1000 x {energy.pue:.10g} x {energy.usd_per_kwh:.10g}) / "
        f"{own.utilisation_fraction:.10g} + ({own.busy_watts:.10g} - {own.idle_watts:.10g}) / 1000 x {energy.pue:.10g} x "
        f"{energy.usd_per_kwh:.10g} USD"
    )
