"""One rank of one cell, in a process of its own.

The parent starts `run` by its dotted name, listens to its messages, and ends it. This module is what the forkserver
preloads: importing it brings torch and the model classes, and no CUDA context and no thread pool.
"""

from __future__ import annotations

import errno
import functools
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import connection, parent_process
from pathlib import Path

import torch
import torch.distributed as dist

# Their first import would be each cell's first cost: transformers and DDP load their parts lazily.
import transformers.models.bert.modeling_bert
import transformers.models.distilbert.modeling_distilbert  # noqa: F401
from safetensors import SafetensorError
from transformers import PreTrainedModel

from harness.dataset.tokens import TokenArrays, load_tokens
from harness.execution.baselines import run_baseline
from harness.execution.heartbeat import Heartbeat
from harness.execution.jobs import BaselineJob, Job, TrainJob
from harness.execution.messages import (
    Diagnostics,
    Message,
    PhaseStarted,
    Progress,
    RankResult,
    TrainHistory,
    TrainResult,
)
from harness.execution.oom_messages import find_oom_message
from harness.machine.malloc import mmap_large_blocks
from harness.schema.cells import FineTuneConfig
from harness.schema.diagnostics_record import MemoryParts
from harness.schema.record import Outcome
from harness.schema.settings import num_trained_layers
from harness.schema.training_record import PeakMemory
from harness.worker.best_model import BestModelSaver
from harness.worker.checkpointer import CheckpointWriter
from harness.worker.device import Unsupported, init_distributed
from harness.worker.diagnostics.communication import measure_communication
from harness.worker.diagnostics.memory_breakdown import measure_breakdown
from harness.worker.diagnostics.peak_flops import measure_arithmetic
from harness.worker.diagnostics.profiler import profile_steps
from harness.worker.distributed import DistributedContext
from harness.worker.evaluation import evaluate
from harness.worker.meters import MemoryMeter, ResidentMemory, StepTimer, held_now
from harness.worker.model import build_model, describe_model, freeze_encoder_below
from harness.worker.optimizer import peak_learning_rate, planned_updates
from harness.worker.torch_compile import use_cache
from harness.worker.train_loop import build_train_state, train, warm_compile
from harness.worker.train_state import OnProgress, TrainState

Send = Callable[[Message], None]


_MESSAGE_EVERY_S = 1.0


_REASON_SIGNS = 300


# What libraries raise when they get no memory, beside the types that stand for nothing else.
_MAY_TELL = (RuntimeError, ImportError, OSError, SafetensorError)


_NEAR_LIMIT = 0.9


_CHECKSUM_PART = 2**20


_GIB = 2**30


def run(job: Job, pipe: connection.Connection, stderr_path: str) -> None:
    """Do a job and send how it ended.

    See `harness.execution.messages`; the last one is a `RankResult`.
    """
    began = time.perf_counter()
    # A process group of its own: the terminal's Ctrl-C is the parent's, and all that is started here can be ended.
    os.setsid()
    _exit_with_parent()
    _redirect_output(stderr_path)
    send = pipe.send
    send(PhaseStarted("load", start_s=began - job.submitted_at))
    try:
        send(run_training(job, send, began) if isinstance(job, TrainJob) else _baseline(job, send))
    except BaseException as error:  # noqa: BLE001 - every ending is data
        traceback.print_exc()
        outcome, reason = classify(error)
        send(RankResult(outcome, reason))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        sys.stderr.flush()


def classify(error: BaseException) -> tuple[Outcome, str]:
    """Tell what kind of ending an exception is, and why in one line."""
    shortage = next(filter(None, map(_oom_reason, _with_causes(error))), None)
    if shortage is not None:
        return "oom", shortage
    text = str(error).strip()
    return ("unsupported", text) if isinstance(error, Unsupported) else ("crashed", _in_one_line(error))


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that it was raised from: libraries wrap what they could not do for want of memory."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _oom_reason(error: BaseException) -> str | None:
    """Why an exception means that memory ran out, in one line; None if it does not."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return _in_one_line(error)
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return _in_one_line(error)
    # Of NCCL's message the first line tells nothing: the sign is in a later one.
    sign = find_oom_message(str(error)) if isinstance(error, _MAY_TELL) else None
    return f"{type(error).__name__}: {sign}"[:_REASON_SIGNS] if sign else None


def _in_one_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"[:_REASON_SIGNS]


def _baseline(job: BaselineJob, send: Send) -> RankResult:
    memory = MemoryMeter(torch.device("cpu"), rank=0)
    memory.reset()
    measured = run_baseline(job.config.classifier, job.texts_folder)
    result = RankResult(
        "ok", baseline=measured.model_copy(update={"peak_memory": memory.peaks()}), cpu_s=time.process_time()
    )
    send(PhaseStarted("after"))
    return result


def run_training(job: TrainJob, send: Send, began: float) -> RankResult:
    """Train this rank's part of a cell; `began` is the start of the process on perf_counter's clock."""
    config = job.config
    place = init_distributed(job)
    if config.training.compile:
        use_cache(Path(f"{job.heartbeat}-compiled-{place.rank}"))
    pulse = Heartbeat(Path(job.heartbeat), job.world_size) if job.heartbeat else None
    beat = functools.partial(pulse.tick, job.rank) if pulse else lambda: None
    if config.training.allocator == "mmap":
        mmap_large_blocks()
    tokens = {split: load_tokens(job.tokens_folder, split) for split in ("train", "val", "test")}
    held_before = held_now()
    model = _load(job, config, place)
    facts = describe_model(model, job.model, config.model)
    num_updates = planned_updates(config, len(tokens["train"].labels), place.world_size)
    trainee = build_train_state(model, config, place, num_updates)
    timer, memory = StepTimer(place.device), MemoryMeter(place.device, place.rank)
    best = BestModelSaver(model, Path(job.save_model_to) if job.save_model_to else None, place, beat)
    keeper = CheckpointWriter(job, trainee, place, timer, memory, num_updates, pulse, best) if job.resume else None
    if keeper:
        keeper.resume(began)
    loaded = time.perf_counter()
    send(PhaseStarted("train", load_s=loaded - began))
    compile_s = warm_compile(trainee, tokens["train"], config, place) if config.training.compile else None
    reporter = _Reporter(send, job, num_updates, num_told=len(keeper.before.held_bytes) if keeper else 0)
    try:
        trace = train(
            trainee,
            tokens["train"],
            tokens["val"],
            config,
            place,
            timer=timer,
            memory=memory,
            on_step=reporter.on_step,
            beat=beat,
            keeper=keeper,
            on_validation=best.on_validation,
            test_rows=tokens["test"],
        )
    finally:
        reporter.finish()
    seconds = timer.seconds()
    best.restore(trace)
    send(PhaseStarted("test"))
    # A stopped training that will be resumed is not evaluated on the test set.
    tested = config.model.init == "pretrained" and trace.outcome == "ok"
    test = evaluate(model, tokens["test"], config, place, beat) if tested else None
    peaks, held = memory.peaks(), (held_before, held_now())
    result = TrainResult(
        history=trace,
        step_s=seconds,
        clock="cuda_events" if place.device.type == "cuda" else "perf_counter",
        first_step_s=reporter.first_step_s,
        test=test,
        peaks=peaks,
        model=facts,
        lr_peak=peak_learning_rate(config, place.world_size),
        num_updates_planned=num_updates,
        num_threads=torch.get_num_threads(),
        torch_build=str(torch.__version__),
        checksum=parameter_checksum(model),
        compile_s=compile_s,
        segments=keeper.segments(len(trace.num_samples)) if keeper else (),
    )
    # What follows is in none of the figures above.
    send(PhaseStarted("after"))
    if trace.outcome == "ok":
        result = replace(result, diagnostics=_run_diagnostics(job, trainee, tokens, place, result, held, beat))
    return RankResult(
        trace.outcome,
        trace.diverged,
        training=replace(result, saved=best.finish(trace)),
        cpu_s=time.process_time(),
    )


def _run_diagnostics(
    job: TrainJob,
    trainee: TrainState,
    tokens: dict[str, TokenArrays],
    place: DistributedContext,
    result: TrainResult,
    held: tuple[ResidentMemory, ResidentMemory],
    beat: OnProgress,
) -> Diagnostics:
    """Run the optional diagnostics after a successful training."""
    config, rows, seconds, found = job.config, tokens["train"], result.step_s, Diagnostics()
    if place.world_size > 1:
        found = replace(found, communication=measure_communication(trainee, rows, config, place, beat))
    near_limit = _near_memory_cap(config, result.peaks)
    if job.run_diagnostics:
        if not near_limit:
            parts, kernels = _break_down(trainee, tokens, config, place, len(seconds), held, beat)
            found = replace(found, memory_parts=parts, attention_kernels=kernels)
        flops, peak = measure_arithmetic(
            trainee, result.model, rows, config, place, seconds, beat, near_limit=near_limit
        )
        found = replace(found, flops=flops, peak=peak)
    _profile(job, trainee, rows, place, beat, num_steps=len(seconds))
    return found


def _break_down(
    trainee: TrainState,
    tokens: dict[str, TokenArrays],
    config: FineTuneConfig,
    place: DistributedContext,
    num_steps: int,
    held: tuple[ResidentMemory, ResidentMemory],
    beat: OnProgress,
) -> tuple[MemoryParts | None, tuple[str, ...]]:
    """Where the memory went; nothing of a compiled model, which shows no tensor to those who watch."""
    if config.training.compile:
        return None, ()
    try:
        return measure_breakdown(trainee, tokens, config, place, num_steps, held, beat)
    except (MemoryError, RuntimeError):
        traceback.print_exc()  # the ending is training's, which went well
        return None, ()


def _profile(
    job: TrainJob,
    trainee: TrainState,
    rows: TokenArrays,
    place: DistributedContext,
    beat: OnProgress,
    *,
    num_steps: int,
) -> None:
    """Watch a few more steps, where that was asked for."""
    if job.profile_prefix:
        first = job.profile_first
        profile_steps(
            trainee,
            rows,
            job.config,
            place,
            beat,
            first=first,
            num_steps=num_steps - first,
            to=Path(job.profile_prefix),
        )


class _Reporter:
    """Tells the parent of steps, at most once a second: the parent reads its own clock at each of these marks."""

    def __init__(self, send: Send, job: TrainJob, num_updates: int, *, num_told: int) -> None:
        self._send, self._ordered_at, self.num_updates = send, job.submitted_at, num_updates
        self._sent_at = -_MESSAGE_EVERY_S
        self._trace, self._num_told, self._num_before = TrainHistory(), num_told, num_told
        self.first_step_s: float | None = None

    def on_step(self, trace: TrainHistory) -> None:
        now, self._trace = time.perf_counter(), trace
        if self.first_step_s is None:
            self.first_step_s = now - self._ordered_at
        if now - self._sent_at >= _MESSAGE_EVERY_S:
            self._tell(trace, now)

    def finish(self) -> None:
        """Tell of the last step, however training ended."""
        if self._trace.num_samples:
            self._tell(self._trace, time.perf_counter())

    def _tell(self, trace: TrainHistory, now: float) -> None:
        self._sent_at = now
        held, self._num_told = trace.held_bytes[self._num_told :], len(trace.held_bytes)
        self._send(
            Progress(
                num_steps=len(trace.num_samples),
                num_steps_planned=self.num_updates,
                num_steps_before=self._num_before,
                num_samples=sum(trace.num_samples),
                evaluate_s=trace.evaluate_s,
                loss=trace.loss_sums[-1] / max(1, trace.num_samples[len(trace.loss_sums) - 1])
                if trace.loss_sums
                else None,
                accuracy=trace.evaluations[-1].accuracy if trace.evaluations else None,
                held_bytes=held,
            )
        )


def _load(job: TrainJob, config: FineTuneConfig, place: DistributedContext) -> PreTrainedModel:
    model = build_model(job.model, config.model, job.num_labels)
    if config.seq_len > model.config.max_position_embeddings:
        raise Unsupported(
            f"seq_len {config.seq_len} is beyond this model's {model.config.max_position_embeddings} positions"
        )
    if config.trainable != "all":
        freeze_encoder_below(model, _trained_layers(config, model))
    # Dropout must differ between ranks, the weights must not.
    torch.manual_seed(config.seed + place.rank)
    model.to(place.device)  # type: ignore[arg-type]  # its stub lost the method's self
    return model


def _trained_layers(config: FineTuneConfig, model: PreTrainedModel) -> int:
    num_layers = model.config.num_hidden_layers
    if num_trained_layers(config.trainable, num_layers + 1) > num_layers:
        raise Unsupported(f"{config.trainable} asks for more layers than this model's {num_layers}")
    return num_trained_layers(config.trainable, num_layers)


def _near_memory_cap(config: FineTuneConfig, peaks: tuple[PeakMemory, ...]) -> bool:
    """Whether one more step could pass a cap that training stayed below: the ending must be training's."""
    limit = config.limits.memory_limit_gib
    return limit is not None and max(peak.num_bytes for peak in peaks) > _NEAR_LIMIT * limit * 2**30


def parameter_checksum(model: PreTrainedModel) -> float:
    """Sum of all parameters in fp64: equal on every rank of a DDP cell."""
    with torch.inference_mode():
        # Part by part: a whole table of words in fp64 would be more than training's own peak left free.
        parts = (part for parameter in model.parameters() for part in parameter.flatten().split(_CHECKSUM_PART))
        return float(sum(part.double().sum() for part in parts))


def _exit_with_parent() -> None:
    """End this process and all it started when the harness is gone, be it by SIGKILL."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def _redirect_output(path: str) -> None:
    """Send what this process and its libraries print to a file; the pipe alone is the parent's."""
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
