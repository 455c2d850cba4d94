"""Run the cells of a study one after the other and save their records."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from harness.analysis.estimate import Estimate
from harness.errors import UserError
from harness.execution.assemble import blank_record
from harness.execution.completed import find_oom_bound
from harness.execution.hidden_paths import hide_homes
from harness.execution.interrupts import hold_interrupts
from harness.execution.jobs import Environment, PreparedCell, TrainJob
from harness.execution.messages import Message
from harness.execution.preparation import Preparations, require_meaningful_accuracy
from harness.execution.probing import CellPrediction, StudyPrediction, plan_cells
from harness.execution.quiet import wait_for_quiet
from harness.execution.runner import Runner, StartMethod
from harness.files import remove_partial_files
from harness.machine.cpu_usage import CpuUsage
from harness.machine.describe import describe_machine, harness_checkout, installed_packages, package_version
from harness.machine.private_folders import private_folder
from harness.machine.support import unsupported_reason
from harness.schema.cells import BaselineConfig, Cell
from harness.schema.host_record import DetectedInstance, Machine, StatedInstance
from harness.schema.inputs_record import DataFacts
from harness.schema.record import Record
from harness.shipped import how_to_install
from harness.store.saved_models import WriteCard, save_model, staging_folder
from harness.store.unsaved_records import save_or_keep

# What happens before the first cell starts, for the screen.
PREPARING, LOADING = "reading and tokenizing the data", "loading torch and the model classes"
PROBING = "timing a few steps, to predict the rest"
_NO_SECONDS: Mapping[str, float] = {}
_LONG_FLOP = 2e13  # some minutes on a CPU; shorter studies are over before a probe would pay


class ProgressListener(Protocol):
    """Interface that receives the events of a run; `harness.cli.views.progress` implements it to show progress."""

    def setup_started(self, work: str) -> None:
        """Handle the start of work that comes before the first cell; `work` names it."""

    def setup_ended(self) -> None:
        """Handle the end of the work before the first cell."""

    def data_prepared(self, data: DataFacts) -> None:
        """Handle the preparation of a cell's data, before the first cell starts; cells may have the same data."""

    def waiting_for_quiet(self, cell: Cell, usage: CpuUsage, waited_s: float) -> None:
        """Handle that a cell does not begin yet, because other processes use the CPU."""

    def times_expected(self, seconds: Sequence[float | None]) -> None:
        """Handle the expected seconds of each cell, before the first one starts; None where nothing is known."""

    def cell_started(self, cell: Cell) -> None:
        """Handle the start of a cell."""

    def speed_predicted(self, cell: Cell, samples_per_s: Estimate) -> None:
        """Handle the predicted speed of the cell that starts, where cells that compute alike are known."""

    def cell_progressed(self, cell: Cell, message: Message) -> None:
        """Handle a message of rank 0 (at most one a second)."""

    def load_read(self, cell: Cell, others_fraction: float | None) -> None:
        """Handle a reading of the share of the CPU that other processes took lately, about once a second."""

    def cell_ended(self, cell: Cell, record: Record, path: Path) -> None:
        """Handle the end of a cell, whose record was saved at `path`."""

    def cells_left_out(self, cells: Sequence[Cell], reason: str) -> None:
        """Handle the cells that are not run, because the budget would be exceeded."""


class NullListener:
    """A `ProgressListener` that does nothing."""

    def setup_started(self, work: str) -> None:
        """Do nothing."""

    def setup_ended(self) -> None:
        """Do nothing."""

    def waiting_for_quiet(self, cell: Cell, usage: CpuUsage, waited_s: float) -> None:
        """Do nothing."""

    def times_expected(self, seconds: Sequence[float | None]) -> None:
        """Do nothing."""

    def speed_predicted(self, cell: Cell, samples_per_s: Estimate) -> None:
        """Do nothing."""

    def load_read(self, cell: Cell, others_fraction: float | None) -> None:
        """Do nothing."""

    def data_prepared(self, data: DataFacts) -> None:
        """Do nothing."""

    def cell_started(self, cell: Cell) -> None:
        """Do nothing."""

    def cell_progressed(self, cell: Cell, message: Message) -> None:
        """Do nothing."""

    def cell_ended(self, cell: Cell, record: Record, path: Path) -> None:
        """Do nothing."""

    def cells_left_out(self, cells: Sequence[Cell], reason: str) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Budget:
    """A limit on the time of a run.

    Attributes:
        seconds: Seconds that the run may take.
        reason: Text that names the user's limit.
    """

    seconds: float
    reason: str


def describe_environment(
    stated: StatedInstance | None, detect: Callable[[Machine], DetectedInstance | None] = lambda _: None
) -> Environment:
    """Collect the facts that are the same for all cells of a run.

    Args:
        stated: The cloud instance that the user stated, if any.
        detect: Asks the cloud's metadata service for the instance; by default it is not asked.
    """
    machine = describe_machine()
    return Environment(machine, stated, harness_checkout(), installed_packages(), detect(machine))


def run_cells(  # noqa: PLR0913 - the options of a run
    cells: Sequence[Cell],
    results: Path,
    environment: Environment,
    listener: ProgressListener,
    *,
    previous_s: Mapping[str, float] = _NO_SECONDS,
    budget: Budget | None = None,
    start_method: StartMethod | None = None,
    skip: bool = True,
    known_oom: Sequence[Record] = (),
    write_card: WriteCard | None = None,
    known: Sequence[Record] = (),
    probe: bool = False,
) -> list[Record]:
    """Run cells one after the other, saving each record as its cell ends.

    Ctrl-C ends the sweep once the record of the interrupted cell is saved. If a cell is expected to exceed the budget,
    that cell and all later cells are not run.

    Args:
        cells: Cells in the order of running.
        results: Folder of records.
        environment: Facts about this machine and checkout.
        listener: Informed of each cell's start, progress and end.
        previous_s: Seconds that each configuration took before, by the configuration's hash.
        budget: Limit on the total time; None: no limit.
        start_method: How processes are started; see `Runner`.
        skip: Don't run cells that are no smaller than a cell that ran out of memory; record them as `skipped`.
        known_oom: Earlier records of cells that ran out of memory; records of the given `cells` are ignored.
        write_card: Returns the text of a saved model's card; None: no model is saved.
        known: This machine's earlier runs and probes, to predict from.
        probe: Probe first what can't be predicted from `known`, if the study is a long one.

    Raises:
        UserError: Before any cell runs: torch is missing, or a cell's model or data is unusable.
        UnsavedRecordError: A record can't be saved; it is kept elsewhere, and no further cell runs.
    """
    _require_packages(cells, environment.machine)
    records: list[Record] = []
    hashes = {cell.config_hash for cell in cells}
    earlier_oom = [record for record in known_oom if record.config_hash not in hashes]
    began = time.perf_counter()
    with (
        exclusive_lock(results),
        private_folder("data") as folder,
        Runner(start_method) as runner,
    ):
        prepared_cells = _prepare(cells, Preparations(folder), listener)
        can_run = any(unsupported_reason(cell.config, environment.machine) is None for cell in cells)
        study = StudyPrediction(plan_cells(cells, prepared_cells, environment.machine), known, environment.machine)
        if can_run:
            listener.setup_started(LOADING)
            runner.wait_until_warm()
        if probe and study.unknown_flop > _LONG_FLOP:
            listener.setup_started(PROBING)
            study.probe(runner, results, environment)
        listener.setup_ended()
        listener.times_expected([_known_s(cell, previous_s, study.predict(cell.config_hash)) for cell in cells])
        for index, (cell, prepared) in enumerate(zip(cells, prepared_cells, strict=True)):
            oom_bound = find_oom_bound(cell.config, [*earlier_oom, *records], environment.machine) if skip else None
            prediction = study.predict(cell.config_hash)
            expected_s = 0.0 if oom_bound else _expected_s(cell, records, previous_s, prediction)
            if budget is not None and time.perf_counter() - began + expected_s > budget.seconds:
                reason = f"{budget.reason}, and {cell.label} is expected to take {expected_s:.0f} s"
                listener.cells_left_out(cells[index:], reason)
                break
            listener.cell_started(cell)
            if prediction is not None:
                listener.speed_predicted(cell, prediction.time.samples_per_s)
            if oom_bound:
                record = blank_record(cell, environment, "skipped", oom_bound)
                record = hide_homes(record.model_copy(update={"data": prepared.data}))
                path = save_or_keep(record, results)
            else:
                waited_s = _wait_for_quiet(cell, environment.machine, listener)
                record, path = run_and_save(
                    runner, cell, prepared, environment, listener, results, write_card, waited_s, prediction
                )
            study.learn(record)
            records.append(record)
            listener.cell_ended(cell, record, path)
            if record.outcome == "interrupted":
                break
    return records


def _wait_for_quiet(cell: Cell, machine: Machine, listener: ProgressListener) -> float | None:
    if unsupported_reason(cell.config, machine) is not None:
        return None
    return wait_for_quiet(cell.config.limits, partial(listener.waiting_for_quiet, cell))


def _prepare(cells: Sequence[Cell], preparations: Preparations, listener: ProgressListener) -> list[PreparedCell]:
    listener.setup_started(PREPARING)
    prepared_cells = [preparations.prepare(cell) for cell in cells]
    for cell, prepared in zip(cells, prepared_cells, strict=True):
        require_meaningful_accuracy(cell, prepared)
        listener.data_prepared(prepared.data)
    return prepared_cells


def run_and_save(
    runner: Runner,
    cell: Cell,
    prepared: PreparedCell,
    environment: Environment,
    listener: ProgressListener,
    results: Path,
    write_card: WriteCard | None,
    waited_s: float | None = None,
    prediction: CellPrediction | None = None,
) -> tuple[Record, Path]:
    """Run a cell and save its record. Save its model too if the configuration asks for it.

    Ctrl-C or a signal that comes once the cell has ended waits until the record is saved.

    Args:
        runner: Runs the cell.
        cell: The cell to run.
        prepared: The cell's job and data.
        environment: Facts about this machine and checkout.
        listener: Informed of the cell's progress.
        results: Folder of records.
        write_card: Returns the text of a saved model's card; None: no model is saved.
        waited_s: Seconds that were waited for a quiet machine, for the record; None if the study asks for no waiting.
        prediction: What the cell is predicted to take, for the record; None if nothing is known.

    Returns:
        The record, and the path of its file.
    """
    job = prepared.job
    with hold_interrupts(), staging_folder(cell, results) if write_card else contextlib.nullcontext() as folder:
        if folder is not None and isinstance(job, TrainJob):
            prepared = replace(prepared, job=replace(job, save_model_to=str(folder)))
        ran = runner.run(
            cell, prepared, environment, partial(listener.cell_progressed, cell), partial(listener.load_read, cell)
        )
        record = finish_record(ran, waited_s, prediction)
        path = save_or_keep(record, results)
        if folder is not None and isinstance(job, TrainJob) and write_card is not None:
            save_model(folder, record, path, job.model, results, write_card)
    return record, path


def finish_record(record: Record, waited_s: float | None, prediction: CellPrediction | None) -> Record:
    """Add to a runner's record the seconds that were waited for a quiet machine and the prediction, and hide homes.

    `waited_s` is None if the study asks for no waiting, and `prediction` if nothing is known of the cell.
    """
    update: dict[str, object] = {"predicted": None if prediction is None else prediction.as_predicted()}
    if record.load is not None:
        update["load"] = record.load.model_copy(update={"waited_for_quiet_s": waited_s})
    return hide_homes(record.model_copy(update=update))


@contextlib.contextmanager
def exclusive_lock(results: Path) -> Iterator[None]:
    """Hold the lock of a folder, so that two runs at once don't slow each other down and spoil both measurements.

    Raises:
        UserError: Another process holds the lock.
    """
    results.mkdir(parents=True, exist_ok=True)
    try:
        # A killed process leaves no lock behind: the kernel releases a process's locks when it ends.
        with FileLock(results / ".lock", timeout=0):
            remove_partial_files(results, subfolders=True)
            yield
    except Timeout:
        raise UserError(f"{results}: another run is measuring into this folder; wait for it, or end it") from None


def _expected_s(
    cell: Cell, records: Iterable[Record], previous_s: Mapping[str, float], prediction: CellPrediction | None
) -> float:
    """Return the seconds that the configuration took before, else its prediction, else those of the longest cell so far."""
    known_s = _known_s(cell, previous_s, prediction)
    return max((record.duration_s for record in records), default=0.0) if known_s is None else known_s


def _known_s(cell: Cell, previous_s: Mapping[str, float], prediction: CellPrediction | None) -> float | None:
    predicted_s = None if prediction is None else prediction.time.seconds.value
    return previous_s.get(cell.config_hash, predicted_s)


def _require_packages(cells: Sequence[Cell], machine: Machine) -> None:
    required = ["torch", "transformers", "tokenizers"]
    if any(isinstance(cell.config, BaselineConfig) for cell in cells):
        required.insert(0, "scikit-learn")
    missing = [name for name in required if package_version(name) == "not installed"]
    if missing and any(unsupported_reason(cell.config, machine) is None for cell in cells):
        raise UserError(f"{', '.join(missing)} not installed: cells need the extra `train` ({how_to_install('train')})")
