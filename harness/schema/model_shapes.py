"""BERT's sizes: of the standard shapes, or read from a model's config.json (no torch)."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import UserError
from harness.schema.settings import ModelSettings

# Hidden size, layers and heads of the sizes in Turc et al. 2019 (arXiv:1908.08962) and Devlin et al. 2018.
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
    """BERT's sizes; of a DistilBERT `distil` is true."""

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
        """Of one layer: four square products, two of the feed-forward part, their biases and two LayerNorms."""
        return self.layer_products + 4 * self.hidden + self.intermediate + self.hidden + 4 * self.hidden

    @property
    def layer_products(self) -> int:
        """Elements of a layer's weight matrices."""
        return 4 * self.hidden**2 + 2 * self.hidden * self.intermediate

    @property
    def embedding_parameters(self) -> int:
        """Words, positions, token types and a LayerNorm."""
        return (self.vocab + self.positions + self.token_types + 2) * self.hidden

    def head_parameters(self, num_labels: int) -> int:
        """The pooler (DistilBERT: the first layer of its classifier), and the classifier."""
        return self.hidden**2 + self.hidden + (self.hidden + 1) * num_labels

    def parameters(self, num_labels: int) -> int:
        """All that there are."""
        return self.embedding_parameters + self.layers * self.layer_parameters + self.head_parameters(num_labels)


def shape_of(settings: ModelSettings, folder: Path | None) -> ModelShape:
    """Read a model's sizes from the study, or from the `config.json` in its folder.

    Raises:
        UserError: When there is no such file, or it describes no BERT.
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
        told = json.loads(((folder or Path(name)) / "config.json").read_text(encoding="utf-8"))
        if told["model_type"] == "distilbert":
            return ModelShape(
                hidden=told["dim"], layers=told["n_layers"], heads=told["n_heads"], intermediate=told["hidden_dim"],
                vocab=told["vocab_size"], positions=told["max_position_embeddings"], token_types=0,
                attention_dropout=told["attention_dropout"], hidden_dropout=told["dropout"], distil=True,
            )  # fmt: skip
        return ModelShape(
            hidden=told["hidden_size"], layers=told["num_hidden_layers"], heads=told["num_attention_heads"],
            intermediate=told["intermediate_size"], vocab=told["vocab_size"],
            positions=told["max_position_embeddings"], token_types=told.get("type_vocab_size", 2),
            attention_dropout=told["attention_probs_dropout_prob"], hidden_dropout=told["hidden_dropout_prob"],
        )  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"model {name!r}: its config.json does not tell BERT's sizes ({error})") from None
