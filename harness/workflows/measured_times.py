"""What cells take on instance types that were measured or probed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from harness.analysis.estimate import Estimate, t_quantile
from harness.analysis.summarize import summarize
from harness.analysis.summary import Summary
from harness.decision.shortlist import Basis
from harness.prediction.cell_time import group_time, predict_cell
from harness.prediction.compute_group import compute_group
from harness.prediction.uncertain_time import ErrorFactor, UncertainTime
from harness.pricing.durations import run_seconds
from harness.schema.cells import FineTuneConfig, hash_config
from harness.schema.probe_record import CellWork
from harness.schema.record import Record


@dataclass(frozen=True)
class MeasuredTime:
    """What a cell takes on one instance type; `rest_s` are the seconds of a run beside training."""

    basis: Basis
    train: UncertainTime
    rest_s: float


class MeasuredTimes:
    """Records and probes by the instance type that they name, where all of the machine was in use."""

    def __init__(self, records: Iterable[Record], probes: Iterable[Record]) -> None:
        self.records = tuple(records)
        known: dict[str, list[Record]] = defaultdict(list)
        self._alike: dict[tuple[str, str], list[Record]] = defaultdict(list)
        for record in sorted((*self.records, *probes), key=lambda record: record.started_at):
            instance = _instance(record)
            if instance is not None and record.outcome == "ok" and isinstance(record.config, FineTuneConfig):
                known[instance].append(record)
                self._alike[instance, compute_group(record.config)].append(record)
        self._machines = {instance: records[-1].machine for instance, records in known.items()}
        self._summaries: dict[str, list[Summary]] = {
            instance: summarize([record for record in records if record.probe is None])
            for instance, records in known.items()
        }

    def cpu_machines(self) -> dict[str, int]:
        """Return the logical CPUs of each measured instance type without GPUs."""
        machines = self._machines.items()
        return {instance: machine.cpu.num_logical for instance, machine in machines if not machine.gpus}

    def on(self, instance: str, config: FineTuneConfig, work: CellWork) -> MeasuredTime | None:
        """Return what a cell takes on an instance type: as measured, else by what was measured of cells that compute alike."""
        for summary in self._summaries.get(instance, ()):
            if _is_same(summary, config):
                return _from_summary(summary, config, work)
        group = compute_group(config)
        known = group_time(self._alike.get((instance, group), ()))
        if known is None:
            return None
        time, name = predict_cell(work, known), f"{instance} {group}"
        rest_s = time.seconds.value - time.train_s.value
        basis: Basis = "probe" if time.basis == "probe" else "measured"
        return MeasuredTime(basis, UncertainTime(time.train_s.value, (_factor(name, time.train_s),)), rest_s)


def _from_summary(summary: Summary, config: FineTuneConfig, work: CellWork) -> MeasuredTime | None:
    rate, run = summary.samples_per_s, run_seconds(summary)
    if rate is None or run is None or summary.train_s is None:
        return None
    name = f"{summary.machine_id} {hash_config(config)}"
    train = UncertainTime(work.num_rows / rate.value, (_factor(name, rate),))
    return MeasuredTime("measured", train, run.value - summary.train_s)


def _factor(name: str, estimate: Estimate) -> ErrorFactor:
    """Return the error of an estimate that has a symmetric interval of its logarithm; without one, none is known."""
    if estimate.low is None or estimate.high is None or estimate.low <= 0:
        return ErrorFactor(name, 0.0)
    half_width = math.log(estimate.high / estimate.low) / 2
    return ErrorFactor(name, half_width / t_quantile(estimate.degrees_of_freedom), estimate.degrees_of_freedom)


def _is_same(summary: Summary, config: FineTuneConfig) -> bool:
    ignored = ("seed", "limits")
    return hash_config(summary.config, ignore=ignored) == hash_config(config, ignore=ignored)


def _instance(record: Record) -> str | None:
    """Return the instance type that a record names; None if it names none, or only a part of the machine was in use."""
    named, cpu = record.stated or record.detected, record.machine.cpu
    return named.instance if named is not None and cpu.num_usable >= cpu.num_logical else None
