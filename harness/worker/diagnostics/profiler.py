"""Some more steps, after all else was measured, under torch.profiler: none of them is in a figure or a record."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]  # its stub does not export it
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile, record_function

from harness.dataset.batch_plan import Step
from harness.dataset.tokens import TokenArrays
from harness.execution.messages import TrainHistory
from harness.schema.cells import FineTuneConfig
from harness.schema.step_profile import NUM_SHOWN_OPERATORS, PHASES, OperatorTime, StepProfile
from harness.worker.distributed import DistributedContext
from harness.worker.train_loop import forward_backward, iter_batches
from harness.worker.train_state import OnProgress, TrainState

# Ranges of our own in the trace.
_PREFIX = "harness: "
_STEP = f"{_PREFIX}step"
_MICROSECONDS = 1e6
# gloo:all_reduce, ncclDevKernel_AllReduce_Sum_f32_RING_LL, ...; c10d::allreduce_ only sends it on its way.
_ALL_REDUCE = re.compile(r"gloo:all_?reduce|nccl.*all_?reduce", re.IGNORECASE)

Interval = tuple[float, float]


def profile_steps(
    trainee: TrainState,
    rows: TokenArrays,
    config: FineTuneConfig,
    place: DistributedContext,
    beat: OnProgress,
    *,
    first: int,
    num_steps: int,
    to: Path,
) -> None:
    """Train on some of the plan's steps again under the profiler; rank 0 writes `to`.json.gz, a trace, and `to`.json.

    Args:
        first: Index of the first of these steps in the plan.
    """
    steps = list(islice(iter_batches(rows, config, place), first, first + num_steps))
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if place.device.type == "cuda" else [])
    trainee.model.train()
    profiler = profile(activities=activities) if place.rank == 0 else None
    with profiler or contextlib.nullcontext():
        for step in steps:
            _step(trainee, rows, step, config, place, beat)
    if profiler is not None:
        profiler.export_chrome_trace(f"{to}.json.gz")
        found = sum_up(profiler.events(), place.device.type, several=place.world_size > 1)
        to.with_suffix(".json").write_text(found.model_dump_json(), encoding="utf-8")


class _Ranges:
    """One range of the trace after another; on a GPU each waits for its kernels, so that it holds their time."""

    def __init__(self, place: DistributedContext) -> None:
        self._place = place
        self._open: Any = None

    def begin(self, name: str) -> None:
        self.end()
        self._open = record_function(_PREFIX + name)
        self._open.__enter__()

    def end(self) -> None:
        if self._place.device.type == "cuda":
            torch.cuda.synchronize(self._place.device)
        if self._open is not None:
            self._open.__exit__(None, None, None)
        self._open = None


def _step(
    trainee: TrainState,
    rows: TokenArrays,
    step: Step,
    config: FineTuneConfig,
    place: DistributedContext,
    beat: OnProgress,
) -> None:
    ranges, module = _Ranges(place), trainee.module
    with record_function(_STEP):
        for index, micro in enumerate(step):
            # `forward_backward` beats before its forward and before its backward pass.
            coming = iter(PHASES[1:3])

            def at_border(coming: Any = coming) -> None:  # noqa: ANN401 - bound now, not when the loop has gone on
                beat()
                ranges.begin(next(coming))

            waits = index < len(step) - 1 and isinstance(module, DistributedDataParallel)
            ranges.begin(PHASES[0])
            with module.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
                forward_backward(trainee, rows, [micro], config, place, TrainHistory(), at_border)
        ranges.begin(PHASES[3])
        trainee.scaler.step(trainee.optimizer)
        trainee.scaler.update()
        trainee.schedule.step()
        trainee.optimizer.zero_grad(set_to_none=True)
        ranges.end()


def sum_up(events: Iterable[Any], device: str, *, several: bool) -> StepProfile:
    """Sum a profiler's events (torch's FunctionEvent) up.

    Args:
        several: Whether there are other ranks to wait for.
    """
    on_gpu = device == "cuda"
    events = list(events)
    ours = [one for one in events if one.name.startswith(_PREFIX) and one.device_type == DeviceType.CPU]
    steps = [_interval(one) for one in ours if one.name == _STEP]
    kernels = [one for one in events if one.device_type != DeviceType.CPU and not one.is_user_annotation]
    phases = {
        name: sum(one.time_range.elapsed_us() for one in ours if one.name == _PREFIX + name) / _MICROSECONDS
        for name in PHASES
    }
    computing = [one for one in ours if one.name in {_PREFIX + name for name in PHASES[1:]}]
    idle_us = (
        _length(map(_interval, computing)) - _length(_within(map(_interval, kernels), list(map(_interval, computing))))
        if on_gpu
        else sum(one.self_cpu_time_total for one in computing)
    )
    sent = [_interval(one) for one in (kernels if on_gpu else events) if _ALL_REDUCE.search(one.name)]
    return StepProfile(
        device=device,
        step_s=tuple((end - begin) / _MICROSECONDS for begin, end in steps),
        phases_s=phases,
        all_reduce_s=_length(_within(sent, steps)) / _MICROSECONDS if several else None,
        idle_s=idle_us / _MICROSECONDS,
        operators=_operators([one for one in (kernels if on_gpu else events) if one not in ours], on_gpu=on_gpu),
    )


def _operators(events: Iterable[Any], *, on_gpu: bool) -> tuple[OperatorTime, ...]:
    spent: dict[str, list[float]] = {}
    for one in events:
        own_us = one.time_range.elapsed_us() if on_gpu else one.self_cpu_time_total
        spent.setdefault(one.name, []).append(own_us)
    most = sorted(spent.items(), key=lambda pair: -sum(pair[1]))[:NUM_SHOWN_OPERATORS]
    return tuple(
        OperatorTime(name=name, num_calls=len(own), self_s=sum(own) / _MICROSECONDS)
        for name, own in most
        if sum(own) > 0
    )


def _interval(event: Any) -> Interval:  # noqa: ANN401 - torch's FunctionEvent
    return event.time_range.start, event.time_range.end


def _within(intervals: Iterable[Interval], frames: Sequence[Interval]) -> list[Interval]:
    """The parts of intervals that lie in a frame."""
    cut = ((max(begin, low), min(end, high)) for begin, end in intervals for low, high in frames)
    return [(begin, end) for begin, end in cut if begin < end]


def _length(intervals: Iterable[Interval]) -> float:
    """Of their union: what overlaps counts once."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total
