"""Requirements on a run against hand-computed values, the nearest miss of each, and options given as text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.analysis.summarize import summarize
from harness.decision.choice import choose
from harness.decision.requirements import (
    Requirements,
    parse_duration,
    parse_points,
    qualifier,
    read_share,
    unmet_requirements,
)
from harness.errors import UserError
from harness.pricing import cost
from harness.pricing.prices import Price
from harness.schema.assumptions import Assumptions
from tests.make_records import GIB, make_machine, make_record

CHEAP = make_machine(machine_id="epyc-4c-16g-00000a")
DEAR = make_machine(machine_id="xeon-4c-16g-00000b", host="host-b")
GPUS = make_machine(machine_id="a10g-4c-16g-00000c", host="host-c", gpus=["NVIDIA A10G"])
HOURLY = Price(0.36, "m5.xlarge", "aws", "us-east-1", "stated", "2026-07", "list", None, usd_per_hour_on_demand=0.36)
PRICES = {
    CHEAP.id: HOURLY,
    DEAR.id: replace(HOURLY, usd_per_hour=3.6, usd_per_hour_on_demand=3.6, instance="c7i.8xlarge"),
    GPUS.id: replace(HOURLY, usd_per_hour=0.9, usd_per_hour_on_demand=0.9, instance="g5.xlarge"),
}


def run(machine, train_s, accuracy=0.8, **more):
    training = {"seconds": [train_s / 40] * 40, "accuracy": accuracy} | more.pop("training", {})
    return make_record(machine=machine, training=training, phases={"train_s": float(train_s)}, **more)


def price_all(records):
    return cost.price(summarize(records), lambda one: PRICES[one.machine_id])


def qualifying(records, **asked):
    """Machine ids of the cells that qualify, those that are left for the choice, and the misses."""
    cells, requirements = price_all(records), Requirements(**asked)
    qualifies = qualifier(requirements, Assumptions())
    choice = choose(cells, qualifies=qualifies)
    expected = {cell.key for cell in cells if qualifies(cell)}
    assert {way.cell.key for way in choice.ways if way.cell} == expected
    misses = unmet_requirements(cells, requirements, Assumptions())
    return {cell.summary.machine_id for cell in cells if qualifies(cell)}, choice, misses


# From order to end: 180 s of start-up and set-up, 4 of loading, training, 10 of evaluation. The same seconds are billed:
# 3,794 s at 0.36 = 0.3794 USD; 794 s at 3.6 = 0.794; 1,094 s at 0.9 = 0.2735.
@pytest.mark.parametrize(
    ("asked", "machine_ids"),
    [
        ({}, {CHEAP.id, DEAR.id, GPUS.id}),
        ({"deadline_s": 1094.0}, {DEAR.id, GPUS.id}),
        ({"deadline_s": 1093.0}, {DEAR.id}),
        ({"budget_usd": 0.28}, {GPUS.id}),
        ({"gpu_memory_bytes": 16 * GIB}, {CHEAP.id, DEAR.id, GPUS.id}),
        ({"gpu_memory_bytes": 15 * GIB}, {CHEAP.id, DEAR.id}),
        ({"deadline_s": 1093.0, "budget_usd": 0.5}, set()),
    ],
)
def test_each_requirement_is_judged_by_the_value(asked, machine_ids):
    peaks = [(0, "cuda_allocated", 20 * GIB), (0, "cuda_reserved", 16 * GIB)]
    records = [
        run(CHEAP, 3600, 0.8),
        run(DEAR, 600, 0.82),
        run(GPUS, 900, 0.78, axes={"device": "gpu"}, training={"peaks": peaks}),
    ]
    found, choice, _ = qualifying(records, **asked)
    assert found == machine_ids
    if not machine_ids:
        assert choice.way is None
        assert choice.verdict.kind == "do not use yet"
        assert choice.verdict.reasons[0].kind == "requirements_missed"


def test_the_highest_gpu_peak_counts():
    peaks = [(0, "cuda_reserved", 9 * GIB), (1, "cuda_reserved", 10 * GIB)]
    two = make_machine(machine_id=GPUS.id, gpus=["NVIDIA A10G"] * 2)
    record = run(two, 900, axes={"device": "gpu-ddp2"}, training={"peaks": peaks})
    assert qualifying([record], gpu_memory_bytes=10 * GIB)[0] == {GPUS.id}
    assert qualifying([record], gpu_memory_bytes=9.9 * GIB)[0] == set()


def test_unmeasured_gpu_memory_does_not_qualify():
    record = run(GPUS, 900, axes={"device": "gpu"}, training={"peaks": [(0, "cuda_allocated", GIB)]})
    (miss,) = qualifying([record], gpu_memory_bytes=80 * GIB)[2]
    assert (miss.num_cells, miss.nearest) == (1, None)


def test_cells_that_miss_are_counted_with_the_nearest_miss():
    records = [run(CHEAP, 3600), run(CHEAP, 7200, axes={"seq_len": 32}), run(DEAR, 600)]
    deadline, budget = qualifying(records, deadline_s=1800, budget_usd=0.5)[2]
    # Those of CHEAP are too late alone or too late and too expensive; DEAR is too expensive alone.
    assert (deadline.num_cells, deadline.nearest_value, deadline.unit) == (2, pytest.approx(3794), "s")
    assert (budget.num_cells, budget.nearest_value) == (2, pytest.approx(0.794))
    assert budget.nearest.cell.summary.machine_id == DEAR.id


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90min", 5400), ("90 m", 5400), ("45s", 45), ("1h30m", 5400), ("1h 30 min", 5400), ("0.5d", 43200)],
)
def test_durations_are_parsed(text, seconds):
    assert parse_duration(text, "--deadline") == seconds


@pytest.mark.parametrize("text", ["", "2", "0h", "h", "2 weeks", "-2h", "2h or so", "1e3s", "nan s"])
def test_invalid_durations_are_refused(text):
    with pytest.raises(UserError, match="--deadline"):
        parse_duration(text, "--deadline")


@pytest.mark.parametrize(
    ("text", "share"), [("0.78", 0.78), ("78", 0.78), ("78%", 0.78), ("0.5 %", 0.005), ("100", 1.0), ("1%", 0.01)]
)
def test_a_share_above_1_is_percent(text, share):
    assert read_share(text, "--target") == pytest.approx(share)


@pytest.mark.parametrize("text", ["1", "1.0", "0", "-3", "101", "often", "nan", ""])
def test_shares_that_could_mean_two_things_or_none_are_refused(text):
    with pytest.raises(UserError, match="--target"):
        read_share(text, "--target")


def test_points_are_percentage_points():
    assert parse_points("1", "--tolerance") == pytest.approx(0.01)
    assert parse_points("0.5%", "--tolerance") == pytest.approx(0.005)
    for text in ("x", "-1", "101"):
        with pytest.raises(UserError, match="--tolerance"):
            parse_points(text, "--tolerance")
