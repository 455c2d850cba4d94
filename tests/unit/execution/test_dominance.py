"""Which cells are not tried since a smaller one ran out of memory, and when such a one is done."""

from __future__ import annotations

import pytest

from harness.execution import completed
from harness.execution.completed import find_done, ran_out
from harness.execution.dominance import find_oom_bound
from harness.schema.cells import Cell
from harness.schema.record import MEASURING_VERSION
from tests.make_records import make_machine, make_record

MACHINE = make_machine()


def oom(outcome="oom", **axes):
    return make_record(outcome=outcome, reason="killed", axes=axes, measuring_version=MEASURING_VERSION)


def config(limits=None, **axes):
    return make_record(axes=axes, sections={"limits": limits or {}}).config


@pytest.mark.parametrize(
    ("axes", "dominated"),
    [
        ({"batch_size": 32}, True),
        ({"seq_len": 128}, True),
        ({"batch_size": 32, "seq_len": 128}, True),
        ({"batch_size": 32, "seq_len": 32}, False),
        ({"batch_size": 8, "seq_len": 512}, False),
        ({"batch_size": 32, "precision": "bf16"}, False),
        ({"batch_size": 32, "padding": "max"}, False),
        ({"batch_size": 32, "trainable": "head"}, False),
        ({"batch_size": 32, "device": "cpu-ddp2"}, False),
        ({"batch_size": 32, "seed": 7}, True),
    ],
)
def test_larger_in_batch_or_length_and_smaller_in_neither_all_else_equal(axes, dominated):
    found = find_oom_bound(config(**axes), [oom()], MACHINE)
    assert found == ("larger than b16-s64-fp32-cpu-longest-all, which ran out of memory" if dominated else None)


def test_another_seed_of_the_same_sizes_is_no_smaller():
    found = find_oom_bound(config(seed=1), [oom()], MACHINE)
    assert found == "no smaller than b16-s64-fp32-cpu-longest-all, which ran out of memory"


@pytest.mark.parametrize("outcome", ["ok", "crashed", "timeout", "skipped", "unsupported"])
def test_only_out_of_memory_dominates(outcome):
    assert find_oom_bound(config(batch_size=32), [oom(outcome)], MACHINE) is None


@pytest.mark.parametrize(
    ("cap", "ran_out_at", "dominated"),
    [(2, 2, True), (1, 2, True), (4, 2, False), (None, 2, False), (2, None, True), (None, None, True)],
)
def test_under_the_same_or_a_smaller_cap(cap, ran_out_at, dominated):
    before = make_record(outcome="oom", reason="killed", sections={"limits": {"memory_limit_gib": ran_out_at}})
    found = find_oom_bound(config({"memory_limit_gib": cap}, batch_size=32), [before], MACHINE)
    assert (found is not None) is dominated


def test_a_global_batch_is_compared_by_what_one_device_holds():
    # 64 over 2 ranks are 32 each; 24 are 12 each, less than the 16 that ran out.
    before = oom(device="cpu-ddp2", batch_size=16)
    for whole, dominated in ((64, True), (33, True), (24, False)):
        record = make_record(axes={"device": "cpu-ddp2"})
        shared = record.config.model_copy(update={"batch_size": None, "global_batch_size": whole})
        assert (find_oom_bound(shared, [before], MACHINE) is not None) is dominated


def test_when_to_stop_is_no_difference():
    before = oom()
    assert find_oom_bound(config({"max_train_s": 5, "timeout_s": 9}, batch_size=32), [before], MACHINE)


def test_a_baseline_is_never_dominated():
    from tests.make_records import make_baseline

    assert find_oom_bound(make_baseline().config, [oom()], MACHINE) is None


class TestDone:
    @pytest.fixture(autouse=True)
    def same_versions(self, monkeypatch):
        monkeypatch.setattr(completed, "package_version", lambda name: {"torch": "2.13.0"}.get(name, "not installed"))

    def state(self, records, **options):
        larger = make_record(axes={"batch_size": 32})
        cell = Cell(study="study", name=larger.cell, repeat=0, config=larger.config)
        return find_done(cell, records, MACHINE, **options)[0]

    def test_a_skipped_cell_is_done_while_what_it_was_skipped_for_holds(self):
        skipped = oom("skipped", batch_size=32)
        assert self.state([oom(), skipped]) == "done"
        assert self.state([oom(), skipped], skip=False) == "to do"
        assert self.state([skipped]) == "to do"
        later = make_record(minutes=5, measuring_version=MEASURING_VERSION)
        assert self.state([oom(), skipped, later]) == "to do"

    def test_a_measured_record_outweighs_a_skipped_one(self):
        done = make_record(axes={"batch_size": 32}, measuring_version=MEASURING_VERSION)
        skipped = oom("skipped", batch_size=32)
        larger = Cell(study="study", name=done.cell, repeat=0, config=done.config)
        assert find_done(larger, [oom(), done, skipped], MACHINE) == ("done", done)

    def test_what_ran_out_of_memory_counts_while_it_is_fresh_and_the_newest(self):
        assert [record.outcome for record in ran_out([oom()], MACHINE)] == ["oom"]
        assert ran_out([oom(), make_record(measuring_version=MEASURING_VERSION)], MACHINE) == []
        assert ran_out([oom().model_copy(update={"measuring_version": MEASURING_VERSION - 1})], MACHINE) == []
        assert ran_out([oom()], make_machine(host="another")) == []
