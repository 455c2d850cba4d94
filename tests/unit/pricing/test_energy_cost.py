"""Energy by each instrument against hand-computed values."""

from __future__ import annotations

import pytest

from harness.analysis.summarize import summarize
from harness.errors import Unavailable
from harness.pricing.cost import price
from harness.pricing.energy_cost import READINGS, joules_of_readings, measure_joules
from harness.pricing.prices import Price
from harness.schema.assumptions import Assumptions
from tests.make_records import make_baseline, make_machine, make_record

HOURLY = Price(0.36, "m5.xlarge", "aws", "us-east-1", "stated", "2026-07", "list", None, usd_per_hour_on_demand=0.36)
GPUS = make_machine(machine_id="2x-l4-000001", gpus=["NVIDIA L4"] * 2)
COUNTED = {"source": "RAPL", "seconds": 52.0, "cpu_joules": (3000.0,), "dram_joules": (600.0,)}


def use(*records, **energy):
    assumed = Assumptions.model_validate({"prices": {"energy": energy}})
    return price(summarize(records), lambda _summary: HOURLY, assumed)[-1].energy


def reading(at_s, watts, gpu=0):
    fields = ("sm_clock_mhz", "memory_clock_mhz", "temperature_celsius", "used_bytes", "throttle_reasons")
    return {"at_s": at_s, "gpu": gpu, "power_watts": watts} | dict.fromkeys(fields)


def mark(at_s):
    return {"at_s": at_s, "num_steps": 1, "num_samples": 16, "evaluate_s": 0.0, "loss": 0.7}


def on_gpus(readings, device="gpu", **fields):
    return make_record(
        axes={"device": device}, machine=GPUS, marks=[mark(2.0), mark(6.0)], gpu_readings=readings, **fields
    )


def exactly(value):
    return pytest.approx(value, rel=1e-12)


def test_counters_by_hand():
    # 3600 J are 1 Wh, 1.2 Wh with PUE; at 0.15 USD and 400 g a kWh.
    found = use(make_record(energy=COUNTED))
    assert (found.joules.value, found.is_estimate) == (3600.0, False)
    assert found.kwh.value == exactly(0.0012)
    assert found.usd.value == exactly(0.00018)
    assert found.gco2e.value == exactly(0.48)
    assert found.method == "counters (RAPL) of processor and memory, whole run"
    assert (found.joules.low, found.joules.high) == (None, None)


def test_the_method_names_what_the_counters_cover():
    found = use(make_record(energy={"source": "NVML", "seconds": 52.0, "gpu_joules": (100.0, 200.0)}))
    assert (found.joules.value, found.method) == (300.0, "counters (NVML) of GPUs alone, whole run")


def test_power_readings_are_integrated_during_training():
    # 2 to 3 s at 100 W, a ramp to 300 W until 5 s, 5 to 6 s at 300 W; those before and after are not training's.
    record = on_gpus([reading(1.0, 5000.0), reading(3.0, 100.0), reading(5.0, 300.0), reading(7.0, 5000.0)])
    assert joules_of_readings(record) == exactly(100 + 400 + 300)
    found = use(record)
    assert (found.joules.value, found.method, found.is_estimate) == (exactly(800), READINGS, False)


def test_every_gpu_of_the_cell_counts():
    two = [reading(at, watts, gpu) for gpu, watts in ((0, 100.0), (1, 50.0)) for at in (3.0, 5.0)]
    assert joules_of_readings(on_gpus(two, "gpu-ddp2")) == exactly(600)
    assert joules_of_readings(on_gpus(two[:2], "gpu-ddp2")) is None


@pytest.mark.parametrize(
    "readings",
    [
        [],
        [reading(3.0, 100.0)],
        [reading(3.0, None), reading(5.0, None)],
        [reading(1.0, 100.0), reading(7.0, 100.0)],
    ],
    ids=["none", "one", "no answer", "outside"],
)
def test_too_few_readings_are_no_measurement(readings):
    assert joules_of_readings(on_gpus(readings)) is None
    assert use(on_gpus(readings)) is None


def test_a_gap_without_readings_is_not_filled():
    record = on_gpus([reading(2.5, 100.0), reading(3.5, 100.0), reading(20.0, 100.0)])
    record = record.model_copy(update={"marks": (record.marks[0], record.marks[1].model_copy(update={"at_s": 21.0}))})
    assert joules_of_readings(record) is None


def test_counters_go_before_readings_and_both_before_stated_watts():
    readings = [reading(3.0, 100.0), reading(5.0, 300.0)]
    assert use(on_gpus(readings, energy=COUNTED), watts=65).joules.value == 3600.0
    assert use(on_gpus(readings), watts=65).method == READINGS


def test_stated_watts_are_an_estimate_with_its_source():
    found = use(make_record(), watts=65, watts_source="plug meter, 2026-11")
    assert (found.joules.value, found.is_estimate) == (exactly(65 * 54), True)
    assert found.method == "65 W as stated, plug meter, 2026-11, times seconds: an estimate"
    assert found.joules.low <= found.joules.value <= found.joules.high


def test_rated_power_is_never_used():
    assert use(make_record()) is None
    assert use(on_gpus([])) is None


def test_three_runs_have_a_t_interval():
    runs = [make_record(seed=s, minutes=s, energy=COUNTED | {"cpu_joules": (3000.0 + 300 * s,)}) for s in range(3)]
    joules, method = measure_joules(runs)
    # Mean 3900, standard deviation 300, t(2) = 4.302653: half-width 4.302653 x 300 / sqrt(3).
    assert joules.value == exactly(3900)
    assert joules.high - 3900 == pytest.approx(745.2413, abs=1e-3)
    assert (joules.basis, method) == ("between 3 runs", "counters (RAPL) of processor and memory, whole run")


def test_runs_of_another_instrument_are_not_averaged_in():
    old = on_gpus([reading(3.0, 100.0), reading(5.0, 300.0)])
    joules, method = measure_joules([old, on_gpus([], energy=COUNTED)])
    assert (joules.value, method.split(" ")[0]) == (3600.0, "counters")


def test_more_rows_draw_more_at_the_same_mean_power():
    assumed = Assumptions.model_validate({"prices": {"retraining": {"num_rows": 10_000}}})
    (cell,) = price(summarize([make_record(energy=COUNTED)]), lambda _summary: HOURLY, assumed)
    assert cell.energy.joules.value == exactly(3600 * 214 / 54)


def test_energy_needs_no_price_and_a_baseline_has_it_too():
    (cell,) = price(summarize([make_baseline(energy=COUNTED)]), lambda _summary: Unavailable("no row has this machine"))
    assert (cell.price, cell.energy.joules.value) == (None, 3600.0)


def test_a_cell_that_failed_has_none():
    assert use(make_record(outcome="oom", reason="no memory", energy=COUNTED), watts=65) is None
