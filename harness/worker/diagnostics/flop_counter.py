"""How many floating-point operations a step takes: one more step, after all else was measured, counted by operator."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.dataset.batch_plan import Step
from harness.dataset.tokens import TokenArrays
from harness.execution.messages import TrainHistory
from harness.schema.cells import FineTuneConfig
from harness.schema.diagnostics_record import FlopCount
from harness.worker.distributed import DistributedContext
from harness.worker.train_loop import forward_backward
from harness.worker.train_state import OnProgress, TrainState

Shape = tuple[int, int, int, int]


def middle_step(steps: Iterable[Step], rows: TokenArrays, config: FineTuneConfig) -> Step:
    """The whole step that has the middle number of padded tokens; equal on all ranks."""
    found = sorted(steps, key=lambda step: sum(_num_padded(part, rows, config) for micro in step for part in micro))
    most = max(_num_rows(step) for step in found)
    whole = [step for step in found if _num_rows(step) == most]  # an epoch's last step may be short
    return whole[len(whole) // 2]


def count_flops(
    trainee: TrainState,
    rows: TokenArrays,
    step: Step,
    config: FineTuneConfig,
    place: DistributedContext,
    beat: OnProgress,
) -> FlopCount:
    """Repeat a step without an update, under torch's FlopCounterMode; of this rank's part.

    The bare model is counted: a compiled one shows no operators, and all-reduce is not arithmetic of the model.
    """
    trace, bare = TrainHistory(), replace(trainee, module=trainee.model)
    trainee.model.train()
    trainee.optimizer.zero_grad(set_to_none=True)
    with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        forward_backward(bare, rows, step, config, place, trace, beat)
    trainee.optimizer.zero_grad(set_to_none=True)
    counted = counter.get_flop_counts()["Global"]
    return FlopCount(
        by_operator={operator.__name__: count for operator, count in sorted(counted.items(), key=_name)},
        num_samples=trace.num_samples[0],
        num_padded_tokens=trace.num_padded_tokens[0],
        num_token_pairs=trace.num_token_pairs[0],
    )


def _attention(query: Shape, key: Shape, *_: object, **__: object) -> int:
    """Scores, and their weighted sum of values: two products."""
    batch, heads, num_queries, width = query
    return 2 * 2 * batch * heads * num_queries * key[2] * width


def _attention_backward(_gradient: Shape, query: Shape, key: Shape, *_: object, **__: object) -> int:
    """Four products, as the plain path's backward pass has them.

    Fused kernels compute the scores once more instead of keeping them. That is a way of saving memory, and no work of
    the model, so that attention counts the same whichever kernel it runs as.
    """
    return 2 * _attention(query, key)


# torch 2.13 has none for the CPU's kernel, which would then count as nothing, and counts five products backward of the
# other fused ones.
_FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    torch.ops.aten._scaled_dot_product_flash_attention_backward: _attention_backward,
    torch.ops.aten._scaled_dot_product_efficient_attention_backward: _attention_backward,
    torch.ops.aten._scaled_dot_product_cudnn_attention_backward: _attention_backward,
}


def _name(counted: tuple[Any, int]) -> str:
    return str(counted[0].__name__)


def _num_rows(step: Step) -> int:
    return sum(len(part) for micro in step for part in micro)


def _num_padded(part: np.ndarray, rows: TokenArrays, config: FineTuneConfig) -> int:
    return len(part) * (config.seq_len if config.padding == "max" else int(rows.lengths[part].max(initial=0)))
