"""Comparing two sets of records: pairs and verdicts."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from harness.analysis.summarize import summarize
from harness.decision.compare import CompareOptions, compare
from harness.decision.pairing import pair_cells
from harness.errors import UserError
from harness.pricing.cost import price
from harness.pricing.prices import Price
from tests.make_records import MIB, make_baseline, make_machine, make_record

HERE, THERE = make_machine(), make_machine(machine_id="xeon-2c-8g-000002", host="host-b")


def dollars(hourly):
    return Price(
        usd_per_hour=hourly, instance=None, provider=None, region=None, basis="stated", as_of=None, source="by hand",
        note=None, usd_per_hour_on_demand=hourly,
    )  # fmt: skip


def cells(*records, hourly=3.6):
    return price(summarize(records), lambda _: dollars(hourly))


def runs(*step_s, axes=None, machine=HERE, minutes=0.0, peak=600, **fields):
    """Make one record per value: 40 steps of that many seconds, as repeats 15 minutes apart."""
    return [
        make_record(
            repeat=repeat, minutes=minutes + 15 * repeat, axes=axes, machine=machine,
            training={"seconds": [one] * 40, "peaks": [(0, "rss", peak * MIB)]}, **fields,
        )
        for repeat, one in enumerate(step_s)
    ]  # fmt: skip


def judged(one, other, hourly=(3.6, 3.6), **asked):
    sides = [cells(*side, hourly=by) for side, by in zip((one, other), hourly, strict=True)]
    return compare(pair_cells(*sides), CompareOptions(**asked))


def verdicts(found, key="samples_per_s"):
    return {one.a.summary.cell: one.figures[key].verdict for one in found.cells}


BEFORE = (1.000, 1.001, 0.999)


def test_a_slower_cell_its_ratio_and_its_dollars():
    found = judged(runs(*BEFORE), runs(1.100, 1.101, 1.099, minutes=60))
    (cell,) = found.cells
    assert cell.speed.verdict == "slower" and cell.speed.reason is None
    assert cell.speed.a == pytest.approx(16.0, rel=1e-3)
    assert cell.speed.change.value == pytest.approx(1 / 1.1, rel=1e-5)
    assert 0.905 < cell.speed.change.low < 1 / 1.1 < cell.speed.change.high < 0.913
    # 3.6 USD an hour over 16 samples a second: 1 USD / 16 a thousand.
    usd = cell.figures["usd_per_1000_samples"]
    assert usd.verdict == "dearer"
    assert usd.a == pytest.approx(1 / 16, rel=1e-3)
    assert usd.change.value == pytest.approx(1.1, rel=1e-5)
    assert usd.change.high == pytest.approx(1 / cell.speed.change.low)
    assert judged(runs(1.1, 1.101, 1.099), runs(*BEFORE)).cells[0].speed.verdict == "faster"


def test_the_sides_own_figures_are_geometric_means():
    (cell,) = judged(runs(1.0, 2.0, 4.0), runs(1.0, 1.0, 1.0, minutes=60)).cells
    assert (cell.speed.a, cell.speed.b) == (pytest.approx(8.0), pytest.approx(16.0))
    assert cell.speed.change.value == pytest.approx(2.0)


def test_dollars_follow_each_sides_own_price():
    found = judged(runs(*BEFORE), runs(*BEFORE, minutes=60), hourly=(3.6, 7.2))
    assert verdicts(found) == {found.cells[0].a.summary.cell: "no difference"}
    usd = found.cells[0].figures["usd_per_1000_samples"]
    assert usd.verdict == "dearer" and usd.change.value == pytest.approx(2.0)


class TestExamplePrices:
    NOTE = "Costs of different machines are not compared where a price is an example: state both prices."

    def found(self, machine):
        example = replace(dollars(3.6), basis="assumed")
        sides = [
            price(summarize(runs(*BEFORE, machine=one, minutes=minutes)), lambda _: example)
            for one, minutes in ((HERE, 0), (machine, 60))
        ]
        return compare(pair_cells(*sides))

    def test_costs_of_two_machines_are_not_compared(self):
        found = self.found(THERE)
        assert "usd_per_1000_samples" not in found.cells[0].figures and "usd_per_1000_samples" not in found.overall
        assert found.cells[0].speed.verdict == "no difference"
        assert self.NOTE in found.pairing.notes

    def test_on_one_machine_they_are(self):
        found = self.found(HERE)
        assert found.cells[0].figures["usd_per_1000_samples"].verdict == "no difference"
        assert self.NOTE not in found.pairing.notes


@pytest.mark.parametrize(
    ("theirs", "margin", "said"),
    [
        ((1.010, 1.011, 1.009), 0.03, "no difference"),  # surely another speed, and surely by less than counts
        ((1.010, 1.011, 1.009), 0.005, "slower"),
        ((1.000, 1.050, 0.950), 0.03, "cannot tell"),
        ((1.000, 1.050, 0.950), 0.50, "no difference"),
        ((1.030, 1.031, 1.029), 0.03, "slower"),
    ],
)
def test_no_difference_only_where_the_whole_interval_lies_within_the_margin(theirs, margin, said):
    (cell,) = judged(runs(*BEFORE), runs(*theirs, minutes=60), margin=margin).cells
    assert cell.speed.verdict == said
    if said == "cannot tell":
        assert cell.speed.reason == "the interval holds 1 and leaves the margin"


@pytest.mark.parametrize("num", [1, 2])
def test_too_few_runs_are_inconclusive(num):
    found = judged(runs(*BEFORE), runs(*[2.0, 2.001][:num], minutes=60), fail_above=0.03)
    (cell,) = found.cells
    assert cell.speed.verdict == "cannot tell"
    assert cell.speed.reason.endswith("spread between runs unknown, repeat with repeats = 3")
    assert not cell.speed.is_certain and not found.failed and found.num_decidable == 0
    assert cell.figures["peak_memory_bytes"].verdict == "cannot tell"
    assert found.overall["samples_per_s"].verdict == "cannot tell"
    told = judged(runs(*BEFORE), runs(2.0, minutes=60), run_spread=0.02, fail_above=0.03)
    assert told.cells[0].speed.verdict == "slower" and told.failed


def test_verdicts_are_corrected_for_the_number_of_cells():
    """A p-value of 0.02 is significant for one cell, and not for three."""

    def side(factor, minutes):
        # sd 0.02 a side: Welch's t at 4 degrees of freedom is 3.75 for 0.0612.
        steps = [math.exp(factor + one) for one in (-0.02, 0.0, 0.02)]
        return [
            record
            for size in (8, 16, 32)
            for record in runs(*(steps if size == 8 else [math.exp(one) for one in (-0.02, 0.0, 0.02)]),
                               axes={"batch_size": size}, minutes=minutes)
        ]  # fmt: skip

    found = judged(side(0.0, 0), side(0.0612, 60))
    by_size = {one.a.summary.config.batch_size: one for one in found.cells}
    assert by_size[8].speed.verdict == "cannot tell"
    assert by_size[8].speed.reason == "clear alone, but not among 3 cells"
    assert by_size[8].speed.p_value == pytest.approx(3 * 0.0199, rel=0.02)
    only = judged(side(0.0, 0)[:3], side(0.0612, 60)[:3])
    assert only.cells[0].speed.verdict == "slower"


def test_overall_is_the_geometric_mean():
    def side(small, large, minutes=0.0):
        spread = (0.999, 1.0, 1.001)
        return [
            *runs(*(small * one for one in spread), axes={"batch_size": 8}, minutes=minutes),
            *runs(*(large * one for one in spread), axes={"batch_size": 32}, minutes=minutes),
        ]

    found = judged(side(1, 1), side(2, 0.5, 60))
    assert set(verdicts(found).values()) == {"slower", "faster"}
    assert found.overall["samples_per_s"].change.value == pytest.approx(1.0)
    assert found.overall["samples_per_s"].verdict == "no difference"
    assert judged(side(1, 1), side(2, 2, 60)).overall["samples_per_s"].change.value == pytest.approx(0.5)


def test_memory_by_runs_and_by_one_instrument():
    found = judged(runs(*BEFORE, peak=600), runs(*BEFORE, peak=660, minutes=60))
    memory = found.cells[0].figures["peak_memory_bytes"]
    assert (memory.verdict, memory.change.value) == ("more", pytest.approx(1.1))
    assert (memory.a, memory.b) == (pytest.approx(600 * MIB), pytest.approx(660 * MIB))
    other = [
        record.model_copy(
            update={"training": record.training.model_copy(
                update={"peak_memory": tuple(
                    peak.model_copy(update={"source": "pss"}) for peak in record.training.peak_memory)})}
        )
        for record in runs(*BEFORE, minutes=60)
    ]  # fmt: skip
    assert "peak_memory_bytes" not in judged(runs(*BEFORE), other).cells[0].figures


def test_warnings_of_cells_are_counted():
    short = [make_record(training={"seconds": [1.0] * 12}), *runs(*BEFORE, axes={"batch_size": 8})]
    notes = pair_cells(cells(*short), cells(*runs(*BEFORE), *runs(*BEFORE, axes={"batch_size": 8}))).notes
    assert any(note.startswith("1 of A's 2 cells have warnings") for note in notes)


def test_hosts_of_one_side_are_its_repeats():
    hosts = [make_machine(host=f"host-{name}") for name in "abc"]
    many = [record for host in hosts[:2] for record in runs(*BEFORE, machine=host)]
    found = judged(many, runs(1.5, 1.501, 1.499, machine=hosts[0], minutes=60))
    assert found.cells[0].speed.verdict == "cannot tell"
    assert found.cells[0].speed.reason == "one host: spread between hosts unknown, measure 3 a side"
    three = [[record for host in hosts for record in runs(*(by * one for one in BEFORE), machine=host, minutes=at)]
             for by, at in ((1.0, 0), (1.5, 60))]  # fmt: skip
    told = judged(*three).cells[0].speed
    assert (told.verdict, told.change.basis) == ("slower", "between 3 and 3 hosts (Welch)")


class TestFailAbove:
    def test_only_significant_slow_downs_fail(self):
        def fails(*theirs, above=0.03):
            return judged(runs(*BEFORE), runs(*theirs, minutes=60), fail_above=above).failed

        assert fails(1.10, 1.101, 1.099)
        assert not fails(1.02, 1.021, 1.019)
        assert not fails(0.9, 0.901, 0.899)
        # Slower by 4 % and certainly so, but perhaps by less than 3 %.
        found = judged(runs(*BEFORE), runs(1.04, 1.05, 1.03, minutes=60), fail_above=0.03)
        assert found.cells[0].speed.verdict == "slower" and not found.failed
        assert fails(1.04, 1.05, 1.03, above=0.0)

    def test_a_cell_that_no_longer_runs_fails(self):
        lost = [make_record(outcome="oom", reason="killed", minutes=60)]
        two = [*runs(*BEFORE), *runs(*BEFORE, axes={"batch_size": 8})]
        found = judged(two, [*lost, *runs(*BEFORE, axes={"batch_size": 8}, minutes=60)], fail_above=0.03)
        assert found.failed and [one.other.summary.outcome for one in found.lost] == ["oom"]
        assert not judged(two, [*lost, *runs(*BEFORE, axes={"batch_size": 8}, minutes=60)]).failed


class TestPairing:
    def test_by_configuration_whatever_the_seed_or_study(self):
        theirs = [make_record(seed=5, study="another", minutes=60)]
        assert len(pair_cells(cells(make_record()), cells(*theirs)).pairs) == 1

    def test_cells_on_one_side_alone(self):
        one = [*runs(1.0), *runs(1.0, axes={"batch_size": 8})]
        other = [*runs(1.0), *runs(1.0, axes={"batch_size": 64})]
        found = pair_cells(cells(*one), cells(*other))
        assert [(one.side, one.cell.summary.config.batch_size) for one in found.alone] == [("A", 8), ("B", 64)]

    def test_a_gpu_beside_a_cpu_unless_it_is_not_clear_which(self):
        gpu = make_machine(machine_id="gpu-box", gpus=["NVIDIA A10G"])
        on_gpu = [make_record(machine=gpu, axes={"device": "gpu"})]
        assert len(pair_cells(cells(make_record()), cells(*on_gpu)).pairs) == 1
        both = [*on_gpu, make_record(machine=gpu)]
        found = pair_cells(cells(make_record()), cells(*both))
        assert [b.summary.config.device for _, b in found.pairs] == ["cpu"]

    def test_several_machines_must_be_narrowed_to_one(self):
        both = cells(make_record(machine=HERE), make_record(machine=THERE))
        with pytest.raises(UserError, match=r"A holds records of several machines: choose one by --machine-a"):
            pair_cells(both, cells(make_record(machine=THERE)))
        assert len(pair_cells(both, cells(make_record(machine=THERE)), "xeon").pairs) == 1
        with pytest.raises(UserError, match=r"machine 'c-' matches several of those found: epyc-4c"):
            pair_cells(both, both, "c-", "xeon")
        with pytest.raises(UserError, match=r"B: machine 'arm' matches none of those found"):
            pair_cells(both, both, "xeon", "arm")

    def test_the_same_machines_on_both_sides_are_compared_one_by_one(self):
        both = [make_record(machine=HERE), make_record(machine=THERE)]
        found = pair_cells(cells(*both), cells(*both))
        assert all(a.summary.machine_id == b.summary.machine_id for a, b in found.pairs) and len(found.pairs) == 2

    def test_nothing_to_compare(self):
        with pytest.raises(UserError, match="A: no record of a fine-tuning cell"):
            pair_cells(cells(make_baseline()), cells(make_record()))
        lost = cells(make_record(outcome="oom", reason="killed"))
        with pytest.raises(UserError, match="nothing to compare"):
            pair_cells(lost, lost)

    def test_differences_by_side_of_one_machine_at_two_times(self):
        theirs = make_record(minutes=60, packages={"torch": "2.12.0"}, sections={"training": {"epochs": 3}})
        found = pair_cells(cells(make_record()), cells(theirs))
        told = {one.key: {value.shown: value.machine_ids for value in one.values} for one in found.differences}
        assert told["torch"] == {"2.13.0": ("A",), "2.12.0": ("B",)}
        assert told["training.epochs of study study"] == {"2.0": ("A",), "3.0": ("B",)}
        assert "machine" not in told and not found.pairs

    def test_environment_variables_by_side_of_one_machine(self):
        bound = HERE.model_copy(update={"environment": {"OMP_PROC_BIND": "true"}})
        free = HERE.model_copy(update={"environment": {}})
        found = pair_cells(cells(make_record(machine=bound)), cells(make_record(machine=free, minutes=60)))
        told = {one.key: {value.shown: value.machine_ids for value in one.values} for one in found.differences}
        assert told == {"variable OMP_PROC_BIND": {"true": ("A",), "not set": ("B",)}}

    def test_another_machine_and_another_host(self):
        found = pair_cells(cells(make_record()), cells(make_record(machine=THERE)))
        assert {"machine", "host"} <= {one.key for one in found.differences}

    def test_notes_on_the_same_runs_and_on_blocks_of_time(self):
        one, later = runs(*BEFORE), runs(*BEFORE, minutes=60)
        assert pair_cells(cells(*one), cells(*one)).notes[0].startswith("3 runs stand on both sides")
        assert pair_cells(cells(*one), cells(*later)).notes[0].startswith("All runs of A were made before those of B")
        assert pair_cells(cells(*later), cells(*one)).notes[0].startswith("All runs of B were made before those of A")
        assert pair_cells(cells(*one), cells(*runs(*BEFORE, minutes=0.5))).notes == ()
