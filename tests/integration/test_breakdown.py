"""The memory breakdown against bytes counted by hand, and against the estimate from the model's shape."""

from __future__ import annotations

import subprocess
import sys

import pytest
from encoders import write_encoder

from harness.decision.memory_savings import explained
from harness.machine.describe import describe_machine
from harness.machine.support import unsupported_reason
from harness.prediction.peak_memory import predict_peak
from harness.schema.expansion import expand
from harness.schema.model_shapes import load_model_shape
from harness.schema.study_file import parse_study
from harness.workflows.fit import EPOCH_MARGIN, MAX_ATTEMPTS, BatchSizeSearch, find_fit
from harness.workflows.memory_budget import MemoryBudget

MIB = 2**20
# Parameters of the tiny BERT in tests/integration/tiny.py: embeddings and their LayerNorm; a layer; pooler and classifier.
EMBEDDINGS = (30522 + 512 + 2) * 32 + 2 * 32
LAYER = 4 * (32 * 32 + 32) + 2 * 32 + (32 * 64 + 64) + (64 * 32 + 32) + 2 * 32
HEAD = (32 * 32 + 32) + (32 * 2 + 2)
ALL = EMBEDDINGS + 2 * LAYER + HEAD
NUM_TENSORS = 5 + 2 * 16 + 4
UNIT = 16 * 24 * 32 * 4  # (batch, seq, hidden) in fp32
GLIBC = describe_machine().allocator.startswith("glibc")


def run(bench, *, training=None, model=None, **matrix):
    record = bench.run(
        model=model or {},
        training={"max_steps": 2, "allow_slow_precision": True} | (training or {}),
        matrix={"padding": ["max"]} | {key: [value] for key, value in matrix.items()},
    )
    assert record.outcome == "ok", record.stderr_tail
    return record


def test_weights_gradients_and_optimizer_state_are_those_counted_by_hand(bench):
    parts = run(bench).training.memory_parts
    buffers = 2 * 512 * 8  # positions and token types, a 64-bit integer each
    assert parts.weights_bytes == 4 * ALL + buffers
    assert parts.gradients_bytes == 4 * ALL
    assert parts.optimizer_bytes == 8 * ALL + 4 * NUM_TENSORS  # AdamW's two moments, and a step count per tensor
    assert (parts.num_samples, parts.num_padded_tokens) == (16, 16 * 24)


def test_saved_tensors_are_those_counted_by_hand(bench):
    saved = run(bench).training.memory_parts.activations_bytes
    # On a CPU, dropout saves its mask as fp32: for the embeddings, twice per layer, and for the pooled token.
    assert saved["dropout"] == 5 * UNIT + 16 * 32 * 4
    # Every LayerNorm saves its input, and each token's mean and standard deviation.
    assert saved["layer norm"] == 5 * (UNIT + 2 * 16 * 24 * 4)


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("recipe", ["whole", "checkpointed", "top1", "head"])
def test_the_estimate_agrees_with_what_autograd_saves(
    bench, tiny_bert, tiny_distilbert, kind, precision, dropout, recipe
):
    folder = tiny_bert if kind == "bert" else tiny_distilbert
    record = run(
        bench,
        model={"name": str(folder), "attention_dropout": dropout},
        training={"activation_checkpointing": recipe == "checkpointed"},
        precision=precision,
        trainable=recipe if recipe in ("top1", "head") else "all",
        batch_size=64,
    )
    parts = record.training.memory_parts
    estimate = predict_peak(record.config, load_model_shape(record.config.model, folder), 2)
    saved, predicted = parts.activations_bytes, estimate.activations
    for name in saved.keys() | predicted.keys():
        # The formula omits what is below 1 % of the total: ids, the last token, the loss.
        tolerance = max(0.01 * saved.get(name, 0), 0.01 * sum(saved.values()), 2 * 64 * 32 * 4)
        assert predicted.get(name, 0) == pytest.approx(saved.get(name, 0), abs=tolerance), name
    assert estimate.peak_state.num_bytes == pytest.approx(parts.at_peak.num_bytes, rel=0.04)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("recipe", ["whole", "checkpointed", "top1", "head"])
def test_eager_attention_is_estimated_as_well(bench, tiny_bert, precision, dropout, recipe):
    record = run(
        bench,
        model={"attention": "eager", "attention_dropout": dropout},
        training={"activation_checkpointing": recipe == "checkpointed"},
        precision=precision,
        trainable=recipe if recipe in ("top1", "head") else "all",
        batch_size=64,
    )
    parts = record.training.memory_parts
    estimate = predict_peak(record.config, load_model_shape(record.config.model, tiny_bert), 2)
    for name, num_bytes in parts.activations_bytes.items():
        # The estimate omits what is below 1 % of the total: ids, the last token, the loss.
        tolerance = max(0.01 * num_bytes, 0.01 * sum(parts.activations_bytes.values()), 2 * 64 * 32 * 4)
        assert estimate.activations.get(name, 0) == pytest.approx(num_bytes, abs=tolerance), name
    assert estimate.peak_state.num_bytes == pytest.approx(parts.at_peak.num_bytes, rel=0.01)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("recipe", ["whole", "checkpointed", "top1"])
def test_long_rows_peak_in_the_backward_pass_of_eager_attention(bench, tiny_bert, precision, dropout, recipe):
    record = run(
        bench,
        model={"init": "random", "attention": "eager", "attention_dropout": dropout, "hidden_dropout": dropout},
        training={"activation_checkpointing": recipe == "checkpointed", "max_steps": 1},
        precision=precision,
        trainable="top1" if recipe == "top1" else "all",
        seq_len=192,
    )
    peak = record.training.memory_parts.at_peak
    estimate = predict_peak(record.config, load_model_shape(record.config.model, tiny_bert), 2).peak_state
    assert estimate.num_bytes == pytest.approx(peak.num_bytes, rel=0.01)
    assert estimate.name.startswith(peak.phase)
    # In bf16 dropout saves so much for the other layer that the peak comes before, or when the layer is computed again.
    assert ("attention" in estimate.name) == (not (precision == "bf16" and dropout))


OTHER_FAMILIES = [
    (model_type, trainable, None)
    for model_type in ("roberta", "xlm-roberta", "electra")
    for trainable in ("all", "top1", "head")
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("model_type", "trainable", "attention"),
    [*OTHER_FAMILIES, ("roberta", "all", "eager"), ("electra", "all", "eager")],
)
def test_the_estimate_agrees_for_the_other_predicted_families(
    bench, tmp_path, model_type, trainable, attention, precision
):
    """ELECTRA's embeddings are narrower than its layers; the two RoBERTas' and ELECTRA's heads have no pooler."""
    folder = write_encoder(tmp_path / model_type, model_type)
    model = {"name": str(folder)} | ({"attention": attention} if attention else {})
    record = run(bench, model=model, precision=precision, trainable=trainable, batch_size=64)
    parts, shape = record.training.memory_parts, load_model_shape(record.config.model, folder)
    estimate = predict_peak(record.config, shape, 2)
    assert shape.parameters(2) == record.model.num_parameters
    saved = sum(parts.activations_bytes.values())
    assert sum(estimate.activations.values()) == pytest.approx(saved, rel=0.05, abs=4 * 64 * 32 * 4)
    # The unigram tokenizer fills every row here, so that no mask of 0.15 MB is made, which the estimate counts.
    assert estimate.peak_state.num_bytes == pytest.approx(parts.at_peak.num_bytes, rel=0.08)


def test_activation_checkpointing_saves_only_layer_inputs_and_trains_the_same(bench, tiny_bert, tiny_distilbert):
    for folder in (tiny_bert, tiny_distilbert):
        model = {"name": str(folder), "attention_dropout": 0.0, "hidden_dropout": 0.0}
        plain, checkpointed = (
            run(bench, model=model, training={"activation_checkpointing": on, "max_steps": 6}).training
            for on in (False, True)
        )
        assert checkpointed.steps.loss == pytest.approx(plain.steps.loss, abs=1e-5)
        saved = checkpointed.memory_parts.activations_bytes
        assert "attention" not in saved and "feed-forward" not in saved
        assert saved["layer inputs"] == 2 * UNIT + 16 * 24  # plus the mask, as booleans
        assert sum(saved.values()) < 0.4 * sum(plain.memory_parts.activations_bytes.values())


def test_a_frozen_encoder_has_gradients_and_optimizer_state_for_the_head_only(bench):
    parts = run(bench, trainable="head").training.memory_parts
    assert parts.gradients_bytes == 4 * HEAD
    assert parts.optimizer_bytes == 8 * HEAD + 4 * 4
    assert set(parts.activations_bytes) <= {"dropout", "head", "other"}


def test_frozen_layers_have_no_gradient(bench):
    parts = run(bench, trainable="top1").training.memory_parts
    layer = 4 * (32 * 32 + 32) + 2 * 32 * 64 + 64 + 32 + 4 * 32
    assert parts.gradients_bytes == 4 * (HEAD + layer)
    assert "embeddings" not in parts.activations_bytes


def test_ddp_holds_gradients_twice_and_sgd_has_no_state(bench, tiny_bert):
    record = run(bench, device="cpu-ddp2", batch_size=8, training={"optimizer": "sgd"})
    parts = record.training.memory_parts
    assert parts.gradients_bytes == 2 * 4 * ALL
    assert parts.optimizer_bytes == 0
    assert parts.num_samples == 8
    estimate = predict_peak(record.config, load_model_shape(record.config.model, tiny_bert), 2)
    assert estimate.peak_state.num_bytes == pytest.approx(parts.at_peak.num_bytes, rel=0.04)


def test_autocasts_weight_copies_are_counted(bench):
    saved = run(bench, precision="bf16").training.memory_parts.activations_bytes
    products = 2 * (4 * 32 * 32 + 2 * 32 * 64) + 32 * 32 + 2 * 32
    assert saved["weight copies"] == 2 * products


def test_gradient_accumulation_holds_the_gradients_of_earlier_micro_batches(bench):
    single, accumulated = (
        run(bench, training={"grad_accum": num}, batch_size=64).training.memory_parts for num in (1, 3)
    )
    assert accumulated.gradients_bytes == single.gradients_bytes
    # All gradients exist from the first operator on, and the new embedding gradient is as large as its table.
    assert accumulated.at_peak.gradients_bytes == 4 * ALL
    assert accumulated.at_peak.num_bytes > single.at_peak.num_bytes


def test_attention_dropout_determines_the_kernel(bench):
    kernels = [run(bench, model={"attention_dropout": dropout}).training.attention_kernels for dropout in (0.0, 0.1)]
    flash, math = "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_attention_math"
    # The training step's kernel is reported, not that of evaluation, which has no dropout.
    assert kernels == [(flash,), (math,)]


def test_the_parts_explain_the_peak_and_the_extra_step_is_not_recorded(bench):
    training = run(bench).training
    parts, (peak,) = training.memory_parts, training.peak_memory
    assert sum(explained(parts).values()) == pytest.approx(peak.num_bytes, rel=0.08)
    assert len(training.steps.seconds[0]) == 2
    # Embeddings of words that no row contains were never read from the weights file.
    frozen = run(bench, trainable="head").training.memory_parts
    assert 0 <= frozen.unread_weights_bytes < frozen.weights_bytes


@pytest.mark.skipif(not GLIBC, reason="the C library is not glibc")
def test_the_mmap_threshold_returns_every_freed_block():
    """Free every second of 100 blocks of 1 MiB: the process must shrink by 50 MiB."""
    code = (
        "import sys, ctypes, psutil\n"
        "if sys.argv[1] == 'mmap':\n"
        "    from harness.machine.malloc import mmap_large_blocks; mmap_large_blocks()\n"
        "libc = ctypes.CDLL(None); libc.malloc.restype = ctypes.c_void_p; libc.free.argtypes = [ctypes.c_void_p]\n"
        "libc.malloc.argtypes = [ctypes.c_size_t]\n"
        "libc.free(libc.malloc(20 << 20))\n"  # glibc raises its threshold to the largest freed block
        "blocks = [libc.malloc(1 << 20) for _ in range(100)]\n"
        "for block in blocks: ctypes.memset(block, 1, 1 << 20)\n"
        "full = psutil.Process().memory_info().rss\n"
        "for block in blocks[::2]: libc.free(block)\n"
        "print((full - psutil.Process().memory_info().rss) >> 20)\n"
    )
    freed = [
        int(subprocess.run([sys.executable, "-c", code, how], capture_output=True, text=True, check=True).stdout)
        for how in ("system", "mmap")
    ]
    assert freed[0] < 5
    assert freed[1] == pytest.approx(50, abs=1)


@pytest.mark.skipif(not GLIBC, reason="the C library is not glibc")
def test_a_cell_with_the_mmap_threshold_succeeds(bench):
    assert run(bench, training={"allocator": "mmap"}).training.memory_parts is not None


def test_the_mmap_threshold_is_unsupported_without_glibc(bench):
    machine = describe_machine().model_copy(update={"allocator": "musl 1.2"})
    raw = {"baselines": False, "training": {"allocator": "mmap"}}
    (cell,) = expand(parse_study(raw, "s"))
    assert 'allocator = "mmap" is a setting of glibc' in unsupported_reason(cell.config, machine)


@pytest.mark.slow
@pytest.mark.skipif(not GLIBC, reason="the C library is not glibc")
def test_fit_finds_the_largest_batch_by_running_it(bench):
    """At 512 x 512 attention scores, each example of the tiny model takes about 12 MiB."""
    (cell,) = bench.cells(matrix={"seq_len": [512]}, training={"allocator": "mmap"})
    search, attempts = BatchSizeSearch(cell, bench.environment.machine), []
    fit = find_fit(search, MemoryBudget(768 * MIB, "768 MiB", cap=True), attempts.append)
    assert (*fit.attempts, *fit.confirmations) == tuple(attempts) and 2 <= len(fit.attempts) <= MAX_ATTEMPTS
    assert fit.note is None
    # Padded steps say which batch is the largest; the study's own batches, that its rows fit with a margin.
    assert fit.smallest_too_large == max(attempt.batch_size for attempt in fit.attempts if attempt.fits) + 1
    (confirmed,) = fit.confirmations
    assert confirmed.batch_size == fit.batch == fit.smallest_too_large - 1 and confirmed.fits
    assert confirmed.num_steps == -(-256 // fit.batch) and confirmed.margin == EPOCH_MARGIN
    assert confirmed.measured_bytes * 1.03 <= 768 * MIB
    for attempt in fit.attempts:
        assert attempt.fits == (attempt.outcome == "ok" and attempt.measured_bytes <= 768 * MIB)
        if attempt.measured_bytes is not None:
            assert attempt.measured_bytes == pytest.approx(attempt.predicted_bytes, rel=0.15)
    assert fit.instances[0].usd_per_hour <= fit.instances[-1].usd_per_hour
