"""Optimizer and learning-rate schedule."""

from __future__ import annotations

import math

import torch
from transformers import PreTrainedModel

from harness.schema.cells import FineTuneConfig
from harness.worker.distributed import DistributedContext


def peak_learning_rate(config: FineTuneConfig, world_size: int) -> float:
    """Return `lr` scaled from the base batch to the cell's global batch by `lr_scaling`."""
    training = config.training
    ratio = config.global_batch(world_size) / training.lr_base_batch_size
    return training.lr * {"none": 1.0, "sqrt": math.sqrt(ratio), "linear": ratio}[training.lr_scaling]


def build_optimizer(
    model: PreTrainedModel, config: FineTuneConfig, distributed: DistributedContext
) -> torch.optim.Optimizer:
    """Build AdamW or SGD over the trainable parameters."""
    training = config.training
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": training.weight_decay},
        # Biases and LayerNorm weights have one dimension; they are not decayed, as in BERT's own recipe.
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    lr = peak_learning_rate(config, distributed.world_size)
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, fused=True)
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def count_skipped_updates(optimizer: torch.optim.Optimizer, device: torch.device) -> torch.Tensor:
    """Count the updates that the gradient scaler skips, in a `()` tensor on the device.

    The host does not count them, since reading the scaler's scale, or whether it fell, would wait for the GPU.
    """
    num_skipped = torch.zeros((), device=device)

    def count(optimizer: torch.optim.Optimizer, *_: object) -> None:
        found_inf = getattr(optimizer, "found_inf", None)  # set by the scaler during an update; above 0 on overflow
        if found_inf is not None:
            num_skipped.add_(found_inf > 0)

    optimizer.register_step_pre_hook(count)
    return num_skipped


def build_schedule(
    optimizer: torch.optim.Optimizer, config: FineTuneConfig, num_updates: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Build a linear warm-up, followed by linear decay to 0 or a constant rate."""
    warmup = round(config.training.warmup_fraction * num_updates)
    decays = config.training.schedule == "linear"

    def factor(update: int) -> float:
        if update < warmup:
            return (update + 1) / warmup
        return max(0.0, (num_updates - update) / max(1, num_updates - warmup)) if decays else 1.0

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
