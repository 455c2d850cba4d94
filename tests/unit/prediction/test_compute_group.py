"""Which settings change how long a batch takes."""

from __future__ import annotations

import pytest

from harness.prediction.compute_group import compute_group
from harness.schema.expansion import expand
from harness.schema.study_file import parse_study


def group(**tables):
    (cell,) = expand(parse_study({"name": "s", "baselines": False} | tables, "test"))
    return compute_group(cell.config)


@pytest.mark.parametrize(
    "tables",
    [
        {"matrix": {"batch_size": [64], "seq_len": [128], "padding": ["max"]}},
        {"matrix": {"pad_multiple": [8]}},
        {"data": {"num_train": 99}},
        {"training": {"lr": 1e-3, "epochs": 9, "seeds": [3], "eval_every": 1.0}},
        {"limits": {"timeout_s": 5}},
    ],
)
def test_batches_data_and_rates_do_not_matter(tables):
    assert group(**tables) == group()


@pytest.mark.parametrize(
    "tables",
    [
        {"matrix": {"precision": ["bf16"]}},
        {"matrix": {"trainable": ["head"]}},
        {"matrix": {"device": ["cpu-ddp2"]}},
        {"matrix": {"threads": [1]}},
        {"model": {"attention_dropout": 0.0}},
        {"model": {"attention": "eager"}},
        {"training": {"activation_checkpointing": True}},
        {"training": {"optimizer": "sgd"}},
        {"training": {"grad_accum": 2}},
        {"training": {"allocator": "mmap"}},
    ],
)
def test_what_is_computed_matters(tables):
    assert group(**tables) != group()
