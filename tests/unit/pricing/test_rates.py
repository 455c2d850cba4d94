"""Hourly prices under every plan against hand-computed values."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from harness.analysis.summarize import summarize
from harness.errors import Unavailable
from harness.pricing.prices import Price
from harness.pricing.rates import apply_plan, committed_usd_per_hour, own_formula, own_parts, price_under_plan
from harness.schema.assumptions import PriceBook, load_assumptions
from tests.make_records import make_record

LISTED = Price(
    0.5, "g5.xlarge", "aws", "us-east-1", "stated", "2026-07", "list", None,
    usd_per_hour_listed=0.5, usd_per_hour_on_demand=0.5, usd_per_hour_spot=0.2, granularity_s=60.0, minimum_s=120.0,
)  # fmt: skip
NO_SPOT = replace(LISTED, usd_per_hour_spot=None)
GIVEN = Price(
    1.2, None, None, None, "given", None, "--usd-per-hour", None, usd_per_hour_listed=1.2, usd_per_hour_on_demand=1.2
)
HERE = "epyc-4c-16g-000001"


def book(**fields):
    return PriceBook.model_validate(fields, context={"today": date(2026, 11, 25)})


def rate(usd_per_hour, plan="on_demand", **fields):
    return {"instance": "g5.xlarge", "plan": plan, "usd_per_hour": usd_per_hour} | fields


def exactly(value):
    return pytest.approx(value, rel=1e-12)


def test_on_demand_is_the_listed_price_without_derivation():
    assert price_under_plan(LISTED, book(), HERE) == replace(LISTED, paid=None)


def test_a_discount_is_off_the_listed_price_and_not_off_spot():
    found = price_under_plan(LISTED, book(discount_percent=15), HERE)
    assert found.usd_per_hour == found.usd_per_hour_on_demand == exactly(0.425)
    assert (found.usd_per_hour_listed, found.usd_per_hour_spot) == (0.5, 0.2)
    assert found.paid == "0.5 USD listed, less 15%"


def test_a_contract_replaces_list_price_and_discount():
    contract = rate(0.31, as_of="2026-10-01", source="frame contract 7")
    found = price_under_plan(LISTED, book(discount_percent=15, rate=[contract]), HERE)
    assert (found.usd_per_hour, found.usd_per_hour_on_demand) == (0.31, 0.31)
    assert (found.as_of, found.source) == ("2026-10-01", "frame contract 7")
    assert found.paid == "by frame contract 7, instead of 0.5 USD listed"


def test_a_contract_without_a_date_has_none():
    assert price_under_plan(LISTED, book(rate=[rate(0.31)]), HERE).as_of is None


@pytest.mark.parametrize("order", [1, -1])
def test_a_rate_of_this_region_goes_before_one_of_any(order):
    rates = [rate(0.31), rate(0.29, region="us-east-1"), rate(0.11, region="eu-west-1")][::order]
    assert price_under_plan(LISTED, book(rate=rates), HERE).usd_per_hour == 0.29


def test_rates_of_other_instances_and_regions_do_not_apply():
    rates = [rate(0.11, region="eu-west-1"), rate(0.12) | {"instance": "g6.xlarge"}]
    assert price_under_plan(LISTED, book(rate=rates), HERE).usd_per_hour == 0.5


def test_spot_is_the_tables_price_or_the_users():
    found = price_under_plan(LISTED, book(plan="spot"), HERE)
    assert (found.usd_per_hour, found.plan, found.paid, found.usd_per_hour_on_demand) == (0.2, "spot", "spot", 0.5)
    mine = price_under_plan(NO_SPOT, book(plan="spot", rate=[rate(0.15, "spot", source="today's bid")]), HERE)
    assert (mine.usd_per_hour, mine.usd_per_hour_spot) == (0.15, 0.15)
    assert (mine.paid, mine.source) == ("spot, by today's bid", "today's bid")


def test_without_a_spot_price_it_says_what_to_add():
    found = price_under_plan(NO_SPOT, book(plan="spot"), HERE)
    assert found.reason == 'no spot price of g5.xlarge is known: add a [[rate]] with plan = "spot" to prices.toml'


def test_a_commitment_is_paid_for_idle_hours_too():
    # 0.5 less 37 % is 0.315 in every hour; in use half of them: 0.63.
    found = price_under_plan(LISTED, book(plan="committed"), HERE)
    assert (found.usd_per_hour, found.usd_per_hour_on_demand) == (exactly(0.63), 0.5)
    assert committed_usd_per_hour(found, book()) == exactly(0.315)
    assert found.paid == "0.315 USD committed for every hour, in use for 50% of them (example values)"
    stated = price_under_plan(LISTED, book(plan="committed", commitment={"discount_percent": 37}), HERE)
    assert stated.paid == "0.315 USD committed for every hour, in use for 50% of them"


def test_a_committed_rate_replaces_the_discount():
    terms = book(plan="committed", commitment={"utilisation_fraction": 0.8}, rate=[rate(0.24, "committed")])
    assert price_under_plan(LISTED, terms, HERE).usd_per_hour == exactly(0.3)


def test_a_commitments_discount_is_off_what_is_paid_on_demand():
    terms = book(plan="committed", discount_percent=20, commitment={"discount_percent": 50, "utilisation_fraction": 1})
    assert price_under_plan(LISTED, terms, HERE).usd_per_hour == exactly(0.2)  # 0.5 x 0.8 x 0.5


OWN = {
    "name": "the box", "purchase_usd": 4380, "resale_usd": 0, "years": 1, "utilisation_fraction": 0.5,
    "busy_watts": 1100, "idle_watts": 100, "hosting_usd_per_year": 438, "staff_usd_per_year": 876,
}  # fmt: skip
ENERGY = {"usd_per_kwh": 0.2, "pue": 1.5}


def test_an_own_machine_costs_owning_plus_running():
    # (4380 + 438 + 876) / 8760 = 0.65; idle 0.1 kW x 1.5 x 0.2 = 0.03; fixed 0.68 / 0.5 = 1.36; running 1 kW: 0.3.
    terms = book(plan="own", own=OWN, energy=ENERGY)
    assert own_parts(terms) == (exactly(0.68), exactly(0.3))
    found = price_under_plan(LISTED, terms, HERE)
    assert (found.usd_per_hour, found.plan, found.instance, found.basis) == (exactly(1.66), "own", "the box", "stated")
    assert (found.usd_per_hour_on_demand, found.usd_per_hour_spot) == (0.5, 0.2)


def test_an_example_own_machine_is_assumed():
    found = price_under_plan(LISTED, book(plan="own"), HERE)
    assert (found.basis, found.source) == ("assumed", "own hardware, an example")
    assert found.note == "an example of a machine of one's own: set [own] in prices.toml"
    stated = price_under_plan(LISTED, book(plan="own", own=OWN), HERE)
    assert (stated.basis, stated.note) == ("stated", None)


def test_the_shown_formula_evaluates_to_the_price():
    terms = book(plan="own", own=OWN | {"purchase_usd": 1234567.89}, energy=ENERGY)
    words = own_formula(terms)
    assert "1234567.89" in words
    assert eval(words.removesuffix(" USD").replace("x", "*")) == exactly(
        price_under_plan(LISTED, terms, HERE).usd_per_hour
    )


def test_renting_instead_keeps_contracts_and_billing():
    terms = book(plan="own", own=OWN, rate=[rate(0.31), rate(0.15, "spot")])
    found = price_under_plan(LISTED, terms, HERE)
    assert (found.usd_per_hour_on_demand, found.usd_per_hour_spot) == (0.31, 0.15)
    assert (found.granularity_s, found.minimum_s) == (60.0, 120.0)


def test_an_own_machine_needs_no_row():
    found = price_under_plan(Unavailable("no row has this machine"), book(plan="own", own=OWN, energy=ENERGY), HERE)
    assert (found.usd_per_hour, found.usd_per_hour_on_demand) == (exactly(1.66), None)


def test_only_the_named_machine_is_own():
    terms = book(plan="own", own=OWN | {"machine": "another"}, energy=ENERGY)
    assert price_under_plan(LISTED, terms, HERE).plan == "on_demand"
    assert price_under_plan(Unavailable("no row has this machine"), terms, HERE) == Unavailable(
        "no row has this machine"
    )
    assert price_under_plan(LISTED, terms, "another").plan == "own"


@pytest.mark.parametrize("plan", ["on_demand", "spot", "committed", "own"])
def test_a_given_price_is_unchanged_under_every_plan(plan):
    assert price_under_plan(GIVEN, book(plan=plan, discount_percent=50), HERE) == GIVEN


def test_the_plan_applies_to_each_summarys_machine(tmp_path):
    file = tmp_path / "prices.toml"
    file.write_text('plan = "own"\n[own]\nmachine = "epyc-4c-16g-000001"\n')
    (summary,) = summarize([make_record()])
    assert apply_plan(lambda _summary: LISTED, load_assumptions(file).prices)(summary).plan == "own"
