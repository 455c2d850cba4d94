"""BERT, its optimiser and precision, one plain loop, and evaluation."""

from __future__ import annotations

import contextlib
import inspect
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, chain, islice, pairwise
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from harness.batch_plan import Step, chunk_ends, plan_arrivals, plan_epochs, steps_per_epoch
from harness.compiling import compiled, kept_random_states, steps_to_come
from harness.corpus import Tokens
from harness.matrix import FineTuneConfig
from harness.memory import MIN_EVALUATION_BATCH
from harness.meters import MemoryMeter, StepTimer, held_bytes
from harness.record import PROBABILITY_DIGITS, Communication, Evaluation, ModelFacts, TestEvaluation
from harness.settings import ModelSettings
from harness.shapes import STANDARD_SHAPES
from harness.sources import WEIGHTS, ModelFiles
from harness.text import attention_mask, collate, token_types

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
# A layer's number in its parameters' names, of BERT's `encoder.layer.3.` and DistilBERT's `transformer.layer.3.`.
_LAYER = re.compile(r"\.layer\.(\d+)\.")
_COMMUNICATION_PAIRS = 6
Beat = Callable[[], None]
Told = TypeVar("Told")


@dataclass(frozen=True)
class Place:
    """Where this rank runs, and beside how many."""

    device: torch.device
    rank: int
    world_size: int


@dataclass(frozen=True)
class Trainee:
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
class Trace:
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


class Keeper(Protocol):
    """Keeps a training that is done in pieces; see checkpoint.py. Every rank asks it between the same steps.

    Attributes:
        before: What the pieces before this one saw.
    """

    before: Trace

    def is_due(self, trace: Trace) -> bool:
        """Whether a checkpoint is due now; it is not timed."""

    def keep(self, trace: Trace) -> None:
        """Write a checkpoint, and set `trace.stopped` where this piece ends with it."""


def build_model(files: ModelFiles, settings: ModelSettings, num_labels: int) -> PreTrainedModel:
    """Load or initialise the model with fp32 weights, whatever the checkpoint's own type is.

    Raises:
        UserError: From reading a folder that is no checkpoint.
    """
    config = _model_config(files, settings, num_labels)
    options: dict[str, Any] = {"attn_implementation": "sdpa", "dtype": torch.float32}
    if settings.init == "random":
        model = AutoModelForSequenceClassification.from_config(config, **options)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(
            files.folder, config=config, local_files_only=True, use_safetensors=True, **options
        )
    wrong = {parameter.dtype for parameter in model.parameters()} - {torch.float32}
    assert not wrong, f"weights were loaded as {wrong}"  # noqa: S101 - our own mistake, were it to happen
    return model  # type: ignore[no-any-return]


def freeze_below(model: PreTrainedModel, num_trained_layers: int) -> None:
    """Leave the last layers and the head to train: the classifier, and BERT's pooler, which is the head's first layer.

    Nothing below needs a gradient then, so autograd keeps no activation of it and runs no backward through it.
    """
    encoder: torch.nn.Module = model.base_model
    first = model.config.num_hidden_layers - num_trained_layers
    for name, parameter in encoder.named_parameters():
        layer = _LAYER.search(name)
        parameter.requires_grad_(name.startswith("pooler.") or (layer is not None and int(layer[1]) >= first))


def describe_model(model: PreTrainedModel, files: ModelFiles, settings: ModelSettings) -> ModelFacts:
    """State what was built."""
    config = model.config
    return ModelFacts(
        name=settings.shape or settings.name,
        origin="random" if settings.init == "random" else files.origin,
        sha256=files.sha256 if settings.init == "pretrained" else None,
        architecture=type(model).__name__,
        num_parameters=sum(p.numel() for p in model.parameters()),
        num_trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        intermediate_size=getattr(config, "intermediate_size", None) or getattr(config, "hidden_dim", 0),
        vocab_size=config.vocab_size,
        max_positions=config.max_position_embeddings,
        attention_dropout=getattr(config, _dropout_keys(config)[0], None),
        hidden_dropout=getattr(config, _dropout_keys(config)[1], None),
        checkpoint_dtype=_checkpoint_dtype(files) if settings.init == "pretrained" else None,
        attention=getattr(config, "_attn_implementation", None),
    )


def peak_learning_rate(config: FineTuneConfig, world_size: int) -> float:
    """`lr` after `lr_scaling` from the base batch to this cell's global batch."""
    training = config.training
    ratio = config.global_batch(world_size) / training.lr_base_batch_size
    return training.lr * {"none": 1.0, "sqrt": math.sqrt(ratio), "linear": ratio}[training.lr_scaling]


def planned_updates(config: FineTuneConfig, num_rows: int, world_size: int) -> int:
    """Optimiser updates of the whole run."""
    return updates_by_chunk(config, num_rows, world_size)[-1]


def updates_by_chunk(config: FineTuneConfig, num_rows: int, world_size: int) -> tuple[int, ...]:
    """Optimiser updates that are done when each chunk of the rows is; the last are the whole run's.

    Chunks of a shuffled run are equal parts of its updates: every one has rows from all over.
    """
    training = config.training
    if training.chunk_order == "shuffled":
        whole = training.max_steps or max(
            1, math.ceil(training.epochs * _updates_per_epoch(config, num_rows, world_size))
        )
        return chunk_ends(whole, training.chunks)
    ends = (0, *chunk_ends(num_rows, training.chunks))
    of_each = [
        math.ceil(training.epochs * _updates_per_epoch(config, end - first, world_size))
        for first, end in pairwise(ends)
    ]
    done = tuple(accumulate(of_each))
    limit = training.max_steps or max(1, done[-1])
    return (*(min(one, limit) for one in done[:-1]), limit)


def make_trainee(model: PreTrainedModel, config: FineTuneConfig, place: Place, num_updates: int) -> Trainee:
    """Give a loaded model what training needs; under DDP its gradients are those of all ranks from here on."""
    if config.training.activation_checkpointing:
        # transformers 5.24 renamed it.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    optimizer = _optimizer(model, config, place)
    module = DistributedDataParallel(model, **_no_broadcasts()) if dist.is_initialized() else model
    return Trainee(
        model=model,
        module=compiled(module, config) if config.training.compile else module,
        optimizer=optimizer,
        schedule=_schedule(optimizer, config, num_updates),
        scaler=torch.amp.GradScaler(place.device.type, enabled=config.precision == "fp16"),
        num_skipped=_count_skipped(optimizer, place),
    )


def compile_ahead(trainee: Trainee, rows: Tokens, config: FineTuneConfig, place: Place) -> float:
    """Compile for every shape to come, by passes that leave nothing behind; give the seconds.

    No pass beats: a rank that waits for its compiler is idle, and does not hang.
    """
    began = time.perf_counter()
    num_rows = len(rows.labels)
    num_steps = planned_updates(config, num_rows, place.world_size)
    if config.training.chunk_order == "shuffled":  # else each chunk may end with a short batch of its own
        num_steps = min(num_steps, _updates_per_epoch(config, num_rows, place.world_size))
    trainee.model.train()
    with kept_random_states(place.device):
        for step in steps_to_come(islice(plan_batches(rows, config, place), num_steps), rows, config, place.world_size):
            forward_backward(trainee, rows, step, config, place, Trace(), lambda: None)
            trainee.optimizer.zero_grad(set_to_none=True)
    _synchronize(place)
    return time.perf_counter() - began


def train(  # noqa: PLR0913 - its instruments among them
    trainee: Trainee,
    train_rows: Tokens,
    val_rows: Tokens,
    config: FineTuneConfig,
    place: Place,
    *,
    timer: StepTimer,
    memory: MemoryMeter,
    on_step: Callable[[Trace], None],
    beat: Beat,
    keeper: Keeper | None = None,
    on_validation: Callable[[Trace], None] = lambda _: None,
    test_rows: Tokens | None = None,
) -> Trace:
    """Fine-tune the trainee in place, with the training clock stopped during evaluations and checkpoints.

    `on_step` is called between steps, outside of every timed one; `beat` wherever this rank got on; `on_validation`
    after each validation, while the clock stands still. With a `keeper` training goes on from where it was left. After each
    chunk of the rows the model is tried on `test_rows` too, which decides nothing.
    """
    num_updates, eval_every, chunks = _milestones(config, len(train_rows.labels), place.world_size)
    trace, losses = keeper.before if keeper else Trace(), torch.zeros(num_updates, device=place.device)
    plan, done = plan_batches(train_rows, config, place), len(trace.num_samples)
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
            at_end = any_rank(elapsed >= config.limits.max_train_s, place)
            trace.stopped_early = f"limits.max_train_s = {config.limits.max_train_s:g} s reached" if at_end else None
        pause = at_end or update % eval_every == 0 or update in chunks
        due = keeper is not None and keeper.is_due(trace)
        if pause or due or place.device.type == "cpu":
            # On a GPU this waits for its queue, so there only where the clock stops anyway.
            trace.loss_sums += losses[len(trace.loss_sums) : update].tolist()
        if pause or due:
            _synchronize(place)
            trace.train_s += time.perf_counter() - resumed
            trace.num_skipped = int(trainee.num_skipped)
            if pause:
                _look(
                    trainee.model,
                    val_rows,
                    config,
                    place,
                    trace,
                    beat,
                    at_end=at_end,
                    on_validation=on_validation,
                )
                _note_chunk(trainee.model, test_rows, config, place, trace, beat, chunk=chunks.get(update))
                at_end = at_end or trace.stopped_early is not None
            if keeper is not None and (due or at_end) and not trace.diverged:
                keeper.keep(trace)
            resumed = time.perf_counter()
        on_step(trace)
        if at_end or trace.diverged or trace.stopped:
            break
    return trace


def plan_batches(rows: Tokens, config: FineTuneConfig, place: Place) -> Iterator[Step]:
    """A cell's steps, without end; the same each time."""
    if config.training.chunk_order == "arrival":
        done = updates_by_chunk(config, len(rows.labels), place.world_size)
        return plan_arrivals(
            rows.lengths, chunk_updates=[end - first for first, end in pairwise((0, *done))],
            global_batch=config.global_batch(place.world_size), grad_accum=config.training.grad_accum,
            world_size=place.world_size, padding=config.padding, seed=config.seed,
        )  # fmt: skip
    return plan_epochs(
        rows.lengths, global_batch=config.global_batch(place.world_size), grad_accum=config.training.grad_accum,
        world_size=place.world_size, padding=config.padding, seed=config.seed,
    )  # fmt: skip


def measure_communication(
    trainee: Trainee, rows: Tokens, config: FineTuneConfig, place: Place, beat: Beat
) -> Communication:
    """Time forward and backward passes on the plan's first batch with and without all-reduce, in turns; no update.

    Of what all-reduce costs, only the part that no computation hides makes a step longer: the difference of the two.
    """
    module, step = trainee.module, next(plan_batches(rows, config, place))
    assert isinstance(module, DistributedDataParallel)  # noqa: S101 - asked for under DDP alone
    seconds: dict[bool, list[float]] = {True: [], False: []}
    trainee.model.train()
    for turn in range(2 * _COMMUNICATION_PAIRS):
        syncs = turn % 4 in (0, 3)  # A B B A, so that drift cancels
        of_all_ranks(None, place)  # begin together
        _synchronize(place)
        began = time.perf_counter()
        with contextlib.nullcontext() if syncs else module.no_sync():
            forward_backward(trainee, rows, step, config, place, Trace(), beat)
        _synchronize(place)
        seconds[syncs].append(time.perf_counter() - began)
        trainee.optimizer.zero_grad(set_to_none=True)
    return Communication(sync_s=tuple(seconds[True]), no_sync_s=tuple(seconds[False]))


def evaluation_batches(rows: Tokens, config: FineTuneConfig, place: Place) -> list[np.ndarray]:
    """This rank's rows in the order of length, cut to batches."""
    mine = np.argsort(rows.lengths, kind="stable")[place.rank :: place.world_size]
    batch_size = _evaluation_batch_size(config, place)
    return [mine[begin : begin + batch_size] for begin in range(0, len(mine), batch_size)]


def predict(
    model: torch.nn.Module, rows: Tokens, batch: np.ndarray, config: FineTuneConfig, place: Place
) -> tuple[torch.Tensor, torch.Tensor]:
    """Label one batch: the index of each row's likeliest label, and what the model gives it, both `(batch,)`."""
    ids, mask, _, num_real = collate(rows, batch, pad_to=config.seq_len if config.padding == "max" else None)
    seen = attention_mask(mask.to(place.device), padded=num_real < ids.numel())
    with torch.inference_mode(), _autocast(config, place):
        segments = _segments(model, rows, batch, ids.shape[1], place)
        logits = model(input_ids=ids.to(place.device), attention_mask=seen, **segments).logits.float()
        likeliest = logits.argmax(dim=-1)
        return likeliest, logits.softmax(dim=-1).gather(-1, likeliest[:, None])[:, 0]


def evaluate(model: PreTrainedModel, rows: Tokens, config: FineTuneConfig, place: Place, beat: Beat) -> TestEvaluation:
    """Predict every row once, shared out among ranks, batches in the order of length."""
    began = time.perf_counter()
    model.eval()
    found: list[tuple[np.ndarray, torch.Tensor, torch.Tensor]] = []
    batches = evaluation_batches(rows, config, place)
    with _autocast(config, place):  # around all batches, so that it casts each weight once
        for batch in batches:
            found.append((batch, *predict(model, rows, batch, config, place)))
            beat()
    for _ in range(_most_evaluation_batches(len(rows.labels), config, place) - len(batches)):
        beat()  # another rank has a row more, and a batch for it: counters that stay equal tell who is behind
    parts = [(batch, predicted.cpu().numpy(), given.cpu().numpy()) for batch, predicted, given in found]
    model.train()
    predictions = np.zeros(len(rows.labels), dtype=np.int64)
    probabilities = np.zeros(len(rows.labels))
    for batch, predicted, given in chain.from_iterable(of_all_ranks(parts, place)):
        predictions[batch], probabilities[batch] = predicted, given
    return TestEvaluation(
        evaluate_s=time.perf_counter() - began,
        labels=tuple(rows.labels.tolist()),
        predictions=tuple(predictions.tolist()),
        # What is no number has no place in JSON: a model that gives such is told by its loss.
        probabilities=tuple(np.round(probabilities, PROBABILITY_DIGITS).tolist())
        if np.isfinite(probabilities).all()
        else (),
    )


def set_precision(config: FineTuneConfig) -> None:
    """Set TF32 explicitly: on Ampere and later, "fp32" products of other tools are TF32.

    These two calls set torch's older and newer flags alike; setting the newer `fp32_precision` alone would make every
    reader of the older ones fail, torch.compile's among them (torch 2.11 to 2.13).
    """
    torch.set_float32_matmul_precision("high" if config.precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = config.precision == "tf32"


def _model_config(files: ModelFiles, settings: ModelSettings, num_labels: int) -> PreTrainedConfig:
    if settings.shape is not None:
        hidden, layers, heads = STANDARD_SHAPES[settings.shape]
        config: PreTrainedConfig = BertConfig(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * hidden,
        )
    else:
        config = AutoConfig.from_pretrained(files.folder, local_files_only=True)
    config.num_labels = num_labels
    if settings.num_layers is not None:
        config.num_hidden_layers = min(settings.num_layers, config.num_hidden_layers)
    attention_key, hidden_key = _dropout_keys(config)
    if settings.attention_dropout is not None:
        setattr(config, attention_key, settings.attention_dropout)
    if settings.hidden_dropout is not None:
        setattr(config, hidden_key, settings.hidden_dropout)
        for head_key in ("classifier_dropout", "seq_classif_dropout"):
            if hasattr(config, head_key):
                setattr(config, head_key, settings.hidden_dropout)
    return config


def _dropout_keys(config: PreTrainedConfig) -> tuple[str, str]:
    return (
        ("attention_dropout", "dropout")
        if config.model_type == "distilbert"
        else (
            "attention_probs_dropout_prob",
            "hidden_dropout_prob",
        )
    )


def _checkpoint_dtype(files: ModelFiles) -> str | None:
    from safetensors import safe_open

    with safe_open(files.folder / WEIGHTS, framework="pt") as tensors:
        dtypes = {tensors.get_slice(key).get_dtype() for key in tensors.keys()}  # noqa: SIM118 - no mapping
    return "+".join(sorted(dtypes)) or None


def _updates_per_epoch(config: FineTuneConfig, num_rows: int, world_size: int) -> int:
    return steps_per_epoch(num_rows, config.global_batch(world_size))


def _evaluation_batch_size(config: FineTuneConfig, place: Place) -> int:
    return max(config.device_batch(place.world_size), MIN_EVALUATION_BATCH)


def _most_evaluation_batches(num_rows: int, config: FineTuneConfig, place: Place) -> int:
    """Of any rank."""
    return -(-num_rows // (_evaluation_batch_size(config, place) * place.world_size))


def _milestones(config: FineTuneConfig, num_rows: int, world_size: int) -> tuple[int, int, dict[int, int]]:
    """Updates of the whole run, those between two validations, and which chunk, from 1, an update is the last of."""
    done = updates_by_chunk(config, num_rows, world_size)
    eval_every = max(1, round(config.training.eval_every * _updates_per_epoch(config, num_rows, world_size)))
    return done[-1], eval_every, {end: number for number, end in enumerate(done, start=1)} if len(done) > 1 else {}


def _optimizer(model: PreTrainedModel, config: FineTuneConfig, place: Place) -> torch.optim.Optimizer:
    training = config.training
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for _, p in trained if p.ndim > 1]
    kept = [p for _, p in trained if p.ndim <= 1]  # biases and LayerNorm, as BERT's own recipe has it
    groups = [
        {"params": decayed, "weight_decay": training.weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    lr = peak_learning_rate(config, place.world_size)
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, fused=True)
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def _count_skipped(optimizer: torch.optim.Optimizer, place: Place) -> torch.Tensor:
    """Count on the device what the gradient scaler tells the fused update to skip.

    The scaler's own scale can't be read without waiting for the GPU, and nor can whether it fell.
    """
    num_skipped = torch.zeros((), device=place.device)

    def count(optimizer: torch.optim.Optimizer, *_: object) -> None:
        found_inf = getattr(optimizer, "found_inf", None)  # there for the length of an update, 0 or above
        if found_inf is not None:
            num_skipped.add_(found_inf > 0)

    optimizer.register_step_pre_hook(count)
    return num_skipped


def _schedule(
    optimizer: torch.optim.Optimizer, config: FineTuneConfig, num_updates: int
) -> torch.optim.lr_scheduler.LRScheduler:
    warmup = round(config.training.warmup_fraction * num_updates)
    decays = config.training.schedule == "linear"

    def factor(update: int) -> float:
        if update < warmup:
            return (update + 1) / warmup
        return max(0.0, (num_updates - update) / max(1, num_updates - warmup)) if decays else 1.0

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def forward_backward(
    trainee: Trainee, rows: Tokens, step: Step, config: FineTuneConfig, place: Place, trace: Trace, beat: Beat
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
        segments = _segments(trainee.model, rows, batch, ids.shape[1], place)
        beat()
        waits = index < len(step) - 1 and isinstance(module, DistributedDataParallel)
        with module.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
            with _autocast(config, place):
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


def _segments(
    model: torch.nn.Module, rows: Tokens, batch: np.ndarray, width: int, place: Place
) -> dict[str, torch.Tensor]:
    """What the model is told of two segments; of one nothing, nor a model that tells none apart (DistilBERT)."""
    types = token_types(rows, batch, width)
    if types is None or getattr(model.config, "type_vocab_size", 0) < 2:  # noqa: PLR2004 - a type for each
        return {}
    types = types.pin_memory() if place.device.type == "cuda" else types
    return {"token_type_ids": types.to(place.device, non_blocking=True)}


def _no_broadcasts() -> dict[str, Any]:
    # BERT's buffers are constants: nothing to broadcast before every forward pass. torch 2.13 renamed the argument.
    new = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    return {"forward_sync_buffers" if new else "broadcast_buffers": False}


def _divergence(trace: Trace, config: FineTuneConfig, place: Place) -> str | None:
    # With fp16 the gradient scaler skips a step that overflowed; only a loss that stays lost is a divergence.
    seen = trace.loss_sums[-1:] if config.precision == "fp16" else trace.loss_sums
    if not any_rank(not all(map(math.isfinite, seen)), place):
        return None
    first = next(
        (i for i, loss in enumerate(trace.loss_sums, start=1) if not math.isfinite(loss)),
        len(trace.loss_sums),
    )
    return f"the loss is no finite number from update {first} on"


def _look(
    model: PreTrainedModel,
    rows: Tokens,
    config: FineTuneConfig,
    place: Place,
    trace: Trace,
    beat: Beat,
    *,
    at_end: bool,
    on_validation: Callable[[Trace], None],
) -> None:
    """See how training is getting on: whether its loss is lost, and what a validation says."""
    trace.diverged = _divergence(trace, config, place)
    if config.model.init != "pretrained" or trace.diverged:
        return
    seen = _validate(model, rows, config, place, trace, len(trace.num_samples), beat)
    trace.evaluations.append(seen)
    on_validation(trace)
    if not at_end and _reached(trace.evaluations[-1], config):
        trace.stopped_early = f"target {config.training.target_accuracy:g} reached on validation"


def _note_chunk(
    model: PreTrainedModel, rows: Tokens | None, config: FineTuneConfig, place: Place, trace: Trace, beat: Beat,
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
    model: PreTrainedModel, rows: Tokens, config: FineTuneConfig, place: Place, trace: Trace, update: int, beat: Beat
) -> Evaluation:
    seen = evaluate(model, rows, config, place, beat)
    trace.evaluate_s += seen.evaluate_s
    return Evaluation(
        train_s=trace.train_s,
        num_samples_seen=sum(of_all_ranks(sum(trace.num_samples), place)),
        num_updates=update,
        accuracy=seen.accuracy,
        macro_f1=seen.macro_f1,
        evaluate_s=seen.evaluate_s,
    )


def _reached(seen: Evaluation, config: FineTuneConfig) -> bool:
    """Whether training is to end with this validation; every rank has seen the same one."""
    target = config.training.target_accuracy
    return config.training.stop_at_target and target is not None and seen.accuracy >= target


def _autocast(config: FineTuneConfig, place: Place) -> contextlib.AbstractContextManager[Any]:
    dtype = _AUTOCAST.get(config.precision)
    return torch.autocast(place.device.type, dtype=dtype) if dtype is not None else contextlib.nullcontext()


def _synchronize(place: Place) -> None:
    if place.device.type == "cuda":
        torch.cuda.synchronize(place.device)


def of_all_ranks(told: Told, place: Place) -> list[Told]:
    """What every rank tells, in order of rank; each waits here for all."""
    all_told = [told] * place.world_size
    if place.world_size > 1:
        dist.all_gather_object(all_told, told)
    return all_told


def any_rank(flag: bool, place: Place) -> bool:
    """Whether it is so on any rank; each waits here for all."""
    return any(of_all_ranks(flag, place))
