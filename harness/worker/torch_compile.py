"""torch.compile: what training calls compiled, and every shape that it will have to know."""

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
from harness.dataset.tokens import TokenArrays
from harness.schema.cells import FineTuneConfig


def compile_model(module: torch.nn.Module, config: FineTuneConfig) -> torch.nn.Module:
    """Let torch compile what training calls; the model itself, which is evaluated, stays as it is.

    DDP is compiled from outside, as torch asks for, so that its buckets are seen. Compiled in place, it stays a DDP.
    """
    # Padded to seq_len there are two or three shapes, each compiled for itself; else nearly every batch has its own.
    dynamic = config.padding != "max"
    if isinstance(module, DistributedDataParallel):
        module.compile(dynamic=dynamic)
        return module
    return torch.compile(module, dynamic=dynamic)  # type: ignore[return-value]  # a module for a module


def use_cache(folder: Path) -> None:
    """Keep what is compiled in a folder of this rank's own: what an earlier cell left would make compiling look free."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")


def warmup_shapes(plan: Iterable[Step], rows: TokenArrays, config: FineTuneConfig, world_size: int) -> Iterator[Step]:
    """Steps that hold every number of rows that a micro-batch of the plan has, at the longest width and the shortest.

    All ranks get all of them, since none may wait alone. With gradient accumulation each is done twice in a step, for
    DDP's passes with all-reduce and without.
    """
    counts = {max(1, len(part)) for step in plan for micro in step for part in micro}
    longest, shortest = int(rows.lengths.argmax()), int(rows.lengths.argmin())
    widths = [longest] if config.padding == "max" else list(dict.fromkeys((longest, shortest)))
    num_micro = 2 if config.training.grad_accum > 1 else 1
    for count in sorted(counts, reverse=True):
        for row in widths:
            yield [[np.full(count, row)] * world_size] * num_micro


@contextlib.contextmanager
def preserve_rng_state(device: torch.device) -> Iterator[None]:
    """Leave every generator as it was found, so that training draws the same dropout whatever ran before."""
    own, numpys = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
    random.setstate(own)
    np.random.set_state(numpys)
