"""Work of a step, by hand: hidden size 2, intermediate size 8, one layer, one head."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from harness.prediction.step_work import HARNESS_LOOP, Loop, evaluation_work, training_work
from harness.schema.cells import FineTuneConfig
from harness.schema.model_shapes import ModelShape

SHAPE = ModelShape(2, 1, 1, 8, vocab=10, positions=4)
OTHER_LOOP = Loop(fused_attention=False, fp32_states=False, waits_for_gpu=True, prepares_rows=True)
# Bytes of one layer for a token: 2 x (34 of products + 10 of states) forward, 2 x (69 + 18) backward, 4 bytes each.
FORWARD, BACKWARD = 2 * 44 * 4, 2 * 87 * 4
# And in 16 bit: products in 2 bytes, states in 4, and four casts of 6 bytes each way.
HALF_FORWARD, HALF_BACKWARD = 2 * (34 * 2 + 10 * 4 + 24), 2 * (69 * 2 + 18 * 4 + 24)


class Batches(NamedTuple):
    num_batches: int
    num_tokens: int
    num_pairs: int


def config(precision="fp32", trainable="all", **training):
    return FineTuneConfig.model_validate(
        {
            "batch_size": 2,
            "seq_len": 5,
            "precision": precision,
            "device": "gpu",
            "padding": "max",
            "trainable": trainable,
        }
        | {"threads": None, "seed": 0, "model": {}, "data": {}, "training": training, "limits": {}}
    )


def per_token(settings, loop=HARNESS_LOOP):
    """Return the bytes that one more token takes."""
    more, fewer = (training_work(settings, SHAPE, Batches(1, tokens, 50), 2, loop) for tokens in (11, 10))
    return more.num_bytes - fewer.num_bytes


def per_pair(settings, loop=HARNESS_LOOP):
    more, fewer = (training_work(settings, SHAPE, Batches(1, 10, pairs), 2, loop) for pairs in (51, 50))
    return more.num_bytes - fewer.num_bytes


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (config(), FORWARD + BACKWARD),
        (config("tf32"), FORWARD + BACKWARD),
        (config("bf16"), HALF_FORWARD + HALF_BACKWARD),
        (config(trainable="head"), FORWARD),
        (config(activation_checkpointing=True), 2 * FORWARD + BACKWARD),
    ],
)
def test_traffic_of_a_token(settings, expected):
    assert per_token(settings) == expected


def test_states_of_16_bit_need_no_casts():
    assert per_token(config("fp16"), OTHER_LOOP) == 2 * (44 + 87) * 2


def test_fused_attention_never_writes_its_scores():
    assert per_pair(config("fp16")) == 0
    assert per_pair(config("fp16"), OTHER_LOOP) == (10 * 2 + 1) + (11 * 2 + 1)
    assert per_pair(config("fp32"), OTHER_LOOP) == (10 * 4 + 1) + (11 * 4 + 1)


def test_an_update_reads_and_writes_weights_gradients_and_moments():
    num_trained = SHAPE.trained_parameters("all", 2)
    first, second = (training_work(config(), SHAPE, Batches(n, 10, 50), 2).num_bytes for n in (1, 2))
    # AdamW moves 7 values of 4 bytes, the gradient is written, and weights are read once forward and twice backward.
    assert second - first == num_trained * (28 + 4) + num_trained * 4 + num_trained * 2 * 4


def test_flops_are_those_of_the_formula():
    work = training_work(config(), SHAPE, Batches(1, 10, 50), 2)
    layer = 10 * (8 * 2**2 + 4 * 2 * 8) + 4 * 2 * 50
    assert work.flops == 3 * layer + 3 * 2 * (2 * 2**2) + 3 * 2 * (2 * 2 * 2)


def test_the_host_starts_layers_and_prepares_rows():
    both = training_work(config(grad_accum=4), SHAPE, Batches(3, 10, 50), 24)
    assert (both.num_layers, both.num_rows) == (12, 0)
    assert training_work(config(), SHAPE, Batches(3, 10, 50), 6, OTHER_LOOP).num_rows == 6
    assert training_work(config(trainable="head"), SHAPE, Batches(3, 10, 50), 6).num_layers == 1


def test_an_evaluation_passes_forward_alone():
    work = evaluation_work(config(), SHAPE, Batches(6, 10, 50))
    assert work.num_layers == 2
    assert work.num_bytes == 10 * FORWARD + 6 * SHAPE.parameters(2) * 4
    assert work.flops == 10 * (8 * 2**2 + 4 * 2 * 8) + 4 * 2 * 50


def test_works_add_up():
    work = training_work(config(), SHAPE, Batches(1, 10, 50), 2)
    assert (work + work).num_bytes == 2 * work.num_bytes
    assert (work + work).num_layers == 2 * work.num_layers
