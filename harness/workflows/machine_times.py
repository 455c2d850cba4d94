"""What the cells of a study take on the machines of a price table, each known as well as it can be."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from harness.analysis.estimate import Estimate
from harness.decision.shortlist import Basis
from harness.errors import Unavailable
from harness.prediction.core_scaling import cpu_family, scaled_by_cores
from harness.prediction.gpu_cell import GpuCell, GpuRun, predict_on_gpu, slowest_of
from harness.prediction.gpu_records import measured_steps
from harness.prediction.gpu_speed import GpuSpeed, fit_gpu_speed
from harness.prediction.published_rows import load_published
from harness.prediction.uncertain_time import UncertainTime
from harness.pricing.price_rows import PriceRow
from harness.pricing.price_search import boards_called, burstable, hardware_of
from harness.pricing.price_table import PriceTable
from harness.schema.cells import Device
from harness.schema.probe_record import CellWork
from harness.workflows.measured_times import MeasuredTimes
from harness.workflows.study_work import StudyCell


@dataclass(frozen=True)
class MachineTime:
    """What one cell takes on one machine.

    Attributes:
        num_samples: Rows that it trains on, repetitions included.
        train: Seconds of training.
        rest_s: All other seconds of a run, with the relative error of training.
    """

    cell: StudyCell
    basis: Basis
    num_samples: int
    train: UncertainTime
    rest_s: float

    def samples_per_s(self) -> Estimate:
        """Return the samples per second of training."""
        factor = math.exp(self.train.log_half_width())
        rate = self.num_samples / self.train.seconds
        return Estimate(rate, rate / factor, rate * factor, self.basis)

    def run(self, num_samples: float) -> UncertainTime:
        """Return the seconds of a run that trains on `num_samples` samples."""
        train_s = self.train.seconds * num_samples / self.num_samples
        return replace(self.train, seconds=train_s + self.rest_s)


class MachineTimes:
    """Times of a study's cells by row of the price table; a GPU's are predicted once for all rows that have it."""

    def __init__(self, table: PriceTable, measured: MeasuredTimes) -> None:
        """Fit the speed of GPUs to what others published and to what was measured here."""
        self._table, self._measured = table, measured
        self._speed: GpuSpeed = fit_gpu_speed(measured_steps(load_published(table), measured.records, table))
        self._works: dict[tuple[str, int], CellWork] = {}
        self._runs: dict[tuple[str, str, int], GpuRun | Unavailable] = {}

    def world_size(self, cell: StudyCell, row: PriceRow) -> int | None:
        """Return a cell's number of ranks on a machine; None if it needs several machines, or GPUs or CPUs that are not there."""
        device = Device.parse(cell.config.device)
        if device.num_nodes > 1 or device.on_gpu != bool(row.accelerator_count):
            return None
        available = row.accelerator_count if device.on_gpu else row.vcpus
        ranks = device.num_ranks or available
        return ranks if ranks <= available else None

    def work(self, cell: StudyCell, world_size: int) -> CellWork:
        """Return what a cell computes."""
        key = (cell.name, world_size)
        if key not in self._works:
            self._works[key] = cell.work(world_size)
        return self._works[key]

    def time(self, cell: StudyCell, row: PriceRow, world_size: int) -> MachineTime | Unavailable:
        """Return what a cell takes on a machine, or why that is not known."""
        work = self.work(cell, world_size)
        known = self._measured.on(row.instance_type, cell.config, work)
        if known is not None:
            return MachineTime(cell, known.basis, work.num_rows, known.train, known.rest_s)
        return self._by_datasheet(cell, row, world_size) if row.accelerator_count else self._by_family(cell, row, work)

    def _by_datasheet(self, cell: StudyCell, row: PriceRow, world_size: int) -> MachineTime | Unavailable:
        board = hardware_of(self._table, row)
        boards = boards_called(self._table, row) if board is None else [board]
        if not boards:
            return Unavailable(f"hardware.csv has no GPU called {row.accelerator}")
        work, runs = self.work(cell, world_size), []
        for gpu in boards:
            key = (cell.name, gpu.name, world_size)
            if key not in self._runs:
                self._runs[key] = predict_on_gpu(self._speed, gpu, GpuCell(cell.config, cell.shape, work, world_size))
            run = self._runs[key]
            if isinstance(run, Unavailable):
                return run
            runs.append(run)
        run = slowest_of(runs)
        return MachineTime(cell, "datasheet", work.num_rows, run.train, run.evaluate_s)

    def _by_family(self, cell: StudyCell, row: PriceRow, work: CellWork) -> MachineTime | Unavailable:
        """Scale what is known of another size of a CPU machine, the nearest one."""
        if burstable(row):
            return Unavailable("burstable: at full speed only while its credits last")
        family, found = cpu_family(row.instance_type), []
        for instance, num_cpus in self._measured.cpu_machines().items():
            if cpu_family(instance) == family:
                known = self._measured.on(instance, cell.config, work)
                if known is not None:
                    found.append((abs(math.log(num_cpus / row.vcpus)), num_cpus, known))
        if not found:
            return Unavailable(f"nothing was measured on a machine of its family, {family}")
        _, num_cpus, known = min(found, key=lambda each: each[0])
        ratio, factor = scaled_by_cores(num_cpus, row.vcpus)
        train = UncertainTime(known.train.seconds * ratio, (*known.train.factors, factor))
        return MachineTime(cell, "scaled", work.num_rows, train, known.rest_s * ratio)
