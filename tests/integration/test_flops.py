"""FLOPs counted by operator against the closed formula, and the measured peak FLOP/s."""

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
def test_counted_flops_agree_with_the_formula(bench, tiny_bert, tiny_distilbert, kind, matrix):
    record = run(bench, folder=tiny_bert if kind == "bert" else tiny_distilbert, dropout=0.0, **matrix)
    assert record.training.flops.num_flops == pytest.approx(by_formula(record), rel=0.01)


@pytest.mark.parametrize("trainable", ["all", "head"])
def test_attention_counts_the_same_with_and_without_dropout(bench, trainable):
    dropout, no_dropout = (run(bench, dropout=rate, padding="max", trainable=trainable) for rate in (0.1, 0.0))
    assert dropout.training.attention_kernels != no_dropout.training.attention_kernels
    fused = "_scaled_dot_product_flash_attention_for_cpu"
    assert fused in no_dropout.training.flops.by_operator
    assert fused not in dropout.training.flops.by_operator
    assert dropout.training.flops.num_flops == pytest.approx(no_dropout.training.flops.num_flops, rel=0.01)


def test_activation_checkpointing_counts_the_recomputed_forward_pass(bench):
    plain, checkpointed = (
        run(bench, padding="max", training={"activation_checkpointing": enabled}).training.flops
        for enabled in (False, True)
    )
    # Forward, backward (twice the forward) and forward again; the head is not checkpointed, but small.
    assert checkpointed.num_flops == pytest.approx(4 / 3 * plain.num_flops, rel=0.01)


def test_steps_count_the_token_pairs_of_attention(bench):
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


def test_the_peak_is_measured_between_whole_steps(bench):
    record = run(bench, padding="max", training={"max_steps": 12})
    peak = record.training.peak
    assert peak.precision == "fp32"
    assert peak.flop_per_s > 0
    assert peak.num_shapes >= 1
    assert len(peak.step_s) >= 1
    assert all(step_s > 0 for step_s in peak.step_s)


def test_candidate_products_are_squares_and_a_layers_own_forward_and_backward(bench):
    from harness.worker.diagnostics.peak_flops import MatrixProduct, candidate_products

    model = run(bench, padding="max").model
    products = candidate_products(model, 384)
    assert [product.num_flops for product in products] == sorted(product.num_flops for product in products)
    assert {product[:3] for product in products if product.layout == "nt"} == {
        (384, 32, 32),
        (384, 32, 64),
        (384, 64, 32),
    }
    assert {product[:3] for product in products if product.layout == "tn"} == {
        (32, 384, 32),
        (64, 384, 32),
        (32, 384, 64),
    }
    assert MatrixProduct(2048, 2048, 2048) in products
    # Forward and backward of four projections and two feed-forward layers, in any layout.
    layer = 3 * 2 * 384 * (4 * 32 * 32 + 2 * 32 * 64)
    own = [product for product in products if not product.rows == product.inner == product.columns]
    counts = [4 if {*product[:3]} == {384, 32} else 1 for product in own]
    assert sum(product.num_flops * count for product, count in zip(own, counts, strict=True)) == layer


def test_ranks_are_counted_together(bench):
    one, two = (run(bench, padding="max", device=device, batch_size=8).training for device in ("cpu", "cpu-ddp2"))
    assert two.flops.num_samples == 2 * one.flops.num_samples
    assert two.flops.num_flops == pytest.approx(2 * one.flops.num_flops, rel=1e-9)
    assert two.peak is not None


def test_a_diverged_training_runs_no_diagnostics(bench):
    diverged = bench.run(training={"lr": 1e9, "max_steps": 20})
    assert diverged.outcome == "diverged"
    assert (diverged.training.flops, diverged.training.peak) == (None, None)
