"""What a cell computes, against sums over its batches by hand."""

from __future__ import annotations

import numpy as np
import pytest

from harness.execution import planned_work
from harness.execution.planned_work import plan_cell
from harness.execution.probing import choose_shapes
from harness.schema.expansion import expand
from harness.schema.probe_record import Work
from harness.schema.study_file import parse_study

LENGTHS = np.array([4, 10, 6, 8, 4, 12, 7, 9, 5, 11])


def config(**tables):
    (cell,) = expand(parse_study({"name": "s", "baselines": False} | tables, "test"))
    return cell.config


def test_rows_padded_to_the_maximum():
    settings = config(matrix={"batch_size": [4], "seq_len": [16], "padding": ["max"]}, training={"epochs": 2})
    work = plan_cell(settings, LENGTHS, LENGTHS[:3], LENGTHS[:5], 1).work
    # Ten rows in batches of 4, 4 and 2, twice; every row has 16 tokens.
    assert work.training == Work(num_batches=6, num_tokens=320, num_pairs=320 * 16, num_shapes=2)
    assert (work.num_rows, work.longest) == (20, 16)
    # Validated after updates 2, 4 and 6; each time one batch of three rows.
    assert work.validations == Work(num_batches=3, num_tokens=3 * 48, num_pairs=3 * 48 * 16, num_shapes=1)
    assert work.test == Work(num_batches=1, num_tokens=80, num_pairs=1280, num_shapes=1)


def test_rows_padded_to_the_longest_of_a_batch():
    settings = config(matrix={"batch_size": [10], "seq_len": [16]}, training={"epochs": 1})
    work = plan_cell(settings, LENGTHS, LENGTHS[:3], LENGTHS[:5], 1).work
    assert work.training == Work(num_batches=1, num_tokens=120, num_pairs=1440, num_shapes=1)
    assert work.test is not None and work.test.num_tokens == 5 * 10


def test_lengths_are_rounded_up_to_a_multiple_and_at_most_to_seq_len():
    def work(**matrix):
        settings = config(matrix={"batch_size": [10], "pad_multiple": [8]} | matrix, training={"epochs": 1})
        return plan_cell(settings, LENGTHS, LENGTHS[:3], LENGTHS[:5], 1).work

    assert (work(seq_len=[32]).training.num_tokens, work(seq_len=[32]).longest) == (160, 16)
    assert (work(seq_len=[14]).training.num_tokens, work(seq_len=[14]).test.num_tokens) == (140, 5 * 14)


def test_the_rank_with_most_tokens_counts():
    settings = config(matrix={"batch_size": [2], "seq_len": [16], "device": ["cpu-ddp2"]}, training={"epochs": 1})
    shapes = plan_cell(settings, LENGTHS, LENGTHS, LENGTHS, 2).shapes
    assert len(shapes) == 3  # ten rows, four an update
    assert max(width for _, width in shapes) == 12


def test_random_weights_are_never_judged():
    settings = config(model={"shape": "bert-tiny", "init": "random"})
    work = plan_cell(settings, LENGTHS, LENGTHS, LENGTHS, 1).work
    assert work.validations is None and work.test is None


def test_the_first_updates_stand_for_a_long_run(monkeypatch):
    settings = config(matrix={"batch_size": [5], "padding": ["max"]}, training={"epochs": 100})
    whole = plan_cell(settings, LENGTHS, LENGTHS, LENGTHS, 1).work
    monkeypatch.setattr(planned_work, "_MAX_PLANNED", 20)
    assert plan_cell(settings, LENGTHS, LENGTHS, LENGTHS, 1).work == whole
    assert whole.training.num_batches == 200


def test_shapes_of_a_probe_span_the_cells():
    shapes = [(rows, width) for rows in (8, 16, 32) for width in range(10, 65)]
    chosen = choose_shapes(shapes)
    tokens = [rows * width for rows, width in chosen]
    assert len(chosen) == 4
    assert min(tokens) < np.quantile([r * w for r, w in shapes], 0.15)
    assert max(tokens) > np.quantile([r * w for r, w in shapes], 0.85)
    assert (32, 64) in chosen


@pytest.mark.parametrize("shapes", [[(16, 64)], [(16, 64), (8, 64)], [(1, 4)]])
def test_few_shapes_are_filled_up(shapes):
    chosen = choose_shapes(shapes)
    assert set(shapes) <= set(chosen)
    assert len(chosen) == len(set(chosen)) >= min(3, len(chosen))
