"""The seconds of a cell from those of its steps, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from harness.prediction.cell_time import GroupTime, group_time, predict_cell
from harness.prediction.step_time import LinearTime
from harness.schema.probe_record import CellWork, Probe, ProbedShape, Work
from tests.make_records import make_record

STEP, FORWARD = LinearTime(0.5, 1e-3, 0.0, misfit=0.0), LinearTime(0.2, 0.0, 0.0, misfit=0.0)
GROUP = GroupTime(STEP, FORWARD, first_s=0.25, ready_s=2.0, world_size=1, noise=0.12, basis="probe")
# 40 steps of 1.5 s, of 10 shapes.
TRAINING = Work(num_batches=40, num_tokens=40_000, num_pairs=1_000_000, num_shapes=10)
WORK = CellWork(num_rows=640, training=TRAINING, validations=None, test=None, longest=64)


def test_choosing_attention_takes_eighteen_steps_before_training():
    without, choosing = (predict_cell(WORK, replace(GROUP, chooses_attention=chooses)) for chooses in (False, True))
    assert without.train_s == choosing.train_s
    assert choosing.train_s.value == pytest.approx(0.1 + 40 * 1.5 + 10 * 0.25)
    # Besides, three shapes are computed for the first time with the attention that is not chosen.
    assert choosing.seconds.value - without.seconds.value == pytest.approx(18 * 1.5 + 3 * 0.25)


def after_seconds(work=WORK, group=GROUP, **options):
    predicted = predict_cell(work, group, **options)
    return predicted.seconds.value - predicted.train_s.value - group.ready_s


def test_after_training_come_counted_steps_the_search_for_the_peak_and_the_exchange():
    # The search takes a tenth of the 62.6 s of training, at most 1.8 s: one step fits into 45 % of that at least once.
    counted = 0.4 + (2 + 1) * 1.5 + 0.55 * 1.8
    assert after_seconds() == pytest.approx(counted)
    assert after_seconds(group=replace(GROUP, world_size=2)) == pytest.approx(counted + 12 * 1.5)
    assert after_seconds(has_diagnostics=False) == pytest.approx(0.4)
    assert after_seconds(group=replace(GROUP, world_size=2), has_diagnostics=False) == pytest.approx(0.4 + 12 * 1.5)


def test_a_judged_cell_counts_the_memory_of_an_evaluation_too():
    test = Work(num_batches=5, num_tokens=5_000, num_pairs=100_000, num_shapes=5)
    # Five batches of the test, and one more afterwards.
    assert after_seconds(replace_work(test=test)) == pytest.approx(after_seconds() + 6 * 0.2)


def replace_work(**changes):
    return WORK.model_copy(update=changes)


def test_a_disturbed_step_and_a_growing_heap_do_not_count():
    shapes = tuple(
        ProbedShape(
            num_rows=16,
            num_tokens=tokens,
            first_step_s=first,
            step_s=(9.0, tokens / 64, tokens / 64),
            evaluate_s=(0.25, 0.25, 5.0),
            peak_bytes=1,
        )
        for tokens, first in ((64, 3.0), (32, 0.5 + 0.01), (128, 2.0 + 1.5))
    )
    record = make_record()
    probe = Probe(world_size=1, threads_per_rank=2, shapes=shapes)
    group = group_time([record.model_copy(update={"probe": probe})])
    assert group.first_s == pytest.approx(0.01)  # the third shape takes more memory than the first
    assert group.step.seconds(
        Work(num_batches=1, num_tokens=16 * 64, num_pairs=16 * 64**2, num_shapes=1)
    ) == pytest.approx(1.0)
    assert group.forward.seconds(Work(num_batches=2, num_tokens=64, num_pairs=64, num_shapes=1)) == pytest.approx(0.5)


def test_the_interval_is_as_wide_as_the_machine_is_noisy():
    """Two rounds of a probe that differ by 40 %, and a line that fits their medians."""
    shapes = tuple(
        ProbedShape(
            num_rows=16,
            num_tokens=tokens,
            first_step_s=1.0,
            step_s=(1.4 * tokens,) * 3 + (1.0 * tokens,) * 3,
            evaluate_s=(0.1,),
            peak_bytes=1,
        )
        for tokens in (16, 32, 64, 128)
    )
    probe = Probe(world_size=1, threads_per_rank=2, shapes=shapes)
    group = group_time([make_record().model_copy(update={"probe": probe})])
    assert group.noise == pytest.approx(math.log(1.4) / math.sqrt(2))
    seconds = predict_cell(WORK, group).seconds
    assert math.log(seconds.high / seconds.value) == pytest.approx(1.96 * math.hypot(0.05, group.noise), rel=1e-3)
