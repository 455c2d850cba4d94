"""The training loop: one plain loop over optimizer updates, with pauses for validation and checkpoints."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from harness.analysis.stopping import is_known_within, is_look, within_run_rate
from harness.dataset.batch_plan import Step
from harness.dataset.training_plan import (
    iter_steps,
    updates_between_validations,
    updates_by_chunk,
    updates_per_epoch,
)
from harness.execution.messages import TrainHistory
from harness.schema.cells import FineTuneConfig
from harness.schema.training_record import Evaluation
from harness.worker.checkpointer import Checkpointer
from harness.worker.collate import attention_mask, collate, token_types
from harness.worker.device import Unsupported, product_dtype, synchronize
from harness.worker.distributed import DistributedContext, all_gather_object, any_across_ranks, wrap_ddp
from harness.worker.evaluation import autocast, evaluate, pad_id, segment_ids
from harness.worker.meters import Meters, memory_in_use
from harness.worker.optimizer import build_optimizer, build_schedule, count_skipped_updates
from harness.worker.torch_compile import compile_model, preserve_rng_state, warmup_shapes
from harness.worker.train_state import StepCounts, TrainContext, TrainState


def _ignore(_: TrainHistory) -> None:
    """Do nothing; this is the default callback of `TrainHooks`."""


@dataclass(frozen=True)
class TrainHooks:
    """Callbacks and checkpointer that `train` calls between steps, while the step timer is stopped.

    Attributes:
        on_step: Called after every step.
        on_validation: Called after every validation, while the training clock (`TrainHistory.train_s`) is stopped too.
        checkpointer: Saves checkpoints, and holds the history to resume from; None if the training isn't resumable.
    """

    on_step: Callable[[TrainHistory], None] = _ignore
    on_validation: Callable[[TrainHistory], None] = _ignore
    checkpointer: Checkpointer | None = None


def build_train_state(
    model: PreTrainedModel, config: FineTuneConfig, distributed: DistributedContext, num_updates: int
) -> TrainState:
    """Build optimizer, schedule and scaler for a loaded model; wrap it for DDP if there is a process group.

    Args:
        model: The model, on its device.
        config: The cell's configuration.
        distributed: This rank's device and the number of ranks.
        num_updates: Length of the learning-rate schedule in optimizer updates.
    """
    if config.training.activation_checkpointing:
        if not model.supports_gradient_checkpointing:
            raise Unsupported(f"training.activation_checkpointing: {type(model).__name__} of transformers can't do it")
        # transformers 5.24 renamed `gradient_checkpointing_enable`; older versions have only that name.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    optimizer = build_optimizer(model, config, distributed)
    module = wrap_ddp(model)
    return TrainState(
        model=model,
        module=compile_model(module, config) if config.training.compile else module,
        optimizer=optimizer,
        schedule=build_schedule(optimizer, config, num_updates),
        scaler=torch.amp.GradScaler(distributed.device.type, enabled=config.precision == "fp16"),
        num_skipped=count_skipped_updates(optimizer, distributed.device),
    )


def warm_compile(state: TrainState, context: TrainContext) -> float:
    """Compile the model for every batch shape of the training, leaving weights and random generators unchanged.

    Passes through the model trigger the compilation. They send no heartbeats, so that the parent detects no hang yet: a rank
    that waits for its compiler is idle, but does not hang.

    Returns:
        The seconds that compiling took.
    """
    began = time.perf_counter()
    num_steps = context.num_updates
    # Shuffled epochs all have the same batch sizes, so one is enough. In arrival order, each chunk may end with a short batch.
    if context.config.training.chunk_order == "shuffled":
        num_steps = min(num_steps, updates_per_epoch(context.config, context.num_rows, context.world_size))
    silent = replace(context, heartbeat=lambda: None)
    state.model.train()
    with preserve_rng_state(context.device):
        for step in warmup_shapes(islice(iter_batches(context), num_steps), context):
            forward_backward(state, silent, step)
            state.optimizer.zero_grad(set_to_none=True)
    synchronize(context.device)
    return time.perf_counter() - began


def train(state: TrainState, context: TrainContext, meters: Meters, hooks: TrainHooks) -> TrainHistory:
    """Fine-tune the model in place; the training clock is stopped during evaluations and checkpoints.

    After each chunk of the training rows, the model is also evaluated on the test set. These scores are only recorded.

    Args:
        state: The model and everything else that a step mutates.
        context: Configuration, ranks and rows.
        meters: The timer times every step. The memory meter is reset before the first step.
        hooks: Callbacks, and a checkpointer from whose history training continues.

    Returns:
        This rank's log of the training.
    """
    num_updates, eval_every, chunk_ends = _schedule_points(context)
    checkpointer = hooks.checkpointer
    history = checkpointer.history if checkpointer else TrainHistory()
    losses = torch.zeros(num_updates, device=context.device)
    plan, num_done = iter_batches(context), len(history.num_samples)
    next(islice(plan, num_done, num_done), None)  # the plan is the same in every segment: skip the steps already done
    meters.memory.reset()
    state.model.train()
    resumed = time.perf_counter()
    num_left = 0 if history.stopped_early else num_updates - num_done
    for update, step in enumerate(islice(plan, num_left), start=num_done + 1):
        context.heartbeat()
        meters.timer.start()
        losses[update - 1], counts = forward_backward(state, context, step)
        _add_counts(history, counts)
        update_weights(state)
        state.schedule.step()
        meters.timer.stop()
        history.held_bytes.append(memory_in_use(context.device))
        at_end = (
            update == num_updates
            or _out_of_time(context, history, history.train_s + time.perf_counter() - resumed)
            or _knows_speed(context, history, meters)
        )
        pause = at_end or update % eval_every == 0 or update in chunk_ends
        save = checkpointer is not None and checkpointer.should_save(history)
        if pause or save or context.device.type == "cpu":
            # On a GPU, reading losses waits for all queued kernels, so they are read only when the clock stops anyway.
            history.loss_sums += losses[len(history.loss_sums) : update].tolist()
        if pause or save:
            synchronize(context.device)
            history.train_s += time.perf_counter() - resumed
            history.num_skipped = int(state.num_skipped)
            if pause:
                _validate(state.model, context, history, hooks, at_end=at_end)
                _evaluate_chunk(state.model, context, history, chunk_ends.get(update))
                at_end = at_end or history.stopped_early is not None
            if checkpointer is not None and (save or at_end) and not history.diverged:
                checkpointer.save(history)
            resumed = time.perf_counter()
        hooks.on_step(history)
        if at_end or history.diverged or history.stopped:
            break
    return history


def iter_batches(context: TrainContext) -> Iterator[Step]:
    """Yield the cell's steps without end; every call yields the same sequence."""
    return iter_steps(context.config, context.splits.train.lengths, context.world_size)


def forward_backward(state: TrainState, context: TrainContext, step: Step) -> tuple[torch.Tensor, StepCounts]:
    """Accumulate the gradient of the mean loss over the step's rows on all ranks; send two heartbeats per micro-batch.

    Returns:
        The sum of the losses of this rank's rows, `()`, on the device; and the size of this rank's part of the step.
    """
    config, rows, on_gpu = context.config, context.splits.train, context.device.type == "cuda"
    num_global = sum(len(part) for micro in step for part in micro)
    module, loss_sum = state.module, torch.zeros((), device=context.device)
    counts = np.zeros(4, dtype=np.int64)
    for index, micro in enumerate(step):
        own = micro[context.rank]
        # A short last batch may leave this rank without a row. It must still join the all-reduce: compute row 0 at weight 0.
        batch = own if len(own) else np.zeros(1, dtype=np.int64)
        pad_to = config.padded_length(rows.longest(batch))
        ids, mask, labels, num_real = collate(rows, batch, pad_to=pad_to, pad_id=pad_id(state.model), pin=on_gpu)
        ids, mask, labels = (tensor.to(context.device, non_blocking=True) for tensor in (ids, mask, labels))
        padded = num_real < ids.numel() or config.training.compile
        attended = attention_mask(mask, state.model.config, padded=padded, dtype=product_dtype(config.precision))
        segments = segment_ids(state.model, token_types(rows, batch, ids.shape[1]), context.device)
        context.heartbeat()
        # Accumulate gradients locally; DDP all-reduces them once, in the last micro-batch.
        skip_sync = index < len(step) - 1 and isinstance(module, DistributedDataParallel)
        with module.no_sync() if skip_sync else contextlib.nullcontext():  # type: ignore[operator]
            with autocast(config.precision, context.device):
                logits = module(input_ids=ids, attention_mask=attended, **segments).logits
            loss = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum") * bool(len(own))
            context.heartbeat()
            # DDP averages the gradients over ranks; this factor turns their average into the mean over all rows.
            state.scaler.scale(loss * (context.world_size / num_global)).backward()
        loss_sum += loss.detach()
        counts += (len(own), num_real, ids.numel(), ids.numel() * ids.shape[1]) if len(own) else (0, 0, 0, 0)
    return loss_sum, StepCounts(*map(int, counts))


def update_weights(state: TrainState) -> None:
    """Update the weights, unless the gradient scaler skips the update, and free the gradients."""
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)


def _add_counts(history: TrainHistory, counts: StepCounts) -> None:
    history.num_samples.append(counts.num_samples)
    history.num_real_tokens.append(counts.num_real_tokens)
    history.num_padded_tokens.append(counts.num_padded_tokens)
    history.num_token_pairs.append(counts.num_token_pairs)


def _schedule_points(context: TrainContext) -> tuple[int, int, dict[int, int]]:
    """Return when to end, to validate, and to evaluate on the test set, in optimizer updates.

    Returns:
        The run's number of updates; the number of updates between two validations; and a mapping from each chunk's last
        update to the chunk's number, from 1. The mapping is empty if there is only one chunk.
    """
    sizes = (context.config, context.num_rows, context.world_size)
    ends, eval_every = updates_by_chunk(*sizes), updates_between_validations(*sizes)
    return ends[-1], eval_every, {end: number for number, end in enumerate(ends, start=1)} if len(ends) > 1 else {}


def _out_of_time(context: TrainContext, history: TrainHistory, train_s: float) -> bool:
    """Return whether any rank reached `limits.max_train_s`; if so, set `history.stopped_early`."""
    limit_s = context.config.limits.max_train_s
    if limit_s is None or not any_across_ranks(train_s >= limit_s, context.distributed):
        return False
    history.stopped_early = f"limits.max_train_s = {limit_s:g} s reached"
    return True


def _knows_speed(context: TrainContext, history: TrainHistory, meters: Meters) -> bool:
    """Return whether the run's samples/s are as narrow as `limits.until`; if so, set `history.stopped_early`."""
    until = context.config.limits.until
    if until is None or not is_look(len(history.num_samples)):
        return False
    own = meters.timer.seconds(), history.num_padded_tokens
    seconds, tokens = zip(*all_gather_object(own, context.distributed), strict=True)
    rate = within_run_rate(seconds, [sum(step) for step in zip(*tokens, strict=True)])
    if not is_known_within(rate, until):
        return False
    history.stopped_early = f"limits.until = {until:.1%} reached: the speed of this run is known"
    return True


def _divergence(history: TrainHistory, context: TrainContext) -> str | None:
    # With fp16, the gradient scaler skips updates that overflow, so training recovers from a non-finite loss: only the last
    # loss counts.
    recent = history.loss_sums[-1:] if context.config.precision == "fp16" else history.loss_sums
    if not any_across_ranks(not all(map(math.isfinite, recent)), context.distributed):
        return None
    first = next(
        (i for i, loss in enumerate(history.loss_sums, start=1) if not math.isfinite(loss)),
        len(history.loss_sums),
    )
    return f"the loss is no finite number from update {first} on"


def _validate(
    model: PreTrainedModel, context: TrainContext, history: TrainHistory, hooks: TrainHooks, *, at_end: bool
) -> None:
    """Check for divergence, validate a pretrained model, and end training early if it reached the target.

    Args:
        model: The bare model.
        context: Configuration, ranks and rows.
        history: Receives the evaluation, and the reason if training should end.
        hooks: Provides `on_validation`, which is called after the validation.
        at_end: Whether training ends here anyway.
    """
    config = context.config
    history.diverged = _divergence(history, context)
    if not config.is_judged or history.diverged:
        return
    scores = evaluate(model, context.splits.val, context)
    history.evaluate_s += scores.evaluate_s
    history.evaluations.append(
        Evaluation(
            train_s=history.train_s,
            num_samples_seen=sum(all_gather_object(sum(history.num_samples), context.distributed)),
            num_updates=len(history.num_samples),
            accuracy=scores.accuracy,
            macro_f1=scores.macro_f1,
            evaluate_s=scores.evaluate_s,
        )
    )
    hooks.on_validation(history)
    target = config.training.target_accuracy
    # Ranks need not exchange this decision: all have the same scores.
    if not at_end and config.training.stop_at_target and target is not None and scores.accuracy >= target:
        history.stopped_early = f"target {target:g} reached on validation"


def _evaluate_chunk(model: PreTrainedModel, context: TrainContext, history: TrainHistory, chunk: int | None) -> None:
    """Evaluate on the test set if a chunk ends here, and add the result to the latest validation."""
    if chunk is None or not history.evaluations or history.evaluations[-1].num_updates != len(history.num_samples):
        return
    scores = evaluate(model, context.splits.test, context)
    history.evaluate_s += scores.evaluate_s
    scored = history.evaluations[-1].model_copy(update={"chunk": chunk, "test_accuracy": scores.accuracy})
    history.evaluations[-1] = scored
