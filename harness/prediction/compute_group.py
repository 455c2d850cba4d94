"""Cells that compute alike: a step of one batch shape takes them the same time."""

from __future__ import annotations

from harness.schema.cells import FineTuneConfig, hash_config

# Keys that change which batches there are, and not how long a batch takes.
_NEUTRAL_KEYS = (
    "batch_size", "global_batch_size", "seq_len", "padding", "pad_multiple", "seed", "data", "limits", "measure",
    *(
        f"training.{key}"
        for key in (
            "epochs", "max_steps", "lr", "schedule", "warmup_fraction", "weight_decay", "lr_scaling", "lr_base_batch_size",
            "eval_every", "target_accuracy", "stop_at_target", "chunks", "chunk_order", "keep_model",
        )
    ),
)  # fmt: skip


def compute_group(config: FineTuneConfig) -> str:
    """Return a hash that is equal for cells whose steps differ in nothing but the shape of their batches."""
    return hash_config(config, ignore=_NEUTRAL_KEYS)
