"""Run a few extra steps under torch.profiler after the measurement; they are excluded from all results."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]  # the type stub does not export it
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile, record_function

from harness.dataset.batch_plan import Step
from harness.schema.step_profile import NUM_SHOWN_OPERATORS, PHASES, OperatorTime, StepProfile
from harness.worker.device import synchronize
from harness.worker.train_loop import forward_backward, iter_batches, update_weights
from harness.worker.train_state import FinishedTraining, TrainContext, TrainState

# In the trace, the names of the harness's own ranges begin with this prefix.
_PREFIX = "harness: "
_STEP = f"{_PREFIX}step"
_MICROSECONDS = 1e6
# Matches gloo:all_reduce, ncclDevKernel_AllReduce_Sum_f32_RING_LL and the like, which do the work. c10d::allreduce_, which
# only launches it, doesn't match.
_ALL_REDUCE = re.compile(r"gloo:all_?reduce|nccl.*all_?reduce", re.IGNORECASE)

Interval = tuple[float, float]


def profile_steps(training: FinishedTraining, first: int, path_prefix: Path) -> None:
    """Train again on the plan's steps from index `first` on, under the profiler.

    Rank 0 writes a trace to `path_prefix`.json.gz and the summary to `path_prefix`.json.
    """
    state, context = training.state, training.context
    steps = list(islice(iter_batches(context), first, len(training.result.step_s)))
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if context.device.type == "cuda" else [])
    state.model.train()
    profiler = profile(activities=activities) if context.rank == 0 else None
    with profiler or contextlib.nullcontext():
        for step in steps:
            run_step(state, context, step)
    if profiler is not None:
        profiler.export_chrome_trace(f"{path_prefix}.json.gz")
        summary = summarize_events(profiler.events(), context.device.type, distributed=context.world_size > 1)
        path_prefix.with_suffix(".json").write_text(summary.model_dump_json(), encoding="utf-8")


class _Ranges:
    """Consecutive named ranges in the trace; on a GPU, each waits for its kernels and so contains their time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._open: Any = None

    def begin(self, name: str) -> None:
        self.end()
        self._open = record_function(_PREFIX + name)
        self._open.__enter__()

    def end(self) -> None:
        synchronize(self._device)
        if self._open is not None:
            self._open.__exit__(None, None, None)
        self._open = None


def run_step(state: TrainState, context: TrainContext, step: Step) -> None:
    """Run one training step, with a range for each of its phases."""
    ranges, module = _Ranges(context.device), state.module
    with record_function(_STEP):
        for index, micro in enumerate(step):
            # `forward_backward` sends a heartbeat before its forward pass and before its backward pass. Each begins a range.
            upcoming = iter(PHASES[1:3])

            def begin_next_phase(upcoming: Any = upcoming) -> None:  # noqa: ANN401 - bound now, not at the loop's end
                context.heartbeat()
                ranges.begin(next(upcoming))

            skip_sync = index < len(step) - 1 and isinstance(module, DistributedDataParallel)
            ranges.begin(PHASES[0])
            with module.no_sync() if skip_sync else contextlib.nullcontext():  # type: ignore[operator]
                forward_backward(state, replace(context, heartbeat=begin_next_phase), [micro])
        ranges.begin(PHASES[3])
        update_weights(state)
        state.schedule.step()
        ranges.end()


def summarize_events(events: Iterable[Any], device: str, *, distributed: bool) -> StepProfile:
    """Summarize a profiler's events.

    Args:
        events: torch's FunctionEvents.
        device: `cpu` or `cuda`.
        distributed: Whether there are several ranks, so that all-reduce is reported.
    """
    on_gpu = device == "cuda"
    events = list(events)
    ranges = [event for event in events if event.name.startswith(_PREFIX) and event.device_type == DeviceType.CPU]
    steps = [_interval(event) for event in ranges if event.name == _STEP]
    kernels = [event for event in events if event.device_type != DeviceType.CPU and not event.is_user_annotation]
    phases = {
        name: sum(event.time_range.elapsed_us() for event in ranges if event.name == _PREFIX + name) / _MICROSECONDS
        for name in PHASES
    }
    computing = [event for event in ranges if event.name in {_PREFIX + name for name in PHASES[1:]}]
    frames = list(map(_interval, computing))
    idle_us = (
        _union_length(frames) - _union_length(_clip(map(_interval, kernels), frames))
        if on_gpu
        else sum(event.self_cpu_time_total for event in computing)
    )
    executed = kernels if on_gpu else events
    all_reduces = [_interval(event) for event in executed if _ALL_REDUCE.search(event.name)]
    return StepProfile(
        device=device,
        step_s=tuple((end - begin) / _MICROSECONDS for begin, end in steps),
        phases_s=phases,
        all_reduce_s=_union_length(_clip(all_reduces, steps)) / _MICROSECONDS if distributed else None,
        idle_s=idle_us / _MICROSECONDS,
        operators=_slowest_operators([event for event in executed if event not in ranges], on_gpu=on_gpu),
    )


def _slowest_operators(events: Iterable[Any], *, on_gpu: bool) -> tuple[OperatorTime, ...]:
    times_us: dict[str, list[float]] = {}
    for event in events:
        self_us = event.time_range.elapsed_us() if on_gpu else event.self_cpu_time_total
        times_us.setdefault(event.name, []).append(self_us)
    slowest = sorted(times_us.items(), key=lambda item: -sum(item[1]))[:NUM_SHOWN_OPERATORS]
    return tuple(
        OperatorTime(name=name, num_calls=len(calls_us), self_s=sum(calls_us) / _MICROSECONDS)
        for name, calls_us in slowest
        if sum(calls_us) > 0
    )


def _interval(event: Any) -> Interval:  # noqa: ANN401 - torch's FunctionEvent
    return event.time_range.start, event.time_range.end


def _clip(intervals: Iterable[Interval], frames: Sequence[Interval]) -> list[Interval]:
    """Return the parts of the intervals that lie inside a frame."""
    clipped = ((max(begin, low), min(end, high)) for begin, end in intervals for low, high in frames)
    return [(begin, end) for begin, end in clipped if begin < end]


def _union_length(intervals: Iterable[Interval]) -> float:
    """Return the length of the intervals' union, counting overlaps once."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total
