"""All monitors with which the parent measures a cell from outside its processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.execution.heartbeat import Stall, StallDetector
from harness.execution.memory_cap import MemoryCap
from harness.execution.memory_sampler import MemorySampler
from harness.execution.messages import Message, PhaseStarted
from harness.machine.energy_meter import EnergyMeter
from harness.machine.gpu_monitor import GpuMonitor
from harness.machine.load_monitor import LoadMonitor
from harness.machine.other_load import OtherLoad
from harness.schema.training_record import PeakMemory


class CellMonitors:
    """The monitors of one cell: load, GPUs, energy, memory of all ranks, hangs. Each reads at its own interval.

    Attributes:
        others_fraction: Share of the CPU that other processes took in the last seconds; None while it is not known.
        stall: The ranks' state if none makes progress; None while they do, and for a rank that waits for no other.
    """

    def __init__(self, num_gpus: int) -> None:
        """Create the monitors that need no process of the cell: load, GPUs and energy."""
        self._num_gpus = num_gpus
        self.load = LoadMonitor(num_gpus)
        self.gpus, self.energy = GpuMonitor(num_gpus), EnergyMeter(num_gpus)
        self._memory: MemorySampler | None = None
        self._stalls: StallDetector | None = None
        self.stall: Stall | None = None
        self._others: OtherLoad | None = None
        self.others_fraction: float | None = None

    def attach(self, pids: Sequence[int], heartbeat: Path, cap: MemoryCap | None, world_size: int) -> None:
        """Begin to monitor the ranks' processes for memory and hangs, and the others for load.

        Args:
            pids: Process id of each of this machine's ranks.
            heartbeat: File of their heartbeat counters.
            cap: The cell's memory cap; None without a cap.
            world_size: Number of ranks on all machines; one rank alone can't hang.
        """
        self._stalls = StallDetector(heartbeat, pids) if world_size > 1 else None
        self._memory = None if self._num_gpus else MemorySampler(pids, cap)
        self._others = OtherLoad(pids)

    def poll(self, now: float) -> None:
        """Let each monitor read if it is due. `now` is in seconds since submission."""
        self.gpus.poll(now)
        self.energy.poll(now)
        self.load.poll(now)
        if self._others is not None:
            self.others_fraction = self._others.poll(now)
        if self._memory is not None:
            self._memory.poll(now)
        self.stall = self._stalls.poll(now) if self._stalls is not None else None

    def on_message(self, message: Message, now: float) -> None:
        """Follow rank 0's phases, and end the measurement of energy after the test evaluation."""
        if self._memory is not None:
            self._memory.on_message(message, now)
        if isinstance(message, PhaseStarted) and message.name == "after":
            self.energy.end(now)

    def memory_peaks(self) -> tuple[PeakMemory, ...]:
        """Return the peak memory of all ranks together; empty if it was not measured."""
        return self._memory.peaks() if self._memory is not None else ()

    def close(self) -> None:
        """Release the counters and libraries."""
        self.gpus.close()
        self.energy.close()
        if self._stalls is not None:
            self._stalls.close()
            self._stalls = None
