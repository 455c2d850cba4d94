"""Families of CPU instance types, and what another number of CPUs changes."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import pytest

from harness.analysis.summarize import summarize
from harness.prediction.core_scaling import POWER, POWER_SD, cpu_family, scaled_by_cores
from harness.store.record_files import load_records

REFERENCE = Path(__file__).parents[3] / "results" / "reference"


@pytest.mark.parametrize(
    ("instance", "family"),
    [
        ("m7i.2xlarge", "m7i"),
        ("c7a.metal-48xl", "c7a"),
        ("ml.m5.4xlarge", "ml.m5"),
        ("c3-standard-22", "c3-standard"),
        ("n1-standard-4+1xT4", "n1-standard"),
        ("Standard_D16s_v5", "Standard_Ds_v5"),
        ("Standard_D4s_v5", "Standard_Ds_v5"),
    ],
)
def test_families(instance, family):
    assert cpu_family(instance) == family


def test_twice_the_cpus_take_less_than_half_off():
    ratio, factor = scaled_by_cores(4, 8)
    assert ratio == pytest.approx(2**-0.64)
    assert factor.log_sd == pytest.approx(0.15 * math.log(2))
    assert factor.reason == "measured on 4 logical CPUs, scaled to 8"
    assert scaled_by_cores(8, 4)[0] == pytest.approx(2**0.64)
    assert scaled_by_cores(4, 32)[1].log_sd == pytest.approx(3 * factor.log_sd)
    same, exact = scaled_by_cores(4, 4)
    assert (same, exact.log_sd) == (1, 0)


def test_the_power_is_that_of_the_shipped_records():
    folders = [folder for folder in REFERENCE.iterdir() if folder.name.startswith("amd-epyc")]
    found = summarize(load_records([folder / "default" for folder in folders]).records)
    speeds = defaultdict(dict)
    for cell in found:
        if cell.kind == "fine_tune" and cell.samples_per_s:
            speeds[cell.cell][cell.machine_id] = cell.samples_per_s.value
    powers = [
        math.log2(speed / by_machine[one])
        for by_machine in speeds.values()
        for one in by_machine if one.startswith("amd-epyc-1c")
        for machine, speed in by_machine.items() if machine.startswith("amd-epyc-2c")
    ]  # fmt: skip
    assert len(powers) == 8
    assert fmean(powers) == pytest.approx(POWER, abs=0.02)
    assert max(abs(power - POWER) for power in powers) < POWER_SD
