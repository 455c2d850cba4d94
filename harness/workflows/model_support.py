"""What a cell's model refuses, read from its config.json before anything runs (no torch)."""

from __future__ import annotations

from pathlib import Path

from harness.dataset.sources import locate_model
from harness.errors import UserError
from harness.schema.cells import BaselineConfig, FineTuneConfig
from harness.schema.encoder_families import BERT, FAMILIES, TESTED, read_config, refusal
from harness.schema.model_shapes import STANDARD_SHAPES
from harness.schema.settings import PACKAGED_MODEL, ModelSettings


def refused_by_model(config: FineTuneConfig | BaselineConfig) -> str | None:
    """Return why the cell's model can't be trained with its settings; None if it can, or if the model is not on this machine.

    The worker checks the same when it has the model, so that a model of the hub is not downloaded for this.
    """
    if config.model is None or config.seq_len is None or (sizes := _sizes(config.model)) is None:
        return None
    if isinstance(config, FineTuneConfig):
        return refusal(sizes, config.model, config.trainable, config.seq_len, config.precision)
    if sizes.get("model_type") not in FAMILIES:
        return (
            f"features: the layers of the architecture {sizes.get('model_type')!r} are not known; take one of {TESTED}"
        )
    return refusal(sizes, config.model, "head", config.seq_len)


def _sizes(model: ModelSettings) -> dict[str, object] | None:
    if model.shape is not None:
        _, layers, _ = STANDARD_SHAPES[model.shape]
        return {"model_type": BERT, "max_position_embeddings": 512, "num_hidden_layers": layers}
    if model.name != PACKAGED_MODEL and not Path(model.name).expanduser().is_dir():
        return None
    try:
        return read_config(locate_model(model.name, weights=False).folder) or None
    except UserError:
        return None
