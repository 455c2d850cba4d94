"""BERT's dimensions, from a standard shape or a model's config.json; this module does not import torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import UserError
from harness.schema.settings import ModelSettings

# Hidden size, layers and heads of the models of Turc et al. 2019 (arXiv:1908.08962) and Devlin et al. 2018.
STANDARD_SHAPES = {
    "bert-tiny": (128, 2, 2),
    "bert-mini": (256, 4, 4),
    "bert-small": (512, 4, 8),
    "bert-medium": (512, 8, 8),
    "bert-base": (768, 12, 12),
    "bert-large": (1024, 24, 16),
}


@dataclass(frozen=True)
class ModelShape:
    """The dimensions of a BERT, or of a DistilBERT where `distil` is true."""

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
        """Return the number of parameters of the word, position and token type embeddings and their LayerNorm."""
        return (self.vocab + self.positions + self.token_types + 2) * self.hidden

    def head_parameters(self, num_labels: int) -> int:
        """Return the number of parameters of the pooler (DistilBERT: pre-classifier) and the classifier."""
        return self.hidden**2 + self.hidden + (self.hidden + 1) * num_labels

    def parameters(self, num_labels: int) -> int:
        """Return the number of parameters of the whole model."""
        return self.embedding_parameters + self.layers * self.layer_parameters + self.head_parameters(num_labels)


def load_model_shape(settings: ModelSettings, folder: Path | None) -> ModelShape:
    """Read a model's dimensions from the study, or from `config.json` in the model's folder.

    Raises:
        UserError: When the file is missing, or does not describe a BERT.
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


def _read_shape(name: str, folder: Path | None) -> ModelShape:
    try:
        config = json.loads(((folder or Path(name)) / "config.json").read_text(encoding="utf-8"))
        if config["model_type"] == "distilbert":
            return ModelShape(
                hidden=config["dim"], layers=config["n_layers"], heads=config["n_heads"],
                intermediate=config["hidden_dim"], vocab=config["vocab_size"],
                positions=config["max_position_embeddings"], token_types=0,
                attention_dropout=config["attention_dropout"], hidden_dropout=config["dropout"], distil=True,
            )  # fmt: skip
        return ModelShape(
            hidden=config["hidden_size"], layers=config["num_hidden_layers"], heads=config["num_attention_heads"],
            intermediate=config["intermediate_size"], vocab=config["vocab_size"],
            positions=config["max_position_embeddings"], token_types=config.get("type_vocab_size", 2),
            attention_dropout=config["attention_probs_dropout_prob"], hidden_dropout=config["hidden_dropout_prob"],
        )  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"model {name!r}: can't read BERT's dimensions from its config.json ({error})") from None
