"""Detect what disturbed a run while it was measured, and say what to do about it.

Warnings are shown in the report, one sentence each.
"""

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
MAX_FAULTS_PER_S = 50.0  # major page faults; at 0.1 ms each on a fast disk, they cost 0.5 % of a core's time
MIN_GPU_READINGS = 5
MAX_GPU_THROTTLED_FRACTION = 0.1
_MIB = 2**20

# Maps NVML's name of a throttle reason to the cause and the user's remedy. Several reasons may apply at once; of
# equally frequent reasons, the first in this table is reported.
_THROTTLE_CAUSES = {
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
    # NVML sets this general reason along with each specific hardware reason above, so it comes last.
    "hw_slowdown": ("by its hardware", "look at `nvidia-smi -q -d PERFORMANCE`"),
}


@dataclass(frozen=True)
class NoiseCheck:
    """A check of one quantity of a record against a limit.

    Attributes:
        measure: Computes the quantity; 0 if it is unknown.
        limit: Largest value that is not reported.
        warning: Formats the warning from a value above the limit.
    """

    measure: Callable[[Record], float]
    limit: float
    warning: Callable[[float], str]


def noise_warnings(records: Sequence[Record], windows: Sequence[ThroughputWindow]) -> Iterator[str]:
    """Yield one sentence per cause, with the value of the most affected run, and of its most affected machine.

    Args:
        records: Successful runs.
        windows: Measured steps of these runs.
    """
    by_machine = [view for record in records for view in _views_of_nodes(record)]
    for check in _NOISE_CHECKS:
        worst = max(map(check.measure, by_machine), default=0.0)
        if worst > check.limit:
            yield check.warning(worst)
    yield from gpu_throttle_warnings(records)
    yield from _step_time_warnings(windows)


def _views_of_nodes(record: Record) -> list[Record]:
    """Return the record as each of its machines saw it: with that machine and its load."""
    views = [record.model_copy(update={"machine": node.machine, "load": node.load}) for node in record.nodes]
    return views or [record]


def _step_time_warnings(windows: Iterable[ThroughputWindow]) -> Iterator[str]:
    """Report bimodal step times, or else drift: in bimodal times, a changing mix of modes would look like drift."""
    series = [(window.seconds, expected_seconds(window.seconds, window.num_padded_tokens)) for window in windows]
    modes = max(filter(None, (find_modes(*steps) for steps in series)), default=None)
    drift = max(filter(None, (find_drift(*steps) for steps in series)), key=abs, default=None)
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
    """Report the most throttled run's most frequent throttle reason, if its share of readings is over the limit."""
    share, reason = max((_main_throttle_reason(record) for record in records), default=(0.0, ""))
    if share > MAX_GPU_THROTTLED_FRACTION:
        cause, advice = _THROTTLE_CAUSES.get(reason, (f"for a reason that NVML calls {reason}", "see `nvidia-smi -q`"))
        yield f"The GPU was held back {cause} in {share:.0%} of the readings: {advice}."


def readings_during_training(record: Record) -> tuple[GpuReading, ...]:
    """Return the GPU readings between rank 0's first and last progress mark, which excludes loading and testing."""
    if not record.marks:
        return ()
    begin, end = record.marks[0].at_s, record.marks[-1].at_s
    return tuple(reading for reading in record.gpu_readings if begin <= reading.at_s <= end)


def _main_throttle_reason(record: Record) -> tuple[float, str]:
    """Return the most frequent throttle reason's share of the readings with known reasons, and the reason.

    With fewer than 5 such readings, return (0, "").
    """
    reasons_by_reading = [
        reading.throttle_reasons for reading in readings_during_training(record) if reading.throttle_reasons is not None
    ]
    if len(reasons_by_reading) < MIN_GPU_READINGS:
        return 0.0, ""
    counts = Counter(reason for reasons in reasons_by_reading for reason in reasons)
    in_order = [*_THROTTLE_CAUSES, *sorted(counts.keys() - _THROTTLE_CAUSES.keys())]
    most_frequent = max(in_order, key=lambda reason: counts[reason])
    return counts[most_frequent] / len(reasons_by_reading), most_frequent


def other_processes_fraction(record: Record) -> float:
    """Return the share of the usable CPU time that other processes used; 0 if unknown."""
    load = record.load
    if load is None or load.system_busy_s is None or load.cell_s is None:
        return 0.0
    others_s = load.system_busy_s - load.cell_s - load.parent_s
    return _share_of_cpus(others_s, record, record.machine.cpu.num_usable)


def _steal_fraction(record: Record) -> float:
    """Return the hypervisor's share of the CPU time; 0 if unknown.

    The kernel sums stolen time over all logical CPUs, so it is divided by the time of all of them.
    """
    if record.load is None or record.load.steal_s is None:
        return 0.0
    return _share_of_cpus(record.load.steal_s, record, record.machine.cpu.num_logical)


def _share_of_cpus(seconds: float, record: Record, num_cpus: int) -> float:
    """Return CPU seconds as a share of a cell's time on CPUs; 0 for a cell that took no time, as no real one does."""
    return seconds / (record.duration_s * num_cpus) if record.duration_s > 0 else 0.0


def _quota_throttled_fraction(record: Record) -> float:
    """Return the share of the cgroup's CPU quota periods in which it was throttled; 0 if unknown."""
    load = record.load
    if load is None or not load.quota_periods or load.throttled_periods is None:
        return 0.0
    return load.throttled_periods / load.quota_periods


def _clock_drop(record: Record) -> float:
    """Return the relative drop from the run's highest clock reading to the median of its second half; 0 if unknown."""
    load = record.load
    readings = load.clock_mhz if load is not None else None
    if not readings or len(readings) < 4:  # noqa: PLR2004 - two per half
        return 0.0
    second_half = sorted(readings[len(readings) // 2 :])
    return 1 - second_half[len(second_half) // 2] / max(readings)


def _faults_per_s(record: Record) -> float:
    major_faults = _load_counter(lambda load: load.major_faults)
    return major_faults(record) / record.duration_s if record.duration_s > 0 else 0.0


def _load_counter(read: Callable[[Load], int | None]) -> Callable[[Record], float]:
    """Return a function that reads a counter of a record's load; 0 if unknown."""
    return lambda record: float((read(record.load) or 0) if record.load is not None else 0)


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
        _quota_throttled_fraction,
        MAX_QUOTA_THROTTLED_FRACTION,
        lambda share: (
            f"The control group's CPU quota ran out in {share:.0%} of its periods: raise the quota, or set threads to "
            "the cores that it gives."
        ),
    ),
    NoiseCheck(
        _load_counter(lambda load: load.thermal_throttles),
        0,
        lambda times: (
            f"The processor was slowed down by its temperature ({times:.0f} times): cool it, and run it with --force."
        ),
    ),
    NoiseCheck(
        _clock_drop,
        MAX_CLOCK_DROP,
        lambda share: (
            f"The cores' clock fell by {share:.0%} in the course of a run: fix it (`harness doctor` says how), "
            "or let the machine warm up first."
        ),
    ),
    NoiseCheck(
        _load_counter(lambda load: load.swapped_bytes),
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
