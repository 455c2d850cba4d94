"""TODO: say in one line what this module is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from transformers import (
    PreTrainedModel,
)

from harness.execution.messages import TrainHistory

OnProgress = Callable[[], None]


@dataclass(frozen=True)
class TrainState:
    """A model with all that a step of training moves.

    Attributes:
        model: The bare model, which is evaluated.
        module: What is called: the model itself, or wrapped for DDP, or compiled.
        num_skipped: Updates that the gradient scaler skipped so far, `()`, counted on the device.
    """

    model: PreTrainedModel
    module: torch.nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    num_skipped: torch.Tensor


class Checkpointer(Protocol):
    """Keeps a training that is done in pieces; see checkpoint.py. Every rank asks it between the same steps.

    Attributes:
        before: What the pieces before this one saw.
    """

    before: TrainHistory

    def should_save(self, trace: TrainHistory) -> bool:
        """Whether a checkpoint is due now; it is not timed."""

    def save(self, trace: TrainHistory) -> None:
        """Write a checkpoint, and set `trace.stopped` where this piece ends with it."""
