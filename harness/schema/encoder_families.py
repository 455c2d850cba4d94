"""The tested encoder families: what each calls its layers, dropouts, positions and masks, in one table (no torch).

Of an encoder that is not in the table, nothing is assumed: before it runs, the worker compares it with its own forward pass
(`worker/family_check.py`), and settings that need the table are refused (`refusal`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from harness.schema.settings import ModelSettings, num_trained_layers

BERT = "bert"  # the model type of the standard shapes


@dataclass(frozen=True)
class Family:
    """What an architecture calls its parts. tests/integration/test_families.py tests each entry.

    Attributes:
        name: Name for people.
        layers: Path of the list of layers inside the base model.
        above_layers: Modules of the base model above the last layer, which are trained with it.
        attention_dropout: Configuration keys of the dropout of attention weights.
        hidden_dropout: Configuration keys of the dropout of hidden states; the first one is recorded.
        head_dropout: Configuration keys of the head's dropout, which follows `hidden_dropout` when that is set.
        num_reserved_positions: Rows of the position table that no token uses; `pad` stands for the padding token's id plus 1.
        mask: Shape of the attention mask: `pairs`, `(batch, 1, seq, seq)` for all layers; `tokens`, `(batch, seq)`, of which
            the model makes what each layer needs.
        shares_layers: Whether layers share one set of weights, so that they can't be frozen apart.
        predicts_memory: Whether `prediction/activation_sizes.py` describes its steps.
        has_half: Whether transformers can compute it under 16-bit autocast.
        has_sdpa: Whether transformers can compute its attention by scaled_dot_product_attention; all have `eager`.
        wordpiece: Whether its tokenizer is BERT's, so that a vocab.txt alone defines it.
    """

    name: str
    layers: str = "encoder.layer"
    above_layers: tuple[str, ...] = ()
    attention_dropout: tuple[str, ...] = ("attention_probs_dropout_prob",)
    hidden_dropout: tuple[str, ...] = ("hidden_dropout_prob",)
    head_dropout: tuple[str, ...] = ("classifier_dropout",)
    num_reserved_positions: int | Literal["pad"] = 0
    mask: Literal["pairs", "tokens"] = "pairs"
    shares_layers: bool = False
    predicts_memory: bool = False
    has_half: bool = True
    has_sdpa: bool = True
    wordpiece: bool = False


_ROBERTA = Family("RoBERTa", num_reserved_positions="pad", predicts_memory=True)
_DEBERTA = Family("DeBERTa", head_dropout=("cls_dropout", "pooler_dropout"), mask="tokens", has_sdpa=False)
# By `model_type` of config.json.
FAMILIES: Mapping[str, Family] = {
    BERT: Family("BERT", predicts_memory=True, wordpiece=True),
    "distilbert": Family(
        "DistilBERT", layers="transformer.layer", attention_dropout=("attention_dropout",), hidden_dropout=("dropout",),
        head_dropout=("seq_classif_dropout",), predicts_memory=True, wordpiece=True,
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": replace(_ROBERTA, name="XLM-R"),
    "electra": Family("ELECTRA", predicts_memory=True, wordpiece=True),
    "albert": Family(
        "ALBERT", layers="encoder.albert_layer_groups", head_dropout=("classifier_dropout_prob",), shares_layers=True
    ),
    # MPNet's padding index is 1, whatever its configuration says.
    "mpnet": Family("MPNet", head_dropout=(), num_reserved_positions=2, mask="tokens", has_sdpa=False),
    # It masks scores by the smallest fp32 number, which 16 bits can't hold.
    "deberta": replace(_DEBERTA, has_half=False),
    "deberta-v2": _DEBERTA,
    # Its global and its sliding layers need different masks. It calls the dropout after attention `attention_dropout` too.
    "modernbert": Family(
        "ModernBERT", layers="layers", above_layers=("final_norm",), attention_dropout=("attention_dropout",),
        hidden_dropout=("mlp_dropout", "embedding_dropout"), mask="tokens",
    ),
}  # fmt: skip
UNTESTED = "not tested"  # in records, instead of a family's name
TESTED = "BERT, DistilBERT, RoBERTa, XLM-R, ELECTRA, ALBERT, MPNet, DeBERTa and ModernBERT"


def read_config(folder: Path) -> dict[str, Any]:
    """Read a model's config.json; {} if there is none that can be read, since others report that."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def max_tokens(config: Mapping[str, Any]) -> int | None:
    """Return the longest input that a model's positions allow; None if its configuration doesn't say."""
    positions, family = config.get("max_position_embeddings"), FAMILIES.get(config.get("model_type", ""))
    if not isinstance(positions, int) or positions < 1:
        return None
    reserved = family.num_reserved_positions if family is not None else 0
    pad = config.get("pad_token_id")
    return positions - ((1 if pad is None else int(pad)) + 1 if reserved == "pad" else reserved)


def refusal(
    config: Mapping[str, Any], settings: ModelSettings, trainable: str, seq_len: int, precision: str = "fp32"
) -> str | None:
    """Return why a model can't be trained with these settings, in a sentence; None if it can.

    Args:
        config: The model's configuration, with at least `model_type`, `max_position_embeddings` and `num_hidden_layers`.
        settings: The study's `[model]`.
        trainable: The cell's trained part.
        seq_len: The cell's maximum length in tokens.
        precision: The cell's precision.
    """
    model_type = str(config.get("model_type"))
    family, limit = FAMILIES.get(model_type), max_tokens(config)
    if limit is not None and seq_len > limit:
        return f"seq_len {seq_len} is beyond this model's {limit} positions"
    if family is None:
        return _refusal_untested(model_type, settings, trainable)
    if settings.attention == "sdpa" and not family.has_sdpa:
        return lacks_sdpa(family.name)
    if not family.has_half and precision in ("bf16", "fp16"):
        return f"{precision}: {family.name} of transformers can't compute in 16 bits ({model_type}); take fp32 or tf32"
    num_layers = int(config.get("num_hidden_layers") or config.get("n_layers") or 0)
    num_layers = min(num_layers, settings.num_layers or num_layers)
    if trainable in ("all", "head"):
        return None
    trained = num_trained_layers(trainable, num_layers + 1)
    if trained > num_layers:
        return f"{trainable} asks for more layers than this model's {num_layers}"
    if family.shares_layers and trained < num_layers:
        return (
            f"{trainable}: the {num_layers} layers of {family.name} share their weights, so that none can be frozen apart; "
            f"take top{num_layers}, all or head"
        )
    return None


def lacks_sdpa(architecture: str) -> str:
    """Return the sentence that refuses `model.attention = "sdpa"`."""
    return f'model.attention: "sdpa": transformers has no such attention for {architecture}; take eager or auto'


def _refusal_untested(model_type: str, settings: ModelSettings, trainable: str) -> str | None:
    keys = [
        f"model.{key}"
        for key in ("num_layers", "attention_dropout", "hidden_dropout")
        if getattr(settings, key) is not None
    ]
    refused = [*keys, *([trainable] if trainable not in ("all", "head") else [])]
    if not refused:
        return None
    return (
        f"{' and '.join(refused)}: not known for the architecture {model_type!r}, which was never tested; it trains without, "
        f"or take one of {TESTED}"
    )
