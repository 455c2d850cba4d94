"""What the table of families refuses, from a model's configuration alone."""

from __future__ import annotations

import pytest

from harness.schema.encoder_families import max_tokens, refusal
from harness.schema.settings import ModelSettings

ROBERTA = {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1, "num_hidden_layers": 12}
ALBERT = {"model_type": "albert", "max_position_embeddings": 512, "num_hidden_layers": 12}


def test_positions_that_padding_occupies_are_no_tokens():
    """RoBERTa was given 514, the rows of its table; 513 tokens crashed."""
    assert max_tokens(ROBERTA) == 512
    assert max_tokens({"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 0}) == 512
    assert max_tokens({"model_type": "bert", "max_position_embeddings": 512, "pad_token_id": 0}) == 512
    assert max_tokens({"model_type": "distilbert", "max_position_embeddings": 512}) == 512
    assert max_tokens({"model_type": "xlnet", "max_position_embeddings": -1}) is None
    assert refusal(ROBERTA, ModelSettings(), "all", 512) is None
    assert refusal(ROBERTA, ModelSettings(), "all", 514) == "seq_len 514 is beyond this model's 512 positions"


@pytest.mark.parametrize(
    ("config", "settings", "trainable", "reason"),
    [
        (ROBERTA, {}, "top12", None),
        (ROBERTA, {}, "top13", "top13 asks for more layers than this model's 12"),
        (ROBERTA, {"num_layers": 6}, "top7", "top7 asks for more layers than this model's 6"),
        (ALBERT, {}, "top12", None),
        (ALBERT, {}, "head", None),
        (ALBERT, {}, "top1", "top1: the 12 layers of ALBERT share their weights"),
        ({"model_type": "funnel"}, {}, "all", None),
        ({"model_type": "funnel"}, {}, "top1", "top1: not known for the architecture 'funnel'"),
        (
            {"model_type": "funnel"},
            {"hidden_dropout": 0.0},
            "all",
            "model.hidden_dropout: not known for the architecture",
        ),
    ],
)
def test_refusals_of_the_trained_part_and_of_dropouts(config, settings, trainable, reason):
    refused = refusal(config, ModelSettings(**settings), trainable, 64)
    assert (refused is None) == (reason is None) and (reason is None or refused.startswith(reason))


def test_deberta_has_no_half_precision():
    deberta = {"model_type": "deberta", "max_position_embeddings": 512, "num_hidden_layers": 12}
    assert "can't compute in 16 bits" in refusal(deberta, ModelSettings(), "all", 64, "bf16")
    assert refusal(deberta | {"model_type": "deberta-v2"}, ModelSettings(), "all", 64, "bf16") is None
