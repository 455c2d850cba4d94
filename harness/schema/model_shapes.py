"""BERT's dimensions, from a standard shape or a model's config.json; this module does not import torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.schema.encoder_families import FAMILIES, max_tokens
from harness.schema.settings import ModelSettings, num_trained_layers

# Hidden size, layers and heads of the models of Turc et al. 2019 (arXiv:1908.08962) and Devlin et al. 2018.
STANDARD_SHAPES = {
    "bert-tiny": (128, 2, 2),
    "bert-mini": (256, 4, 4),
    "bert-small": (512, 4, 8),
    "bert-medium": (512, 8, 8),
    "bert-base": (768, 12, 12),
    "bert-large": (1024, 24, 16),
}

_DROP_FIRST_TOKEN = ("roberta", "xlm-roberta", "electra")
_SIZE_KEYS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


@dataclass(frozen=True)
class ModelShape:
    """The dimensions of a model; the numbers of parameters are those of families whose memory is predicted.

    Attributes:
        positions: Rows of the position table.
        num_reserved_positions: Rows of it that no token uses.
        embedding: Width of the embeddings, where it is not `hidden`; a matrix then projects them (ELECTRA).
        drops_first_token: Whether the head's first layer reads the first token after dropout.
        distil: Whether it is a DistilBERT.
        family: The family's name; the architecture's if it is in none.
        is_memory_predicted: Whether `prediction/activation_sizes.py` describes its steps.
    """

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocab: int = 30522
    positions: int = 512
    token_types: int = 2
    attention_dropout: float = 0.1
    hidden_dropout: float = 0.1
    distil: bool = False
    num_reserved_positions: int = 0
    embedding: int | None = None
    drops_first_token: bool = False
    family: str = "BERT"
    is_memory_predicted: bool = True

    @property
    def hidden_size(self) -> int:
        """Return the width of the hidden states, by the name that `ModelFacts` has for it."""
        return self.hidden

    @property
    def intermediate_size(self) -> int:
        """Return the width within the feed-forward block, by the name that `ModelFacts` has for it."""
        return self.intermediate

    @property
    def num_layers(self) -> int:
        """Return the number of layers, by the name that `ModelFacts` has for it."""
        return self.layers

    @property
    def embedding_size(self) -> int:
        """Return the width of the embeddings."""
        return self.embedding or self.hidden

    @property
    def is_projected(self) -> bool:
        """Return whether a matrix projects the embeddings to the hidden size."""
        return self.embedding_size != self.hidden

    @property
    def max_tokens(self) -> int:
        """Return the longest input in tokens."""
        return self.positions - self.num_reserved_positions

    @property
    def layer_parameters(self) -> int:
        """Return the number of parameters of one layer: its weight matrices, their biases and two LayerNorms."""
        return self.layer_products + 4 * self.hidden + self.intermediate + self.hidden + 4 * self.hidden

    @property
    def layer_products(self) -> int:
        """Return the number of elements of one layer's weight matrices: 4 of attention, 2 of the feed-forward block."""
        return 4 * self.hidden**2 + 2 * self.hidden * self.intermediate

    @property
    def embedding_parameters(self) -> int:
        """Return the number of parameters of the word, position and token type embeddings, their LayerNorm and projection."""
        projection = (self.embedding_size + 1) * self.hidden if self.is_projected else 0
        return (self.vocab + self.positions + self.token_types + 2) * self.embedding_size + projection

    def head_parameters(self, num_labels: int) -> int:
        """Return the number of parameters of the pooler (DistilBERT: pre-classifier) and the classifier."""
        return self.hidden**2 + self.hidden + (self.hidden + 1) * num_labels

    def parameters(self, num_labels: int) -> int:
        """Return the number of parameters of the whole model."""
        return self.trained_parameters("all", num_labels)

    def trained_parameters(self, trainable: str, num_labels: int) -> int:
        """Return the number of trained parameters: of the head, of the trained layers, and with `all` of the embeddings."""
        num_layers = num_trained_layers(trainable, self.layers)
        embeddings = self.embedding_parameters if trainable == "all" else 0
        return embeddings + num_layers * self.layer_parameters + self.head_parameters(num_labels)


def load_model_shape(settings: ModelSettings, folder: Path | None) -> ModelShape:
    """Read a model's dimensions from the study, or from `config.json` in the model's folder.

    Raises:
        UserError: When the file is missing, or does not state them.
    """
    if settings.shape is not None:
        hidden, layers, heads = STANDARD_SHAPES[settings.shape]
        shape = ModelShape(hidden, layers, heads, 4 * hidden)
    else:
        shape = _read_shape(settings.name, folder)
    if settings.num_layers is not None:
        shape = replace(shape, layers=min(shape.layers, settings.num_layers))
    if settings.attention_dropout is not None:
        shape = replace(shape, attention_dropout=settings.attention_dropout)
    if settings.hidden_dropout is not None:
        shape = replace(shape, hidden_dropout=settings.hidden_dropout)
    return shape


def require_predicted_memory(shape: ModelShape) -> None:
    """Raise UserError if the memory of the model's family can't be predicted."""
    if not shape.is_memory_predicted:
        predicted = ", ".join(dict.fromkeys(family.name for family in FAMILIES.values() if family.predicts_memory))
        raise UserError(
            f"memory not predicted for {shape.family}: the sizes of its steps' tensors are not known, only those of {predicted}; "
            "`harness run` measures its peak"
        )


def _read_shape(name: str, folder: Path | None) -> ModelShape:
    try:
        config = json.loads(((folder or Path(name)) / "config.json").read_text(encoding="utf-8"))
        return _shape_of(config)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"model {name!r}: can't read its dimensions from its config.json ({error})") from None


def _shape_of(config: dict[str, Any]) -> ModelShape:
    model_type = config["model_type"]
    family, distil = FAMILIES.get(model_type), model_type == "distilbert"
    keys = ("dim", "n_layers", "n_heads", "hidden_dim") if distil else _SIZE_KEYS
    hidden, layers, heads, intermediate = (config[key] for key in keys)
    positions = config["max_position_embeddings"]
    return ModelShape(
        hidden, layers, heads, intermediate,
        vocab=config["vocab_size"],
        positions=positions,
        num_reserved_positions=max(0, positions - (max_tokens(config) or positions)),
        token_types=0 if distil else config.get("type_vocab_size", 2),
        embedding=config.get("embedding_size", hidden),
        attention_dropout=_first(config, family.attention_dropout if family else (), 0.1),
        hidden_dropout=_first(config, family.hidden_dropout if family else (), 0.1),
        distil=distil,
        drops_first_token=model_type in _DROP_FIRST_TOKEN,
        family=family.name if family else str(model_type),
        is_memory_predicted=family is not None and family.predicts_memory,
    )  # fmt: skip


def _first(config: dict[str, Any], keys: Iterable[str], default: float) -> float:
    return next((float(config[key]) for key in keys if key in config), default)
