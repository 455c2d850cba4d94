"""Run the diagnostics that a job asks for."""

from __future__ import annotations

import traceback
from pathlib import Path

from harness.execution.jobs import TrainJob
from harness.execution.messages import Diagnostics
from harness.schema.diagnostics_record import MemoryParts
from harness.worker.diagnostics.communication import measure_communication
from harness.worker.diagnostics.memory_breakdown import measure_breakdown
from harness.worker.diagnostics.peak_flops import measure_arithmetic
from harness.worker.diagnostics.profiler import profile_steps
from harness.worker.distributed import any_across_ranks
from harness.worker.train_state import FinishedTraining


def run_diagnostics(job: TrainJob, training: FinishedTraining) -> Diagnostics:
    """Run the job's diagnostics after a successful training; every rank runs the same ones.

    If one rank is near its memory cap, all ranks skip the steps that could exceed it: a rank that skipped them alone would
    leave the others waiting in all-reduce until the parent ends the cell as hung.
    """
    distributed = training.context.world_size > 1
    communication = measure_communication(training.state, training.context) if distributed else None
    diagnostics = Diagnostics(communication=communication)
    if _is_wanted(job) and not any_across_ranks(training.near_memory_cap, training.context.distributed):
        memory_parts, kernels = _break_down(training)
        flops, peak = measure_arithmetic(training)
        diagnostics = Diagnostics(communication, memory_parts, kernels, flops, peak)
    if job.profile_prefix:
        profile_steps(training, job.profile_first, Path(job.profile_prefix))
    return diagnostics


def _is_wanted(job: TrainJob) -> bool:
    return job.run_diagnostics and job.config.measure == "all"


def _break_down(training: FinishedTraining) -> tuple[MemoryParts | None, tuple[str, ...]]:
    """Break down the memory, unless a compiled model hides its tensors."""
    if training.context.config.training.compile:
        return None, ()
    try:
        return measure_breakdown(training)
    except (MemoryError, RuntimeError):
        traceback.print_exc()  # not raised, since training succeeded
        return None, ()
