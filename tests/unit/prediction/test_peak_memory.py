"""The prediction from shapes: hand-computed sizes, and how a cell's choices move it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from harness.errors import UserError
from harness.prediction.peak_memory import BASE_BYTES, predict_peak
from harness.schema.expansion import expand
from harness.schema.model_shapes import ModelShape, load_model_shape
from harness.schema.settings import ModelSettings
from harness.schema.study_file import parse_study

TINY = ModelShape(hidden=32, layers=2, heads=2, intermediate=64)
MIB = 2**20


def config_of(**matrix):
    raw = {"baselines": False, "model": {"init": "random"}, "matrix": {key: [value] for key, value in matrix.items()}}
    (cell,) = expand(parse_study(raw, "s"))
    return cell.config


def peak_of(shape=TINY, **matrix):
    return predict_peak(config_of(**{"padding": "max", "batch_size": 16, "seq_len": 24} | matrix), shape, 2)


def test_parameters_of_bert_base_are_those_that_everyone_counts():
    shape = load_model_shape(ModelSettings(shape="bert-base", init="random"), None)
    assert shape.parameters(2) == 109_483_778
    assert shape.head_parameters(2) == 768 * 768 + 768 + 2 * 768 + 2


def test_the_weights_of_a_tiny_bert_by_hand():
    embeddings = (30522 + 512 + 2) * 32 + 2 * 32
    layer = 4 * (32 * 32 + 32) + 2 * 32 + (32 * 64 + 64) + (64 * 32 + 32) + 2 * 32
    assert TINY.parameters(2) == embeddings + 2 * layer + (32 * 32 + 32) + (32 * 2 + 2) == 1_011_426
    found = peak_of()
    assert found.parts["weights"] == 4 * 1_011_426
    assert found.parts["optimizer"] == 8 * 1_011_426


def test_what_a_layer_saves_by_hand():
    unit = 16 * 24 * 32 * 4
    saved = peak_of(
        **{"model.attention_dropout": 0.0}, shape=ModelShape(32, 2, 2, 64, attention_dropout=0.0)
    ).activations
    # Five units (input, query, key, value, output), the mask and the log-sum-exp.
    assert saved["attention"] == 2 * (5 * unit + 16 * 24 * 24 * 4 + 16 * 2 * 24 * 4)
    # The input, and twice the double width.
    assert saved["feed-forward"] == 2 * (1 + 2 + 2) * unit
    assert saved["dropout"] == 5 * unit
    plain = peak_of().activations
    assert plain["attention"] == 2 * (5 * unit + 3 * 16 * 2 * 24 * 24 * 4)


def test_a_frozen_encoder_saves_nothing_and_a_checkpointed_one_its_layers_inputs():
    frozen = peak_of(trainable="head")
    assert set(frozen.activations) == {"head"}
    assert frozen.parts["optimizer"] == 8 * TINY.head_parameters(2)
    checkpointed = peak_of(**{"training.activation_checkpointing": True})
    unit = 16 * 24 * 32 * 4
    assert checkpointed.activations["layer inputs"] == 2 * unit + 16 * 24
    assert "attention" not in checkpointed.activations


def test_more_of_anything_needs_more():
    def total(**matrix):
        return peak_of(
            load_model_shape(ModelSettings(shape="bert-base", init="random"), None), **matrix
        ).above_base_bytes

    for key, values in {"batch_size": (8, 9, 64), "seq_len": (64, 65, 512), "training.grad_accum": (1, 2)}.items():
        sizes = [total(**{key: value}) for value in values]
        assert sizes == sorted(set(sizes)), key
    assert total(**{"training.optimizer": "sgd"}) == total() - 8 * 109_483_778
    assert total(seq_len=512, **{"training.activation_checkpointing": True}) < total(seq_len=512)


def test_the_parts_are_the_fullest_moments_and_sum_to_the_peak():
    found = peak_of()
    assert found.peak_state.num_bytes == max(state.num_bytes for state in found.states)
    assert sum(found.parts.values()) == found.above_base_bytes == found.peak_bytes - BASE_BYTES
    assert {"forward", "update"} < {state.name for state in found.states}


def test_what_eager_attention_saves_by_hand():
    def saved(precision, device="cpu", dropout=0.0):
        shape = ModelShape(32, 2, 2, 64, attention_dropout=dropout)
        settings = {"precision": precision, "device": device, "model.attention": "eager"}
        return peak_of(shape, **settings).activations["attention"]

    unit, scores = 16 * 24 * 32 * 4, 16 * 2 * 24 * 24 * 4
    # In fp32 five units (input, query, key, value, output) and softmax's output; dropout adds its mask and the product.
    assert saved("fp32") == 2 * (5 * unit + scores)
    assert saved("fp32", dropout=0.1) == 2 * (5 * unit + 3 * scores)
    # In bf16 all of it has 2 bytes an element, and the input is cast three times.
    assert saved("bf16") == 2 * (7 * unit + scores) // 2
    assert saved("bf16", dropout=0.1) == 2 * (7 * unit + 3 * scores) // 2
    # On a GPU, softmax stays in fp32 and is cast for the product; a dropout mask has one byte an element.
    assert saved("bf16", "gpu") == 2 * (7 * unit // 2 + scores + scores // 2)
    assert saved("bf16", "gpu", dropout=0.1) == 2 * (7 * unit // 2 + scores + scores // 4 + scores // 2)


def test_a_chosen_attention_is_predicted_as_the_larger_of_both():
    def peaks(dropout, precision):
        shape = ModelShape(32, 2, 2, 64, attention_dropout=dropout)
        settings = {"seq_len": 384, "precision": precision}
        return [
            peak_of(shape, **settings, **{"model.attention": kind}).peak_bytes for kind in ("sdpa", "eager", "auto")
        ]

    # With dropout in bf16, sdpa takes a path that keeps its scores in fp32.
    sdpa, eager, auto = peaks(0.1, "bf16")
    assert eager < sdpa == auto
    sdpa, eager, auto = peaks(0.0, "fp32")
    assert sdpa < eager == auto


def test_a_length_is_rounded_up_to_its_multiple():
    def peak(longest, **matrix):
        return predict_peak(config_of(seq_len=60, **matrix), TINY, 2, longest=longest).peak_bytes

    assert peak(41, pad_multiple=8) == peak(48) > peak(41)
    assert peak(57, pad_multiple=8) == peak(60) == peak(None)


def test_ranks_each_have_a_base_and_a_second_copy_of_gradients():
    one, two = peak_of(device="cpu"), peak_of(device="cpu-ddp2")
    assert two.num_ranks == 2
    assert two.above_base_bytes == one.above_base_bytes + 4 * 1_011_426
    assert two.peak_bytes == 2 * (BASE_BYTES + two.above_base_bytes)


def test_known_lengths_replace_the_longest_that_is_allowed():
    config = config_of(padding="longest", seq_len=512)
    at_most, real = (predict_peak(config, TINY, 2, longest=longest).above_base_bytes for longest in (None, 40))
    assert real < at_most == predict_peak(config, TINY, 2, longest=4_000).above_base_bytes


def test_a_distilbert_is_read_from_its_own_keys(tmp_path):
    told = {"model_type": "distilbert", "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "vocab_size": 30522,
            "max_position_embeddings": 512, "attention_dropout": 0.1, "dropout": 0.2}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(told))
    shape = load_model_shape(ModelSettings(name=str(tmp_path), num_layers=1), tmp_path)
    assert (shape.layers, shape.token_types, shape.hidden_dropout, shape.distil) == (1, 0, 0.2, True)


def test_a_model_that_is_no_bert_is_the_users_mistake(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_embd": 768}')
    with pytest.raises(UserError, match=r"can't read its dimensions from its config"):
        load_model_shape(ModelSettings(name=str(tmp_path)), tmp_path)


def test_predicting_imports_no_torch():
    code = (
        "import sys; from harness.cli import main as cli; sys.argv = ['harness', 'fit', 'bench/gpu.toml', '--predict', '--json', "
        "'--memory-gib', '16']\n"
        "try: cli.main()\nexcept SystemExit as end: print(end.code)\n"
        "print(sorted({'torch', 'transformers', 'scipy', 'pandas', 'plotly'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert json.loads(done.stdout.rsplit("\n", 2)[0])["predicted_batch"] > 0
