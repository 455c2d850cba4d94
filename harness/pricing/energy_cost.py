"""Energy of a run by the best available instrument, with its cost and emissions (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from harness.analysis.estimate import MIN_RUNS, Estimate, map_increasing, t_interval
from harness.analysis.noise import readings_during_training
from harness.analysis.summary import Summary
from harness.pricing import formulas
from harness.schema import assumptions
from harness.schema.host_record import Energy, GpuReading
from harness.schema.record import Record

READINGS = "NVML's power readings, about one a second, while it trained: GPUs alone"
# The energy drawn in a longer gap between readings is unknown.
_MAX_GAP_S = 5.0
_MIN_READINGS = 2


@dataclass(frozen=True)
class EnergyUse:
    """Energy, cost and emissions of one run.

    Attributes:
        joules: Energy at the instrument, without PUE (power usage effectiveness of the site).
        kwh: Energy multiplied by PUE.
        usd: Cost of the electricity; a rented machine's price includes this cost.
        gco2e: Grams of CO2 equivalent, by the user's emission factor.
        method: The instrument and what it measures; for an estimate, the watts and their source.
        is_estimate: True if no instrument was read.
    """

    joules: Estimate
    kwh: Estimate
    usd: Estimate
    gco2e: Estimate
    method: str
    is_estimate: bool


def energy_use(
    summary: Summary, book: assumptions.EnergyPrices, run_s: Estimate | None, measured_s: Estimate | None
) -> EnergyUse | None:
    """Return a run's energy by counters, else by power readings, else by stated watts; None without any of them.

    A GPU's rated power is never used, since its actual power differs.

    Args:
        summary: The summary.
        book: The user's energy prices and watts.
        run_s: Seconds of the run to estimate.
        measured_s: Seconds of the measured run; joules are scaled by `run_s / measured_s`, assuming equal mean power.
    """
    measured = measure_joules(summary.ok_records)
    if run_s is None:
        return None
    if measured is not None and measured_s is not None and measured_s.value > 0:
        joules, method = measured
        scale = run_s.value / measured_s.value
        return _energy_use(map_increasing(joules, lambda value: value * scale), method, book, is_estimate=False)
    watts = book.watts
    if watts is None:
        return None
    source = f", {book.watts_source}" if book.watts_source else ""
    num_nodes = summary.config.num_nodes
    joules = map_increasing(run_s, lambda seconds: formulas.joules_of_watts(num_nodes * watts, seconds))
    machines = f", times {num_nodes} machines" if num_nodes > 1 else ""
    method = f"{watts:.10g} W as stated{source}{machines}, times seconds: an estimate"
    return _energy_use(joules, method, book, is_estimate=True)


def _energy_use(joules: Estimate, method: str, book: assumptions.EnergyPrices, *, is_estimate: bool) -> EnergyUse:
    kwh = map_increasing(joules, lambda value: formulas.kwh(value, book.pue))
    return EnergyUse(
        joules=joules,
        kwh=kwh,
        usd=map_increasing(kwh, lambda value: formulas.usd_of_kwh(value, book.usd_per_kwh)),
        gco2e=map_increasing(kwh, lambda value: formulas.gco2e(value, book.gco2e_per_kwh)),
        method=method,
        is_estimate=is_estimate,
    )


def measure_joules(records: Sequence[Record]) -> tuple[Estimate, str] | None:
    """Return the mean joules of the runs and the instrument; None if nothing was measured.

    The mean is over all runs measured with the instrument of the newest measured run. With three or more runs it has a
    t interval.
    """
    measured = [joules for record in records if (joules := _record_joules(record)) is not None]
    if not measured:
        return None
    method = measured[-1][1]
    values = [joules for joules, instrument in measured if instrument == method]
    if len(values) >= MIN_RUNS:
        return t_interval(values, f"between {len(values)} runs"), method
    return Estimate(fmean(values), None, None, "spread between runs not known"), method


def _record_joules(record: Record) -> tuple[float, str] | None:
    if record.training is not None and len(record.training.pieces) > 1:
        return None  # the counters cover only the last segment of a resumed training, so the total is unknown
    if record.energy is not None:
        return _counter_joules(record.energy)
    joules = joules_of_readings(record)
    return None if joules is None else (joules, READINGS)


def _counter_joules(energy: Energy) -> tuple[float, str]:
    kinds = {"processor": energy.cpu_joules, "memory": energy.dram_joules, "GPUs": energy.gpu_joules}
    counted = [name for name, joules in kinds.items() if joules]
    alone = " alone" if len(counted) == 1 else ""
    return sum(map(sum, kinds.values())), f"counters ({energy.source}) of {' and '.join(counted)}{alone}, whole run"


def joules_of_readings(record: Record) -> float | None:
    """Integrate the power readings of a cell's GPUs from rank 0's first progress mark to its last (trapezoid rule).

    Power before the first and after the last reading counts as constant. None if a GPU has fewer than two readings, or
    a gap of more than 5 s between them.
    """
    num_gpus = record.training.world_size if record.training is not None else 0
    by_gpu: dict[int, list[GpuReading]] = {}
    for reading in readings_during_training(record):
        if reading.power_watts is not None:
            by_gpu.setdefault(reading.gpu, []).append(reading)
    if not by_gpu or len(by_gpu) < num_gpus:
        return None
    begin, end = record.marks[0].at_s, record.marks[-1].at_s
    joules_by_gpu = [
        _trapezoid([(reading.at_s, reading.power_watts or 0.0) for reading in readings], begin, end)
        for readings in by_gpu.values()
    ]
    known = [joules for joules in joules_by_gpu if joules is not None]
    return sum(known) if len(known) == len(joules_by_gpu) else None


def _trapezoid(points: Sequence[tuple[float, float]], begin: float, end: float) -> float | None:
    """Integrate (seconds, watts) points from `begin` to `end`, in joules; None with too few points or a long gap."""
    if len(points) < _MIN_READINGS:
        return None
    extended = [(begin, points[0][1]), *points, (end, points[-1][1])]
    steps = [(after - before, (watts + later) / 2) for (before, watts), (after, later) in pairwise(extended)]
    return sum(step * mean for step, mean in steps) if max(step for step, _ in steps) <= _MAX_GAP_S else None
