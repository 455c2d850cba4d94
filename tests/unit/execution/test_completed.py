"""Cells that need not run: measured before, or bound to run out of memory."""

from __future__ import annotations

import pytest

from harness.execution import completed
from harness.execution.completed import find_done, find_oom_bound, find_oom_records
from harness.schema.cells import Cell
from harness.schema.record import MEASURING_VERSION
from tests.make_records import make_baseline, make_machine, make_record

MACHINE = make_machine()


def oom(outcome="oom", **axes):
    return make_record(outcome=outcome, reason="killed", axes=axes, measuring_version=MEASURING_VERSION)


def config(limits=None, **axes):
    return make_record(axes=axes, sections={"limits": limits or {}}).config


def fresh(record, **changes):
    return record.model_copy(update={"measuring_version": MEASURING_VERSION} | changes)


@pytest.mark.parametrize(
    ("axes", "bounded"),
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
def test_a_cell_larger_in_batch_or_length_and_otherwise_equal_is_bounded(axes, bounded):
    reason = find_oom_bound(config(**axes), [oom()], MACHINE)
    assert reason == ("larger than b16-s64-fp32-cpu-longest-all, which ran out of memory" if bounded else None)


def test_another_seed_of_the_same_sizes_is_bounded():
    reason = find_oom_bound(config(seed=1), [oom()], MACHINE)
    assert reason == "no smaller than b16-s64-fp32-cpu-longest-all, which ran out of memory"


@pytest.mark.parametrize("outcome", ["ok", "crashed", "timeout", "skipped", "unsupported"])
def test_only_out_of_memory_bounds(outcome):
    assert find_oom_bound(config(batch_size=32), [oom(outcome)], MACHINE) is None


@pytest.mark.parametrize(
    ("cap", "oom_cap", "bounded"),
    [(2, 2, True), (1, 2, True), (4, 2, False), (None, 2, False), (2, None, True), (None, None, True)],
)
def test_a_bound_needs_the_same_or_a_smaller_memory_cap(cap, oom_cap, bounded):
    before = make_record(outcome="oom", reason="killed", sections={"limits": {"memory_limit_gib": oom_cap}})
    reason = find_oom_bound(config({"memory_limit_gib": cap}, batch_size=32), [before], MACHINE)
    assert (reason is not None) is bounded


def test_a_global_batch_is_compared_by_its_share_of_one_device():
    # 64 over 2 ranks are 32 each; 24 are 12 each, less than the 16 that ran out.
    before = oom(device="cpu-ddp2", batch_size=16)
    for whole, bounded in ((64, True), (33, True), (24, False)):
        record = make_record(axes={"device": "cpu-ddp2"})
        shared = record.config.model_copy(update={"batch_size": None, "global_batch_size": whole})
        assert (find_oom_bound(shared, [before], MACHINE) is not None) is bounded


def test_limits_on_time_make_no_difference():
    before = oom()
    assert find_oom_bound(config({"max_train_s": 5, "timeout_s": 9}, batch_size=32), [before], MACHINE)


def test_a_baseline_is_never_bounded():
    assert find_oom_bound(make_baseline().config, [oom()], MACHINE) is None


class TestSkippedCells:
    @pytest.fixture(autouse=True)
    def same_versions(self, monkeypatch):
        monkeypatch.setattr(completed, "package_version", lambda name: {"torch": "2.13.0"}.get(name, "not installed"))

    def state(self, records, **options):
        larger = make_record(axes={"batch_size": 32})
        cell = Cell(study="study", name=larger.cell, repeat=0, config=larger.config)
        return find_done(cell, records, MACHINE, **options)[0]

    def test_a_skipped_cell_is_done_while_the_oom_record_is_fresh(self):
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

    def test_an_oom_record_counts_while_it_is_fresh_and_the_newest(self):
        assert [record.outcome for record in find_oom_records([oom()], MACHINE)] == ["oom"]
        assert find_oom_records([oom(), make_record(measuring_version=MEASURING_VERSION)], MACHINE) == []
        assert find_oom_records([oom().model_copy(update={"measuring_version": MEASURING_VERSION - 1})], MACHINE) == []
        assert find_oom_records([oom()], make_machine(host="another")) == []


class TestMeasuredCells:
    @pytest.fixture
    def cell(self, ok_record):
        return Cell(study=ok_record.study, name=ok_record.cell, repeat=ok_record.repeat, config=ok_record.config)

    @pytest.fixture(autouse=True)
    def same_versions(self, monkeypatch, ok_record):
        """The fixture's torch and transformers, whatever is installed."""
        monkeypatch.setattr(completed, "package_version", lambda name: ok_record.packages.get(name, "not installed"))

    def test_a_cell_is_done_if_machine_host_versions_and_measuring_code_are_equal(self, ok_record, cell):
        assert find_done(cell, [], ok_record.machine) == ("to do", None)
        record = fresh(ok_record)
        assert find_done(cell, [record], ok_record.machine) == ("done", record)

    @pytest.mark.parametrize("package", ["torch", "transformers"])
    def test_another_version_of_torch_or_transformers_makes_it_stale(self, ok_record, cell, monkeypatch, package):
        def version(name):
            return "0.0.1" if name == package else ok_record.packages[name]

        monkeypatch.setattr(completed, "package_version", version)
        assert find_done(cell, [fresh(ok_record)], ok_record.machine)[0] == "stale"

    @pytest.mark.parametrize("field", ["host", "id"])
    def test_another_machine_makes_it_stale(self, ok_record, cell, field):
        other = ok_record.machine.model_copy(update={field: "another"})
        assert find_done(cell, [fresh(ok_record)], other)[0] == "stale"

    def test_an_older_measuring_version_makes_it_stale(self, ok_record, cell):
        assert (
            find_done(cell, [fresh(ok_record, measuring_version=MEASURING_VERSION - 1)], ok_record.machine)[0]
            == "stale"
        )

    def test_a_fresh_record_outweighs_stale_ones_before_and_after_it(self, ok_record, cell):
        done = fresh(ok_record)
        stale = fresh(ok_record, measuring_version=MEASURING_VERSION - 1)
        assert find_done(cell, [stale, done, stale], ok_record.machine) == ("done", done)

    @pytest.mark.parametrize("outcome", ["crashed", "interrupted", "skipped", "preempted"])
    def test_an_unfinished_cell_is_to_do(self, ok_record, cell, outcome):
        assert find_done(cell, [fresh(ok_record, outcome=outcome)], ok_record.machine) == ("to do", None)

    @pytest.mark.parametrize("outcome", ["oom", "diverged", "unsupported", "timeout"])
    def test_a_cell_that_would_end_the_same_way_is_done(self, ok_record, cell, outcome):
        assert find_done(cell, [fresh(ok_record, outcome=outcome)], ok_record.machine)[0] == "done"

    @pytest.mark.parametrize(("factor", "state"), [(0.5, "done"), (1, "done"), (2, "to do")])
    def test_a_timeout_is_tried_again_once_it_is_raised(self, ok_record, cell, factor, state):
        limits = cell.config.limits
        config = cell.config.model_copy(
            update={"limits": limits.model_copy(update={"timeout_s": limits.timeout_s * factor})}
        )
        other = cell.model_copy(update={"config": config})
        assert other.config_hash == cell.config_hash
        assert find_done(other, [fresh(ok_record, outcome="timeout")], ok_record.machine)[0] == state

    def test_another_configuration_or_repeat_is_not_done(self, ok_record, cell):
        record = fresh(ok_record)
        assert find_done(cell.model_copy(update={"repeat": 1}), [record], ok_record.machine)[0] == "to do"
        other = cell.model_copy(update={"config": cell.config.model_copy(update={"batch_size": 99})})
        assert find_done(other, [record], ok_record.machine)[0] == "to do"
        assert (
            find_done(cell.model_copy(update={"study": "another", "name": "x"}), [record], ok_record.machine)[0]
            == "done"
        )


def test_a_cell_is_stale_when_the_variables_that_spoil_it_changed():
    # Else a cell that ONEDNN_MAX_CPU_ISA made `unsupported` would stay so after the variable is gone.
    def on(environment):
        return MACHINE.model_copy(update={"environment": environment})

    def state(before, now):
        record = fresh(make_record(packages=completed._installed_versions(), machine=on(before)))
        cell = Cell(study="s", name=record.cell, config=record.config, repeat=0)
        return find_done(cell, [record], on(now))[0]

    assert state({"ONEDNN_MAX_CPU_ISA": "AVX2"}, {}) == "stale"
    assert state({"ONEDNN_MAX_CPU_ISA": "AVX2"}, {"ONEDNN_MAX_CPU_ISA": "AVX2"}) == "done"
    assert state({}, {"OMP_NUM_THREADS": "1", "OMP_PROC_BIND": "true"}) == "done"  # ranks don't get the second
    assert state(None, {"ONEDNN_MAX_CPU_ISA": "AVX2"}) == "done"  # an older record
