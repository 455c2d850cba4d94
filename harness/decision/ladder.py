"""A study whose cells are rungs: each held against the first, at the accuracy that this one always reaches (pure)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from harness.analysis.estimate import Estimate, ratio_estimate
from harness.analysis.log_ratio import LogRatio
from harness.analysis.summarize import seconds_to_target
from harness.pricing.cost import Priced
from harness.schema.cells import FineTuneConfig, flat_config
from harness.schema.record import Record

_STEP = 0.01
_FEWEST_PAIRS = 2


@dataclass(frozen=True)
class LadderStep:
    """One cell of a ladder.

    Attributes:
        number: Its place, from 0.
        base: The rung that it differs from least, earlier in the ladder; None of the first.
        speed_up: Throughput over the first rung's.
        saving: Seconds, and so dollars on one machine, that the first rung needs to the target over this one's: set-up,
            training and validations. The geometric mean over seeds of both, with Student's interval on the logarithms;
            None where a run of either did not reach it.
        num_reached: Of the runs, those that reached the target.
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
    """The rungs of one study on one machine, lowest first.

    Attributes:
        target: Validation accuracy: the highest hundredth that the first rung reaches with every seed.
    """

    study: str
    machine_id: str
    target: float
    rungs: tuple[LadderStep, ...]


def set_ladder_target(records: Iterable[Record]) -> list[Record]:
    """Give every rung's record the target that its ladder's first rung sets; other records stay as they are.

    A ladder's target is not known before its first rung was run: so it is a judgement on reading, not a setting.
    """
    told = list(records)
    targets = {key: _target(firsts) for key, firsts in _first_rungs(told).items()}
    return [_aimed(record, targets.get((record.machine.id, record.study))) for record in told]


def ladders(cells: Sequence[Priced]) -> list[Ladder]:
    """Every ladder with two rungs or more that ended well, the first among them; cells in the order of their rungs."""
    groups: dict[tuple[str, str], dict[int, Priced]] = defaultdict(dict)
    for cell in cells:
        number = cell.summary.records[-1].rung
        if number is not None and cell.summary.num_ok:
            groups[cell.summary.machine_id, cell.summary.study][number] = cell
    found = []
    for (machine_id, study), by_number in groups.items():
        first = by_number.get(0)
        if first is None or first.summary.target_accuracy is None or len(by_number) < 2:  # noqa: PLR2004 - a ladder
            continue
        rungs: list[LadderStep] = []
        for number in sorted(by_number):
            rungs.append(_rung(number, by_number[number], first, rungs))
        found.append(Ladder(study, machine_id, first.summary.target_accuracy, tuple(rungs)))
    return found


def _first_rungs(records: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    firsts: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        if record.rung == 0 and record.outcome == "ok" and record.training is not None:
            firsts[record.machine.id, record.study].append(record)
    return firsts


def _target(firsts: Sequence[Record]) -> float | None:
    best = [
        max((seen.accuracy for seen in record.training.evaluations), default=0.0)
        for record in firsts
        if record.training is not None
    ]
    # A hundredth that is reached exactly must not be lost to the last bit of its division.
    target = math.floor(min(best) / _STEP + 1e-9) * _STEP
    return round(target, 2) if target > 0 else None


def _aimed(record: Record, target: float | None) -> Record:
    if record.rung is None or target is None or not isinstance(record.config, FineTuneConfig):
        return record
    training = record.config.training.model_copy(update={"target_accuracy": target})
    return record.model_copy(update={"config": record.config.model_copy(update={"training": training})})


def _rung(number: int, cell: Priced, first: Priced, below: Sequence[LadderStep]) -> LadderStep:
    own, others = _seconds(cell), _seconds(first)
    rate, usual = cell.summary.samples_per_s, first.summary.samples_per_s
    speed_up = ratio_estimate(rate, usual) if rate is not None and usual is not None else None
    is_first = not below
    return LadderStep(
        number=number,
        cell=cell,
        base=min(reversed(below), key=lambda rung: _num_changes(rung.cell, cell), default=None),
        speed_up=Estimate(1.0, None, None, "the first rung itself") if is_first else speed_up,
        saving=Estimate(1.0, None, None, "the first rung itself") if is_first else _saving(others, own),
        num_reached=sum(seconds is not None for seconds in own.values()),
        num_runs=len(own),
    )


def _seconds(cell: Priced) -> dict[tuple[int, int], float | None]:
    """By seed and repeat, from the order of the cell to the target on validation; None where it was not reached."""
    return {
        (record.config.seed, record.repeat): seconds_to_target(record)
        for record in cell.summary.ok_records
        if isinstance(record.config, FineTuneConfig)
    }


def _saving(first: dict[tuple[int, int], float | None], own: dict[tuple[int, int], float | None]) -> Estimate | None:
    pairs = [(first[key], own[key]) for key in first.keys() & own.keys()]
    logs = [math.log(usual / seconds) for usual, seconds in pairs if usual is not None and seconds is not None]
    if not logs or len(logs) < len(pairs):
        return None
    if len(logs) < _FEWEST_PAIRS:
        return LogRatio(fmean(logs), None, math.inf, "one seed: spread between seeds unknown").estimate()
    spread = variance(logs) / len(logs)
    return LogRatio(fmean(logs), spread, len(logs) - 1, f"over {len(logs)} pairs of runs").estimate()


def _num_changes(one: Priced, other: Priced) -> int:
    mine, others = flat_config(one.summary.config), flat_config(other.summary.config)
    return sum(mine.get(key) != others.get(key) for key in (mine.keys() | others.keys()) - {"seed"})
