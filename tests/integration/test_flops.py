"""Counted operations against the closed formula, and the peak that is looked for beside them."""

from __future__ import annotations

import pytest

from harness.analysis.flops_formula import training_flops

LABELS = 2


def run(bench, *, folder=None, dropout=None, training=None, **matrix):
    model = {} if folder is None else {"name": str(folder)}
    record = bench.run(
        model=model | ({} if dropout is None else {"attention_dropout": dropout}),
        training={"max_steps": 3, "allow_slow_precision": True} | (training or {}),
        matrix={key: [value] for key, value in matrix.items()},
    )
    assert record.outcome == "ok", record.stderr_tail
    return record


def by_formula(record):
    counted = record.training.flops
    return training_flops(
        record.model, LABELS, counted.num_samples, counted.num_padded_tokens, trainable=record.config.trainable
    )


@pytest.mark.parametrize(
    ("kind", "matrix"),
    [
        ("bert", {"padding": "max"}),
        ("bert", {"padding": "grouped"}),
        ("bert", {"trainable": "head"}),
        ("bert", {"trainable": "top1"}),
        ("bert", {"precision": "bf16"}),
        ("distilbert", {"padding": "longest"}),
    ],
)
def test_counted_operations_are_those_of_the_formula(bench, tiny_bert, tiny_distilbert, kind, matrix):
    record = run(bench, folder=tiny_bert if kind == "bert" else tiny_distilbert, dropout=0.0, **matrix)
    assert record.training.flops.num_flops == pytest.approx(by_formula(record), rel=0.01)


@pytest.mark.parametrize("trainable", ["all", "head"])
def test_attention_counts_the_same_with_its_dropout_and_without(bench, trainable):
    with_it, without = (run(bench, dropout=dropout, padding="max", trainable=trainable) for dropout in (0.1, 0.0))
    assert with_it.training.attention_kernels != without.training.attention_kernels
    fused = "_scaled_dot_product_flash_attention_for_cpu"
    assert fused in without.training.flops.by_operator
    assert fused not in with_it.training.flops.by_operator
    assert with_it.training.flops.num_flops == pytest.approx(without.training.flops.num_flops, rel=0.01)


def test_a_checkpointed_layer_is_counted_as_often_as_it_runs(bench):
    usual, again = (
        run(bench, padding="max", training={"activation_checkpointing": asked}).training.flops
        for asked in (False, True)
    )
    # Forward once more beside forward and a backward of two; the head is not checkpointed, and small.
    assert again.num_flops == pytest.approx(4 / 3 * usual.num_flops, rel=0.01)


def test_steps_tell_how_many_tokens_attention_pairs(bench):
    steps = run(bench, padding="max").training.steps
    assert steps.num_token_pairs == tuple(tokens * 24 for tokens in steps.num_padded_tokens)
    grouped = run(bench, padding="grouped", training={"max_steps": 8}).training
    for samples, tokens, pairs in zip(
        grouped.steps.num_samples, grouped.steps.num_padded_tokens, grouped.steps.num_token_pairs, strict=True
    ):
        assert pairs == samples * (tokens // samples) ** 2
    counted = grouped.flops
    shapes = zip(grouped.steps.num_samples, grouped.steps.num_padded_tokens, strict=True)
    assert (counted.num_samples, counted.num_padded_tokens) in shapes


def test_the_peak_is_taken_beside_whole_steps(bench):
    record = run(bench, padding="max", training={"max_steps": 12})
    peak = record.training.peak
    assert peak.precision == "fp32"
    assert peak.flop_per_s > 0
    assert peak.num_shapes >= 1
    assert len(peak.step_s) >= 1
    assert all(step_s > 0 for step_s in peak.step_s)


def test_products_are_squares_and_those_of_a_layer_forward_and_backward(bench):
    from harness.worker.diagnostics.peak_flops import MatrixProduct, products_of

    model = run(bench, padding="max").model
    products = products_of(model, 384)
    assert [one.num_flops for one in products] == sorted(one.num_flops for one in products)
    assert {one[:3] for one in products if one.layout == "nt"} == {(384, 32, 32), (384, 32, 64), (384, 64, 32)}
    assert {one[:3] for one in products if one.layout == "tn"} == {(32, 384, 32), (64, 384, 32), (32, 384, 64)}
    assert MatrixProduct(2048, 2048, 2048) in products
    # Forward and backward of four projections and two of the feed-forward part, whatever their layouts.
    layer = 3 * 2 * 384 * (4 * 32 * 32 + 2 * 32 * 64)
    own = [one for one in products if not one.rows == one.inner == one.columns]
    times = [4 if {*one[:3]} == {384, 32} else 1 for one in own]
    assert sum(one.num_flops * count for one, count in zip(own, times, strict=True)) == layer


def test_ranks_are_counted_and_calibrated_together(bench):
    one, two = (run(bench, padding="max", device=device, batch_size=8).training for device in ("cpu", "cpu-ddp2"))
    assert two.flops.num_samples == 2 * one.flops.num_samples
    assert two.flops.num_flops == pytest.approx(2 * one.flops.num_flops, rel=1e-9)
    assert two.peak is not None


def test_near_its_cap_and_after_a_divergence_nothing_more_is_tried(bench):
    diverged = bench.run(training={"lr": 1e9, "max_steps": 20})
    assert diverged.outcome == "diverged"
    assert (diverged.training.flops, diverged.training.peak) == (None, None)
