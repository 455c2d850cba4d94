"""Noise warnings: every limit and the exact sentence."""

from __future__ import annotations

import random

import pytest

from harness.analysis.summarize import summarize
from harness.schema.host_record import Load
from tests.make_records import GIB, MIB, make_machine, make_record

LOAD = {"available_memory_bytes": 8 * GIB, "system_busy_s": 150.0, "cell_s": 148.0, "parent_s": 1.0, "steal_s": 0.0}


def summary_of(*records):
    (summary,) = summarize(records)
    return summary


@pytest.mark.parametrize(
    ("load", "warning"),
    [
        # 60 s on 4 CPUs are 240 CPU seconds; 5 % are 12, and 1 % are 2.4.
        ({"system_busy_s": 148 + 1 + 12.0}, None),
        (
            {"system_busy_s": 148 + 1 + 24.0},
            "Other processes used 10% of the usable CPU time: stop them, and run it with --force.",
        ),
        ({"steal_s": 2.4}, None),
        (
            {"steal_s": 4.8},
            "The hypervisor took 2.0% of the CPU time: measure at another time, or on another host.",
        ),
        ({"quota_periods": 600, "throttled_periods": 30}, None),
        (
            {"quota_periods": 600, "throttled_periods": 120},
            "The control group's CPU quota ran out in 20% of its periods: raise the quota, or set threads to the cores "
            "that it gives.",
        ),
        ({"quota_periods": 0, "throttled_periods": 0}, None),
        ({"thermal_throttles": 0}, None),
        (
            {"thermal_throttles": 7},
            "The processor was slowed down by its temperature (7 times): cool it, and run it with --force.",
        ),
        ({"clock_mhz": [3500.0, 3500.0, 3200.0, 3200.0]}, None),
        (
            {"clock_mhz": [3500.0, 3400.0, 2800.0, 2800.0, 2800.0]},
            "The cores' clock fell by 20% in the course of a run: fix it (`harness doctor` says how), or let the machine "
            "warm up first.",
        ),
        ({"clock_mhz": [3500.0, 1000.0]}, None),
        ({"swapped_bytes": 16 * MIB}, None),
        (
            {"swapped_bytes": 1000 * MIB},
            "While a run was measured 1,000 MiB went to or from swap: free some memory, or take a smaller batch.",
        ),
        ({"major_faults": 3000}, None),
        (
            {"major_faults": 12000},
            "While a run was measured 200 pages a second had to be read from disk: free some memory, so that files stay in it.",
        ),
        ({"system_busy_s": None, "steal_s": None}, None),
        ({"cell_s": None}, None),
    ],
)
def test_each_kind_of_noise_above_its_limit_is_reported(load, warning):
    summary = summary_of(make_record(load=LOAD | load))
    assert summary.noise == ((warning,) if warning else ())
    assert summary.warnings == summary.noise


def test_the_most_disturbed_run_is_reported():
    quiet, loud = make_record(load=LOAD), make_record(seed=1, load=LOAD | {"system_busy_s": 269.0})
    assert "used 50% of" in summary_of(quiet, loud).warnings[0]


def test_a_cell_that_took_no_time_has_no_share_of_it():
    """A made-up record of 0 s was a ZeroDivisionError in every command that reads records."""
    load = LOAD | {"system_busy_s": 999.0, "steal_s": 99.0}
    assert summary_of(make_record(load=load, duration_s=0.0)).noise == ()


def test_the_load_of_the_second_of_two_machines_is_told_too():
    quiet = make_record(axes={"device": "cpu-ddp2x2"}, load=LOAD)
    busy = Load.model_validate(LOAD | {"system_busy_s": 148 + 1 + 24.0})
    first, second = quiet.nodes
    disturbed = quiet.model_copy(update={"nodes": (first, second.model_copy(update={"load": busy}))})
    assert summary_of(quiet).noise == ()
    (warning,) = summary_of(disturbed).noise
    assert warning.startswith("Other processes used 10% of the usable CPU time")


def test_other_processes_are_relative_to_usable_cores_and_steal_to_all_cores():
    machine = make_machine(num_logical=8, num_usable=2)
    load = LOAD | {"system_busy_s": 148 + 1 + 12.0, "steal_s": 4.8}
    (warning,) = summary_of(make_record(machine=machine, load=load)).warnings
    assert "used 10% of the usable CPU time" in warning


def test_drift_and_bimodal_steps_are_reported():
    # Means of the last and the first 30 of 90 steps: 1 + 0.002 x 74.5, and 1 + 0.002 x 14.5.
    rising = [1.0 + 0.002 * step + 0.01 * (-1) ** step for step in range(90)]
    assert summary_of(make_record(training={"seconds": rising})).noise == (
        "Steps became 12% longer in the course of a run: let the machine come to its lasting temperature and clock first, "
        "and run it with --force.",
    )
    rng = random.Random(1)
    bimodal = [rng.gauss(1.5 if step % 4 == 3 else 1.0, 0.01) for step in range(100)]
    assert summary_of(make_record(training={"seconds": bimodal})).noise == (
        "Steps of one size took two kinds of time, 50% apart, 25% of them the longer: look for a program that wakes up now "
        "and then, or cores of two speeds, and run it with --force.",
    )


def test_a_quiet_run_has_no_noise():
    assert summary_of(make_record(load=LOAD)).noise == ()
