"""The same cells on several machines: figures and rankings against hand-computed values."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from harness.analysis.summarize import summarize
from harness.decision.side_by_side import PER_1000, SPEED, hosts_of, machine_types, side_by_side, verdicts
from harness.pricing import cost, durations
from harness.pricing.prices import Price
from harness.report.sections.machine_verdicts import cautions
from harness.schema.assumptions import Assumptions
from tests.make_records import make_machine, make_record

A = make_machine(machine_id="epyc-4c-16g-00000a", host="host-a")
B = make_machine(machine_id="xeon-4c-16g-00000b", host="host-b")
C = make_machine(machine_id="arm-4c-16g-00000c", host="host-c")
# A ten-thousandth of a dollar a second.
HOURLY = Price(0.36, None, None, None, "given", None, None, None, usd_per_hour_on_demand=0.36)
DOUBLE = replace(HOURLY, usd_per_hour=0.72, usd_per_hour_on_demand=0.72)
INSTANCE = replace(HOURLY, instance="m5.xlarge", provider="aws", region="us-east-1", basis="stated")


def run(machine, step_s=1.0, spread_s=0.0, **more):
    """Make 40 steps of 16 samples that alternate around `step_s`."""
    seconds = [step_s + (spread_s if step % 4 < 2 else -spread_s) for step in range(40)]
    return make_record(machine=machine, training={"seconds": seconds}, phases={"train_s": 40 * step_s}, **more)


def priced(records, prices=None, assumed=None):
    return cost.price(summarize(records), lambda one: (prices or {}).get(one.machine_id, HOURLY), assumed)


def lay(records, prices=None, **more):
    return side_by_side(priced(records, prices), Assumptions(), **more)


def ranking(found, key):
    return next(one for one in found.rankings if one.figure.key == key)


def verdict(squares, figure):
    return verdicts([squares], figure)[0]


def test_one_machine_has_no_other_beside_it():
    assert lay([run(A), run(A, axes={"batch_size": 32})]) is None


def test_half_the_seconds_at_twice_the_price_cost_the_same():
    found = lay([run(A), run(B, 0.5)], {B.id: DOUBLE})
    (line,) = found.shared
    # 0.36 / 3600 x 1000 / 16 = 0.72 / 3600 x 1000 / 32
    assert [PER_1000.read(cell).value for cell in line.squares] == [pytest.approx(0.00625), pytest.approx(0.00625)]
    assert [SPEED.read(cell).value for cell in line.squares] == [16.0, 32.0]
    assert verdict(line.squares, SPEED) == (1, ())
    assert verdict(line.squares, PER_1000)[1] != ()
    # 4 s of set-up, 40 or 20 of training, 10 of evaluation
    assert [ranking(found, "run").estimate(i).value for i in (0, 1)] == [pytest.approx(0.0054), pytest.approx(0.0068)]
    assert (ranking(found, "run").first, ranking(found, "run").level) == (0, ())


def test_an_example_price_ranks_no_machines_by_cost():
    example = replace(HOURLY, basis="assumed")
    found = lay([run(A), run(B, 0.5)], {B.id: example})
    (line,) = found.shared
    assert verdict(line.squares, PER_1000) == (None, ())
    assert verdict(line.squares, SPEED) == (1, ())
    for key in ("per_1000", "run", "to_target"):
        assert (ranking(found, key).first, ranking(found, key).level) == (None, ())
    assert [ranking(found, "run").estimate(i).value for i in (0, 1)] == [pytest.approx(0.0054), pytest.approx(0.0034)]
    assert cautions(found, ["A", "B"])[0] == (
        "The price of B is an example, so machines are not ranked by cost: enter your prices."
    )
    assert (ranking(lay([run(A), run(B, 0.5)]), "run").first) == 1


def test_overlapping_intervals_are_not_ranked():
    found = lay([run(A, 1.0, 0.3), run(B, 0.97, 0.3)])
    assert (ranking(found, "fastest").first, ranking(found, "fastest").level) == (1, (0,))
    clear = lay([run(A, 1.0, 0.05), run(B, 0.5, 0.05)])
    assert (ranking(clear, "fastest").first, ranking(clear, "fastest").level) == (1, ())


def test_single_runs_are_ranked_only_beyond_the_spread_between_runs():
    """Before, runs without noise were ranked at any difference: the interval of a single run was its value alone."""
    assert ranking(lay([run(A), run(B, 0.8)]), "fastest").level == (0,)
    assert ranking(lay([run(A), run(B, 0.7)]), "fastest").level == ()


def test_the_lines_of_one_table_are_one_family_of_comparisons():
    # 0.74 is exp(0.301): z = 2.13, p = 0.033 alone, and 0.066 where a second line is compared too.
    alone = lay([run(A), run(B, 0.74)])
    assert verdicts([line.squares for line in alone.shared], SPEED) == [(1, ())]
    both = lay(
        [
            one
            for size in (16, 32)
            for one in (run(A, axes={"batch_size": size}), run(B, 0.74, axes={"batch_size": size}))
        ]
    )
    assert len(both.shared) == 2
    small = lay([run(A), run(B, 0.74), run(A, axes={"batch_size": 32}), run(B, axes={"batch_size": 32})])
    assert {level for _, level in verdicts([line.squares for line in small.shared], SPEED)} == {(0,), (1,)}


def test_each_machine_is_ranked_by_its_best_of_the_shared_cells_alone():
    records = [run(A), run(A, 0.5, axes={"seq_len": 32}), run(B, 0.8), run(B, 0.1, axes={"seq_len": 128})]
    found = lay(records)
    assert [cell.summary.config.seq_len for cell in ranking(found, "fastest").best] == [64, 64]
    assert (len(found.lines), found.num_alone) == (1, 2)


def test_training_only_the_head_does_not_rank_machines():
    records = [one for machine in (A, B) for one in (run(machine), run(machine, 0.1, axes={"trainable": "head"}))]
    found = lay(records)
    assert len(found.shared) == 2
    assert {cell.summary.config.trainable for cell in ranking(found, "fastest").best} == {"all"}
    head = lay([run(machine, axes={"trainable": "head"}) for machine in (A, B)])
    assert {cell.summary.config.trainable for cell in ranking(head, "fastest").best} == {"head"}


def test_a_cell_that_one_machine_could_not_run_keeps_its_place_and_reason():
    lost = make_record(machine=B, outcome="oom", reason="killed at 1.5 GiB", axes={"batch_size": 32})
    found = lay([run(A), run(A, axes={"batch_size": 32}), run(B), lost])
    assert (len(found.lines), len(found.shared)) == (2, 1)
    (line,) = (line for line in found.lines if len(line.measured) == 1)
    assert (line.squares[1].summary.outcome, line.squares[1].summary.reason) == ("oom", "killed at 1.5 GiB")
    assert verdict(line.squares, SPEED) == (None, ())


def test_a_cell_that_no_machine_could_run_is_no_line():
    lost = [make_record(machine=machine, outcome="unsupported", reason="no GPU") for machine in (A, B)]
    found = lay([*lost, run(A, axes={"seq_len": 32}), run(B, axes={"seq_len": 32})])
    assert len(found.lines) == 1


def test_a_gpu_is_compared_with_a_cpu_and_preferred_to_its_own_cpu():
    gpus = make_machine(machine_id="a10g-4c-00000d", gpus=["NVIDIA A10G"])
    on_gpu = run(gpus, 0.1, axes={"device": "gpu"})
    found = lay([run(A), on_gpu, run(gpus, 1.2)])
    (line,) = found.shared
    assert [cell.summary.config.device for cell in line.squares] == ["gpu", "cpu"]


def test_a_deadline_counts_from_the_order_of_a_machine():
    # 180 s of start-up and set-up, and 54 of A's run, 34 of B's; billed 234 and 214 s.
    records, prices = [run(A), run(B, 0.5)], {B.id: DOUBLE}
    in_time = ranking(lay(records, prices, deadline_s=220.0), "in_time")
    assert [in_time.estimate(i) and in_time.estimate(i).value for i in (0, 1)] == [None, pytest.approx(0.0428)]
    assert in_time.first is None
    both = ranking(lay(records, prices, deadline_s=234.0), "in_time")
    assert [both.estimate(i).value for i in (0, 1)] == [pytest.approx(0.0234), pytest.approx(0.0428)]
    assert "in_time" not in {one.figure.key for one in lay(records).rankings}


def test_turnaround_by_plan():
    summary = summarize([run(A)])[0]
    book = Assumptions().prices
    assert durations.turnaround_seconds(summary, None, book).value == pytest.approx(234)
    assert durations.turnaround_seconds(summary, replace(HOURLY, plan="own"), book).value == pytest.approx(54)
    never = book.model_copy(update={"spot": book.spot.model_copy(update={"interruptions_per_hour": 0.0})})
    spot = replace(HOURLY, plan="spot")
    assert durations.turnaround_seconds(summary, spot, never).value == pytest.approx(234)
    assert durations.turnaround_seconds(summary, spot, book).value > 234


class TestHosts:
    def test_machines_of_one_stated_instance_are_hosts_of_one_type(self):
        records = [run(A, 1.0), run(B, 0.8), run(C, 16 / 19)]
        found = lay(records, {A.id: INSTANCE, B.id: INSTANCE})
        assert [(one.machine_ids, one.num_hosts) for one in found.types] == [((C.id,), 1), ((A.id, B.id), 2)]
        (line,) = found.shared
        pooled = next(cell for cell in line.squares if hosts_of(cell) is not None)
        rate, spread = pooled.summary.samples_per_s, hosts_of(pooled)
        # Hosts at 16 and 20 samples a second: 18, reaching over both, so that 19 can't be ranked against it. The spread of
        # 10 % between two runs reaches a little further: 1.959964 x 0.1 / sqrt(2).
        factor = math.exp(1.959964 * 0.1 / math.sqrt(2))
        assert (rate.value, spread.slowest, spread.fastest) == (pytest.approx(18), pytest.approx(16), pytest.approx(20))
        assert (rate.low, rate.high) == (pytest.approx(18 / factor), pytest.approx(18 * factor))
        assert pooled.usd_per_1000_samples.value == pytest.approx(0.1 / 18)
        assert verdict(line.squares, SPEED)[1] != ()

    def test_a_slice_of_an_instance_is_another_type(self):
        part = make_machine(machine_id="epyc-1c-16g-00000e", num_usable=1)
        cells = priced([run(A), run(part, 2.0)], {A.id: INSTANCE, part.id: INSTANCE})
        assert {one.slice for one in machine_types(cells)} == {None, "1 of 4 CPUs"}

    def test_own_and_assumed_machines_are_not_grouped(self):
        for price in (replace(INSTANCE, plan="own"), replace(INSTANCE, basis="assumed")):
            assert len(machine_types(priced([run(A), run(B)], {A.id: price, B.id: price}))) == 2

    def test_two_regions_are_two_types(self):
        other = replace(INSTANCE, region="eu-west-1")
        assert len(machine_types(priced([run(A), run(B)], {A.id: INSTANCE, B.id: other}))) == 2
