"""Wait until other processes leave the CPU alone, before a cell begins."""

from __future__ import annotations

import time
from collections.abc import Callable

from harness.machine.cpu_usage import CpuUsage, measure_cpu_usage, usable_cores
from harness.schema.settings import LimitSettings

# Called after each look at the machine with its usage and the seconds waited so far.
OnBusy = Callable[[CpuUsage, float], None]


def wait_for_quiet(
    limits: LimitSettings,
    on_busy: OnBusy,
    *,
    measure: Callable[[], CpuUsage] = measure_cpu_usage,
    clock: Callable[[], float] = time.perf_counter,
) -> float | None:
    """Wait until other processes take less than `limits.quiet_below` of the CPU, at most `limits.wait_for_quiet_s`.

    Args:
        limits: The study's limits.
        on_busy: Informed each time that the machine is not quiet.
        measure: Measures the usage; takes two seconds by default.
        clock: Tells the time in seconds.

    Returns:
        The seconds that were waited, looking included; None if the study asks for no waiting.
    """
    if not limits.wait_for_quiet_s:
        return None
    began = clock()
    while True:
        usage = measure()
        waited_s = clock() - began
        if usage.others_cores < limits.quiet_below * len(usable_cores()):
            return waited_s
        on_busy(usage, waited_s)
        if waited_s >= limits.wait_for_quiet_s:
            return waited_s
