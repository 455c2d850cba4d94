"""What held a GPU back while it trained, judged from NVML's readings (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from harness.schema.host_record import GpuReading
from harness.schema.record import Record

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
