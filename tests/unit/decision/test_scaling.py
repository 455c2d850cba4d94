"""Scaling series against hand-computed values: speed-up, efficiency and cost."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.estimate import Estimate, intervals_disjoint, ratio_estimate
from harness.analysis.summarize import summarize
from harness.decision.scaling import best_cost, communication_fraction, num_devices, scaling_series, several_gpus_ran
from harness.pricing.cost import Price, price
from harness.store.record_files import load_records
from tests.make_records import MIB, make_machine, make_record

HOURLY = Price(3.6, "p3.8xlarge", "aws", "us-east-1", "stated", "2026-07", "list", None)  # a thousandth a second
FOUR_GPUS = make_machine(machine_id="4x-v100-000001", gpus=["Tesla V100-SXM2-16GB"] * 4)


def priced(records, rates=None):
    """Price at 3.6 USD/h, with throughputs replaced by (value, low, high) of `rates`, by device and batch."""
    cells = price(summarize(records), lambda _summary: HOURLY)
    if rates is None:
        return cells
    given = [
        replace(
            summary,
            samples_per_s=Estimate(*rates[summary.config.device, summary.config.named_batch_size], "given"),
            run_spread=None,
        )
        for summary in (cell.summary for cell in cells)
    ]
    return price(given, lambda _summary: HOURLY)


def cell(device, batch_size, **more):
    """Make a cell with steps of 1 s, so that samples/s equal the global batch."""
    return make_record(axes={"device": device, "batch_size": batch_size}, **more)


RATES = {
    ("cpu", 32): (80.0, 76.0, 84.0),
    ("cpu", 16): (60.0, 57.0, 63.0),
    ("cpu-ddp2", 16): (72.0, 70.0, 74.0),
}


@pytest.fixture
def both():
    """Make strong scaling at 32 and weak scaling at 16, which share the cell with two ranks."""
    return scaling_series(priced([cell("cpu", 32), cell("cpu", 16), cell("cpu-ddp2", 16)], RATES))


def test_the_cell_that_both_studies_share_stands_in_both(both):
    strong, weak = both
    assert [(one.kind, one.device, one.batch_size) for one in both] == [("strong", "cpu", 32), ("weak", "cpu", 16)]
    assert [point.num_devices for point in strong.points] == [1, 2]
    assert [(p.device_batch_size, p.global_batch_size) for p in strong.points] == [(32, 32), (16, 32)]
    assert [(p.device_batch_size, p.global_batch_size) for p in weak.points] == [(16, 16), (16, 32)]
    assert strong.more[0].cell is weak.more[0].cell


def test_speed_up_efficiency_and_cost_by_hand(both):
    strong, weak = both[0].more[0], both[1].more[0]
    # 72 / 80 = 0.9. Below: exp(-sqrt(ln(72/70)^2 + ln(84/80)^2)) = exp(-0.0563359); above: ln(74/72) and ln(80/76).
    assert (strong.speed_up.value, strong.speed_up.low, strong.speed_up.high) == pytest.approx(
        (0.9, 0.9 * math.exp(-0.0563359), 0.9 * math.exp(0.0581611)), rel=1e-5
    )
    assert strong.efficiency.value == pytest.approx(0.45)
    assert strong.efficiency.low == pytest.approx(0.45 * math.exp(-0.0563359), rel=1e-5)
    assert strong.cost_ratio.value == pytest.approx(1 / 0.9)
    assert strong.cost_ratio.high == pytest.approx(1 / (0.9 * math.exp(-0.0563359)), rel=1e-5)
    assert (weak.speed_up.value, weak.efficiency.value) == (pytest.approx(1.2), pytest.approx(0.6))
    # ln(80 / 72) = 0.105 is 3.5 standard errors, sqrt(ln(74/72)^2 + ln(80/76)^2) / 1.96; ln(72 / 60) = 0.182 is 6.3.
    assert (strong.cost, weak.cost) == ("more", "less")


def test_the_base_has_no_ratios_of_its_own(both):
    base = both[0].base
    assert (base.speed_up.value, base.efficiency.value, base.cost_ratio.value, base.cost) == (1.0, 1.0, 1.0, "level")
    assert (base.speed_up.low, base.speed_up.high) == (None, None)


def test_differences_within_the_noise_are_level_and_so_are_missing_intervals():
    records = [cell("cpu", 32), cell("cpu-ddp2", 16)]
    (touching,) = scaling_series(priced(records, RATES | {("cpu-ddp2", 16): (74.0, 69.0, 79.0)}))
    (unknown,) = scaling_series(priced(records, RATES | {("cpu-ddp2", 16): (40.0, None, None)}))
    assert [one.more[0].cost for one in (touching, unknown)] == ["level", "level"]
    assert unknown.more[0].speed_up.low is None


def test_cost_ratios_agree_with_the_cells_costs(both):
    point = both[0].more[0]
    # A thousandth of a dollar a second, 72 samples a second.
    assert point.cell.usd_per_1000_samples.value == pytest.approx(1 / 72)


def test_cells_that_differ_in_more_than_devices_and_batch_are_no_series():
    sections = {"training": {"lr": 1e-3}}
    assert scaling_series(priced([cell("cpu", 32), cell("cpu-ddp2", 16, sections=sections)])) == []
    assert scaling_series(priced([cell("cpu", 32), cell("cpu-ddp2", 24)])) == []
    assert scaling_series(priced([cell("cpu", 32), cell("cpu", 16)])) == []
    other = make_machine(machine_id="other-000001")
    assert scaling_series(priced([cell("cpu", 32), cell("cpu-ddp2", 16, machine=other)])) == []


def test_failed_cells_are_no_points():
    lost = cell("cpu-ddp2", 16, outcome="oom", reason="no memory")
    assert scaling_series(priced([cell("cpu", 32), lost])) == []


def test_a_global_batch_that_is_not_shared_out_evenly_is_strong_scaling_alone():
    uneven = make_record(axes={"device": "cpu-ddp3", "batch_size": None, "global_batch_size": 32})
    series = scaling_series(priced([cell("cpu", 32), cell("cpu", 11), uneven]))
    assert [(one.kind, one.batch_size, len(one.points)) for one in series] == [("strong", 32, 2)]
    point = series[0].more[0]
    assert (point.num_devices, point.device_batch_size, point.global_batch_size) == (3, 11, 32)


def test_cpu_and_gpu_are_separate_series():
    records = [
        *(cell("cpu", 32, machine=FOUR_GPUS), cell("cpu-ddp2", 16, machine=FOUR_GPUS)),
        *(cell("gpu", 32, machine=FOUR_GPUS), cell("gpu-ddp2", 16, machine=FOUR_GPUS)),
    ]
    series = scaling_series(priced(records))
    assert [(one.device, one.kind) for one in series] == [("cpu", "strong"), ("gpu", "strong")]
    assert series[0].more[0].share_cost_ratio is None
    # Twice the batch in the same second: at the price of the GPUs in use alone, 1 / efficiency.
    assert series[1].more[0].share_cost_ratio.value == pytest.approx(1 / series[1].more[0].efficiency.value)


def test_all_gpus_are_as_many_as_the_run_used():
    axes = {"device": "gpu-ddp", "batch_size": None, "global_batch_size": 32}
    whole = make_record(axes=axes, machine=FOUR_GPUS, training={"world_size": 4})
    (series,) = scaling_series(priced([cell("gpu", 32, machine=FOUR_GPUS), whole]))
    assert [(p.num_devices, p.device_batch_size) for p in series.points] == [(1, 32), (4, 8)]
    assert several_gpus_ran(priced([whole]))


def test_two_ranks_on_one_gpu_are_not_two_devices():
    one_gpu = make_machine(machine_id="a10g-000001", gpus=["NVIDIA A10G"])
    cells = priced([cell("gpu", 32, machine=one_gpu), cell("gpu-ddp2", 16, machine=one_gpu)])
    assert num_devices(cells[1].summary) is None
    assert scaling_series(cells) == []
    assert not several_gpus_ran(cells)


def test_without_one_device_the_fewest_are_the_base():
    (series,) = scaling_series(priced([cell("cpu-ddp2", 16), cell("cpu-ddp4", 8)]))
    assert series.base.num_devices == 2
    # 32 samples a step on both, steps of 1 s on both.
    assert (series.more[0].speed_up.value, series.more[0].efficiency.value) == (1.0, 0.5)


def test_of_equal_devices_and_batch_the_one_without_ddp_is_shown():
    (series,) = scaling_series(priced([cell("cpu", 32), cell("cpu-ddp1", 32, minutes=5), cell("cpu-ddp2", 16)]))
    assert series.base.cell.summary.config.device == "cpu"


def test_the_cheapest_number_of_devices_is_clearly_cheaper_than_the_base():
    records = [cell("cpu", 32), cell("cpu-ddp2", 16), cell("cpu-ddp4", 8)]
    rates = {
        ("cpu", 32): (50.0, 48.0, 52.0),
        ("cpu-ddp2", 16): (80.0, 78.0, 82.0),
        ("cpu-ddp4", 8): (90.0, 40.0, 140.0),
    }
    (series,) = scaling_series(priced(records, rates))
    assert best_cost(series).num_devices == 2
    (level,) = scaling_series(priced(records[::2], rates))
    assert best_cost(level) is level.base


@pytest.mark.parametrize(
    ("sync", "no_sync", "fraction"),
    [([1.0, 1.25, 9.0], [1.0, 0.5, 1.0], 0.2), ([1.0], [1.5], 0.0), ([2.0], [2.0], 0.0)],
)
def test_exposed_communication_by_hand(sync, no_sync, fraction):
    # Medians 1.25 and 1.0: (1.25 - 1) / 1.25. Noise below 0 is 0.
    (summary,) = summarize([cell("cpu-ddp2", 16, training={"communication": (sync, no_sync)})])
    assert communication_fraction(summary) == pytest.approx(fraction)


def test_exposed_communication_is_the_mean_of_the_runs():
    runs = [
        cell("cpu-ddp2", 16, repeat=0, training={"communication": ([1.0], [0.8])}),
        cell("cpu-ddp2", 16, repeat=1, training={"communication": ([1.0], [1.1])}),
        cell("cpu-ddp2", 16, repeat=2),
    ]
    (summary,) = summarize(runs)
    assert communication_fraction(summary) == pytest.approx(0.05)
    (alone,) = summarize([cell("cpu", 16)])
    assert communication_fraction(alone) is None


def test_a_ratio_by_hand():
    # a = 100 (90 to 120), b = 50 (45 to 52): 2; below hypot(ln(10/9), ln(1.04)), above hypot(ln(1.2), ln(10/9)).
    found = ratio_estimate(Estimate(100.0, 90.0, 120.0, ""), Estimate(50.0, 45.0, 52.0, ""))
    assert (found.value, found.low, found.high) == pytest.approx(
        (2.0, 2 * math.exp(-0.1124212), 2 * math.exp(0.2105728)), rel=1e-5
    )


def test_a_ratio_never_reaches_below_nought_and_needs_both_intervals():
    wide, narrow = Estimate(10.0, 0.0, 20.0, ""), Estimate(10.0, 5.0, 15.0, "")
    assert ratio_estimate(wide, narrow).low == 0.0
    assert ratio_estimate(narrow, wide).high is None
    assert (
        ratio_estimate(wide, Estimate(10.0, None, None, "")).low,
        ratio_estimate(Estimate(10.0, None, None, ""), wide).high,
    ) == (
        None,
        None,
    )


def test_intervals_are_disjoint_only_without_a_common_point():
    low, high = Estimate(1.0, 0.5, 1.5, ""), Estimate(3.0, 2.0, 4.0, "")
    assert intervals_disjoint(low, high)
    assert intervals_disjoint(high, low)
    assert not intervals_disjoint(low, Estimate(1.75, 1.5, 2.0, ""))
    assert not intervals_disjoint(low, Estimate(30.0, None, None, ""))


def test_peak_memory_is_that_of_all_ranks(both):
    assert both[0].more[0].cell.summary.peak_memory_bytes == 2 * 600 * MIB


def reference_series(study):
    records = load_records([Path("results/reference/amd-epyc-2c-24g-dbbbf2") / study]).records
    return scaling_series(price(summarize(records), lambda _summary: HOURLY))


@pytest.mark.parametrize("study", ["default", "ddp"])
def test_two_processes_of_the_reference_are_not_ranked(study):
    """Before, one run each of the default study were ranked: "more processes do not pay"; three repeats can't tell."""
    series = reference_series(study)
    assert [[point.cost for point in one.more] for one in series] == [["level"], ["level"]]
    assert best_cost(series[0]) is series[0].base


def test_single_runs_are_ranked_only_beyond_the_spread_between_runs():
    # One run each, 10 % assumed: clear from exp(1.96 x 0.1 x sqrt(2)) = 1.32 on.
    level, clear = (
        scaling_series(priced([cell("cpu", 32), cell("cpu-ddp2", 16, training={"seconds": [step_s] * 40})]))[0].more[0]
        for step_s in (1 / 1.3, 1 / 1.35)
    )
    assert (level.cost, clear.cost) == ("level", "less")


def test_four_numbers_of_devices_are_six_comparisons():
    # 1 against 2, 4 and 8: 28 % apart would be clear alone (z = 2.5, p = 0.01), and is not among six pairs.
    records = [cell(device, 32) for device in ("cpu", "cpu-ddp2")]
    records += [cell(device, 32) for device in ("cpu-ddp4", "cpu-ddp8")]
    speed = {"cpu": 100.0, "cpu-ddp2": 128.0, "cpu-ddp4": 110.0, "cpu-ddp8": 112.0}
    rates = {(device, 32): (value, value / 1.1466, value * 1.1466) for device, value in speed.items()}
    (all_four,) = scaling_series(priced(records, rates))
    assert [point.cost for point in all_four.more] == ["level"] * 3
    (two,) = scaling_series(priced(records[:2], rates))
    assert [point.cost for point in two.more] == ["less"]


def over_nodes(one, two, four):
    """Make strong scaling at 32 over 1, 2 and 2 x 2 processes, each with its (value, low, high) in samples/s."""
    rates = {("cpu", 32): one, ("cpu-ddp2", 16): two, ("cpu-ddp2x2", 8): four}
    (series,) = scaling_series(priced([cell("cpu", 32), cell("cpu-ddp2", 16), cell("cpu-ddp2x2", 8)], rates))
    return series


def test_scaling_goes_on_over_machines_each_of_which_is_paid_for():
    series = over_nodes((40.0, 39.0, 41.0), (72.0, 70.0, 74.0), (108.0, 106.0, 110.0))
    assert [(point.num_devices, point.num_nodes) for point in series.points] == [(1, 1), (2, 1), (4, 2)]
    two, four = series.more
    assert (four.speed_up.value, four.efficiency.value) == (pytest.approx(2.7), pytest.approx(0.675))
    # Twice the machines at 2.7 times the speed: 2 / 2.7 of the cost of one process, more than two processes' 1 / 1.8.
    assert (two.cost_ratio.value, four.cost_ratio.value) == (pytest.approx(1 / 1.8), pytest.approx(2 / 2.7))
    assert four.cell.usd_per_1000_samples.value == pytest.approx(1000 * 2 * 0.001 / 108)
    assert (two.cost, four.cost) == ("less", "less")
    assert best_cost(series) is two and series.costs_more(four, two)


def test_a_second_machine_can_be_faster_and_still_cost_more():
    series = over_nodes((72.0, 71.0, 73.0), (72.0, 71.0, 73.0), (100.0, 98.0, 102.0))
    assert [point.cost for point in series.more] == ["level", "more"]  # 100 / 2 of 72 a machine


def test_equal_numbers_of_devices_on_one_and_on_two_machines_are_two_points():
    rates = {
        ("cpu", 32): (40.0, 39.0, 41.0),
        ("cpu-ddp2", 16): (70.0, 69.0, 71.0),
        ("cpu-ddp1x2", 16): (60.0, 59.0, 61.0),
    }
    (series,) = scaling_series(priced([cell("cpu", 32), cell("cpu-ddp1x2", 16), cell("cpu-ddp2", 16)], rates))
    assert [(point.num_devices, point.num_nodes) for point in series.points] == [(1, 1), (2, 1), (2, 2)]


def test_gpus_of_all_machines_are_devices():
    two = make_record(axes={"device": "gpu-ddp4x2", "batch_size": 4}, machine=FOUR_GPUS)
    assert num_devices(summarize([two])[0]) == 8
