"""torch.compile: compile the training module, and choose batches that make it compile every shape before training."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from harness.dataset.batch_plan import Step
from harness.schema.cells import FineTuneConfig
from harness.worker.train_state import TrainContext


def compile_model(module: torch.nn.Module, config: FineTuneConfig) -> torch.nn.Module:
    """Compile the module that training calls; the bare model, used for evaluation, stays eager.

    torch requires that the DDP wrapper is compiled, not the model inside, so that the compiler sees DDP's buckets. The wrapper
    is compiled in place, so that it remains a `DistributedDataParallel`.
    """
    # Padded to seq_len, batches have two or three shapes, each compiled separately. Otherwise nearly every batch has a shape
    # of its own, so that sizes must be dynamic.
    dynamic = config.padding != "max"
    if isinstance(module, DistributedDataParallel):
        module.compile(dynamic=dynamic)
        return module
    return torch.compile(module, dynamic=dynamic)  # type: ignore[return-value]  # a module is compiled to a module


def set_compile_cache(folder: Path) -> None:
    """Set the compiler's cache to this rank's own folder: a cache hit from an earlier cell would make compiling look free."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")


def warmup_shapes(plan: Iterable[Step], context: TrainContext) -> Iterator[Step]:
    """Yield steps with every micro-batch size of the plan, at the largest and the smallest padded length.

    Every rank gets every size: a rank that skipped one would leave the others waiting in the all-reduce. With gradient
    accumulation, each step has two micro-batches, so that DDP compiles its passes with and without all-reduce.
    """
    config, lengths = context.config, context.splits.train.lengths
    sizes = {max(1, len(part)) for step in plan for micro in step for part in micro}
    longest, shortest = int(lengths.argmax()), int(lengths.argmin())
    rows = [longest] if config.padding == "max" else list(dict.fromkeys((longest, shortest)))
    num_micro = 2 if config.training.grad_accum > 1 else 1
    for size in sorted(sizes, reverse=True):
        for row in rows:
            yield [[np.full(size, row)] * context.world_size] * num_micro


@contextlib.contextmanager
def preserve_rng_state(device: torch.device) -> Iterator[None]:
    """Restore every random generator on exit, so that training draws the same dropout masks whatever ran before."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
    random.setstate(python_state)
    np.random.set_state(numpy_state)
