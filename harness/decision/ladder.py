"""Ladder studies: comparison of each step's time to a target accuracy with the first step's (pure)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.analysis.estimate import Estimate, ratio_estimate
from harness.pricing.cost import Priced
from harness.schema.cells import FineTuneConfig, flat_config
from harness.schema.record import Record

_TARGET_STEP = 0.01


@dataclass(frozen=True)
class LadderStep:
    """One cell of a ladder.

    Attributes:
        number: Index of the step, from 0.
        base: The earlier step that differs in the fewest settings; None for the first step.
        speed_up: Throughput divided by the first step's throughput.
        saving: The first step's seconds to the target divided by this step's (`Summary.time_to_target_s`), runs that
            missed it included. On one machine, this is also the ratio of costs. None if no run reached the target.
        num_reached: Number of runs that reached the target.
    """

    number: int
    cell: Priced
    base: LadderStep | None
    speed_up: Estimate | None
    saving: Estimate | None
    num_reached: int
    num_runs: int


@dataclass(frozen=True)
class Ladder:
    """The steps of one study on one machine, in order.

    Attributes:
        target: Target validation accuracy: the highest hundredth that the first step reaches with every seed.
    """

    study: str
    machine_id: str
    target: float
    rungs: tuple[LadderStep, ...]


def set_ladder_target(records: Iterable[Record]) -> list[Record]:
    """Set the target accuracy of each ladder's records from its first step; other records stay unchanged.

    The target is known only after the first step has run, so it is computed when records are read and is not a setting.
    """
    records = list(records)
    targets = {key: _target(first_records) for key, first_records in _first_step_records(records).items()}
    return [_with_target(record, targets.get((record.machine.id, record.study))) for record in records]


def ladders(cells: Sequence[Priced]) -> list[Ladder]:
    """Find every ladder in which the first step and at least one other succeeded."""
    groups: dict[tuple[str, str], dict[int, Priced]] = defaultdict(dict)
    for cell in cells:
        number = cell.summary.records[-1].rung
        if number is not None and cell.summary.num_ok:
            groups[cell.summary.machine_id, cell.summary.study][number] = cell
    complete = []
    for (machine_id, study), by_number in groups.items():
        first = by_number.get(0)
        if first is None or first.summary.target_accuracy is None or len(by_number) < 2:  # noqa: PLR2004 - a ladder has two steps
            continue
        steps: list[LadderStep] = []
        for number in sorted(by_number):
            steps.append(_step(number, by_number[number], first, steps))
        complete.append(Ladder(study, machine_id, first.summary.target_accuracy, tuple(steps)))
    return complete


def _first_step_records(records: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        if record.rung == 0 and record.outcome == "ok" and record.training is not None:
            groups[record.machine.id, record.study].append(record)
    return groups


def _target(records: Sequence[Record]) -> float | None:
    """Return the highest hundredth of validation accuracy that every record reaches; None if that is 0."""
    best = [
        max((evaluation.accuracy for evaluation in record.training.evaluations), default=0.0)
        for record in records
        if record.training is not None
    ]
    # Without the 1e-9, a rounding error could lose a hundredth that is reached exactly.
    target = math.floor(min(best) / _TARGET_STEP + 1e-9) * _TARGET_STEP
    return round(target, 2) if target > 0 else None


def _with_target(record: Record, target: float | None) -> Record:
    if record.rung is None or target is None or not isinstance(record.config, FineTuneConfig):
        return record
    training = record.config.training.model_copy(update={"target_accuracy": target})
    return record.model_copy(update={"config": record.config.model_copy(update={"training": training})})


def _step(number: int, cell: Priced, first: Priced, below: Sequence[LadderStep]) -> LadderStep:
    """Compare a cell with the first step.

    Args:
        number: The step's index.
        cell: The step's cell.
        first: The first step's cell.
        below: The earlier steps.
    """
    rate, usual = cell.summary.samples_per_s, first.summary.samples_per_s
    speed_up = ratio_estimate(rate, usual) if rate is not None and usual is not None else None
    own_s, first_s = cell.summary.time_to_target_s, first.summary.time_to_target_s
    saving = ratio_estimate(first_s, own_s) if first_s is not None and own_s is not None else None
    num_reached, num_missed = cell.summary.num_reached_target or 0, cell.summary.num_missed_target or 0
    is_first = not below
    return LadderStep(
        number=number,
        cell=cell,
        base=min(reversed(below), key=lambda step: _num_changes(step.cell, cell), default=None),
        speed_up=Estimate(1.0, None, None, "the first rung itself") if is_first else speed_up,
        saving=Estimate(1.0, None, None, "the first rung itself") if is_first else saving,
        num_reached=num_reached,
        num_runs=num_reached + num_missed,
    )


def _num_changes(cell: Priced, other: Priced) -> int:
    mine, others = flat_config(cell.summary.config), flat_config(other.summary.config)
    return sum(mine.get(key) != others.get(key) for key in (mine.keys() | others.keys()) - {"seed"})
