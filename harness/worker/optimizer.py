"""TODO: say in one line what this module is for."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise

import torch
from transformers import (
    PreTrainedModel,
)

from harness.dataset.batch_plan import (
    chunk_ends,
    steps_per_epoch,
)
from harness.schema.cells import FineTuneConfig
from harness.worker.distributed import DistributedContext


def peak_learning_rate(config: FineTuneConfig, world_size: int) -> float:
    """`lr` after `lr_scaling` from the base batch to this cell's global batch."""
    training = config.training
    ratio = config.global_batch(world_size) / training.lr_base_batch_size
    return training.lr * {"none": 1.0, "sqrt": math.sqrt(ratio), "linear": ratio}[training.lr_scaling]


def planned_updates(config: FineTuneConfig, num_rows: int, world_size: int) -> int:
    """Optimiser updates of the whole run."""
    return updates_by_chunk(config, num_rows, world_size)[-1]


def updates_by_chunk(config: FineTuneConfig, num_rows: int, world_size: int) -> tuple[int, ...]:
    """Optimiser updates that are done when each chunk of the rows is; the last are the whole run's.

    Chunks of a shuffled run are equal parts of its updates: every one has rows from all over.
    """
    training = config.training
    if training.chunk_order == "shuffled":
        whole = training.max_steps or max(
            1, math.ceil(training.epochs * updates_per_epoch(config, num_rows, world_size))
        )
        return chunk_ends(whole, training.chunks)
    ends = (0, *chunk_ends(num_rows, training.chunks))
    of_each = [
        math.ceil(training.epochs * updates_per_epoch(config, end - first, world_size)) for first, end in pairwise(ends)
    ]
    done = tuple(accumulate(of_each))
    limit = training.max_steps or max(1, done[-1])
    return (*(min(one, limit) for one in done[:-1]), limit)


def updates_per_epoch(config: FineTuneConfig, num_rows: int, world_size: int) -> int:
    """Number of optimizer updates per epoch."""
    return steps_per_epoch(num_rows, config.global_batch(world_size))


def build_optimizer(model: PreTrainedModel, config: FineTuneConfig, place: DistributedContext) -> torch.optim.Optimizer:
    """Build AdamW or SGD over the trained parameters."""
    training = config.training
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for _, p in trained if p.ndim > 1]
    kept = [p for _, p in trained if p.ndim <= 1]  # biases and LayerNorm, as BERT's own recipe has it
    groups = [
        {"params": decayed, "weight_decay": training.weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    lr = peak_learning_rate(config, place.world_size)
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, fused=True)
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def count_skipped_updates(optimizer: torch.optim.Optimizer, place: DistributedContext) -> torch.Tensor:
    """Count on the device what the gradient scaler tells the fused update to skip.

    The scaler's own scale can't be read without waiting for the GPU, and nor can whether it fell.
    """
    num_skipped = torch.zeros((), device=place.device)

    def count(optimizer: torch.optim.Optimizer, *_: object) -> None:
        found_inf = getattr(optimizer, "found_inf", None)  # there for the length of an update, 0 or above
        if found_inf is not None:
            num_skipped.add_(found_inf > 0)

    optimizer.register_step_pre_hook(count)
    return num_skipped


def build_schedule(
    optimizer: torch.optim.Optimizer, config: FineTuneConfig, num_updates: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Build the learning-rate schedule."""
    warmup = round(config.training.warmup_fraction * num_updates)
    decays = config.training.schedule == "linear"

    def factor(update: int) -> float:
        if update < warmup:
            return (update + 1) / warmup
        return max(0.0, (num_updates - update) / max(1, num_updates - warmup)) if decays else 1.0

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
