"""Billed, monthly and per-point costs against hand-computed values, with their intervals."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.analysis.estimate import Estimate, map_estimate
from harness.analysis.summarize import summarize
from harness.pricing import formulas
from harness.pricing.cost import billed_cost, price
from harness.pricing.durations import prediction_rate
from harness.pricing.prices import Price
from harness.pricing.rates import apply_plan
from harness.schema.assumptions import Assumptions
from tests.make_records import make_baseline, make_record

# A ten-thousandth of a dollar a second on demand, a third of it on spot machines.
HOURLY = Price(
    0.36, "m5.xlarge", "aws", "us-east-1", "stated", "2026-07", "list", None,
    usd_per_hour_listed=0.36, usd_per_hour_on_demand=0.36, usd_per_hour_spot=0.12, minimum_s=60.0,
)  # fmt: skip
BY_THE_HOUR = replace(HOURLY, granularity_s=3600.0)
# 40 steps of 16 samples: 16/s with an interval, at 40 s of training.
UNEVEN = [0.9, 1.1] * 20


def priced(*records, found=HOURLY, **prices):
    assumed = Assumptions.model_validate({"prices": prices})
    return price(summarize(records), apply_plan(lambda _summary: found, assumed.prices), assumed)


def one(*records, **more):
    return priced(*(records or (make_record(),)), **more)[-1]


def exactly(value):
    return pytest.approx(value, rel=1e-9)


def test_start_up_and_set_up_are_billed_and_the_rest_of_the_second():
    # A run takes 54 s; 60 to start and 120 to set up come before: 234 s.
    assert one().usd_billed.value == exactly(0.0234)
    assert one(make_record(phases={"train_s": 40.2})).usd_billed.value == exactly(0.0235)
    assert one().usd_per_run.value == exactly(0.0054)


def test_at_least_the_minimum_is_billed():
    rental = {"startup_s": 0, "setup_s": 0}
    assert one(rental=rental).usd_billed.value == exactly(0.006)


def test_hours_are_rounded_up():
    assert one(found=BY_THE_HOUR).usd_billed.value == exactly(0.36)
    long = make_record(phases={"train_s": 3600.0})
    assert one(long, found=BY_THE_HOUR).usd_billed.value == exactly(0.72)
    whole = make_record(phases={"train_s": 3600.0 - 180 - 14})  # 4 s of set-up and 10 of evaluation come to an hour
    assert one(whole, found=BY_THE_HOUR).usd_billed.value == exactly(0.36)


def test_on_demand_and_spot_bills_are_computed_under_every_plan():
    spot_s = formulas.spot_seconds(54, 0.05, 600, 5, 180)
    for plan in ("on_demand", "spot"):
        cell = one(plan=plan)
        assert cell.usd_billed_on_demand.value == exactly(0.0234)
        assert cell.usd_billed_spot.value == exactly(0.12 / 3600 * 235)  # 54.1 s expected, in whole seconds
        assert cell.usd_billed == (cell.usd_billed_on_demand if plan == "on_demand" else cell.usd_billed_spot)
    assert 54 < spot_s < 55
    assert one(plan="spot").usd_per_run.value == exactly(0.0018)


def test_without_a_spot_price_there_is_no_spot_bill():
    assert one(found=replace(HOURLY, usd_per_hour_spot=None)).usd_billed_spot is None


def test_a_run_that_never_ends_on_spot_machines_has_no_bill_there():
    cell = one(plan="spot", spot={"interruptions_per_hour": 3_600_000})
    assert (cell.usd_billed, cell.usd_billed_spot, cell.usd_per_month, cell.usd_per_accuracy_point) == (None,) * 4
    assert cell.usd_billed_on_demand.value == exactly(0.0234)


def test_a_checkpoint_interval_longer_than_the_run_does_not_overflow():
    assert one(spot={"checkpoint_every_s": 1e12}).usd_billed_spot.value == exactly(0.12 / 3600 * 235)


def test_an_own_machine_is_billed_for_hours_in_use():
    own = {
        "purchase_usd": 0,
        "resale_usd": 0,
        "staff_usd_per_year": 3153.6,
        "utilisation_fraction": 1,
        "busy_watts": 0,
        "idle_watts": 0,
    }
    cell = one(plan="own", own=own, rental={"idle_hours_per_month": 100})
    assert cell.price.usd_per_hour == exactly(0.36)
    assert cell.usd_billed.value == exactly(0.0054)
    assert cell.usd_billed_on_demand.value == exactly(0.0234)
    assert cell.usd_per_month.value == exactly(0.0054 * 5)  # its idle hours are in the price


def test_a_committed_price_includes_idle_hours():
    cell = one(plan="committed", rental={"idle_hours_per_month": 100})
    assert cell.price.usd_per_hour == exactly(0.36 * 0.63 / 0.5)
    assert cell.usd_per_month.value == exactly(234 / 3600 * 0.36 * 1.26 * 5)


def test_a_month_of_retraining_trials_and_idle_hours():
    cell = one(retraining={"per_month": 4, "trials_per_kept": 3}, rental={"idle_hours_per_month": 2})
    assert cell.usd_per_month.value == exactly(0.0234 * 4 * 3 + 0.72)


def test_training_scales_with_the_number_of_rows():
    # 2,000 rows were measured: five times as many take 200 s of training, and as long to set up and evaluate.
    cell = one(retraining={"num_rows": 10_000})
    assert cell.usd_train.value == exactly(0.02)
    assert cell.usd_per_run.value == exactly(0.0214)
    assert cell.usd_per_epoch.value == exactly(0.0625)
    assert cell.usd_billed.value == exactly(0.0394)
    assert (cell.usd_setup.value, cell.usd_evaluate.value) == (exactly(0.0004), exactly(0.001))


def test_accuracy_points_count_above_tfidf_on_the_same_test_set():
    baseline, cell = priced(make_baseline(accuracy=0.7), make_record(minutes=1))
    assert cell.usd_per_accuracy_point.value == exactly(0.00234)  # 0.0234 for 10 points
    assert baseline.usd_per_accuracy_point is None
    assert one().usd_per_accuracy_point is None


def test_cost_per_point_is_low_for_a_cheap_run_and_high_accuracy():
    _, cell = priced(make_baseline(accuracy=0.7), make_record(minutes=1, training={"seconds": UNEVEN}))
    bill, accuracy, point = cell.usd_billed, cell.summary.accuracy, cell.usd_per_accuracy_point
    assert point.low == exactly(bill.low / (accuracy.high - 0.7) / 100)
    assert point.high == exactly(bill.high / (accuracy.low - 0.7) / 100)
    assert point.low < point.value < point.high


def test_cost_per_point_has_no_high_end_if_the_gain_may_be_zero():
    _, cell = priced(make_baseline(accuracy=0.78), make_record(minutes=1))
    assert cell.summary.accuracy.low < 0.78 < cell.summary.accuracy.value
    assert (cell.usd_per_accuracy_point.value, cell.usd_per_accuracy_point.high) == (exactly(0.0117), None)


def test_predictions_cost_by_the_speed_of_the_test_evaluation():
    # 1000 rows in 4 s are 250/s; in use 30 % of the time.
    assert one().usd_per_million_predictions.value == exactly(100 / 75)
    assert one(serving={"utilisation_fraction": 1}).usd_per_million_predictions.value == exactly(0.4)
    assert one(make_record(training={"accuracy": None})).usd_per_million_predictions is None


def test_prediction_speed_has_an_interval_from_three_runs():
    records = [
        make_record(
            seed=seed, minutes=seed, training={"test": make_record().training.test.model_dump() | {"evaluate_s": s}}
        )
        for seed, s in enumerate((4.0, 5.0, 8.0))
    ]
    cell = one(*records)
    rate = prediction_rate(cell.summary)
    assert rate.value == exactly((250 + 200 + 125) / 3)
    assert rate.high - rate.value == pytest.approx(156.2902, abs=1e-3)  # 4.302653 x 62.9153 / sqrt(3)
    usd = cell.usd_per_million_predictions
    assert (usd.low, usd.high) == (exactly(100 / (rate.high * 0.3)), exactly(100 / (rate.low * 0.3)))
    assert one(*records[:2]).usd_per_million_predictions.low is None


def test_every_cost_has_the_interval_of_the_speed():
    cell = one(make_record(training={"seconds": UNEVEN}))
    rate = cell.summary.samples_per_s
    low_s, high_s = 40 * rate.value / rate.high + 14, 40 * rate.value / rate.low + 14
    assert (cell.usd_per_run.low, cell.usd_per_run.high) == (exactly(low_s / 1e4), exactly(high_s / 1e4))
    assert low_s < 54 < high_s
    assert cell.usd_billed.low <= cell.usd_billed.value <= cell.usd_billed.high
    assert cell.usd_per_run.basis == rate.basis
    for amount in (cell.usd_per_epoch, cell.usd_train, cell.usd_whole_dataset):
        assert amount.low / amount.value == exactly(rate.value / rate.high)
        assert amount.high / amount.value == exactly(rate.value / rate.low)


def test_an_estimate_keeps_its_ends_in_order():
    estimate = Estimate(4.0, 2.0, 8.0, "x")
    assert map_estimate(estimate, lambda value: 8 / value) == Estimate(2.0, 1.0, 4.0, "x")
    assert map_estimate(Estimate(4.0, None, 8.0, "x"), lambda value: 8 / value) == Estimate(2.0, 1.0, None, "x")
    assert map_estimate(estimate, lambda value: value if value < 5 else None) == Estimate(4.0, 2.0, None, "x")
    assert map_estimate(estimate, lambda _value: None) is None
    assert map_estimate(None, lambda value: value) is None


@settings(deadline=None)
@given(st.floats(1e-6, 1e6), st.sampled_from([1.0, 60.0, 3600.0]), st.floats(0, 600))
def test_a_bill_is_at_least_what_was_measured_and_grows_with_it(seconds, granularity_s, minimum_s):
    book = Assumptions().prices
    found = replace(HOURLY, granularity_s=granularity_s, minimum_s=minimum_s)
    bill = billed_cost(seconds, found, book, "on_demand")
    assert bill >= formulas.usd_of_seconds(0.36, seconds) * (1 - 1e-9)
    assert billed_cost(seconds * 2, found, book, "on_demand") >= bill
