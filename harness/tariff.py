"""What an hour is paid: the table's price under the reader's plan, discounts, contracts and own hardware (pure)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from harness import formulas
from harness.assumptions import PriceBook, Rate, find_rate
from harness.prices import Price

if TYPE_CHECKING:
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
    known = replace(found, usd_per_hour_on_demand=on_demand, usd_per_hour_spot=spot)
    if book.plan == "spot":
        if spot is None:
            return _unknown("spot", found)
        source = f"spot, by {spot_rate.source}" if spot_rate else "spot"
        return replace(_dated(known, spot_rate), usd_per_hour=spot, plan="spot", paid=_joined(found, source))
    if book.plan == "committed":
        return _committed(known, book)
    if on_demand is None:
        return _unknown("on_demand", found)
    dated = _dated(known, _rate(book, found, "on_demand"))
    return replace(dated, usd_per_hour=on_demand, paid=_joined(found, told))


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
        instead = f", instead of {listed:g} USD listed" if listed is not None else ""
        return rate.usd_per_hour, f"by {rate.source}{instead}"
    if listed is None:
        return None, None
    if book.discount_percent:
        less = formulas.discounted(listed, book.discount_percent)
        return less, f"{listed:g} USD listed, less {book.discount_percent:g}%"
    return listed, None


def _committed(price: Price, book: PriceBook) -> Price | str:
    rate, commitment = _rate(book, price, "committed"), book.commitment
    if rate is not None:
        hourly = rate.usd_per_hour
    elif price.usd_per_hour_on_demand is not None:
        hourly = formulas.discounted(price.usd_per_hour_on_demand, commitment.discount_percent)
    else:
        return _unknown("committed", price)
    used = commitment.utilisation_fraction
    told = f"{hourly:g} USD committed for every hour, in use for {used:.0%} of them"
    useful = formulas.committed_usd_per_useful_hour(hourly, used)
    return replace(_dated(price, rate), usd_per_hour=useful, plan="committed", paid=_joined(price, told))


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
