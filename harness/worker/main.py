"""The process of one rank of one cell.

The parent starts `run` by its dotted name, receives its messages, and ends the process. The forkserver preloads this module
and forks every process from there. Importing the module therefore loads torch and the model classes, but creates no CUDA
context and no thread pool, which forked processes could not use.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import nullcontext
from dataclasses import dataclass, replace
from multiprocessing import connection, parent_process
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

# transformers would load these only when a model is built; preloading them keeps that time out of every cell.
import transformers.models.bert.modeling_bert
import transformers.models.distilbert.modeling_distilbert  # noqa: F401
from transformers import PreTrainedModel

from harness.dataset.tokens import largest_token_id
from harness.dataset.training_plan import mean_step
from harness.execution.baselines import run_baseline
from harness.execution.heartbeat import Heartbeat
from harness.execution.jobs import BaselineJob, FeaturesJob, Job, TrainJob
from harness.execution.messages import (
    CheckpointFailed,
    ModelUnsaved,
    PhaseStarted,
    RankResult,
    TrainHistory,
    TrainResult,
)
from harness.machine.affinity import computing_cpus
from harness.machine.malloc import mmap_large_blocks
from harness.schema.cells import FineTuneConfig
from harness.schema.inputs_record import ModelFacts
from harness.schema.nodes_record import Network
from harness.schema.settings import num_trained_layers
from harness.worker.attention_choice import apply_attention
from harness.worker.best_model import BestModelSaver
from harness.worker.checkpointer import Checkpointer
from harness.worker.device import set_matmul_precision
from harness.worker.diagnostics.run import run_diagnostics
from harness.worker.distributed import DistributedContext, init_distributed
from harness.worker.evaluation import batch_logits, evaluate
from harness.worker.failures import classify, lost_peer
from harness.worker.family_check import added_padding, require_own_logits
from harness.worker.features import run_features
from harness.worker.meters import MemoryMeter, Meters, ResidentMemory, resident_memory
from harness.worker.model import (
    LoadedModel,
    check_settings,
    check_tokens,
    describe_model,
    freeze_encoder_below,
    load_model,
)
from harness.worker.network import measure_network
from harness.worker.optimizer import peak_learning_rate
from harness.worker.probe import probe_shapes
from harness.worker.progress import ProgressReporter, Send
from harness.worker.torch_compile import set_compile_cache
from harness.worker.train_loop import TrainHooks, build_train_state, train, warm_compile
from harness.worker.train_state import FinishedTraining, SplitTokens, TrainContext, TrainState

_CHECKSUM_PIECE = 2**20


def run(job: Job, pipe: connection.Connection, stderr_path: str) -> None:
    """Run a job and send its messages (harness.execution.messages); the last one is a `RankResult`."""
    began = time.perf_counter()
    # Start a new session and process group: the terminal's Ctrl-C then reaches only the parent, and killing the group ends
    # this process with everything it started.
    os.setsid()
    _exit_with_parent()
    _redirect_output(stderr_path)
    send = pipe.send
    send(PhaseStarted("load", start_s=began - job.submitted_at))
    try:
        send(_run_job(job, send, began))
    except BaseException as error:  # noqa: BLE001 - every failure becomes a result
        traceback.print_exc()
        outcome, reason = classify(error)
        send(RankResult(outcome, reason, lost_peer=outcome == "crashed" and lost_peer(error)))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        sys.stderr.flush()


def _run_job(job: Job, send: Send, began: float) -> RankResult:
    if isinstance(job, TrainJob):
        return run_training(job, send, began)
    return run_features(job, send, began) if isinstance(job, FeaturesJob) else _run_baseline(job, send)


def _run_baseline(job: BaselineJob, send: Send) -> RankResult:
    memory = MemoryMeter(torch.device("cpu"), rank=0)
    memory.reset()
    baseline = run_baseline(job.config.classifier, job.texts_folder)
    baseline = baseline.model_copy(update={"peak_memory": memory.peaks()})
    result = RankResult("ok", baseline=baseline, cpu_s=time.process_time())
    send(PhaseStarted("after"))
    return result


def run_training(job: TrainJob, send: Send, began: float) -> RankResult:
    """Load the model, train it, evaluate it on the test set, and run the diagnostics.

    Args:
        job: This rank's part of the training.
        send: Sends a message to the parent.
        began: When this process began, on the clock of `time.perf_counter`.
    """
    loaded = _load(job)
    context, state, meters = loaded.context, loaded.state, loaded.meters
    if job.probe:
        return _run_probe(job, loaded, send, began)
    folder = Path(job.save_model_to) if job.save_model_to else None
    best = BestModelSaver(state.model, folder, context, lambda reason: send(ModelUnsaved(reason)))
    checkpointer = None
    if job.resume:
        checkpointer = Checkpointer(job, state, context, meters, best, lambda reason: send(CheckpointFailed(reason)))
    if checkpointer:
        checkpointer.resume(began)
    load_s = time.perf_counter() - began
    network = _measure_network(job, context) if job.interface else None
    attention = apply_attention(state, context, checkpointer.attention_choice if checkpointer else None)
    if checkpointer:
        checkpointer.attention_choice = attention
    send(PhaseStarted("train", load_s=load_s))
    compile_s = warm_compile(state, context) if context.config.training.compile else None
    num_steps_before = len(checkpointer.history.held_bytes) if checkpointer else 0
    reporter = ProgressReporter(send, job.submitted_at, context.num_updates, num_steps_before)
    try:
        history = train(state, context, meters, TrainHooks(reporter.on_step, best.on_validation, checkpointer))
    finally:
        reporter.finish()
    step_s = meters.timer.seconds()
    best.restore(history)
    send(PhaseStarted("test"))
    is_finished = history.outcome == "ok"
    # A stopped training will be resumed, so it isn't evaluated on the test set yet.
    is_tested = is_finished and context.config.is_judged
    test = evaluate(state.model, context.splits.test, context) if is_tested else None
    peaks, resident_after = meters.memory.peaks(), resident_memory()
    result = TrainResult(
        history=history,
        step_s=step_s,
        clock="cuda_events" if context.device.type == "cuda" else "perf_counter",
        first_step_s=reporter.first_step_s,
        test=test,
        peaks=peaks,
        model=loaded.model_facts.model_copy(update={"attention": state.model.config._attn_implementation}),
        lr_peak=peak_learning_rate(context.config, context.world_size),
        num_updates_planned=context.num_updates,
        num_threads=torch.get_num_threads(),
        cpus=computing_cpus(),
        attention_choice=attention,
        network=network,
        torch_build=str(torch.__version__),
        checksum=parameter_checksum(state.model),
        compile_s=compile_s,
        mean_step=_mean_step(context, history),
        segments=checkpointer.segments(len(history.num_samples)) if checkpointer else (),
    )
    send(PhaseStarted("after"))
    if is_finished:
        training = FinishedTraining(state, context, result, loaded.resident_before, resident_after)
        result = replace(result, diagnostics=run_diagnostics(job, training))
    result = replace(result, saved=best.finish(history))
    return RankResult(history.outcome, history.diverged, training=result, cpu_s=time.process_time())


def _mean_step(context: TrainContext, history: TrainHistory) -> tuple[float, float] | None:
    if context.config.limits.until is None or history.stopped_early is None:
        return None
    return mean_step(context.config, context.splits.train.lengths, context.world_size)


def _run_probe(job: TrainJob, loaded: _Loaded, send: Send, began: float) -> RankResult:
    load_s = time.perf_counter() - began
    apply_attention(loaded.state, loaded.context)
    send(PhaseStarted("train", load_s=load_s))
    shapes = probe_shapes(loaded.state, loaded.context, loaded.meters.memory, job.probe)
    send(PhaseStarted("after"))
    return RankResult("ok", probe=shapes, encoder=loaded.model_facts, cpu_s=time.process_time())


def _measure_network(job: TrainJob, context: TrainContext) -> Network:
    is_capped = job.config.limits.memory_limit_gib is not None
    return measure_network(context.distributed, job.local_world_size, is_capped=is_capped)


@dataclass(frozen=True)
class _Loaded:
    """Everything that `_load` prepares for the training."""

    context: TrainContext
    state: TrainState
    meters: Meters
    model_facts: ModelFacts
    resident_before: ResidentMemory


def _load(job: TrainJob) -> _Loaded:
    """Join the process group, and load tokens and model."""
    config = job.config
    distributed = init_distributed(job)
    if config.training.compile:
        set_compile_cache(Path(f"{job.heartbeat}-compiled-{distributed.rank}"))
    heartbeat = Heartbeat(Path(job.heartbeat), job.local_world_size) if job.heartbeat else None
    if config.training.allocator == "mmap":
        mmap_large_blocks()
    context = TrainContext(
        config=config,
        distributed=distributed,
        splits=SplitTokens.load(job.tokens_folder),
        heartbeat=functools.partial(heartbeat.tick, job.local_rank) if heartbeat else lambda: None,
        keepalive=functools.partial(heartbeat.keepalive, job.local_rank) if heartbeat else nullcontext,
    )
    resident_before = resident_memory()
    loaded = _load_model(job, config, distributed)
    if job.check_texts:
        _check_family(loaded.model, job, context)
    facts = describe_model(loaded, job.model, config.model)
    state = build_train_state(loaded.model, config, distributed, context.num_updates)
    return _Loaded(context, state, Meters.create(context.device, context.rank), facts, resident_before)


def _load_model(job: TrainJob, config: FineTuneConfig, distributed: DistributedContext) -> LoadedModel:
    loaded = load_model(job.model, config.model, job.labels)
    model = loaded.model
    check_settings(model, config.model, config.trainable, config.seq_len, config.precision)
    check_tokens(model, largest_token_id(job.tokens_folder))
    if config.trainable != "all":
        freeze_encoder_below(model, num_trained_layers(config.trainable, model.config.num_hidden_layers))
    # Seed again, now by rank: all ranks have initialized the same weights, but should draw different dropout masks.
    torch.manual_seed(config.seed + distributed.rank)
    model.to(distributed.device)  # type: ignore[arg-type]  # the type stub lacks the method's `self`
    return loaded


def _check_family(model: PreTrainedModel, job: TrainJob, context: TrainContext) -> None:
    """Raise Unsupported unless two padded batches give what the model's own forward pass gives, in fp32."""
    set_matmul_precision("fp32")
    model.eval()
    halves = [half for half in np.array_split(np.arange(len(job.check_texts)), 2) if len(half)]
    rows = context.splits.train
    num_added = added_padding(model, int(rows.lengths[: len(job.check_texts)].max()))
    with torch.inference_mode():
        batches = [batch_logits(model, rows, half, context, num_added) for half in halves]
    require_own_logits(model, job.model.folder, job.check_texts, torch.cat(batches), job.config.seq_len)
    set_matmul_precision(job.config.precision)


def parameter_checksum(model: PreTrainedModel) -> float:
    """Return the sum of all parameters in fp64, which is equal on every rank of a DDP cell."""
    with torch.inference_mode():
        # Convert to fp64 in pieces: a copy of the whole embedding table could need more memory than training left free.
        pieces = (piece for parameter in model.parameters() for piece in parameter.flatten().split(_CHECKSUM_PIECE))
        return float(sum(piece.double().sum() for piece in pieces))


def _exit_with_parent() -> None:
    """Kill this process and everything it started when the parent dies, even by SIGKILL."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def _redirect_output(path: str) -> None:
    """Redirect the output of this process and its libraries to a file; only messages go through the pipe."""
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
