"""Measured checkpoint times and their use in spot prices."""

from __future__ import annotations

from datetime import timedelta

import pytest

from harness.analysis.memory_growth import settled_memory_bytes
from harness.pricing.durations import checkpoint_seconds, with_measured_checkpoints
from harness.pricing.energy_cost import measure_joules
from harness.report.sections.assumptions import assumptions_table
from harness.schema.assumptions import Assumptions
from harness.schema.host_record import Energy
from tests.make_records import BEGAN, make_record


def piece(minutes, *seconds, machine="m", first=0):
    return {
        "first_update": first, "num_updates": 10 * len(seconds), "started_at": BEGAN + timedelta(minutes=minutes),
        "machine": machine, "host": None, "torch_build": "2", "start_s": 0.5, "load_s": 1.5, "restore_s": None,
        "checkpoints": [
            {"num_updates": first + 10 * index, "seconds": one, "num_bytes": 100} for index, one in enumerate(seconds, 1)
        ],
    }  # fmt: skip


def record(*pieces, lr=1e-4, **fields):
    return make_record(training={"pieces": list(pieces)}, sections={"training": {"lr": lr}}, **fields)


def test_checkpoints_repeated_in_later_records_count_once():
    first, second = piece(0, 2.0, 4.0), piece(60, 6.0, None, first=20)
    runs = [record(first), record(first, second, minutes=60)]
    assert checkpoint_seconds(runs) == 4.0  # (2 + 4 + 6) / 3; one has no seconds


def test_the_slowest_training_or_machine_counts():
    runs = [record(piece(0, 1.0, 2.0)), record(piece(0, 7.0), lr=2e-4), record(piece(9, 3.0, machine="n"))]
    assert checkpoint_seconds(runs) == 7.0


def test_without_checkpoints_nothing_is_measured():
    assert checkpoint_seconds([make_record(), make_record(outcome="crashed", reason="x")]) is None
    assert with_measured_checkpoints(Assumptions(), [make_record()]) == Assumptions()


def test_measured_seconds_replace_the_example_and_are_marked():
    found = with_measured_checkpoints(Assumptions(), [record(piece(0, 2.0, 4.0))])
    assert found.prices.spot.checkpoint_s == 3.0
    assert found.prices.spot.checkpoint_every_s == Assumptions().prices.spot.checkpoint_every_s
    whose = {row[0].sort: row[2].text for row in assumptions_table(found, "prices").rows}
    assert whose["prices.spot.checkpoint_s"] == "measured"
    assert whose["prices.spot.restart_s"] == "example"


@pytest.mark.parametrize("given", ["prices.spot.checkpoint_s"])
def test_the_users_value_is_kept(given):
    mine = Assumptions(set_by_user=frozenset({given}))
    assert with_measured_checkpoints(mine, [record(piece(0, 2.0))]) == mine


def test_counters_of_the_last_segment_are_not_used_for_the_whole_run():
    energy = Energy(source="RAPL", seconds=10.0, cpu_joules=(500.0,))
    held = ((*range(100, 120), *range(20)),)
    one = make_record(training={"pieces": [piece(0, 1.0)], "held_bytes": held}, energy=energy)
    two = make_record(training={"pieces": [piece(0, 1.0), piece(9, 1.0, first=20)], "held_bytes": held}, energy=energy)
    assert measure_joules([one])[0].value == 500.0
    assert measure_joules([two]) is None
    assert settled_memory_bytes(one) == held[0][3:]
    assert settled_memory_bytes(two) == held[0][23:]
