"""TODO: say in one line what this module is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from transformers import (
    PreTrainedModel,
)

from harness.schema.training_record import Evaluation

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


@dataclass
class TrainHistory:
    """What this rank saw, step by step; other ranks' are merged by the parent.

    Attributes:
        loss_sums: Sum over this rank's examples of a step, before its update.
        num_token_pairs: Each row's padded length squared, summed.
        diverged: Why training was given up, or None.
        stopped: Of a training in pieces that is to go on later: the outcome of this piece, and why it ended.
    """

    loss_sums: list[float] = field(default_factory=list)
    num_samples: list[int] = field(default_factory=list)
    num_real_tokens: list[int] = field(default_factory=list)
    num_padded_tokens: list[int] = field(default_factory=list)
    num_token_pairs: list[int] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    train_s: float = 0.0
    evaluate_s: float = 0.0
    held_bytes: list[int] = field(default_factory=list)
    num_skipped: int = 0
    stopped_early: str | None = None
    diverged: str | None = None
    stopped: tuple[str, str] | None = None


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
