"""What a cell drew: counters of energy that the machine has, read by the parent at a cell's borders (no torch).

The processor's are RAPL's, as the kernel shows them; a GPU's are NVML's, by zeus where the extra `energy` is installed.
zeus could read RAPL too: it starts a process for every zone, to see the counter pass its end, and takes a laptop's `psys`,
which holds the packages, for one of them. The parent wakes once a second anyway, and sees that by itself.

Source: https://docs.kernel.org/power/powercap/powercap.html
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.machine.nvml import ask, open_nvml, visible_gpus
from harness.schema.host_record import Energy

POWERCAP = Path("/sys/class/powercap")
# The shortest range is 65 kJ: five minutes of 200 W. Looking wakes a core of the package for microseconds.
_LOOK_EVERY_S = 20.0
_MICRO = 1e-6
_MILLI = 1e-3


class RaplZone:
    """One RAPL counter; joules since it was opened, however often it began anew.

    Raises:
        OSError: When it can't be read; since 2020 the kernel lets root alone.
        ValueError: When it holds no number.
    """

    def __init__(self, folder: Path) -> None:
        """Open a zone's folder, which has `name`, `energy_uj` and `max_energy_range_uj`."""
        self.name = (folder / "name").read_text().strip()
        self._file = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last, self._total = self._read(), 0

    def joules(self) -> float:
        """Joules since it was opened; to be asked at least once in the time that its range lasts."""
        now = self._read()
        self._total += (now - self._last) % self._range
        self._last = now
        return self._total * _MICRO

    def _read(self) -> int:
        return int(self._file.read_text())


class EnergyMeter:
    """Joules of the processor's packages, their memory and a cell's GPUs between `begin` and `end`.

    A counter that fails on the way ends the measurement and nothing else: half of what was drawn would be no figure.
    """

    def __init__(self, num_gpus: int, powercap: Path | None = None) -> None:
        """Find the counters of the packages, and of the first `num_gpus` GPUs that a cell sees."""
        self._open = contextlib.ExitStack()
        zones = list(find_zones(powercap or POWERCAP))
        self._cpu = [zone for zone in zones if zone.name != "dram"]
        self._dram = [zone for zone in zones if zone.name == "dram"]
        self._gpus, self._gpu_source = _gpu_counters(num_gpus, self._open) if num_gpus else ([], "")
        self._began: tuple[float, list[float]] | None = None
        self._due_s = 0.0
        self._found: Energy | None = None

    def begin(self, now: float) -> None:
        """Read every counter; `now` is on the cell's clock, as in `look` and `end`."""
        if (read := self._read()) is not None:
            self._began, self._due_s = (now, read), now + _LOOK_EVERY_S

    def poll(self, now: float) -> None:
        """Read now and then, so that no counter passes its end unseen."""
        if self._began is not None and self._found is None and now >= self._due_s:
            self._due_s = now + _LOOK_EVERY_S
            if self._read() is None:
                self._began = None

    def end(self, now: float) -> None:
        """Read every counter again, the first time that it is called."""
        if self._began is None or self._found is not None or (read := self._read()) is None:
            return
        began, before = self._began
        used = iter(after - earlier for after, earlier in zip(read, before, strict=True))
        sources = (["RAPL"] if self._cpu else []) + ([self._gpu_source] if self._gpus else [])
        self._found = Energy(
            source=", ".join(sources),
            seconds=now - began,
            cpu_joules=tuple(next(used) for _ in self._cpu),
            dram_joules=tuple(next(used) for _ in self._dram),
            gpu_joules=tuple(next(used) for _ in self._gpus),
        )

    def close(self) -> None:
        """Let NVML go."""
        self._open.close()

    def energy(self) -> Energy | None:
        """What was measured; None without counters, or before `end`."""
        return self._found

    def _read(self) -> list[float] | None:
        if not self._cpu and not self._gpus:
            return None
        try:
            return [
                *(zone.joules() for zone in self._cpu),
                *(zone.joules() for zone in self._dram),
                *(counter() for counter in self._gpus),
            ]
        except Exception:  # noqa: BLE001 - pynvml's and zeus's errors are theirs, and a cell does not fail by its meter
            return None


def find_zones(powercap: Path) -> Iterator[RaplZone]:
    """Every package, and the memory that it counts apart; cores lie within their package, `psys` around all."""
    for package in sorted(powercap.glob("intel-rapl/intel-rapl:*")):
        for folder in (package, *sorted(package.glob("intel-rapl:*"))):
            with contextlib.suppress(OSError, ValueError):
                zone = RaplZone(folder)
                if zone.name.startswith("package-") or (zone.name == "dram" and folder != package):
                    yield zone


def _gpu_counters(num_gpus: int, opened: contextlib.ExitStack) -> tuple[list[Callable[[], float]], str]:
    """A counter in joules of each GPU and who reads it; none where one of them has none (before Volta, or cut by MIG)."""
    for find in (_by_zeus, _by_nvml):
        # No package, no driver, no such answer: all of it means that there is no counter.
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

    gpus: Any = get_gpus()

    def counter(index: int) -> Callable[[], float]:
        return lambda: float(gpus.get_total_energy_consumption(index)) * _MILLI

    return [counter(index) for index in range(min(num_gpus, len(gpus)))], f"NVML by zeus {zeus.__version__}"


def _by_nvml(num_gpus: int, opened: contextlib.ExitStack) -> tuple[list[Callable[[], float]], str]:
    nvml = opened.enter_context(open_nvml())
    handles = visible_gpus(nvml).handles[:num_gpus]

    def counter(handle: Any) -> Callable[[], float]:  # noqa: ANN401 - pynvml has no types
        return lambda: float(ask(nvml, "nvmlDeviceGetTotalEnergyConsumption", handle)) * _MILLI

    return [counter(handle) for handle in handles], "NVML"
