"""Costs against hand-computed values, to 1e-9."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.analysis.estimate import Estimate
from harness.analysis.summarize import summarize
from harness.errors import Unavailable
from harness.pricing.cost import Price, Priced, gpu_share, price, usd_per_1000_samples
from harness.pricing.durations import num_epochs, run_seconds, whole_dataset_seconds
from harness.pricing.formulas import usd_of_seconds
from tests.make_records import make_baseline, make_machine, make_record

HOURLY = Price(0.36, "m5.xlarge", "aws", "us-east-1", "stated", "2026-07", "list", None)  # a ten-thousandth a second
DOLLARS = [field.name for field in fields(Priced) if field.name.startswith("usd_")]


def priced(*records, found=HOURLY):
    (row,) = price(summarize(records), lambda _summary: found)
    return row


def exactly(value):
    return pytest.approx(value, rel=0, abs=1e-9)


@pytest.mark.parametrize(
    ("usd_per_hour", "samples_per_s", "usd"),
    [
        (3.6, 1.0, 1.0),
        (0.36, 16.0, 0.00625),
        (0.192, 22.5, 0.002370370370370370),
        (1.006, 480.0, 0.000582175925925926),
        (113.9328, 12.5, 2.531840000000000),
    ],
)
def test_usd_per_1000_samples(usd_per_hour, samples_per_s, usd):
    found = usd_per_1000_samples(usd_per_hour, Estimate(samples_per_s, None, None, "one run"))
    assert found.value == exactly(usd)
    assert (found.low, found.high, found.basis) == (None, None, "one run")


def test_the_highest_speed_gives_the_lowest_cost():
    found = usd_per_1000_samples(3.6, Estimate(10.0, 8.0, 12.5, "between 3 runs"))
    assert (found.low, found.value, found.high) == (exactly(0.08), exactly(0.1), exactly(0.125))


def test_a_throughput_interval_from_zero_has_no_highest_cost():
    found = usd_per_1000_samples(3.6, Estimate(10.0, 0.0, 20.0, "within one run"))
    assert (found.low, found.high) == (exactly(0.05), None)


@pytest.mark.parametrize(
    ("usd_per_hour", "seconds", "usd"),
    [(1.0, 3600.0, 1.0), (0.526, 340.0, 0.049677777777778), (0.36, 0.0, 0.0), (32.7726, 1e6, 9103.5)],
)
def test_usd_of_seconds(usd_per_hour, seconds, usd):
    assert usd_of_seconds(usd_per_hour, seconds) == exactly(usd)


def test_without_seconds_the_cost_is_none():
    assert usd_of_seconds(1.0, None) is None


@settings(deadline=None)
@given(st.floats(0.01, 200), st.floats(0.01, 1e5))
def test_samples_cost_the_same_as_their_seconds(usd_per_hour, rate):
    found = usd_per_1000_samples(usd_per_hour, Estimate(rate, None, None, ""))
    assert found.value == pytest.approx(usd_of_seconds(usd_per_hour, 1000 / rate), rel=1e-12)


def test_every_cost_of_a_cell():
    # 40 steps of 1 s with 16 samples: 16 samples/s. Phases: start 0.5, load 1.5, tokenise 2, train 40,
    # evaluate 6, test 4 s. 2,000 training rows, 10,000 available, 2 epochs. USD 0.0001 a second.
    row = priced(
        make_record(
            sections={"training": {"target_accuracy": 0.75}},
            training={"evaluations": [(10.0, 0.7, 1.0), (20.0, 0.76, 2.0), (30.0, 0.8, 3.0)]},
        )
    )
    assert (row.price, row.missing) == (HOURLY, None)
    assert row.usd_per_1000_samples.value == exactly(0.00625)
    assert row.usd_per_epoch.value == exactly(0.0125)  # 2,000 / 16 = 125 s
    assert row.usd_setup.value == exactly(0.0004)  # 4 s
    assert row.usd_train.value == exactly(0.004)  # 40 s
    assert row.usd_evaluate.value == exactly(0.001)  # 10 s
    assert row.usd_per_run.value == exactly(0.0054)  # 54 s
    assert row.usd_to_target.value == exactly(0.0027)  # 4 + 20 + 1 + 2 = 27 s
    assert row.usd_whole_dataset.value == exactly(0.125)  # 2 x 10,000 / 16 = 1,250 s


def test_a_run_is_the_sum_of_its_parts():
    row = priced(make_record(), make_record(seed=1, phases={"train_s": 61.7, "load_s": 0.3, "test_s": 9.1}))
    assert row.usd_per_run.value == exactly(row.usd_setup.value + row.usd_train.value + row.usd_evaluate.value)


def test_an_unreached_target_has_no_cost():
    row = priced(make_record(sections={"training": {"target_accuracy": 0.9}}))
    assert (row.usd_to_target, row.usd_per_run.value) == (None, exactly(0.0054))


def test_a_run_without_evaluation_costs_set_up_and_training():
    row = priced(make_record(phases={"evaluate_s": None, "test_s": None}, training={"accuracy": None}))
    assert (row.usd_evaluate, row.usd_per_run.value) == (None, exactly(0.0044))


def test_without_training_seconds_a_run_has_no_cost():
    (summary,) = summarize([make_record(phases={"train_s": None})])
    assert run_seconds(summary) is None


def test_unknown_set_up_counts_zero_in_the_cost_to_target():
    phases = {"start_s": None, "load_s": None, "tokenise_s": None}
    looks = [(10.0, 0.8, 1.5)]
    record = make_record(
        phases=phases, sections={"training": {"target_accuracy": 0.75}}, training={"evaluations": looks}
    )
    (summary,) = summarize([record])
    assert summary.time_to_target_s.value == 11.5
    assert run_seconds(summary).value == 50.0


def test_epochs_are_derived_from_max_steps():
    # 250 planned updates of 16 over 2,000 rows are 2 epochs, though a limit stopped the run after 40 of them.
    training = {"num_updates_planned": 250, "stopped_early": "limits.max_train_s = 40 s reached"}
    record = make_record(sections={"training": {"max_steps": 250, "epochs": 7}}, training=training)
    (summary,) = summarize([record])
    assert num_epochs(summary) == 2.0
    assert whole_dataset_seconds(summary).value == 1250.0
    assert priced(record).usd_whole_dataset.value == exactly(0.125)


def test_epochs_come_from_the_settings_without_max_steps():
    (summary,) = summarize([make_record(sections={"training": {"epochs": 0.5}})])
    assert num_epochs(summary) == 0.5


@pytest.mark.parametrize("training", [{}, {"max_steps": 100}])
def test_a_failed_cell_has_a_price_and_no_costs(training):
    row = priced(make_record(outcome="oom", reason="no memory", sections={"training": training}))
    assert (row.price, row.missing) == (HOURLY, None)
    assert {name: getattr(row, name) for name in DOLLARS} == dict.fromkeys(DOLLARS)


def test_without_a_price_every_cost_is_none_with_the_reason():
    row = priced(make_record(), found=Unavailable("give --usd-per-hour 1.20"))
    assert (row.price, row.missing) == (None, "give --usd-per-hour 1.20")
    assert {name: getattr(row, name) for name in DOLLARS} == dict.fromkeys(DOLLARS)
    assert row.summary.samples_per_s.value == 16.0


def test_a_baseline_costs_its_seconds_and_has_no_price_per_sample():
    # 0.1 + 0.3 set-up, 0.36 fitting, 0.2 testing.
    row = priced(make_baseline(train_s=0.36))
    assert (row.usd_setup.value, row.usd_train.value, row.usd_evaluate.value) == (
        exactly(4e-5),
        exactly(3.6e-5),
        exactly(2e-5),
    )
    assert row.usd_per_run.value == exactly(9.6e-5)
    assert (row.usd_per_1000_samples, row.usd_per_epoch, row.usd_whole_dataset) == (None, None, None)


def test_each_summary_is_priced_by_its_own_machine_in_order():
    records = [make_record(axes={"batch_size": size}, minutes=size) for size in (8, 16, 32)]
    asked = []

    def find(summary):
        asked.append(summary.config.batch_size)
        return HOURLY if summary.config.batch_size != 16 else Unavailable("no price")

    rows = price(summarize(records), find)
    assert asked == [8, 16, 32]
    assert [row.missing for row in rows] == [None, "no price", None]
    assert [row.usd_train is None for row in rows] == [False, True, False]


def test_a_later_failure_without_data_does_not_remove_costs():
    row = priced(make_record(), make_record(seed=1, minutes=1, outcome="skipped", reason="budget", data=None))
    assert row.usd_whole_dataset.value == exactly(0.125)


def on_gpus(num_gpus, device, **training):
    machine = make_machine(machine_id=f"{num_gpus}x-v100-000001", gpus=["Tesla V100-SXM2-16GB"] * num_gpus)
    return make_record(axes={"device": device}, machine=machine, training=training)


def test_every_machine_that_trains_is_paid_for():
    one = priced(make_record(axes={"device": "cpu-ddp2", "batch_size": 8}))
    two = priced(make_record(axes={"device": "cpu-ddp2x2", "batch_size": 4}))
    assert (one.price, one.num_nodes, one.usd_per_hour) == (HOURLY, 1, 0.36)
    assert (two.price, two.num_nodes, two.usd_per_hour) == (HOURLY, 2, 0.72)
    # Equal seconds in both: each amount is twice as high, the bill's minutes of starting a machine included.
    for name in ("usd_per_1000_samples", "usd_train", "usd_setup", "usd_evaluate", "usd_per_run", "usd_billed"):
        assert getattr(two, name).value == exactly(2 * getattr(one, name).value), name
    assert two.usd_per_million_predictions is None or two.usd_per_million_predictions.value == exactly(
        2 * one.usd_per_million_predictions.value
    )


def test_the_share_of_gpus_counts_those_of_all_machines():
    machine = make_machine(machine_id="4x-t4", gpus=["Tesla T4"] * 4)
    row = priced(make_record(axes={"device": "gpu-ddp2x2", "batch_size": 4}, machine=machine))
    assert gpu_share(row.summary) == (4, 8)
    assert row.usd_per_1000_samples_of_share.value == exactly(row.usd_per_1000_samples.value / 2)


def test_one_gpu_of_four_has_a_share_price_too():
    # 16 samples/s: 0.0001 x 1000 / 16 for the machine, a quarter of it for the GPU.
    row = priced(on_gpus(4, "gpu"))
    assert gpu_share(row.summary) == (1, 4)
    assert row.usd_per_1000_samples.value == exactly(0.00625)
    assert row.usd_per_1000_samples_of_share.value == exactly(0.0015625)


def test_two_gpus_of_four_have_half_the_price_at_twice_the_samples():
    row = priced(on_gpus(4, "gpu-ddp2"))
    assert gpu_share(row.summary) == (2, 4)
    assert row.usd_per_1000_samples_of_share.value == exactly(0.0015625)


@pytest.mark.parametrize(
    ("num_gpus", "device", "training"), [(1, "gpu", {}), (4, "gpu-ddp", {"world_size": 4}), (4, "cpu", {})]
)
def test_without_unused_gpus_there_is_no_share_price(num_gpus, device, training):
    row = priced(on_gpus(num_gpus, device, **training))
    assert gpu_share(row.summary) is None
    assert row.usd_per_1000_samples_of_share is None


def test_a_cell_that_never_ran_on_a_gpu_has_no_share():
    (summary,) = summarize([make_record(axes={"device": "gpu"}, outcome="oom", reason="no memory")])
    assert gpu_share(summary) is None
