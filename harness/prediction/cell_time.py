"""Seconds of a cell before it runs, from a probe or from earlier records of cells that compute alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

import numpy as np

from harness.analysis.estimate import Estimate, t_quantile
from harness.prediction.step_time import LinearTime, Timing, fit_time
from harness.schema.cells import FineTuneConfig
from harness.schema.probe_record import CellWork, Probe, Work
from harness.schema.record import Record
from harness.schema.training_record import NUM_CHOICE_SHAPES, NUM_CHOICE_STEPS

Basis = Literal["probe", "records"]

# Standard deviation of the logarithm of measured over predicted seconds, beside what the fit itself leaves: from
# bench/bench_time_prediction.py.
SPREAD = 0.07
# Seconds after training, of counted operations and memory: some are fixed, others are steps. From records of two models.
_AFTER_S, _AFTER_STEPS, _AFTER_STEPS_DDP = 0.6, 4.0, 11.0
_BINS = 12  # of a record's steps, sorted by tokens
_NUM_WARMUP = 2
# A forward pass is a third of a step's arithmetic: the backward pass takes twice as much.
_FORWARD_SHARE = 1 / 3


@dataclass(frozen=True)
class GroupTime:
    """How long cells that compute alike take for a batch.

    Attributes:
        step: Seconds of a step.
        forward: Seconds of a forward pass in evaluation.
        first_s: Extra seconds of the first step of each shape.
        ready_s: Seconds until training begins.
        world_size: Number of ranks.
        basis: Where this is from.
        chooses_attention: Whether cells time steps of both attentions before they train.
    """

    step: LinearTime
    forward: LinearTime
    first_s: float
    ready_s: float
    world_size: int
    basis: Basis
    chooses_attention: bool = False

    def choice_seconds(self, training: Work) -> float:
        """Return the seconds of choosing the attention, by steps of the training's mean size; 0 if there is no choice."""
        if not self.chooses_attention:
            return 0.0
        return NUM_CHOICE_STEPS * self.step.seconds(training) / training.num_batches + NUM_CHOICE_SHAPES * self.first_s


@dataclass(frozen=True)
class CellTime:
    """Predicted seconds of a cell, each with its interval; `seconds` is the whole, from submission to its end."""

    seconds: Estimate
    train_s: Estimate
    samples_per_s: Estimate
    basis: Basis


def group_time(records: Sequence[Record]) -> GroupTime | None:
    """Learn from a probe if there is one, else from successful runs; None if there is neither.

    Args:
        records: Probes and runs of one compute group on one machine, oldest first.
    """
    for record in reversed(records):
        if record.probe is not None and isinstance(record.config, FineTuneConfig):
            return _from_probe(record, record.probe, record.config.training.grad_accum)
    runs = [record for record in records if record.outcome == "ok" and record.training is not None]
    return _from_runs(runs) if any(_timings(run) for run in runs) else None


def predict_cell(work: CellWork, group: GroupTime) -> CellTime:
    """Predict a cell from what it computes and from how long its group takes."""
    first_s = group.first_s * work.training.num_shapes
    train_s = group.step.seconds(work.training) + first_s
    evaluate_s = sum(group.forward.seconds(part) for part in (work.validations, work.test) if part is not None)
    after_steps = _AFTER_STEPS if group.world_size == 1 else _AFTER_STEPS_DDP
    after_s = _AFTER_S + after_steps * group.step.seconds(work.training) / work.training.num_batches
    total = group.ready_s + group.choice_seconds(work.training) + train_s + evaluate_s + after_s
    return CellTime(
        seconds=_estimate(total, group),
        train_s=_estimate(train_s, group),
        samples_per_s=_estimate(work.num_rows / train_s, group),
        basis=group.basis,
    )


def _estimate(value: float, group: GroupTime) -> Estimate:
    factor = math.exp(t_quantile(math.inf) * math.hypot(SPREAD, group.step.misfit))
    return Estimate(value, value / factor, value * factor, f"predicted from {group.basis}")


def _from_probe(record: Record, probe: Probe, num_micros: int) -> GroupTime:
    steps, passes = [], []
    for shape in probe.shapes:
        tokens = shape.num_rows * shape.num_tokens
        steps.append(Timing(tokens * num_micros, tokens * num_micros * shape.num_tokens, fmean(shape.step_s)))
        passes.append(Timing(tokens, tokens * shape.num_tokens, fmean(shape.evaluate_s)))
    # The first shape of all also warms the process up.
    extra = [max(0.0, shape.first_step_s - fmean(shape.step_s)) for shape in probe.shapes[1:]]
    ready_s = (record.phases.start_s or 0.0) + (record.phases.load_s or 0.0)
    return GroupTime(
        fit_time(steps), fit_time(passes), median(extra) if extra else 0.0, ready_s, probe.world_size, "probe",
        _chooses_attention(record),
    )  # fmt: skip


def _from_runs(runs: Sequence[Record]) -> GroupTime:
    step = fit_time([timing for run in runs for timing in _timings(run)])
    per_batch, per_token, per_pair = (_FORWARD_SHARE * part for part in (step.per_batch, step.per_token, step.per_pair))
    forward = LinearTime(per_batch, per_token, per_pair, step.misfit)
    ready_s = fmean((run.phases.start_s or 0.0) + (run.phases.load_s or 0.0) for run in runs)
    world_size = runs[-1].training.world_size if runs[-1].training else 1
    return GroupTime(step, forward, 0.0, ready_s, world_size, "records", _chooses_attention(runs[-1]))


def _chooses_attention(record: Record) -> bool:
    return isinstance(record.config, FineTuneConfig) and record.config.model.attention == "auto"


def _timings(run: Record) -> list[Timing]:
    """Return the mean step of each of some bins of equal size, by tokens; what a rank computes is its share."""
    steps = run.training.steps if run.training else None
    if steps is None or not steps.num_token_pairs or len(steps.num_samples) <= _NUM_WARMUP:
        return []
    seconds = np.max(np.array(steps.seconds), axis=0)[_NUM_WARMUP:]
    tokens, pairs = (
        np.array(part)[_NUM_WARMUP:] / len(steps.seconds) for part in (steps.num_padded_tokens, steps.num_token_pairs)
    )
    bins = np.array_split(np.argsort(tokens, kind="stable"), min(_BINS, len(seconds)))
    return [Timing(float(tokens[rows].mean()), float(pairs[rows].mean()), float(seconds[rows].mean())) for rows in bins]
