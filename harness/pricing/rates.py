"""What an hour is paid: the table's price under the reader's plan, discounts, contracts and own hardware (pure)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.pricing import formulas
from harness.pricing.prices import Price
from harness.schema.assumptions import PriceBook, Rate, find_rate

if TYPE_CHECKING:
    from harness.analysis.summary import Summary


def apply_plan(find_price: Callable[[Summary], Price | str], book: PriceBook) -> Callable[[Summary], Price | str]:
    """Put the reader's plan on the prices that `find_price` gives.

    Returns:
        What gives a summary's price, or says why it has none and what to give.
    """
    return lambda summary: price_under_plan(find_price(summary), book, summary.machine_id)


def price_under_plan(found: Price | str, book: PriceBook, machine_id: str) -> Price | str:
    """The price of a useful hour under the reader's plan.

    A price given by --usd-per-hour stands as it is. A machine of one's own needs no row of the table.
    """
    if isinstance(found, Price) and found.basis == "given":
        return found
    if book.plan == "own" and book.own.machine in (None, machine_id):
        return _own(found, book)
    if isinstance(found, str):
        return found
    known = _rented_price(found, book)
    if book.plan == "spot":
        return _spot(known, book)
    if book.plan == "committed":
        return _committed(known, book)
    on_demand, told = _on_demand(found, book)
    if on_demand is None:
        return _unknown("on_demand", found)
    dated = _dated(known, _rate(book, found, "on_demand"))
    return replace(dated, usd_per_hour=on_demand, paid=_joined(found, told))


def _rented_price(price: Price, book: PriceBook) -> Price:
    """With what it costs on demand, after contracts and discounts, and on spot machines."""
    spot = _rate(book, price, "spot")
    return replace(
        price,
        usd_per_hour_on_demand=_on_demand(price, book)[0],
        usd_per_hour_spot=spot.usd_per_hour if spot else price.usd_per_hour_spot,
    )


def _rate(book: PriceBook, price: Price, plan: str) -> Rate | None:
    return find_rate(book, price.instance, price.region, plan)


def _unknown(plan: str, price: Price) -> str:
    where = f" of {price.instance}" if price.instance else " of this machine"
    return f'no {plan.replace("_", "-")} price{where} is known: add a [[rate]] with plan = "{plan}" to prices.toml'


def _joined(price: Price, told: str | None) -> str | None:
    """What the look-up said of the price, before what the plan makes of it."""
    return "; ".join(part for part in (price.paid, told) if part) or None


def _dated(price: Price, rate: Rate | None) -> Price:
    """A price by the reader's own rate has that rate's date and source, and not those of the table."""
    if rate is None:
        return price
    return replace(price, as_of=None if rate.as_of is None else rate.as_of.isoformat(), source=rate.source)


def _on_demand(price: Price, book: PriceBook) -> tuple[float | None, str | None]:
    """USD an hour on demand, and how it follows from the table's; None where neither table nor rate has it."""
    listed = price.usd_per_hour_listed
    if listed is None and price.is_listed:
        listed = price.usd_per_hour
    if (rate := _rate(book, price, "on_demand")) is not None:
        instead = f", instead of {listed:.10g} USD listed" if listed is not None else ""
        return rate.usd_per_hour, f"by {rate.source}{instead}"
    if listed is None:
        return None, None
    if book.discount_percent:
        less = formulas.discounted(listed, book.discount_percent)
        return less, f"{listed:.10g} USD listed, less {book.discount_percent:.10g}%"
    return listed, None


def _spot(price: Price, book: PriceBook) -> Price | str:
    rate = _rate(book, price, "spot")
    if price.usd_per_hour_spot is None:
        return _unknown("spot", price)
    told = f"spot, by {rate.source}" if rate else "spot"
    return replace(_dated(price, rate), usd_per_hour=price.usd_per_hour_spot, plan="spot", paid=_joined(price, told))


def committed_usd_per_hour(price: Price, book: PriceBook) -> float | None:
    """What a commitment costs in every hour, used or not: the reader's rate, else on demand less its discount."""
    rate = _rate(book, price, "committed")
    if rate is not None:
        return rate.usd_per_hour
    on_demand = price.usd_per_hour_on_demand
    return None if on_demand is None else formulas.discounted(on_demand, book.commitment.discount_percent)


def _committed(price: Price, book: PriceBook) -> Price | str:
    hourly, used = committed_usd_per_hour(price, book), book.commitment.utilisation_fraction
    if hourly is None:
        return _unknown("committed", price)
    told = f"{hourly:.10g} USD committed for every hour, in use for {used:.0%} of them"
    if not book.commitment.model_fields_set:
        told += " (example values)"
    useful = formulas.committed_usd_per_useful_hour(hourly, used)
    dated = _dated(price, _rate(book, price, "committed"))
    return replace(dated, usd_per_hour=useful, plan="committed", paid=_joined(price, told))


def _own(found: Price | str, book: PriceBook) -> Price:
    """A useful hour of the reader's own machine; beside it what renting one would cost, where that is known.

    Without a purchase of the reader's it is an example, and its price assumed.
    """
    is_stated = "purchase_usd" in book.own.model_fields_set
    rented = _rented_price(found, book) if isinstance(found, Price) else None
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
