"""Sample a cell's GPUs with NVML while it runs: clocks, power, temperature, memory and throttle reasons."""

from __future__ import annotations

import contextlib
from typing import Any

from harness.machine.nvml import open_nvml, query, visible_gpus
from harness.schema.host_record import GpuReading

_EVERY_S = 1.0
_IDLE = 0x1
# nvmlClocksEventReason* of nvml.h, without the bit for an idle GPU, which does not slow a cell.
THROTTLE_REASONS = {
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}


class GpuMonitor:
    """Samples GPUs about once a second. After an error of NVML the readings end, and the cell is not affected."""

    def __init__(self, num_gpus: int) -> None:
        """Monitor the first `num_gpus` visible GPUs. For a cell on the CPU the number is 0, and NVML is not used."""
        self.readings: list[GpuReading] = []
        self._open = contextlib.ExitStack()
        self._nvml: Any = None
        self._handles: dict[int, Any] = {}
        self._due_s = 0.0
        if num_gpus == 0:
            return
        # Ignore a missing package or driver, because `Machine.gpu_note` reports it already.
        with contextlib.suppress(Exception):
            self._nvml = self._open.enter_context(open_nvml())
            self._handles = dict(enumerate(visible_gpus(self._nvml).handles[:num_gpus]))

    def poll(self, now: float) -> None:
        """Sample every GPU if a second has passed; `now` is on the cell's clock, in seconds."""
        if not self._handles or now < self._due_s:
            return
        self._due_s = max(self._due_s + _EVERY_S, now + _EVERY_S / 2)
        for gpu, handle in list(self._handles.items()):
            reading = _read(self._nvml, handle, gpu, now)
            if reading is None:
                del self._handles[gpu]  # the GPU no longer answers, e.g. because it fell off the bus
            else:
                self.readings.append(reading)

    def close(self) -> None:
        """Shut NVML down; the readings remain."""
        self._handles = {}
        self._open.close()


def _read(nvml: Any, handle: Any, gpu: int, now: float) -> GpuReading | None:  # noqa: ANN401 - pynvml has no types
    power = query(nvml, "nvmlDeviceGetPowerUsage", handle)
    answers = {
        "sm_clock_mhz": query(nvml, "nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_SM),
        "memory_clock_mhz": query(nvml, "nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_MEM),
        "power_watts": None if power is None else power / 1000,
        "temperature_celsius": query(nvml, "nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU),
        "used_bytes": getattr(query(nvml, "nvmlDeviceGetMemoryInfo", handle), "used", None),
        "throttle_reasons": _throttle_reasons(nvml, handle),
    }
    if all(answer is None for answer in answers.values()):
        return None
    return GpuReading(at_s=now, gpu=gpu, **answers)


def _throttle_reasons(nvml: Any, handle: Any) -> tuple[str, ...] | None:  # noqa: ANN401
    mask = query(nvml, "nvmlDeviceGetCurrentClocksEventReasons", handle)
    if mask is None:  # drivers before 535 know the call only by its older name
        mask = query(nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", handle)
    if mask is None:
        return None
    bits = [1 << place for place in range(int(mask).bit_length()) if mask >> place & 1]
    return tuple(THROTTLE_REASONS.get(bit, f"bit_{bit.bit_length() - 1}") for bit in bits if bit != _IDLE)
