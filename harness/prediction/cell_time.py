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

# Standard deviation of the logarithm of measured over predicted seconds on a machine without noise: from
# bench/bench_time_prediction.py.
SPREAD = 0.05
# After training, diagnostics repeat steps: one counts memory, one counts FLOPs, and with several ranks twelve are timed for the
# exchange of gradients. The search for the peak takes a share of the training's time, nearly half of it whole steps.
_NUM_COUNTED, _NUM_EXCHANGED = 2, 12
_PEAK_SHARE, _MIN_PEAK_S, _MAX_PEAK_S, _PEAK_STEPS_SHARE, _MAX_PEAK_STEPS = 0.1, 0.05, 1.8, 0.45, 8
# Fixed seconds after training, and the most that the first step of all takes beyond the others: from
# bench/bench_time_prediction.py.
_AFTER_S, _MAX_FIRST_STEP_S = 0.4, 0.1
_BINS = 12  # of a record's steps, sorted by tokens
_NUM_WARMUP = 2
_TWO_ROUNDS = 6  # steps of a shape that a probe timed in two rounds
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
        noise: Standard deviation of the logarithm of seconds from one moment to the next, or what the line of steps misses.
        basis: Where this is from.
        chooses_attention: Whether cells time steps of both attentions before they train.
    """

    step: LinearTime
    forward: LinearTime
    first_s: float
    ready_s: float
    world_size: int
    noise: float
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


def predict_cell(work: CellWork, group: GroupTime, *, has_diagnostics: bool = True) -> CellTime:
    """Predict a cell from what it computes and from how long its group takes.

    Args:
        work: What the cell computes.
        group: How long cells take that compute alike.
        has_diagnostics: Whether memory and FLOPs are counted after training.
    """
    steps_s = group.step.seconds(work.training)
    step_s = steps_s / work.training.num_batches
    train_s = steps_s + group.first_s * work.training.num_shapes + min(_MAX_FIRST_STEP_S, step_s)
    evaluate_s = sum(group.forward.seconds(part) for part in (work.validations, work.test) if part is not None)
    after_s = _after_seconds(work, group, train_s, has_diagnostics=has_diagnostics)
    total = group.ready_s + group.choice_seconds(work.training) + train_s + evaluate_s + after_s
    return CellTime(
        seconds=_estimate(total, group),
        train_s=_estimate(train_s, group),
        samples_per_s=_estimate(work.num_rows / steps_s, group),
        basis=group.basis,
    )


def _after_seconds(work: CellWork, group: GroupTime, train_s: float, *, has_diagnostics: bool) -> float:
    step_s = group.step.seconds(work.training) / work.training.num_batches
    after_s = _AFTER_S + (_NUM_EXCHANGED * step_s if group.world_size > 1 else 0.0)
    if not has_diagnostics:
        return after_s
    peak_s = min(_MAX_PEAK_S, max(_MIN_PEAK_S, _PEAK_SHARE * train_s))
    num_peak_steps = max(1, min(_MAX_PEAK_STEPS, int(_PEAK_STEPS_SHARE * peak_s / step_s)))
    after_s += (_NUM_COUNTED + num_peak_steps) * step_s + (1 - _PEAK_STEPS_SHARE) * peak_s
    return after_s + (0.0 if work.test is None else group.forward.seconds(work.test) / work.test.num_batches)


def _estimate(value: float, group: GroupTime) -> Estimate:
    factor = math.exp(t_quantile(math.inf) * math.hypot(SPREAD, group.noise))
    return Estimate(value, value / factor, value * factor, f"predicted from {group.basis}")


def _from_probe(record: Record, probe: Probe, num_micros: int) -> GroupTime:
    steps, passes = [], []
    for shape in probe.shapes:
        tokens = shape.num_rows * shape.num_tokens
        steps.append(Timing(tokens * num_micros, tokens * num_micros * shape.num_tokens, median(shape.step_s)))
        passes.append(Timing(tokens, tokens * shape.num_tokens, median(shape.evaluate_s)))
    # The first shape of all also warms the process up. Of the others, one that needs more memory than any before it takes long
    # for that alone, so that the least tells what a new shape costs.
    extra = [max(0.0, shape.first_step_s - median(shape.step_s)) for shape in probe.shapes[1:]]
    ready_s = (record.phases.start_s or 0.0) + (record.phases.load_s or 0.0)
    line = fit_time(steps)
    return GroupTime(
        line, fit_time(passes), min(extra, default=0.0), ready_s, probe.world_size, max(line.misfit, _noise(probe)), "probe",
        _chooses_attention(record),
    )  # fmt: skip


def _noise(probe: Probe) -> float:
    """Return the standard deviation of the logarithm of seconds between the two rounds of fast shapes; 0 without these."""
    rounds = [np.array_split(shape.step_s, 2) for shape in probe.shapes if len(shape.step_s) >= _TWO_ROUNDS]
    changes = [math.log(np.median(first) / np.median(second)) for first, second in rounds]
    return math.sqrt(sum(change**2 for change in changes) / (2 * len(changes))) if changes else 0.0


def _from_runs(runs: Sequence[Record]) -> GroupTime:
    step = fit_time([timing for run in runs for timing in _timings(run)])
    per_batch, per_token, per_pair = (_FORWARD_SHARE * part for part in (step.per_batch, step.per_token, step.per_pair))
    forward = LinearTime(per_batch, per_token, per_pair, step.misfit)
    ready_s = fmean((run.phases.start_s or 0.0) + (run.phases.load_s or 0.0) for run in runs)
    world_size = runs[-1].training.world_size if runs[-1].training else 1
    return GroupTime(step, forward, 0.0, ready_s, world_size, step.misfit, "records", _chooses_attention(runs[-1]))


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
