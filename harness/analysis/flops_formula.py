"""How many floating-point operations a step of BERT takes, from its sizes (pure)."""

from __future__ import annotations

from typing import Protocol

from harness.schema.settings import num_trained_layers


class Sizes(Protocol):
    """Of a model, what its products' sizes follow from; `ModelFacts` has them."""

    @property
    def hidden_size(self) -> int: ...  # noqa: D102
    @property
    def intermediate_size(self) -> int: ...  # noqa: D102
    @property
    def num_layers(self) -> int: ...  # noqa: D102


def training_flops(
    model: Sizes,
    num_labels: int,
    num_samples: int,
    num_padded_tokens: float,
    *,
    trainable: str,
    num_token_pairs: float | None = None,
    recomputed: bool = False,
) -> float:
    """FLOPs of the matrix products of one training step; a multiply-add is two, a backward is two forwards.

    With hidden size h, feed-forward size i, t padded tokens and p pairs of them, a layer's forward takes
    t (8 h^2 + 4 h i) + 4 h p: four projections, two feed-forward products, scores and their weighted sum. The head
    (pooler and classifier) takes n (2 h^2 + 2 h labels) on n samples. What is frozen has no backward, and no gradient is
    needed of what the lowest trained part reads from it: of a layer its input to query, key and value, 6 h^2 t.

    Args:
        trainable: `all`, `head`, or `topN`: the last N layers and the head.
        num_token_pairs: Each row's padded length squared, summed; None: all rows are of the mean length.
        recomputed: Activation checkpointing's second forward pass through the trained layers counts, too.
    """
    hidden = model.hidden_size
    pairs = num_padded_tokens**2 / num_samples if num_token_pairs is None else num_token_pairs
    projections = num_padded_tokens * (8 * hidden**2 + 4 * hidden * model.intermediate_size)
    layer = projections + 4 * hidden * pairs
    trained = num_trained_layers(trainable, model.num_layers)
    passes = model.num_layers + (3 if recomputed else 2) * trained
    unread = 6 * hidden**2 * num_padded_tokens if trained and trainable != "all" else 0
    pooler, classifier = num_samples * 2 * hidden**2, num_samples * 2 * hidden * num_labels
    return passes * layer - unread + (3 if trained else 2) * pooler + 3 * classifier
