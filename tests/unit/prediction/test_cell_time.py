"""The seconds of a cell from those of its steps, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.prediction.cell_time import GroupTime, predict_cell
from harness.prediction.step_time import LinearTime
from harness.schema.probe_record import CellWork, Work

STEP, FORWARD = LinearTime(0.5, 1e-3, 0.0, misfit=0.0), LinearTime(0.2, 0.0, 0.0, misfit=0.0)
GROUP = GroupTime(STEP, FORWARD, first_s=0.25, ready_s=2.0, world_size=1, basis="probe")
# 40 steps of 1.5 s, of 10 shapes.
TRAINING = Work(num_batches=40, num_tokens=40_000, num_pairs=1_000_000, num_shapes=10)
WORK = CellWork(num_rows=640, training=TRAINING, validations=None, test=None, longest=64)


def test_choosing_attention_takes_eighteen_steps_before_training():
    without, choosing = (predict_cell(WORK, replace(GROUP, chooses_attention=chooses)) for chooses in (False, True))
    assert without.train_s == choosing.train_s
    assert choosing.train_s.value == pytest.approx(40 * 1.5 + 10 * 0.25)
    # Besides, three shapes are computed for the first time with the attention that is not chosen.
    assert choosing.seconds.value - without.seconds.value == pytest.approx(18 * 1.5 + 3 * 0.25)
