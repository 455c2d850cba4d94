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
    on_demand, told = _on_demand(found, book)
    spot_rate = _rate(book, found, "spot")
    spot = spot_rate.usd_per_hour if spot_rate else found.usd_per_hour_spot
    known = replace(found, usd_per_hour=on_demand, usd_per_hour_on_demand=on_demand, usd_per_hour_spot=spot, paid=told)
    if book.plan == "spot":
        if spot is None:
            where = f" {found.instance}" if found.instance else " this machine"
            return f'no spot price of{where} is known: add a [[rate]] with plan = "spot" to prices.toml'
        source = f"spot, by {spot_rate.source}" if spot_rate else "spot"
        return replace(known, usd_per_hour=spot, plan="spot", paid=source)
    if book.plan == "committed":
        return _committed(known, book)
    return known


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
        return rate.usd_per_hour, f"by {rate.source}, instead of {listed:g} USD listed"
    if book.discount_percent:
        less = formulas.discounted(listed, book.discount_percent)
        return less, f"{listed:g} USD listed, less {book.discount_percent:g}%"
    return listed, None


def _committed(price: Price, book: PriceBook) -> Price:
    rate, commitment = _rate(book, price, "committed"), book.commitment
    listed = price.usd_per_hour_on_demand or price.usd_per_hour
    hourly = rate.usd_per_hour if rate else formulas.discounted(listed, commitment.discount_percent)
    used = commitment.utilisation_fraction
    told = f"{hourly:g} USD committed for every hour, in use for {used:.0%} of them"
    useful = formulas.committed_usd_per_useful_hour(hourly, used)
    return replace(price, usd_per_hour=useful, plan="committed", paid=told)


def _own(found: Price | str, book: PriceBook) -> Price:
    own = book.own
    hourly = formulas.own_usd_per_hour(*own_parts(book), own.utilisation_fraction)
    rented = found if isinstance(found, Price) else None
    return Price(
        usd_per_hour=hourly,
        instance=own.name or "own machine",
        provider=None,
        region=None,
        basis="stated",
        as_of=None,
        source="own hardware, as stated",
        note=None,
        usd_per_hour_listed=rented.usd_per_hour_listed if rented else None,
        usd_per_hour_on_demand=_on_demand(rented, book)[0] if rented else None,
        usd_per_hour_spot=rented.usd_per_hour_spot if rented else None,
        plan="own",
        paid=own_formula(book),
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
        f"((({own.purchase_usd:g} - {own.resale_usd:g}) / {own.years:g} + {own.hosting_usd_per_year:g} + "
        f"{own.staff_usd_per_year:g}) / 8760 + {own.idle_watts:g} / 1000 x {energy.pue:g} x {energy.usd_per_kwh:g}) / "
        f"{own.utilisation_fraction:g} + ({own.busy_watts:g} - {own.idle_watts:g}) / 1000 x {energy.pue:g} x "
        f"{energy.usd_per_kwh:g} USD"
    )
