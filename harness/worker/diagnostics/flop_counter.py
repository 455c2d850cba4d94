"""Count the floating-point operations of one extra step after training, by operator."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.dataset.batch_plan import Step
from harness.schema.diagnostics_record import FlopCount
from harness.worker.collate import num_padded_tokens
from harness.worker.train_loop import forward_backward
from harness.worker.train_state import TrainContext, TrainState

Shape = tuple[int, int, int, int]


def middle_step(steps: Iterable[Step], context: TrainContext) -> Step:
    """Return the full step with the median number of padded tokens; the same on all ranks."""
    rows, config = context.splits.train, context.config
    by_tokens = sorted(
        steps, key=lambda step: sum(num_padded_tokens(rows, part, config) for micro in step for part in micro)
    )
    full_size = max(map(_num_rows, by_tokens))
    full = [step for step in by_tokens if _num_rows(step) == full_size]  # an epoch's last step may be short
    return full[len(full) // 2]


def count_flops(state: TrainState, context: TrainContext, step: Step) -> FlopCount:
    """Count the FLOPs of this rank's part of a step with torch's FlopCounterMode; the weights don't change.

    The bare model runs: a compiled model would show no operators, and DDP's all-reduce is not arithmetic of the model.
    """
    state.model.train()
    state.optimizer.zero_grad(set_to_none=True)
    with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        _, counts = forward_backward(replace(state, module=state.model), context, step)
    state.optimizer.zero_grad(set_to_none=True)
    flops = {operator.__name__: count for operator, count in counter.get_flop_counts()["Global"].items()}
    return FlopCount(
        by_operator=dict(sorted(flops.items())),
        num_samples=counts.num_samples,
        num_padded_tokens=counts.num_padded_tokens,
        num_token_pairs=counts.num_token_pairs,
    )


def _attention(query: Shape, key: Shape, *_: object, **__: object) -> int:
    """Count the FLOPs of two matrix products: the scores, and the weighted sum of the values."""
    batch, heads, num_queries, width = query
    return 2 * 2 * batch * heads * num_queries * key[2] * width


def _attention_backward(_gradient: Shape, query: Shape, key: Shape, *_: object, **__: object) -> int:
    """Count the FLOPs of four matrix products, as in the backward pass of unfused attention.

    Fused kernels also recompute the scores instead of storing them. Recomputing saves memory and is not work of the model, so
    it is left out: attention counts the same in every kernel.
    """
    return 2 * _attention(query, key)


# Replace formulas of torch 2.13: it has none for the CPU's kernel, which would count as 0 FLOPs, and it counts five products
# in the backward pass of the other fused kernels.
_FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    torch.ops.aten._scaled_dot_product_flash_attention_backward: _attention_backward,
    torch.ops.aten._scaled_dot_product_efficient_attention_backward: _attention_backward,
    torch.ops.aten._scaled_dot_product_cudnn_attention_backward: _attention_backward,
}


def _num_rows(step: Step) -> int:
    return sum(len(part) for micro in step for part in micro)
