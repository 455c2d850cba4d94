"""The cost of a study, failed runs included, against hand-computed values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.analysis.summarize import summarize
from harness.decision.study_cost import study_cost
from harness.errors import Unavailable
from harness.pricing.cost import price
from harness.pricing.prices import Price
from harness.schema.assumptions import RentalTerms
from tests.make_records import make_baseline, make_machine, make_record

HOURLY = Price(0.36, "m5.xlarge", "aws", "us-east-1", "stated", "2026-07", "list", None, usd_per_hour_on_demand=0.36)
OTHER = make_machine(machine_id="epyc-8c-32g-000002", num_logical=8)
BILL = RentalTerms(startup_s=60, setup_s=120)


def spent(runs, prices=None, **more):
    found = prices or {}
    cells = price(summarize(runs), lambda summary: found.get(summary.machine_id, HOURLY))
    return study_cost(cells, BILL, **more)


def exactly(value):
    return pytest.approx(value, rel=1e-12)


def test_failed_runs_and_baselines_are_paid_for_too():
    # Each run takes 60 s, at a ten-thousandth a second.
    records = [
        make_record(),
        make_record(minutes=1, axes={"batch_size": 999}, outcome="oom", reason="x"),
        make_baseline(),
    ]
    found = spent(records)
    assert (found.num_runs, found.num_failed, found.seconds) == (3, 1, 180.0)
    assert found.usd == exactly(0.018)
    assert found.usd_billed == exactly(0.036)  # ordered once: 180 s before


def test_a_run_that_a_newer_one_replaced_is_in_all_records():
    records = [make_record(), make_record(minutes=5)]
    assert spent(records).num_runs == 1
    found = spent(records, records=records)
    assert (found.num_runs, found.usd) == (2, exactly(0.012))


def test_machines_and_hosts_are_ordered_apart():
    records = [
        make_record(),
        make_record(seed=1, machine=make_machine(host="host-b")),
        make_record(machine=OTHER, duration_s=3600.0),
    ]
    found = spent(records, {OTHER.id: replace(HOURLY, usd_per_hour=3.6, granularity_s=3600.0)})
    first, second = found.machines
    assert (first.machine_id, first.num_hosts, first.seconds, first.usd_billed) == (
        "epyc-4c-16g-000001", 2, 120.0, exactly((240 + 240) / 1e4),
    )  # fmt: skip
    assert (second.usd, second.usd_billed) == (exactly(3.6), exactly(7.2))
    assert found.usd == exactly(3.612)


def test_a_machine_without_a_price_leaves_no_total():
    found = spent([make_record(), make_record(machine=OTHER)], {OTHER.id: Unavailable("no row has this machine")})
    assert (found.usd, found.usd_billed, found.seconds) == (None, None, 120.0)
    assert [machine.missing for machine in found.machines] == [None, "no row has this machine"]
    assert found.machines[0].usd == exactly(0.006)


def test_cells_that_never_started_order_no_machine():
    found = spent([make_record(outcome="unsupported", reason="no GPU", duration_s=0.0)])
    assert (found.num_failed, found.usd, found.usd_billed) == (1, 0.0, 0.0)


def test_an_own_machine_is_billed_without_rounding():
    own = replace(HOURLY, plan="own", granularity_s=3600.0)
    assert spent([make_record()], {"epyc-4c-16g-000001": own}).usd_billed == exactly(0.006)


def test_nothing_measured_costs_nothing():
    assert (spent([]).num_runs, spent([]).usd) == (0, 0)


def test_every_machine_of_a_run_is_paid_for_whether_it_ended_well_or_not():
    axes = {"device": "cpu-ddp2x2", "batch_size": 8}
    found = spent([make_record(axes=axes)]).machines[0]
    assert (found.num_hosts, found.seconds, found.usd) == (2, 120.0, exactly(0.012))
    assert found.usd_billed == exactly(2 * (180 + 60) / 1e4)
    failed = spent([make_record(axes=axes, outcome="interrupted", reason="node 1 was lost")]).machines[0]
    assert (failed.num_hosts, failed.usd) == (
        2,
        exactly(0.012),
    )  # nothing is known of the lost host but that it was paid for
    unsupported = spent([make_record(axes=axes, outcome="unsupported", reason="one machine", duration_s=0.0)]).machines[
        0
    ]
    assert (unsupported.num_hosts, unsupported.usd_billed) == (1, 0.0)
