"""What disturbed a run while it was measured, each with its cause and what to do about it (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.analysis.steady_state import expected_seconds, find_drift, find_modes
from harness.analysis.throughput import ThroughputWindow
from harness.schema.host_record import GpuReading, Load
from harness.schema.record import Record

MAX_OTHERS_FRACTION = 0.05
MAX_STEAL_FRACTION = 0.01
MAX_QUOTA_THROTTLED_FRACTION = 0.05
MAX_CLOCK_DROP = 0.1
MAX_SWAPPED_BYTES = 16 * 2**20
MAX_FAULTS_PER_S = 50.0  # at 0.1 ms of a fast disk each, half a percent of a core
_MIB = 2**20
MIN_GPU_READINGS = 5
MAX_GPU_THROTTLED_FRACTION = 0.1

# By NVML's names: what it was, and what the reader can do. Several may hold at once.
_WORDS = {
    "sw_power_cap": (
        "by its power cap",
        "compare it with cards of the same limit alone, or raise the limit (`nvidia-smi -pl`)",
    ),
    "sw_thermal_slowdown": ("by its temperature", "cool it, and run it with --force"),
    "hw_thermal_slowdown": ("by its temperature, in hardware", "cool it, and run it with --force"),
    "hw_power_brake_slowdown": ("by its power supply", "mend that, and run it with --force"),
    "applications_clocks_setting": ("by clocks that were set on it", "reset them (`nvidia-smi -rac`)"),
    "board_limit": ("by its board's limit", "compare it with cards of the same board alone"),
    "reliability": ("by its voltage's limit", "compare it with cards of the same board alone"),
    "sync_boost": ("by a slower GPU of its group", "take it out of the group (`nvidia-smi boost-slider`)"),
    "display_clock_setting": ("by a display", "measure without one"),
    # Comes with the one of the hardware's reasons above that says why; told only where none does.
    "hw_slowdown": ("by its hardware", "look at `nvidia-smi -q -d PERFORMANCE`"),
}


@dataclass(frozen=True)
class NoiseCheck:
    """One figure of a record, its limit, and the sentence of a run that is above it."""

    read: Callable[[Record], float]
    most: float
    say: Callable[[float], str]


def noise_warnings(records: Sequence[Record], windows: Sequence[ThroughputWindow]) -> Iterator[str]:
    """Say of each cause by how much it held in the run that had the worst of it.

    Args:
        records: Runs that ended well.
        windows: Their measured steps.
    """
    for one in _NOISE_CHECKS:
        worst = max(map(one.read, records), default=0.0)
        if worst > one.most:
            yield one.say(worst)
    yield from gpu_throttle_warnings(records)
    yield from _series_warnings(windows)


def _series_warnings(windows: Iterable[ThroughputWindow]) -> Iterator[str]:
    """Of a series that has two levels no drift is told: the share of each changes its mean."""
    series = [(window.seconds, expected_seconds(window.seconds, window.num_padded_tokens)) for window in windows]
    modes = max(filter(None, (find_modes(*one) for one in series)), default=None)
    drift = max(filter(None, (find_drift(*one) for one in series)), key=abs, default=None)
    if modes is not None:
        yield (
            f"Steps of one size took two kinds of time, {modes.gap:.0%} apart, {modes.slow_fraction:.0%} of them the "
            "longer: look for a program that wakes up now and then, or cores of two speeds, and run it with --force."
        )
    elif drift is not None:
        which = "longer" if drift > 0 else "shorter"
        yield (
            f"Steps became {abs(drift):.0%} {which} in the course of a run: let the machine come to its lasting "
            "temperature and clock first, and run it with --force."
        )


def gpu_throttle_warnings(records: Iterable[Record]) -> Iterator[str]:
    """Say what held the GPU back most, of the run that it held back most; nothing at or below the limit."""
    worst = max((_worst(record) for record in records), default=(0.0, ""))
    share, reason = worst
    if share > MAX_GPU_THROTTLED_FRACTION:
        held_back, advice = _WORDS.get(reason, (f"for a reason that NVML calls {reason}", "see `nvidia-smi -q`"))
        yield f"The GPU was held back {held_back} in {share:.0%} of the readings: {advice}."


def readings_during_training(record: Record) -> tuple[GpuReading, ...]:
    """The readings between rank 0's first mark and its last: loading and the test evaluation lie outside."""
    if not record.marks:
        return ()
    begin, end = record.marks[0].at_s, record.marks[-1].at_s
    return tuple(reading for reading in record.gpu_readings if begin <= reading.at_s <= end)


def _worst(record: Record) -> tuple[float, str]:
    """The commonest reason, and its share of the readings that tell reasons; of equals the first in `_WORDS`."""
    told = [
        reading.throttle_reasons for reading in readings_during_training(record) if reading.throttle_reasons is not None
    ]
    if len(told) < MIN_GPU_READINGS:
        return 0.0, ""
    counts = Counter(reason for reasons in told for reason in reasons)
    order = [*_WORDS, *sorted(counts.keys() - _WORDS.keys())]
    return max(((counts[reason] / len(told), reason) for reason in order), key=lambda found: found[0])


def other_processes_fraction(record: Record) -> float:
    """Share of the usable CPUs' time that went to processes not the harness's; 0 where it is not known."""
    load = record.load
    if load is None or load.system_busy_s is None or load.cell_s is None:
        return 0.0
    others_s = load.system_busy_s - load.cell_s - load.parent_s
    return others_s / (record.duration_s * record.machine.cpu.num_usable)


def _steal_fraction(record: Record) -> float:
    """Share of all logical CPUs' time, over which the system sums it; 0 where it is not known."""
    if record.load is None or record.load.steal_s is None:
        return 0.0
    return record.load.steal_s / (record.duration_s * record.machine.cpu.num_logical)


def _throttled_fraction(record: Record) -> float:
    load = record.load
    if load is None or not load.quota_periods or load.throttled_periods is None:
        return 0.0
    return load.throttled_periods / load.quota_periods


def _thermal_throttles(record: Record) -> float:
    return _of_load(record, lambda load: load.thermal_throttles)


def _clock_fall(record: Record) -> float:
    """By how much the cores' clock fell below its highest reading of the run; the median of its second half counts."""
    load = record.load
    readings = load.clock_mhz if load is not None else None
    if not readings or len(readings) < 4:  # noqa: PLR2004 - two halves of two
        return 0.0
    later = sorted(readings[len(readings) // 2 :])
    return 1 - later[len(later) // 2] / max(readings)


def _swapped(record: Record) -> float:
    return _of_load(record, lambda load: load.swapped_bytes)


def _faults_per_s(record: Record) -> float:
    return _of_load(record, lambda load: load.major_faults) / record.duration_s if record.duration_s > 0 else 0.0


def _of_load(record: Record, read: Callable[[Load], int | None]) -> float:
    return float((read(record.load) or 0) if record.load is not None else 0)


_NOISE_CHECKS = (
    NoiseCheck(
        other_processes_fraction,
        MAX_OTHERS_FRACTION,
        lambda share: f"Other processes used {share:.0%} of the usable CPU time: stop them, and run it with --force.",
    ),
    NoiseCheck(
        _steal_fraction,
        MAX_STEAL_FRACTION,
        lambda share: f"The hypervisor took {share:.1%} of the CPU time: measure at another time, or on another host.",
    ),
    NoiseCheck(
        _throttled_fraction,
        MAX_QUOTA_THROTTLED_FRACTION,
        lambda share: (
            f"The control group's CPU quota ran out in {share:.0%} of its periods: raise the quota, or set threads to "
            "the cores that it gives."
        ),
    ),
    NoiseCheck(
        _thermal_throttles,
        0,
        lambda times: (
            f"The processor was slowed down by its temperature ({times:.0f} times): cool it, and run it with --force."
        ),
    ),
    NoiseCheck(
        _clock_fall,
        MAX_CLOCK_DROP,
        lambda share: (
            f"The cores' clock fell by {share:.0%} in the course of a run: fix it (`harness doctor` says how), "
            "or let the machine warm up first."
        ),
    ),
    NoiseCheck(
        _swapped,
        MAX_SWAPPED_BYTES,
        lambda size: (
            f"While a run was measured {size / _MIB:,.0f} MiB went to or from swap: free some memory, or take a smaller batch."
        ),
    ),
    NoiseCheck(
        _faults_per_s,
        MAX_FAULTS_PER_S,
        lambda rate: (
            f"While a run was measured {rate:,.0f} pages a second had to be read from disk: free some memory, so that "
            "files stay in it."
        ),
    ),
)
