"""BERT, its optimiser and precision, one plain loop, and evaluation."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from transformers import (
    PreTrainedModel,
)

from harness.dataset.batch_plan import (
    Step,
    plan_chunks,
    plan_epochs,
)
from harness.dataset.tokens import TokenArrays
from harness.execution.messages import TrainHistory
from harness.schema.cells import FineTuneConfig
from harness.schema.training_record import Evaluation
from harness.worker.collate import attention_mask, collate
from harness.worker.distributed import (
    DistributedContext,
    all_gather_object,
    any_across_ranks,
    no_buffer_broadcasts,
    synchronize,
)
from harness.worker.evaluation import autocast, evaluate, segment_ids
from harness.worker.meters import MemoryMeter, StepTimer, held_bytes
from harness.worker.optimizer import (
    build_optimizer,
    build_schedule,
    count_skipped_updates,
    planned_updates,
    updates_by_chunk,
    updates_per_epoch,
)
from harness.worker.torch_compile import compile_model, preserve_rng_state, warmup_shapes
from harness.worker.train_state import Checkpointer, OnProgress, TrainState


def build_train_state(
    model: PreTrainedModel, config: FineTuneConfig, place: DistributedContext, num_updates: int
) -> TrainState:
    """Give a loaded model what training needs; under DDP its gradients are those of all ranks from here on."""
    if config.training.activation_checkpointing:
        # transformers 5.24 renamed it.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    optimizer = build_optimizer(model, config, place)
    module = DistributedDataParallel(model, **no_buffer_broadcasts()) if dist.is_initialized() else model
    return TrainState(
        model=model,
        module=compile_model(module, config) if config.training.compile else module,
        optimizer=optimizer,
        schedule=build_schedule(optimizer, config, num_updates),
        scaler=torch.amp.GradScaler(place.device.type, enabled=config.precision == "fp16"),
        num_skipped=count_skipped_updates(optimizer, place),
    )


def warm_compile(trainee: TrainState, rows: TokenArrays, config: FineTuneConfig, place: DistributedContext) -> float:
    """Compile for every shape to come, by passes that leave nothing behind; give the seconds.

    No pass beats: a rank that waits for its compiler is idle, and does not hang.
    """
    began = time.perf_counter()
    num_rows = len(rows.labels)
    num_steps = planned_updates(config, num_rows, place.world_size)
    if config.training.chunk_order == "shuffled":  # else each chunk may end with a short batch of its own
        num_steps = min(num_steps, updates_per_epoch(config, num_rows, place.world_size))
    trainee.model.train()
    with preserve_rng_state(place.device):
        for step in warmup_shapes(islice(iter_batches(rows, config, place), num_steps), rows, config, place.world_size):
            forward_backward(trainee, rows, step, config, place, TrainHistory(), lambda: None)
            trainee.optimizer.zero_grad(set_to_none=True)
    synchronize(place)
    return time.perf_counter() - began


def train(  # noqa: PLR0913 - its instruments among them
    trainee: TrainState,
    train_rows: TokenArrays,
    val_rows: TokenArrays,
    config: FineTuneConfig,
    place: DistributedContext,
    *,
    timer: StepTimer,
    memory: MemoryMeter,
    on_step: Callable[[TrainHistory], None],
    beat: OnProgress,
    keeper: Checkpointer | None = None,
    on_validation: Callable[[TrainHistory], None] = lambda _: None,
    test_rows: TokenArrays | None = None,
) -> TrainHistory:
    """Fine-tune the trainee in place, with the training clock stopped during evaluations and checkpoints.

    `on_step` is called between steps, outside of every timed one; `beat` wherever this rank got on; `on_validation`
    after each validation, while the clock stands still. With a `keeper` training goes on from where it was left. After each
    chunk of the rows the model is tried on `test_rows` too, which decides nothing.
    """
    num_updates, eval_every, chunks = _schedule_points(config, len(train_rows.labels), place.world_size)
    trace, losses = keeper.before if keeper else TrainHistory(), torch.zeros(num_updates, device=place.device)
    plan, done = iter_batches(train_rows, config, place), len(trace.num_samples)
    next(islice(plan, done, done), None)  # the plan is the seed's: what was trained on is passed over
    memory.reset()
    trainee.model.train()
    resumed = time.perf_counter()
    for update, step in enumerate(islice(plan, 0 if trace.stopped_early else num_updates - done), start=done + 1):
        beat()
        timer.start()
        losses[update - 1] = forward_backward(trainee, train_rows, step, config, place, trace, beat)
        trainee.scaler.step(trainee.optimizer)
        trainee.scaler.update()
        trainee.schedule.step()
        trainee.optimizer.zero_grad(set_to_none=True)
        timer.stop()
        trace.held_bytes.append(held_bytes(place.device))
        at_end = update == num_updates
        elapsed = trace.train_s + time.perf_counter() - resumed
        if config.limits.max_train_s is not None and not at_end:
            at_end = any_across_ranks(elapsed >= config.limits.max_train_s, place)
            trace.stopped_early = f"limits.max_train_s = {config.limits.max_train_s:g} s reached" if at_end else None
        pause = at_end or update % eval_every == 0 or update in chunks
        due = keeper is not None and keeper.should_save(trace)
        if pause or due or place.device.type == "cpu":
            # On a GPU this waits for its queue, so there only where the clock stops anyway.
            trace.loss_sums += losses[len(trace.loss_sums) : update].tolist()
        if pause or due:
            synchronize(place)
            trace.train_s += time.perf_counter() - resumed
            trace.num_skipped = int(trainee.num_skipped)
            if pause:
                _validate_and_check(
                    trainee.model,
                    val_rows,
                    config,
                    place,
                    trace,
                    beat,
                    at_end=at_end,
                    on_validation=on_validation,
                )
                _evaluate_chunk(trainee.model, test_rows, config, place, trace, beat, chunk=chunks.get(update))
                at_end = at_end or trace.stopped_early is not None
            if keeper is not None and (due or at_end) and not trace.diverged:
                keeper.save(trace)
            resumed = time.perf_counter()
        on_step(trace)
        if at_end or trace.diverged or trace.stopped:
            break
    return trace


def iter_batches(rows: TokenArrays, config: FineTuneConfig, place: DistributedContext) -> Iterator[Step]:
    """A cell's steps, without end; the same each time."""
    if config.training.chunk_order == "arrival":
        done = updates_by_chunk(config, len(rows.labels), place.world_size)
        return plan_chunks(
            rows.lengths, chunk_updates=[end - first for first, end in pairwise((0, *done))],
            global_batch=config.global_batch(place.world_size), grad_accum=config.training.grad_accum,
            world_size=place.world_size, padding=config.padding, seed=config.seed,
        )  # fmt: skip
    return plan_epochs(
        rows.lengths, global_batch=config.global_batch(place.world_size), grad_accum=config.training.grad_accum,
        world_size=place.world_size, padding=config.padding, seed=config.seed,
    )  # fmt: skip


def set_precision(config: FineTuneConfig) -> None:
    """Set TF32 explicitly: on Ampere and later, "fp32" products of other tools are TF32.

    These two calls set torch's older and newer flags alike; setting the newer `fp32_precision` alone would make every
    reader of the older ones fail, torch.compile's among them (torch 2.11 to 2.13).
    """
    torch.set_float32_matmul_precision("high" if config.precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = config.precision == "tf32"


def _schedule_points(config: FineTuneConfig, num_rows: int, world_size: int) -> tuple[int, int, dict[int, int]]:
    """Updates of the whole run, those between two validations, and which chunk, from 1, an update is the last of."""
    done = updates_by_chunk(config, num_rows, world_size)
    eval_every = max(1, round(config.training.eval_every * updates_per_epoch(config, num_rows, world_size)))
    return done[-1], eval_every, {end: number for number, end in enumerate(done, start=1)} if len(done) > 1 else {}


def forward_backward(
    trainee: TrainState,
    rows: TokenArrays,
    step: Step,
    config: FineTuneConfig,
    place: DistributedContext,
    trace: TrainHistory,
    beat: OnProgress,
) -> torch.Tensor:
    """Accumulate the gradient of the step's mean loss over all ranks; return the sum of this rank's losses."""
    num_global = sum(len(part) for micro in step for part in micro)
    module, loss_sum = trainee.module, torch.zeros((), device=place.device)
    counts = np.zeros(4, dtype=np.int64)
    on_gpu = place.device.type == "cuda"
    for index, micro in enumerate(step):
        mine = micro[place.rank]
        # A rank without a row in the last, short batch still joins the all-reduce: with row 0, at weight 0.
        batch = mine if len(mine) else np.zeros(1, dtype=np.int64)
        pad_to = config.seq_len if config.padding == "max" else None
        ids, mask, labels, num_real = collate(rows, batch, pad_to=pad_to, pin=on_gpu)
        ids, mask, labels = (tensor.to(place.device, non_blocking=True) for tensor in (ids, mask, labels))
        seen = attention_mask(mask, padded=num_real < ids.numel() or config.training.compile)
        segments = segment_ids(trainee.model, rows, batch, ids.shape[1], place)
        beat()
        waits = index < len(step) - 1 and isinstance(module, DistributedDataParallel)
        with module.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
            with autocast(config, place):
                logits = module(input_ids=ids, attention_mask=seen, **segments).logits
            loss = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum") * bool(len(mine))
            # DDP averages over ranks; the examples' mean needs the sum over ranks by the global count.
            beat()
            trainee.scaler.scale(loss * (place.world_size / num_global)).backward()
        loss_sum += loss.detach()
        counts += (len(mine), num_real, ids.numel(), ids.numel() * ids.shape[1]) if len(mine) else (0, 0, 0, 0)
    columns = (trace.num_samples, trace.num_real_tokens, trace.num_padded_tokens, trace.num_token_pairs)
    for column, count in zip(columns, counts, strict=True):
        column.append(int(count))
    return loss_sum


def _divergence(trace: TrainHistory, config: FineTuneConfig, place: DistributedContext) -> str | None:
    # With fp16 the gradient scaler skips a step that overflowed; only a loss that stays lost is a divergence.
    seen = trace.loss_sums[-1:] if config.precision == "fp16" else trace.loss_sums
    if not any_across_ranks(not all(map(math.isfinite, seen)), place):
        return None
    first = next(
        (i for i, loss in enumerate(trace.loss_sums, start=1) if not math.isfinite(loss)),
        len(trace.loss_sums),
    )
    return f"the loss is no finite number from update {first} on"


def _validate_and_check(
    model: PreTrainedModel,
    rows: TokenArrays,
    config: FineTuneConfig,
    place: DistributedContext,
    trace: TrainHistory,
    beat: OnProgress,
    *,
    at_end: bool,
    on_validation: Callable[[TrainHistory], None],
) -> None:
    """See how training is getting on: whether its loss is lost, and what a validation says."""
    trace.diverged = _divergence(trace, config, place)
    if config.model.init != "pretrained" or trace.diverged:
        return
    seen = _validate(model, rows, config, place, trace, len(trace.num_samples), beat)
    trace.evaluations.append(seen)
    on_validation(trace)
    if not at_end and _target_reached(trace.evaluations[-1], config):
        trace.stopped_early = f"target {config.training.target_accuracy:g} reached on validation"


def _evaluate_chunk(
    model: PreTrainedModel, rows: TokenArrays | None, config: FineTuneConfig, place: DistributedContext, trace: TrainHistory, beat: OnProgress,
    *, chunk: int | None,
) -> None:  # fmt: skip
    """Note on the validation at a chunk's end which it was, and what the test set says then."""
    if chunk is None or not trace.evaluations or trace.evaluations[-1].num_updates != len(trace.num_samples):
        return
    noted: dict[str, Any] = {"chunk": chunk}
    if rows is not None:
        tried = evaluate(model, rows, config, place, beat)
        trace.evaluate_s += tried.evaluate_s
        noted["test_accuracy"] = tried.accuracy
    trace.evaluations[-1] = trace.evaluations[-1].model_copy(update=noted)


def _validate(
    model: PreTrainedModel,
    rows: TokenArrays,
    config: FineTuneConfig,
    place: DistributedContext,
    trace: TrainHistory,
    update: int,
    beat: OnProgress,
) -> Evaluation:
    seen = evaluate(model, rows, config, place, beat)
    trace.evaluate_s += seen.evaluate_s
    return Evaluation(
        train_s=trace.train_s,
        num_samples_seen=sum(all_gather_object(sum(trace.num_samples), place)),
        num_updates=update,
        accuracy=seen.accuracy,
        macro_f1=seen.macro_f1,
        evaluate_s=seen.evaluate_s,
    )


def _target_reached(seen: Evaluation, config: FineTuneConfig) -> bool:
    """Whether training is to end with this validation; every rank has seen the same one."""
    target = config.training.target_accuracy
    return config.training.stop_at_target and target is not None and seen.accuracy >= target
