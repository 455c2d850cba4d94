"""What a model refuses is told before anything runs, and memory is predicted for those families alone that are known."""

from __future__ import annotations

import json

import pytest

from harness.errors import UserError
from harness.schema.expansion import expand
from harness.schema.model_shapes import load_model_shape, require_predicted_memory
from harness.schema.settings import ModelSettings
from harness.schema.study_file import parse_study
from harness.workflows.model_support import refused_by_model

SIZES = {
    "hidden_size": 256, "num_hidden_layers": 12, "num_attention_heads": 4, "intermediate_size": 1024, "vocab_size": 30522,
    "max_position_embeddings": 512, "type_vocab_size": 2, "attention_probs_dropout_prob": 0.1, "hidden_dropout_prob": 0.1,
}  # fmt: skip


@pytest.fixture
def model(tmp_path):
    """Return a function that writes a config.json and returns its folder."""

    def write(model_type, **changes):
        (tmp_path / "config.json").write_text(json.dumps(SIZES | {"model_type": model_type} | changes))
        return tmp_path

    return write


def shape_of(folder):
    return load_model_shape(ModelSettings(name=str(folder)), folder)


def refused(folder, **matrix):
    (cell,) = expand(parse_study({"baselines": False, "model": {"name": str(folder)}, "matrix": matrix}, "s"))
    return refused_by_model(cell.config)


def test_parameters_of_an_electra(model):
    """22.5 M were counted: ELECTRA's embeddings are narrower than its layers, and a matrix widens them."""
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    shape = shape_of(model("electra", embedding_size=128, **sizes))
    layer = 4 * (384 * 384 + 384) + 2 * 384 * 1536 + 1536 + 384 + 4 * 384
    embeddings = (30522 + 512 + 2 + 2) * 128 + 128 * 384 + 384
    assert shape.parameters(2) == embeddings + 6 * layer + 384 * 384 + 384 + 2 * 385 == 14_817_794
    require_predicted_memory(shape)


def test_roberta_has_two_rows_of_positions_that_no_token_uses(model):
    shape = shape_of(model("roberta", max_position_embeddings=514, pad_token_id=1, type_vocab_size=1))
    assert (shape.positions, shape.max_tokens) == (514, 512)


@pytest.mark.parametrize("model_type", ["albert", "mpnet", "deberta-v2", "modernbert", "funnel"])
def test_memory_of_other_families_is_not_predicted(model_type, model):
    """ALBERT was predicted as if each layer had weights of its own: 22.5 M parameters instead of 5.9."""
    with pytest.raises(
        UserError, match=r"memory not predicted for .*only those of BERT, DistilBERT, RoBERTa, XLM-R, ELECTRA"
    ):
        require_predicted_memory(shape_of(model(model_type)))


def test_plan_tells_what_the_model_refuses(model):
    assert refused(model("bert"), seq_len=[512]) is None
    assert refused(model("bert"), seq_len=[513]) == "seq_len 513 is beyond this model's 512 positions"
    assert refused(model("albert"), trainable=["top1"]).startswith("top1: the 12 layers of ALBERT share their weights")
    assert refused(model("funnel"), trainable=["top1"]).startswith("top1: not known for the architecture 'funnel'")
    assert refused(model("deberta"), precision=["bf16"]).startswith("bf16: DeBERTa of transformers")
    (cell,) = expand(parse_study({"baselines": False, "model": {"name": "someone/model-of-the-hub"}}, "s"))
    assert refused_by_model(cell.config) is None
