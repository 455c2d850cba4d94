"""Cells to do, to prepared data, to the runner, to the store."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from harness.errors import UserError
from harness.execution.assemble import blank_record
from harness.execution.dominance import find_oom_bound
from harness.execution.jobs import Environment, PreparedCell, TrainJob
from harness.execution.preparation import Preparations
from harness.execution.runner import Runner, StartMethod
from harness.machine.describe import (
    describe_machine,
    harness_checkout,
    installed_packages,
    package_version,
    unsupported_reason,
)
from harness.schema.cells import BaselineConfig, Cell
from harness.schema.host_record import DetectedInstance, Machine, StatedInstance
from harness.schema.record import Record
from harness.store.record_files import save_record
from harness.store.saved_models import WriteCard, save_model, staging_folder


class ProgressListener(Protocol):
    """Is told of what happens; see `screen.py`."""

    def cell_started(self, cell: Cell) -> None:
        """A cell was ordered."""

    def cell_progressed(self, cell: Cell, message: dict[str, Any]) -> None:
        """A cell sent a message (at most one a second)."""

    def cell_ended(self, cell: Cell, record: Record, path: Path) -> None:
        """A record was saved at `path`."""

    def cells_left_out(self, cells: Sequence[Cell], reason: str) -> None:
        """A budget ended the study before these."""


class NullListener:
    """A watcher that shows nothing."""

    def cell_started(self, cell: Cell) -> None:
        """Nobody looks."""

    def cell_progressed(self, cell: Cell, message: dict[str, Any]) -> None:
        """Nobody looks."""

    def cell_ended(self, cell: Cell, record: Record, path: Path) -> None:
        """Nobody looks."""

    def cells_left_out(self, cells: Sequence[Cell], reason: str) -> None:
        """Nobody looks."""


@dataclass(frozen=True)
class Budget:
    """Seconds that may be spent, and how that was said."""

    seconds: float
    reason: str


def describe_environment(
    stated: StatedInstance | None, detect: Callable[[Machine], DetectedInstance | None] = lambda _: None
) -> Environment:
    """Describe what is the same for all cells of a run; `detect` asks the machine's cloud what it is."""
    machine = describe_machine()
    return Environment(machine, stated, harness_checkout(), installed_packages(), detect(machine))


def run_cells(  # noqa: PLR0913 - what a run is given has many sources
    cells: Sequence[Cell],
    results: Path,
    around: Environment,
    watcher: ProgressListener,
    *,
    known_s: dict[str, float] | None = None,
    budget: Budget | None = None,
    start_method: StartMethod | None = None,
    skip: bool = True,
    known_oom: Sequence[Record] = (),
    write_card: WriteCard | None = None,
) -> list[Record]:
    """Run cells one after the other, saving each record as it ends.

    A cell that Ctrl-C stopped is the last one, with a record of its own; a cell that is expected to pass the budget is
    left out with all that follow.

    Args:
        known_s: Seconds that a configuration took before, by its hash.
        skip: Leave out, with a record that says so, what is no smaller than a cell that ran out of memory.
        known_oom: Records of cells that did so before; those that are run again here do not count.
        write_card: Of a model that a cell is asked to keep; without it none is kept.

    Raises:
        UserError: Before any cell is run: torch is missing, or a cell's model or data can't be had.
    """
    _check_installed(cells, around.machine)
    records: list[Record] = []
    again = {cell.config_hash for cell in cells}
    ran_out = [record for record in known_oom if record.config_hash not in again]
    began = time.perf_counter()
    with (
        exclusive_lock(results),
        tempfile.TemporaryDirectory(prefix="harness-data-") as folder,
        Runner(start_method) as runner,
    ):
        preparations = Preparations(Path(folder))
        prepared = [preparations.prepare(cell) for cell in cells]
        if any(unsupported_reason(cell.config, around.machine) is None for cell in cells):
            runner.wait_until_warm()
        for index, (cell, needs) in enumerate(zip(cells, prepared, strict=True)):
            needless = find_oom_bound(cell.config, [*ran_out, *records], around.machine) if skip else None
            expected = 0.0 if needless else _expected_s(cell, records, known_s or {})
            if budget is not None and time.perf_counter() - began + expected > budget.seconds:
                watcher.cells_left_out(
                    cells[index:], f"{budget.reason}, and {cell.label} is expected to take {expected:.0f} s"
                )
                break
            watcher.cell_started(cell)
            if needless:
                record = blank_record(cell, around, "skipped", needless).model_copy(update={"data": needs.data})
                path = save_record(record, results)
            else:
                record, path = run_and_save(runner, cell, needs, around, watcher, results, write_card)
            records.append(record)
            watcher.cell_ended(cell, record, path)
            if record.outcome == "interrupted":
                break
    return records


def run_and_save(
    runner: Runner, cell: Cell, needs: PreparedCell, around: Environment, watcher: ProgressListener, results: Path,
    write_card: WriteCard | None,
) -> tuple[Record, Path]:  # fmt: skip
    """Run a cell and save its record, and the model beside it where one is to be kept."""
    with staging_folder(cell, results) if write_card else contextlib.nullcontext() as folder:
        job = needs.job
        if folder is not None and isinstance(job, TrainJob):
            needs = replace(needs, job=replace(job, save_model_to=str(folder)))
        record = runner.run(cell, needs, around, lambda message: watcher.cell_progressed(cell, message))
        path = save_record(record, results)
        if folder is not None and isinstance(job, TrainJob) and write_card is not None:
            save_model(folder, record, path, job.model, results, write_card)
    return record, path


@contextlib.contextmanager
def exclusive_lock(results: Path) -> Iterator[None]:
    """Hold the folder's lock: two studies at once would slow each other and spoil both."""
    results.mkdir(parents=True, exist_ok=True)
    try:
        # The kernel lets it go when this process ends, however it ends.
        with FileLock(results / ".lock", timeout=0):
            yield
    except Timeout:
        raise UserError(f"{results}: another run is measuring into this folder; wait for it, or end it") from None


def _expected_s(cell: Cell, records: Iterable[Record], known_s: dict[str, float]) -> float:
    """Seconds this configuration took before; else those of the longest cell so far."""
    return known_s.get(cell.config_hash) or max((record.duration_s for record in records), default=0.0)


def _check_installed(cells: Sequence[Cell], machine: Machine) -> None:
    wanted = ["torch", "transformers", "tokenizers"]
    if any(isinstance(cell.config, BaselineConfig) for cell in cells):
        wanted.insert(0, "scikit-learn")
    missing = [name for name in wanted if package_version(name) == "not installed"]
    if missing and any(unsupported_reason(cell.config, machine) is None for cell in cells):
        raise UserError(
            f"{', '.join(missing)} not installed: "
            "cells need the extra `train` (`make setup`, or pip install '.[train]')"
        )
