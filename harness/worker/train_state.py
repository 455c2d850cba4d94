"""The values that training and diagnostics pass around: context, state, a step's size, and a finished training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from harness.dataset.tokens import TokenArrays, load_tokens
from harness.dataset.training_plan import planned_updates
from harness.execution.messages import TrainResult
from harness.schema.cells import FineTuneConfig
from harness.worker.distributed import DistributedContext
from harness.worker.meters import ResidentMemory

OnProgress = Callable[[], None]

# Above this share of the memory cap, extra steps could cause an OOM that training did not have.
_NEAR_CAP_SHARE = 0.9


@dataclass(frozen=True)
class SplitTokens:
    """The tokenized rows of each split."""

    train: TokenArrays
    val: TokenArrays
    test: TokenArrays

    @classmethod
    def load(cls, folder: Path) -> SplitTokens:
        """Load all splits from the folder of a tokenized corpus."""
        return cls(*(load_tokens(folder, split) for split in ("train", "val", "test")))


@dataclass(frozen=True)
class TrainContext:
    """Everything that stays the same during one rank's training.

    Attributes:
        config: The cell's configuration.
        distributed: This rank's device, rank and world size.
        splits: The rows of all ranks; each rank picks its own.
        heartbeat: Called after every piece of progress, so that the parent can detect a hang.
        keepalive: Returns a context manager that sends heartbeats during work that sends none, such as writing to a disk.
    """

    config: FineTuneConfig
    distributed: DistributedContext
    splits: SplitTokens
    heartbeat: OnProgress = lambda: None
    keepalive: Callable[[], AbstractContextManager[None]] = nullcontext

    @property
    def device(self) -> torch.device:
        """This rank's device."""
        return self.distributed.device

    @property
    def rank(self) -> int:
        """This process's rank."""
        return self.distributed.rank

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.distributed.world_size

    @property
    def global_batch(self) -> int:
        """Rows in one optimizer update, over all ranks and micro-batches."""
        return self.config.global_batch(self.world_size)

    @property
    def num_updates(self) -> int:
        """Optimizer updates in the whole run."""
        return planned_updates(self.config, self.num_rows, self.world_size)

    @property
    def num_rows(self) -> int:
        """Rows of the training split."""
        return len(self.splits.train.labels)


@dataclass(frozen=True)
class TrainState:
    """Everything a training step mutates: model, optimizer, scheduler, scaler.

    Attributes:
        model: The bare model, used for evaluation.
        module: The module to call in training: the model itself, or its DDP or compiled wrapper.
        num_skipped: Number of updates that the gradient scaler has skipped, `()`, counted on the device.
    """

    model: PreTrainedModel
    module: torch.nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    num_skipped: torch.Tensor


class StepCounts(NamedTuple):
    """Size of one rank's part of a step; `num_token_pairs` sums each row's padded length squared."""

    num_samples: int
    num_real_tokens: int
    num_padded_tokens: int
    num_token_pairs: int


@dataclass(frozen=True)
class FinishedTraining:
    """What the diagnostics need of a training that succeeded.

    Attributes:
        result: This rank's measurements.
        resident_before: Resident memory before the model was loaded.
        resident_after: Resident memory after the test evaluation.
    """

    state: TrainState
    context: TrainContext
    result: TrainResult
    resident_before: ResidentMemory
    resident_after: ResidentMemory

    @property
    def near_memory_cap(self) -> bool:
        """Whether peak memory exceeds 90 % of the cap: extra steps could run out of memory, although training did not."""
        cap_gib = self.context.config.limits.memory_limit_gib
        peak_bytes = max(peak.num_bytes for peak in self.result.peaks)
        return cap_gib is not None and peak_bytes > _NEAR_CAP_SHARE * cap_gib * 2**30
