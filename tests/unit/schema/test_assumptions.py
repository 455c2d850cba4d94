"""Reading prices.toml and value.toml: error messages, and which fields the user set."""

from __future__ import annotations

from datetime import date

import pytest

from harness.errors import UserError
from harness.schema.assumptions import Assumptions, load_assumptions

TODAY = date(2026, 11, 2)


def load(tmp_path, prices=None, value=None):
    files = {}
    for name, text in (("prices", prices), ("value", value)):
        if text is not None:
            files[name] = tmp_path / f"{name}.toml"
            files[name].write_text(text, encoding="utf-8")
    return load_assumptions(files.get("prices"), files.get("value"), today=TODAY)


def mistakes(tmp_path, **files):
    with pytest.raises(UserError) as caught:
        load(tmp_path, **files)
    return str(caught.value).splitlines()


def test_without_files_every_value_is_an_example():
    assumptions = load_assumptions()
    assert assumptions == Assumptions()
    assert assumptions.set_by_user == frozenset()


def test_fields_of_a_file_count_as_set_by_the_user(tmp_path):
    assumptions = load(tmp_path, "[own]\npurchase_usd = 9000\n", 'items_per_month = 5\ntoday = "by_hand"\n')
    assert assumptions.set_by_user == {"prices.own.purchase_usd", "value.items_per_month", "value.today"}
    assert (assumptions.prices.own.purchase_usd, assumptions.prices.own.years) == (9000, 3)
    assert (assumptions.value.items_per_month, assumptions.value.right_usd) == (5, 0.02)


def test_each_mistake_in_prices_is_one_line(tmp_path):
    head, *lines = mistakes(
        tmp_path,
        prices="""
plan = "spott"
discount_percent = 120
discount_percnt = 3
[currency]
code = "EUR"
per_usd = 0.92
[own]
resale_usd = 9000
[spot]
checkpoint_every_s = true
[energy]
pue = 0.9
watts = nan
[[rate]]
instance = "m5.xlarge"
usd_per_hour = -1
as_of = 2030-01-01
""",
    )
    assert head.endswith("prices.toml: 10 mistakes")
    assert lines == [
        "  plan: found 'spott'; allowed: 'on_demand', 'spot', 'committed' or 'own' (did you mean 'spot'?)",
        "  discount_percent: found 120; allowed: less than 100",
        "  currency: found {'code': 'EUR', 'per_usd': 0.92}; allowed: a code other than USD needs as_of, the date of the rate",
        "  spot.checkpoint_every_s: found True; allowed: a number",
        "  own: found {'resale_usd': 9000}; allowed: resale_usd no higher than purchase_usd (4000)",
        "  energy.watts: found nan; allowed: a finite number",
        "  energy.pue: found 0.9; allowed: greater than or equal to 1",
        "  rate[0].usd_per_hour: found -1; allowed: greater than 0",
        "  rate[0].as_of: found datetime.date(2030, 1, 1); allowed: a date not after today, 2026-11-02",
        "  discount_percnt: unknown key (did you mean 'discount_percent'?)",
    ]


def test_each_mistake_in_value_is_one_line(tmp_path):
    head, *lines = mistakes(
        tmp_path,
        value='items_per_month = -1\nright_usd = "a"\nby_hand_accuracy = 1.2\ntoday = "nobody"\nhorizon_month = 3\n',
    )
    assert head.endswith("value.toml: 5 mistakes")
    assert lines == [
        "  items_per_month: found -1; allowed: greater than or equal to 0",
        "  right_usd: found 'a'; allowed: a number",
        "  today: found 'nobody'; allowed: 'nothing' or 'by_hand'",
        "  by_hand_accuracy: found 1.2; allowed: less than or equal to 1",
        "  horizon_month: unknown key (did you mean 'horizon_months'?)",
    ]


def test_costs_of_both_kinds_of_error_are_required_together(tmp_path):
    _, line = mistakes(tmp_path, value="false_positive_usd = 1\n")
    assert line.endswith("allowed: false_positive_usd and false_negative_usd together, or neither")


def test_usd_has_an_exchange_rate_of_1(tmp_path):
    _, line = mistakes(tmp_path, prices="[currency]\nper_usd = 2\n")
    assert line.endswith("allowed: per_usd = 1 with code = 'USD', or another code")


def test_invalid_toml_and_missing_files_are_reported(tmp_path):
    (line,) = mistakes(tmp_path, prices="plan = \n")
    assert "prices.toml: can't be read: Invalid value" in line
    with pytest.raises(UserError, match=r"nowhere\.toml: no such file"):
        load_assumptions(tmp_path / "nowhere.toml")
