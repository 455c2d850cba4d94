"""Choose the faster attention for `model.attention = "auto"`, by a few steps before the training clock starts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import islice

import torch

from harness.dataset.batch_plan import Step
from harness.machine.malloc import trim_heap
from harness.schema.settings import AttentionKind
from harness.schema.training_record import CLEAR_SPEED_UP, AttentionChoice
from harness.worker.collate import num_padded_tokens
from harness.worker.device import Unsupported, synchronize
from harness.worker.distributed import all_gather_object
from harness.worker.torch_compile import preserve_rng_state
from harness.worker.train_loop import forward_backward, iter_batches
from harness.worker.train_state import TrainContext, TrainState

# Steps of these ranks by padded tokens are timed: short texts can favour another attention than long ones.
_PERCENTILES = (25, 50, 90)
_MAX_PLANNED = 1000  # of a longer plan, the first steps stand for all
# The first two steps of a shape prepare its kernels and aren't timed. The others are in turns, so that a drift of the
# machine's speed affects both alike.
_WARM_UP: tuple[AttentionKind, ...] = ("sdpa", "eager")
_TIMED: tuple[AttentionKind, ...] = ("sdpa", "eager", "eager", "sdpa")


def apply_attention(
    state: TrainState, context: TrainContext, earlier: AttentionChoice | None = None
) -> AttentionChoice | None:
    """Set the attention that `auto` chooses; weights and random generators stay as they are.

    Args:
        state: The model and everything else that a step mutates.
        context: Configuration, ranks and rows.
        earlier: The choice of a resumable training's first segment, which holds for all of them.

    Returns:
        The choice, the same on all ranks; None if the study or the architecture leaves none.
    """
    if context.config.model.attention != "auto" or (
        earlier is None and state.model.config._attn_implementation == "eager"
    ):
        return None
    choice = earlier or _choose(state, context)
    _set_attention(state, choice.implementation)
    return choice


def faster(seconds: Mapping[AttentionKind, float]) -> AttentionKind:
    """Return the faster attention; `sdpa`, which usually takes less memory, unless `eager` is clearly faster."""
    return "eager" if seconds["sdpa"] >= CLEAR_SPEED_UP * seconds["eager"] else "sdpa"


def representative_steps(context: TrainContext) -> list[Step]:
    """Return the steps of the plan that are at the 25th, 50th and 90th percentile of padded tokens, over all ranks."""
    config, rows = context.config, context.splits.train
    steps = list(islice(iter_batches(context), min(context.num_updates, _MAX_PLANNED)))
    steps.sort(key=lambda step: sum(num_padded_tokens(rows, part, config) for micro in step for part in micro))
    return [steps[round(percentile / 100 * (len(steps) - 1))] for percentile in _PERCENTILES]


def _choose(state: TrainState, context: TrainContext) -> AttentionChoice:
    began = time.perf_counter()
    seconds: dict[AttentionKind, float] = dict.fromkeys(_WARM_UP, 0.0)
    state.model.train()
    steps = representative_steps(context)
    with preserve_rng_state(context.device):
        for step in steps:
            for kind in _WARM_UP:
                _time_step(state, context, step, kind)
            for kind in _TIMED:
                seconds[kind] += _time_step(state, context, step, kind)
    _release_memory(context.device)
    by_rank = all_gather_object(seconds, context.distributed)
    total = {kind: sum(of_rank[kind] for of_rank in by_rank) for kind in seconds}
    return AttentionChoice(
        implementation=faster(total),
        seconds=total,
        num_steps=len(steps) * len(_TIMED) // 2,
        choose_s=time.perf_counter() - began,
    )


def _time_step(state: TrainState, context: TrainContext, step: Step, kind: AttentionKind) -> float:
    """Return the seconds of a step's forward and backward pass."""
    _set_attention(state, kind)
    synchronize(context.device)
    began = time.perf_counter()
    forward_backward(state, context, step)
    state.optimizer.zero_grad(set_to_none=True)
    synchronize(context.device)
    return time.perf_counter() - began


def _set_attention(state: TrainState, kind: AttentionKind) -> None:
    state.model.set_attn_implementation(kind)
    if state.model.config._attn_implementation != kind:
        raise Unsupported(
            f'model.attention: "auto": transformers can\'t change the attention of {type(state.model).__name__}; take sdpa or eager'
        )


def _release_memory(device: torch.device) -> None:
    """Return what the timed steps freed to the system, so that it is in no figure of training's memory."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    trim_heap()
