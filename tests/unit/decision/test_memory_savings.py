"""Memory by purpose, pairs that differ in one setting, and fixes for OOM cells."""

from __future__ import annotations

import pytest

from harness.analysis.summarize import summarize
from harness.decision.memory_savings import (
    ACTIVATIONS,
    BASE,
    GRADIENTS,
    OPTIMIZER,
    PARTS,
    UNEXPLAINED,
    WEIGHTS,
    WORKSPACE,
    explained,
    memory_savings,
    oom_fixes,
    rank_peak,
    split_peak,
    split_record,
)
from harness.pricing.cost import Price, price
from tests.make_records import MIB, make_machine, make_record

HOURLY = Price(3.6, "m5.xlarge", "aws", "us-east-1", "stated", "2026-07", "list", None)  # a thousandth a second


def priced(*records):
    return price(summarize(records), lambda _summary: HOURLY)


def cell(*, peak=600, step_s=1.0, axes=None, outcome="ok", **sections):
    """Make a cell with this peak in MiB and 40 steps of `step_s`."""
    training = {"seconds": [step_s] * 40, "peaks": [(0, "rss", peak * MIB)]}
    reason = None if outcome == "ok" else "killed"
    return make_record(axes=axes, sections=sections, training=training, outcome=outcome, reason=reason)


def test_the_rest_of_the_peak_is_not_explained():
    parts = {"base": 190 * MIB, "libraries": 10 * MIB, "weights": 110 * MIB, "unread": 10 * MIB, "workspace": 5 * MIB}
    record = make_record(training={"memory_parts": parts})
    # 600 MiB less 190 + 10, 110 - 10, 150, 100, 20 + 10 and 5.
    assert split_peak(record) == {
        BASE: 200 * MIB,
        WEIGHTS: 100 * MIB,
        OPTIMIZER: 150 * MIB,
        GRADIENTS: 100 * MIB,
        ACTIVATIONS: 30 * MIB,
        WORKSPACE: 5 * MIB,
        UNEXPLAINED: 15 * MIB,
    }
    assert sum(explained(record.training.memory_parts).values()) == 585 * MIB
    assert tuple(split_peak(record)) == PARTS


def test_parts_above_the_peak_leave_no_remainder():
    split = split_peak(make_record(training={"memory_parts": {"activations": {"attention": 400 * MIB}}}))
    assert UNEXPLAINED not in split
    assert sum(split.values()) == 950 * MIB


def test_parts_equal_to_the_peak_leave_a_remainder_of_zero():
    assert split_peak(make_record(training={"memory_parts": {"activations": {"a": 50 * MIB}}}))[UNEXPLAINED] == 0


def test_an_unknown_base_is_in_the_remainder():
    split = split_peak(make_record(training={"memory_parts": {"base": None}}))
    assert BASE not in split
    assert split[UNEXPLAINED] == 220 * MIB


def test_without_a_breakdown_there_is_no_split():
    assert split_peak(make_record()) is None
    assert split_peak(make_record(outcome="oom", reason="x")) is None
    other_rank = {"memory_parts": {}, "peaks": [(1, "rss", 600 * MIB)]}
    assert split_peak(make_record(training=other_rank)) is None


def test_the_split_is_of_rank_0_and_of_the_gpus_memory_on_a_gpu():
    gpu = make_machine(gpus=["NVIDIA A10G"])
    peaks = [(0, "cuda_allocated", 600 * MIB), (0, "cuda_reserved", 700 * MIB), (0, "rss", 900 * MIB)]
    record = make_record(axes={"device": "gpu"}, machine=gpu, training={"peaks": peaks, "memory_parts": {}})
    assert rank_peak(record) == 700 * MIB
    assert split_peak(record)[UNEXPLAINED] == 120 * MIB
    ranks = {"peaks": [(0, "rss", 610 * MIB), (1, "rss", 650 * MIB)], "memory_parts": {}}
    assert split_peak(make_record(axes={"device": "cpu-ddp2"}, training=ranks))[UNEXPLAINED] == 30 * MIB


def test_the_newest_run_with_a_breakdown_is_split():
    runs = [make_record(repeat=0, training={"memory_parts": {}}), make_record(repeat=1, minutes=5)]
    (found,) = priced(*runs)
    assert split_record(found).repeat == 0


WAYS = [
    ("activation checkpointing", {"training": {"activation_checkpointing": True}}, {}, (False, True)),
    ("trained layers", {}, {"trainable": "head"}, ("all", "head")),
    ("attention dropout", {"model": {"attention_dropout": 0.0}}, {}, (0.1, 0.0)),
    ("attention", {"model": {"attention": "eager"}}, {}, ("sdpa", "eager")),
    ("multiple of lengths", {}, {"pad_multiple": 8}, (1, 8)),
    ("precision", {}, {"precision": "bf16"}, ("fp32", "bf16")),
    ("optimiser", {"training": {"optimizer": "sgd"}}, {}, ("adamw", "sgd")),
    ("allocator", {"training": {"allocator": "mmap"}}, {}, ("system", "mmap")),
    ("batch size", {}, {"batch_size": 8}, (16, 8)),
    ("gradient accumulation", {"training": {"grad_accum": 2}}, {"batch_size": 8}, (1, 2)),
]


@pytest.mark.parametrize(("name", "sections", "axes", "values"), WAYS, ids=[way[0] for way in WAYS])
def test_a_pair_that_differs_in_one_setting(name, sections, axes, values):
    smaller = cell(peak=450, step_s=1.25 if name != "batch size" else 0.625, axes=axes, **sections)
    cells = priced(cell(peak=600), smaller)
    (step,) = memory_savings(cells)
    assert (step.way.name, step.usual_value, step.value) == (name, *values)
    assert (step.usual, step.taken) == (cells[0], cells[1])
    assert step.saved_bytes == 150 * MIB
    # 1.25 s where it was 1 s for the same 16 samples (or 0.625 s for 8).
    assert step.time_ratio.value == pytest.approx(1.25)


def test_the_order_of_measuring_does_not_reverse_a_saving():
    (step,) = memory_savings(priced(cell(peak=700, training={"activation_checkpointing": True}), cell(peak=600)))
    assert (step.usual_value, step.value, step.saved_bytes) == (False, True, -100 * MIB)


def test_pairs_that_differ_in_several_settings_are_ignored():
    both = cell(axes={"precision": "bf16"}, training={"activation_checkpointing": True})
    assert memory_savings(priced(cell(), both)) == []
    other = make_machine(machine_id="other-000001")
    elsewhere = make_record(axes={"precision": "bf16"}, machine=other)
    assert memory_savings(priced(cell(), elsewhere)) == []
    # Two micro-batches of 16 are another global batch than one.
    assert memory_savings(priced(cell(), cell(training={"grad_accum": 2}))) == []


def test_stating_the_models_own_dropout_is_no_change():
    assert memory_savings(priced(cell(), cell(model={"attention_dropout": 0.1}))) == []


def test_batch_sizes_are_compared_with_the_next_larger():
    cells = priced(*(cell(peak=400 + 10 * size, axes={"batch_size": size}) for size in (8, 32, 16)))
    assert [(step.usual_value, step.value, step.saved_bytes // MIB) for step in memory_savings(cells)] == [
        (32, 16, 160),
        (16, 8, 80),
    ]


def test_limits_are_ignored():
    (step,) = memory_savings(priced(cell(limits={"timeout_s": 60}), cell(axes={"precision": "bf16"})))
    assert step.way.name == "precision"


def test_the_fastest_fix_is_chosen():
    lost = cell(axes={"batch_size": 64}, outcome="oom")
    checkpointed = cell(axes={"batch_size": 64}, step_s=8.0, training={"activation_checkpointing": True})
    smaller = cell(axes={"batch_size": 32}, step_s=5.0)  # 6.4 samples/s against 8
    cells = priced(lost, checkpointed, smaller)
    (rescue,) = oom_fixes(cells)
    assert (rescue.lost, rescue.taken, rescue.way.name, rescue.value) == (
        cells[0],
        cells[1],
        "activation checkpointing",
        True,
    )
    assert rescue.elsewhere is None


def test_the_cost_of_a_fix_comes_from_a_pair_that_both_ran():
    lost = cell(axes={"batch_size": 64}, outcome="oom")
    on = {"training": {"activation_checkpointing": True}}
    cells = priced(lost, cell(axes={"batch_size": 64}, **on), cell(step_s=1.0), cell(step_s=1.3, **on))
    (rescue,) = oom_fixes(cells)
    assert rescue.elsewhere.usual is cells[2]
    assert rescue.elsewhere.time_ratio.value == pytest.approx(1.3)


def test_an_oom_cell_without_similar_cells_has_no_fix():
    (rescue,) = oom_fixes(priced(cell(axes={"batch_size": 64, "seq_len": 512}, outcome="oom"), cell()))
    assert (rescue.taken, rescue.way, rescue.elsewhere) == (None, None, None)


def test_a_similar_oom_cell_is_no_fix():
    lost = cell(axes={"batch_size": 64}, outcome="oom")
    (one, two) = oom_fixes(priced(lost, cell(axes={"batch_size": 32}, outcome="oom")))
    assert (one.taken, two.taken) == (None, None)


def test_other_outcomes_get_no_fix():
    assert oom_fixes(priced(cell(axes={"batch_size": 64}, outcome="timeout"), cell(axes={"batch_size": 32}))) == []
