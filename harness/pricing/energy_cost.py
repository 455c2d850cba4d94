"""What a run drew, by the best instrument that its records hold, and what that stands for (pure)."""

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
# Longer without a reading, and what was drawn meanwhile is not known.
_LONGEST_GAP_S = 5.0
_FEWEST_READINGS = 2


@dataclass(frozen=True)
class EnergyUse:
    """What one run drew.

    Attributes:
        joules: Where the instrument counts, before PUE.
        kwh: With PUE.
        usd: What those cost; in the price of a rented machine already.
        gco2e: Grams, by the stated factor of the grid.
        method: The instrument, and what it counts; of an estimate, the watts and their source.
        is_estimate: No instrument was read.
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
    """Joules by counters, else by power readings, else stated watts x seconds; None without any of them.

    A card's rated power is never taken for what it drew.

    Args:
        summary: Any.
        book: The reader's.
        run_s: Seconds of the run that is asked about.
        measured_s: Seconds of the run that was measured. Where another number of rows makes the two differ, joules
            grow in proportion: the mean power stays.
    """
    measured = measure_joules(summary.ok_records)
    if run_s is None:
        return None
    if measured is not None and measured_s is not None and measured_s.value > 0:
        joules, method = measured
        scale = run_s.value / measured_s.value
        return _use(map_increasing(joules, lambda one: one * scale), method, book, is_estimate=False)
    watts = book.watts
    if watts is None:
        return None
    source = f", {book.watts_source}" if book.watts_source else ""
    stated = map_increasing(run_s, lambda one: formulas.joules_of_watts(watts, one))
    return _use(stated, f"{watts:.10g} W as stated{source}, times seconds: an estimate", book, is_estimate=True)


def _use(joules: Estimate, method: str, book: assumptions.EnergyPrices, *, is_estimate: bool) -> EnergyUse:
    kwh = map_increasing(joules, lambda one: formulas.kwh(one, book.pue))
    return EnergyUse(
        joules=joules,
        kwh=kwh,
        usd=map_increasing(kwh, lambda one: formulas.usd_of_kwh(one, book.usd_per_kwh)),
        gco2e=map_increasing(kwh, lambda one: formulas.gco2e(one, book.gco2e_per_kwh)),
        method=method,
        is_estimate=is_estimate,
    )


def measure_joules(records: Sequence[Record]) -> tuple[Estimate, str] | None:
    """Mean joules of a run and the instrument: the newest run's, and of the runs those that it measured.

    Three runs or more have Student's interval, fewer none.
    """
    found = [one for record in records if (one := _record_joules(record)) is not None]
    if not found:
        return None
    method = found[-1][1]
    values = [joules for joules, how in found if how == method]
    if len(values) >= MIN_RUNS:
        return t_interval(values, f"between {len(values)} runs"), method
    return Estimate(fmean(values), None, None, "spread between runs not known"), method


def _record_joules(record: Record) -> tuple[float, str] | None:
    if record.training is not None and len(record.training.pieces) > 1:
        return None  # the counters told of its last piece, its seconds are of all
    if record.energy is not None:
        return _counted(record.energy)
    joules = joules_of_readings(record)
    return None if joules is None else (joules, READINGS)


def _counted(energy: Energy) -> tuple[float, str]:
    kinds = {"processor": energy.cpu_joules, "memory": energy.dram_joules, "GPUs": energy.gpu_joules}
    counted = [name for name, joules in kinds.items() if joules]
    alone = " alone" if len(counted) == 1 else ""
    return sum(map(sum, kinds.values())), f"counters ({energy.source}) of {' and '.join(counted)}{alone}, whole run"


def joules_of_readings(record: Record) -> float | None:
    """Power readings summed by the trapezoid rule from rank 0's first mark to its last, all GPUs of the cell.

    The outermost readings stand for what lies before and behind them. None where a GPU has fewer than two readings,
    or none for longer than 5 s.
    """
    num_gpus = record.training.world_size if record.training is not None else 0
    by_gpu: dict[int, list[GpuReading]] = {}
    for reading in readings_during_training(record):
        if reading.power_watts is not None:
            by_gpu.setdefault(reading.gpu, []).append(reading)
    if not by_gpu or len(by_gpu) < num_gpus:
        return None
    begin, end = record.marks[0].at_s, record.marks[-1].at_s
    sums = [_trapezoid([(one.at_s, one.power_watts or 0.0) for one in own], begin, end) for own in by_gpu.values()]
    known = [joules for joules in sums if joules is not None]
    return sum(known) if len(known) == len(sums) else None


def _trapezoid(points: Sequence[tuple[float, float]], begin: float, end: float) -> float | None:
    if len(points) < _FEWEST_READINGS:
        return None
    held = [(begin, points[0][1]), *points, (end, points[-1][1])]
    steps = [(after - before, (watts + later) / 2) for (before, watts), (after, later) in pairwise(held)]
    return sum(step * mean for step, mean in steps) if max(step for step, _ in steps) <= _LONGEST_GAP_S else None
