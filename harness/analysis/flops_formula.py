"""Count the floating-point operations of a BERT training step with a closed formula."""

from __future__ import annotations

from typing import Protocol

from harness.schema.settings import num_trained_layers


class LayerSizes(Protocol):
    """The sizes that determine a model's matrix products; `ModelFacts` has these attributes."""

    @property
    def hidden_size(self) -> int: ...  # noqa: D102
    @property
    def intermediate_size(self) -> int: ...  # noqa: D102
    @property
    def num_layers(self) -> int: ...  # noqa: D102


def training_flops(
    model: LayerSizes,
    num_labels: int,
    num_samples: int,
    num_padded_tokens: float,
    *,
    trainable: str,
    num_token_pairs: float | None = None,
    recomputed: bool = False,
) -> float:
    """Return the FLOPs of the matrix products of one training step.

    A multiply-add counts as two FLOPs, and a backward pass as two forward passes. With hidden size h, intermediate size
    i, t padded tokens and p token pairs, one layer's forward pass takes t (8 h^2 + 4 h i) + 4 h p: four projections, two
    feed-forward products, the attention scores and their weighted sum. The head (pooler and classifier) takes
    n (2 h^2 + 2 h labels) for n samples. Frozen layers have no backward pass, and the lowest trained layer computes no
    gradient of its input, which saves 6 h^2 t of the query, key and value projections.

    Source of the forward and backward counts: J. Kaplan et al., "Scaling laws for neural language models",
    arXiv:2001.08361 (2020), section 2.1.

    Args:
        model: The model's sizes.
        num_labels: Classes of the classifier.
        num_samples: Rows in the step.
        num_padded_tokens: Tokens in the step, padding included.
        trainable: `all`, `head`, or `topN` for the last N layers and the head.
        num_token_pairs: Sum over rows of the squared padded length; None if all rows have the mean length.
        recomputed: Also count the second forward pass of activation checkpointing.
    """
    hidden = model.hidden_size
    pairs = num_padded_tokens**2 / num_samples if num_token_pairs is None else num_token_pairs
    projections = num_padded_tokens * (8 * hidden**2 + 4 * hidden * model.intermediate_size)
    layer = projections + 4 * hidden * pairs
    trained = num_trained_layers(trainable, model.num_layers)
    passes = model.num_layers + (3 if recomputed else 2) * trained
    skipped = 6 * hidden**2 * num_padded_tokens if trained and trainable != "all" else 0
    pooler, classifier = num_samples * 2 * hidden**2, num_samples * 2 * hidden * num_labels
    return passes * layer - skipped + (3 if trained else 2) * pooler + 3 * classifier
