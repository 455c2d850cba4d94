"""GPU throttling warnings, by hand: which readings count, and which share is too much."""

from __future__ import annotations

import pytest

from harness.analysis.noise import gpu_throttle_warnings, readings_during_training
from harness.analysis.summarize import summarize
from tests.make_records import make_machine, make_record

CAP, HEAT = ("sw_power_cap",), ("sw_thermal_slowdown", "hw_slowdown")


def mark(at_s):
    return {"at_s": at_s, "num_steps": 1, "num_samples": 16, "evaluate_s": 0.0, "loss": 0.5}


def reading(at_s, reasons, gpu=0):
    unknown = ("sm_clock_mhz", "memory_clock_mhz", "power_watts", "temperature_celsius", "used_bytes")
    return {"at_s": at_s, "gpu": gpu, "throttle_reasons": reasons} | dict.fromkeys(unknown)


def record_of(*reasons, marks=(10.0, 99.0), **fields):
    """Make a record with one reading per second from 10 s, with these reasons."""
    readings = [reading(10.0 + second, each) for second, each in enumerate(reasons)]
    return make_record(
        axes={"device": "gpu"},
        machine=make_machine(gpus=["NVIDIA A10G"]),
        marks=[mark(at_s) for at_s in marks],
        gpu_readings=readings,
        **fields,
    )


def warnings_of(*records):
    return list(gpu_throttle_warnings(records))


def test_the_share_is_of_the_readings_during_training():
    (warning,) = warnings_of(record_of(CAP, CAP, (), CAP, (), (), CAP, (), (), ()))
    assert warning == (
        "The GPU was held back by its power cap in 40% of the readings: "
        "compare it with cards of the same limit alone, or raise the limit (`nvidia-smi -pl`)."
    )


def test_readings_before_and_after_training_do_not_count():
    # The 5 readings at 12 s to 16 s are between the marks; 2 of them have the reason.
    record = record_of((), (), CAP, (), CAP, (), (), CAP, CAP, CAP, marks=(12.0, 14.0, 16.0))
    assert [found.at_s for found in readings_during_training(record)] == [12.0, 13.0, 14.0, 15.0, 16.0]
    assert "in 40% of" in warnings_of(record)[0]
    assert readings_during_training(record_of(CAP, marks=())) == ()


@pytest.mark.parametrize(
    ("reasons", "share"),
    [
        ([CAP] * 1 + [()] * 9, None),  # 10 % is the limit
        ([CAP] * 2 + [()] * 17, "11%"),
        ([CAP] * 4, None),  # too few readings
        ([CAP] * 4 + [None] * 6, None),
        ([CAP] * 3 + [()] * 3 + [None] * 6, "50%"),  # readings without reasons don't count
        ([None] * 10, None),
    ],
)
def test_the_limit_and_unknown_reasons(reasons, share):
    warnings = warnings_of(record_of(*reasons))
    assert [share in warning for warning in warnings] == ([True] if share else [])


def test_the_most_frequent_reason_is_reported_and_the_specific_one_on_a_tie():
    assert "by its temperature in 60%" in warnings_of(record_of(CAP, CAP, HEAT, HEAT, HEAT))[0]
    alone = [("hw_slowdown",)] * 5
    assert "by its hardware in 100%" in warnings_of(record_of(*alone))[0]
    assert "that NVML calls bit_15 in 100%" in warnings_of(record_of(*[("bit_15",)] * 5))[0]


def test_the_most_throttled_run_is_reported():
    few, many = record_of(CAP, (), (), (), ()), record_of(HEAT, HEAT, HEAT, HEAT, (), seed=1)
    assert warnings_of(few, many) == warnings_of(many)


def test_a_cells_warnings_include_throttling_and_a_cpu_cell_has_none():
    (summary,) = summarize([record_of(*[CAP] * 10)])
    assert [warning for warning in summary.warnings if "in 100% of the readings: " in warning]
    assert summarize([make_record()])[0].warnings == ()
