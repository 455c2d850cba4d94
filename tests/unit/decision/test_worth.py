"""The value model on measured cells against hand-computed values."""

from __future__ import annotations

import pytest

from harness.analysis.summarize import summarize
from harness.decision.worth import find_errors, judge_cell_worth, judge_worth
from harness.errors import Unavailable
from harness.pricing.cost import price
from harness.pricing.prices import Price
from harness.schema.assumptions import Assumptions
from tests.make_records import NUM_TEST, make_baseline, make_record, make_test

HOURLY = Price(0.36, "m5.xlarge", "aws", "us-east-1", "stated", "2026-07", "list", None, usd_per_hour_on_demand=0.36)
# Round values: no discount, and 10 months.
VALUE = {
    "items_per_month": 100_000, "right_usd": 0.02, "wrong_usd": 0.05, "num_labels": 1000, "label_usd": 0.1,
    "engineering_hours": 10, "baseline_engineering_hours": 2, "engineering_usd_per_hour": 50, "horizon_months": 10,
    "discount_fraction_per_year": 0,
}  # fmt: skip
PRICES = {"rental": {"startup_s": 0, "setup_s": 0}, "retraining": {"per_month": 2, "trials_per_kept": 5}}


def assume(value=(), **prices):
    return Assumptions.model_validate({"prices": PRICES | prices, "value": VALUE | dict(value)})


def judge_records(*records, assumed=None, found=HOURLY):
    assumed = assumed or assume()
    return judge_worth(price(summarize(records), lambda _summary: found, assumed), assumed)


def exactly(value):
    return pytest.approx(value, rel=1e-9)


def test_every_figure_of_a_model_by_hand():
    # A run takes 54 s at USD 0.0001 a second: 0.0054. Accuracy 0.8: an item is worth 0.016 - 0.01 = 0.006.
    # Serving: 1000 rows in 4 s, 30 % in use: 0.0001 / (250 x 0.3) x 1e6 = 1.33333 USD a million.
    (found,) = judge_records(make_record())
    assert found.upfront_usd == exactly(0.0054 * 5 + 100 + 500)
    assert found.upkeep_usd_per_month == exactly(0.0054 * 2 * 5)
    assert found.serving_usd_per_million == exactly(4 / 3)
    benefit = 100_000 * (0.006 - 4 / 3 / 1e6) - 0.054
    assert found.benefit_usd_per_month.value == exactly(benefit)
    assert found.net_present_value_usd.value == exactly(benefit * 10 - 600.027)
    assert found.payback_months == exactly(600.027 / benefit)
    assert found.return_fraction == exactly((benefit * 10 - 600.027) / 600.027)
    assert found.break_even_accuracy == exactly((60.0027 + 0.054 + 100_000 * (4 / 3 / 1e6 + 0.05)) / 7000)
    assert found.break_even_items == exactly((60.0027 + 0.054) / (0.006 - 4 / 3 / 1e6))
    assert (found.is_majority, found.wrong_usd) == (False, 0.05)


def test_the_interval_is_that_of_accuracy():
    (found,) = judge_records(make_record())
    accuracy = found.accuracy
    for side in ("low", "high"):
        item = 0.07 * getattr(accuracy, side) - 0.05
        benefit = 100_000 * (item - 4 / 3 / 1e6) - 0.054
        assert getattr(found.benefit_usd_per_month, side) == exactly(benefit)
        assert getattr(found.net_present_value_usd, side) == exactly(benefit * 10 - 600.027)
    assert (
        found.net_present_value_usd.basis
        == accuracy.basis
        == "over 1,000 test examples, one seed: of this trained model"
    )


def test_the_majority_class_costs_nothing():
    (found,) = judge_records(make_baseline("majority", accuracy=0.75))
    assert found.is_majority
    assert (found.upfront_usd, found.upkeep_usd_per_month, found.serving_usd_per_million) == (0.0, 0.0, 0.0)
    assert found.benefit_usd_per_month.value == exactly(100_000 * (0.75 * 0.07 - 0.05))
    assert (found.payback_months, found.return_fraction) == (0.0, None)


def test_the_classical_baseline_has_its_own_hours():
    (found,) = judge_records(make_baseline("tfidf"))
    assert found.upfront_usd == exactly(1e-4 * 5 + 100 + 2 * 50)  # 0.96 s a run, on the bill a second


def test_labels_by_hand_are_saved():
    # By hand 0.95 right: 0.95 x 0.07 - 0.05 = 0.0165 less 0.05: each label loses 0.0335 today.
    (found,) = judge_records(make_record(), assumed=assume({"today": "by_hand"}))
    assert found.benefit_usd_per_month.value == exactly(100_000 * (0.006 + 0.0335 - 4 / 3 / 1e6) - 0.054)


def test_error_kinds_are_weighted_as_measured():
    # 200 of 1000 wrong, all of the last labels, which take turns: 100 of each kind.
    value = {"false_positive_usd": 0.02, "false_negative_usd": 0.1}
    (found,) = judge_records(make_record(), assumed=assume(value))
    assert (found.errors.false_positive_fraction, found.errors.false_negative_fraction) == (0.1, 0.1)
    assert found.errors.positive == "fresh"
    assert found.wrong_usd == exactly(0.06)


def test_errors_of_one_kind_have_its_cost():
    labels, guesses = [0] * 900 + [1] * 100, [0] * 1000
    test = make_test(0.9) | {"labels": labels, "predictions": guesses}
    value = {"false_positive_usd": 0.02, "false_negative_usd": 0.1}
    (found,) = judge_records(make_record(training={"test": test}), assumed=assume(value))
    assert (found.errors.false_positive_fraction, found.errors.false_negative_fraction) == (0.0, 0.1)
    assert found.wrong_usd == exactly(0.1)


def test_without_kinds_of_cost_the_plain_one_counts():
    (found,) = judge_records(make_record())
    assert (found.errors is not None, found.wrong_usd) == (True, 0.05)


def test_three_labels_have_no_two_kinds_of_error():
    data = make_record().data.model_dump() | {"labels": ("bad", "fair", "good")}
    assert find_errors([make_record(data=data)]) is None


@pytest.mark.parametrize("record", [make_record(training={"accuracy": None}), make_record(outcome="oom", reason="x")])
def test_cells_without_an_accuracy_have_no_worth(record):
    assert judge_records(record) == []


def test_cells_without_a_price_have_no_worth():
    assert judge_records(make_record(), found=Unavailable("no row has this machine")) == []


def test_a_run_that_never_ends_on_spot_machines_has_no_worth():
    assumed = assume(plan="spot", spot={"interruptions_per_hour": 3_600_000})
    spot = Price(
        0.1, "m5.xlarge", "aws", "us-east-1", "stated", "2026-07", "list", None, usd_per_hour_spot=0.1, plan="spot"
    )
    (cell,) = price(summarize([make_record()]), lambda _summary: spot, assumed)
    assert (cell.usd_billed, cell.usd_per_month, cell.usd_per_run.value) == (None, None, exactly(54 * 0.1 / 3600))
    assert judge_cell_worth(cell, assumed) is None


def test_a_cell_is_worth_nothing_at_its_break_evens():
    (found,) = judge_records(make_record(), assumed=assume({"engineering_hours": 100}))
    (at_volume,) = judge_records(
        make_record(), assumed=assume({"engineering_hours": 100, "items_per_month": found.break_even_items})
    )
    assert at_volume.net_present_value_usd.value == pytest.approx(0, abs=1e-6)
    assert at_volume.break_even_accuracy == exactly(0.8)
    assert NUM_TEST == 1000
