"""Hourly prices under the user's payment plan, with discounts, contracts and own hardware (pure)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.errors import Unavailable
from harness.pricing import formulas
from harness.pricing.prices import Price
from harness.schema.assumptions import PriceBook, Rate, find_rate

if TYPE_CHECKING:
    from harness.analysis.summary import Summary


def apply_plan(
    find_price: Callable[[Summary], Price | Unavailable], book: PriceBook
) -> Callable[[Summary], Price | Unavailable]:
    """Wrap `find_price`, so that the user's plan is applied to every price."""
    return lambda summary: price_under_plan(find_price(summary), book, summary.machine_id)


def price_under_plan(price: Price | Unavailable, book: PriceBook, machine_id: str) -> Price | Unavailable:
    """Return the price of a useful hour under the user's plan.

    A price given with --usd-per-hour stays unchanged. The user's own machine needs no row in the price table.
    """
    if isinstance(price, Price) and price.basis == "given":
        return price
    if book.plan == "own" and book.own.machine in (None, machine_id):
        return _own_price(price, book)
    if isinstance(price, Unavailable):
        return price
    rented = _rented_price(price, book)
    if book.plan == "spot":
        return _spot_price(rented, book)
    if book.plan == "committed":
        return _committed_price(rented, book)
    on_demand, derivation = _on_demand_rate(price, book)
    if on_demand is None:
        return _no_price("on_demand", price)
    dated = _with_date_of(rented, _find_rate(book, price, "on_demand"))
    return replace(dated, usd_per_hour=on_demand, paid=_join_derivations(price, derivation))


def _rented_price(price: Price, book: PriceBook) -> Price:
    """Apply contracts and discounts to the on-demand and spot rates."""
    spot = _find_rate(book, price, "spot")
    return replace(
        price,
        usd_per_hour_on_demand=_on_demand_rate(price, book)[0],
        usd_per_hour_spot=spot.usd_per_hour if spot else price.usd_per_hour_spot,
    )


def _find_rate(book: PriceBook, price: Price, plan: str) -> Rate | None:
    return find_rate(book, price.instance, price.region, plan)


def _no_price(plan: str, price: Price) -> Unavailable:
    where = f" of {price.instance}" if price.instance else " of this machine"
    return Unavailable(
        f'no {plan.replace("_", "-")} price{where} is known: add a [[rate]] with plan = "{plan}" to prices.toml'
    )


def _join_derivations(price: Price, derivation: str | None) -> str | None:
    """Join the derivation from the look-up, which is in `price`, and the derivation from the plan."""
    return "; ".join(part for part in (price.paid, derivation) if part) or None


def _with_date_of(price: Price, rate: Rate | None) -> Price:
    """Replace the table's date and source by those of the user's rate, if there is one."""
    if rate is None:
        return price
    return replace(price, as_of=None if rate.as_of is None else rate.as_of.isoformat(), source=rate.source)


def _on_demand_rate(price: Price, book: PriceBook) -> tuple[float | None, str | None]:
    """Return on-demand USD/h and its derivation from the listed price; (None, None) if the price is unknown."""
    listed = price.usd_per_hour_listed
    if listed is None and price.is_listed:
        listed = price.usd_per_hour
    if (rate := _find_rate(book, price, "on_demand")) is not None:
        instead = f", instead of {listed:.10g} USD listed" if listed is not None else ""
        return rate.usd_per_hour, f"by {rate.source}{instead}"
    if listed is None:
        return None, None
    if book.discount_percent:
        discounted = formulas.discounted(listed, book.discount_percent)
        return discounted, f"{listed:.10g} USD listed, less {book.discount_percent:.10g}%"
    return listed, None


def _spot_price(price: Price, book: PriceBook) -> Price | Unavailable:
    if price.usd_per_hour_spot is None:
        return _no_price("spot", price)
    rate = _find_rate(book, price, "spot")
    derivation = _join_derivations(price, f"spot, by {rate.source}" if rate else "spot")
    return replace(_with_date_of(price, rate), usd_per_hour=price.usd_per_hour_spot, plan="spot", paid=derivation)


def committed_usd_per_hour(price: Price, book: PriceBook) -> float | None:
    """Return the cost of a committed hour, used or not: the user's rate, else the discounted on-demand rate."""
    rate = _find_rate(book, price, "committed")
    if rate is not None:
        return rate.usd_per_hour
    on_demand = price.usd_per_hour_on_demand
    return None if on_demand is None else formulas.discounted(on_demand, book.commitment.discount_percent)


def _committed_price(price: Price, book: PriceBook) -> Price | Unavailable:
    hourly, used = committed_usd_per_hour(price, book), book.commitment.utilisation_fraction
    if hourly is None:
        return _no_price("committed", price)
    derivation = f"{hourly:.10g} USD committed for every hour, in use for {used:.0%} of them"
    if not book.commitment.model_fields_set:
        derivation += " (example values)"
    return replace(
        _with_date_of(price, _find_rate(book, price, "committed")),
        usd_per_hour=formulas.committed_usd_per_useful_hour(hourly, used),
        plan="committed",
        paid=_join_derivations(price, derivation),
    )


def _own_price(price: Price | Unavailable, book: PriceBook) -> Price:
    """Price a useful hour of the user's own machine, along with the rates for renting such a machine, if known.

    The price counts as assumed until the user states a purchase price.
    """
    is_stated = "purchase_usd" in book.own.model_fields_set
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
    if isinstance(price, Unavailable):
        return own
    rented = _rented_price(price, book)
    return replace(
        own,
        usd_per_hour_listed=rented.usd_per_hour_listed,
        usd_per_hour_on_demand=rented.usd_per_hour_on_demand,
        usd_per_hour_spot=rented.usd_per_hour_spot,
        # The billing rules apply to the rented alternative only; own hours aren't rounded.
        granularity_s=rented.granularity_s,
        minimum_s=rented.minimum_s,
    )


def own_parts(book: PriceBook) -> tuple[float, float]:
    """Return the fixed USD/h of the user's own machine, and the USD/h that use adds."""
    own, energy = book.own, book.energy
    fixed = formulas.own_fixed_usd_per_hour(
        own.purchase_usd, own.resale_usd, own.years, own.idle_watts, energy.pue, energy.usd_per_kwh,
        own.hosting_usd_per_year, own.staff_usd_per_year,
    )  # fmt: skip
    return fixed, formulas.own_running_usd_per_hour(own.busy_watts, own.idle_watts, energy.pue, energy.usd_per_kwh)


def own_formula(book: PriceBook) -> str:
    """Return the formula of the price of a useful hour on the user's own machine, with its numbers filled in."""
    own, energy = book.own, book.energy
    return (
        f"((({own.purchase_usd:.10g} - {own.resale_usd:.10g}) / {own.years:.10g} + {own.hosting_usd_per_year:.10g} + "
        f"{own.staff_usd_per_year:.10g}) / 8760 + {own.idle_watts:.10g} / 1000 x {energy.pue:.10g} x {energy.usd_per_kwh:.10g}) / "
        f"{own.utilisation_fraction:.10g} + ({own.busy_watts:.10g} - {own.idle_watts:.10g}) / 1000 x {energy.pue:.10g} x "
        f"{energy.usd_per_kwh:.10g} USD"
    )
