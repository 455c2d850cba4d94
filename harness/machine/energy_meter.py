"""Measure a cell's energy with the machine's counters, which the parent reads at the cell's start and end. No torch.

CPU energy comes from RAPL, read from the kernel's files. GPU energy comes from NVML, read by the package zeus where the
extra `energy` is installed. zeus could read RAPL too, but it starts a process per zone to detect counter overflow, and
it mistakes a laptop's `psys` zone for a package, although that zone contains all packages. The parent wakes once a
second anyway and detects overflow itself.

Source: https://docs.kernel.org/power/powercap/powercap.html
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.machine.nvml import open_nvml, query, visible_gpus
from harness.schema.host_record import Energy

POWERCAP = Path("/sys/class/powercap")
# Often enough to detect every overflow: the smallest counter range is 65 kJ, five minutes at 200 W. Reading a counter
# wakes a core for microseconds.
_POLL_EVERY_S = 20.0
_MICRO = 1e-6
_MILLI = 1e-3


class RaplZone:
    """One RAPL zone, such as a package: counts the joules since its opening and handles counter overflow.

    Raises:
        OSError: When the counter can't be read; since 2020 the kernel allows only root to read it.
        ValueError: When the counter's file contains no number.
    """

    def __init__(self, folder: Path) -> None:
        """Open a zone's folder, which contains `name`, `energy_uj` and `max_energy_range_uj`."""
        self.name = (folder / "name").read_text().strip()
        self._file = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last, self._total = self._read(), 0

    def joules(self) -> float:
        """Return the joules since the opening. Call it again before the counter advances by its full range."""
        now = self._read()
        self._total += (now - self._last) % self._range
        self._last = now
        return self._total * _MICRO

    def _read(self) -> int:
        return int(self._file.read_text())


class EnergyMeter:
    """Measures the joules of the CPU packages, their memory and a cell's GPUs between `begin` and `end`.

    If one counter fails, the meter has no result, because a sum without that counter would mislead. The cell is not
    affected.
    """

    def __init__(self, num_gpus: int, powercap: Path | None = None) -> None:
        """Find the counters of the packages and of the first `num_gpus` visible GPUs."""
        self._open = contextlib.ExitStack()
        zones = list(find_zones(powercap or POWERCAP))
        self._cpu = [zone for zone in zones if zone.name != "dram"]
        self._dram = [zone for zone in zones if zone.name == "dram"]
        self._gpus, self._gpu_source = _gpu_counters(num_gpus, self._open) if num_gpus else ([], "")
        self._began: tuple[float, list[float]] | None = None
        self._due_s = 0.0
        self._result: Energy | None = None

    def begin(self, now: float) -> None:
        """Read the counters for the first time; `now` is on the cell's clock, in seconds, as in `poll` and `end`."""
        if (reading := self._read()) is not None:
            self._began, self._due_s = (now, reading), now + _POLL_EVERY_S

    def poll(self, now: float) -> None:
        """Read the counters if 20 s have passed, so that no overflow is missed."""
        if self._began is not None and self._result is None and now >= self._due_s:
            self._due_s = now + _POLL_EVERY_S
            if self._read() is None:
                self._began = None

    def end(self, now: float) -> None:
        """Read the counters for the last time; later calls do nothing."""
        if self._began is None or self._result is not None or (reading := self._read()) is None:
            return
        began, before = self._began
        used = iter(after - earlier for after, earlier in zip(reading, before, strict=True))
        sources = (["RAPL"] if self._cpu else []) + ([self._gpu_source] if self._gpus else [])
        self._result = Energy(
            source=", ".join(sources),
            seconds=now - began,
            cpu_joules=tuple(next(used) for _ in self._cpu),
            dram_joules=tuple(next(used) for _ in self._dram),
            gpu_joules=tuple(next(used) for _ in self._gpus),
        )

    def close(self) -> None:
        """Shut NVML down."""
        self._open.close()

    def energy(self) -> Energy | None:
        """Return the measured energy; None before `end`, or without working counters."""
        return self._result

    def _read(self) -> list[float] | None:
        if not self._cpu and not self._gpus:
            return None
        try:
            return [
                *(zone.joules() for zone in self._cpu),
                *(zone.joules() for zone in self._dram),
                *(counter() for counter in self._gpus),
            ]
        except Exception:  # noqa: BLE001 - pynvml and zeus raise errors of their own; a cell must not fail because of its meter
            return None


def find_zones(powercap: Path) -> Iterator[RaplZone]:
    """Yield the zones of packages and of their memory.

    Other zones would count energy twice: a zone of cores is part of its package, and `psys` contains all packages.
    """
    for package in sorted(powercap.glob("intel-rapl/intel-rapl:*")):
        for folder in (package, *sorted(package.glob("intel-rapl:*"))):
            with contextlib.suppress(OSError, ValueError):
                zone = RaplZone(folder)
                if zone.name.startswith("package-") or (zone.name == "dram" and folder != package):
                    yield zone


def _gpu_counters(num_gpus: int, opened: contextlib.ExitStack) -> tuple[list[Callable[[], float]], str]:
    """Return a function for each GPU that reads its joules, and the name of their source.

    If one GPU has no counter (older than Volta, or with MIG), no function is returned.
    """
    for find in (_by_zeus, _by_nvml):
        # Try the next source after any error: a missing package, driver or answer means that this one has no counter.
        with contextlib.suppress(Exception):
            counters, source = find(num_gpus, opened)
            for counter in counters:
                counter()
            if len(counters) == num_gpus:
                return counters, source
    return [], ""


def _by_zeus(num_gpus: int, _opened: contextlib.ExitStack) -> tuple[list[Callable[[], float]], str]:
    import zeus
    from zeus.device import get_gpus

    gpus: Any = get_gpus()  # zeus's union of vendors has no common type

    def counter(index: int) -> Callable[[], float]:
        return lambda: float(gpus.get_total_energy_consumption(index)) * _MILLI

    return [counter(index) for index in range(min(num_gpus, len(gpus)))], f"NVML by zeus {zeus.__version__}"


def _by_nvml(num_gpus: int, opened: contextlib.ExitStack) -> tuple[list[Callable[[], float]], str]:
    nvml = opened.enter_context(open_nvml())
    handles = visible_gpus(nvml).handles[:num_gpus]

    def counter(handle: Any) -> Callable[[], float]:  # noqa: ANN401 - pynvml has no types
        return lambda: float(query(nvml, "nvmlDeviceGetTotalEnergyConsumption", handle)) * _MILLI

    return [counter(handle) for handle in handles], "NVML"
