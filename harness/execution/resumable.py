"""A training in pieces: one cell gone on with from its newest checkpoint, until it is done or asked to stop."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import UserError
from harness.execution.jobs import Environment, PreparedCell, TrainJob
from harness.execution.preparation import Preparations
from harness.execution.runner import Runner, StartMethod
from harness.execution.stop_flag import graceful_stop
from harness.execution.sweep import ProgressListener, exclusive_lock, run_and_save
from harness.machine.describe import num_ranks, unsupported_reason
from harness.schema.cells import Cell, FineTuneConfig
from harness.schema.host_record import Machine
from harness.schema.record import Record
from harness.store.checkpoint_files import ResumePlan, ResumePoint, TrainingIdentity, delete_all, find_newest
from harness.store.record_files import folder_name
from harness.store.saved_models import WriteCard

CHECKPOINTS = "checkpoints"
# A piece that was asked to stop has so long for its step, a validation and the checkpoint, before it is ended.
_TO_STOP_S = 600.0


@dataclass(frozen=True)
class StopLimits:
    """When a piece is to end, and how that was asked for; None: not by this.

    Attributes:
        max_s: Seconds since the cell was ordered.
        max_rows: Rows that this piece trains on.
        notice: Asks the cloud whether it takes this machine back.
    """

    max_s: float | None = None
    time_words: str = ""
    max_rows: int | None = None
    notice: Callable[[], bool] | None = None


def checkpoints_folder(cell: Cell, results: Path) -> Path:
    """Where a training's checkpoints lie unless the user names a folder: beside the records, which no report reads there."""
    repeat = f"-r{cell.repeat}" if cell.repeat else ""
    return results / CHECKPOINTS / folder_name(cell.study) / f"{folder_name(cell.name)}-{cell.config_hash}{repeat}"


def choose_cell(cells: list[Cell], name: str | None) -> list[Cell]:
    """The runs of the one cell that trains a model and has this name, or a name with this in it.

    Raises:
        UserError: When it is none, or more than one, or one that can't be trained in pieces.
    """
    trained = [cell for cell in cells if isinstance(cell.config, FineTuneConfig)]
    names = list(dict.fromkeys(cell.name for cell in trained))
    fitting = [one for one in names if name is None or one == name] or [one for one in names if name and name in one]
    if len(fitting) != 1:
        asked = "--cell is needed" if name is None else f"--cell {name}: {len(fitting)} cells that train are named so"
        raise UserError(f"{asked}; the study's: {', '.join(names) or 'none'}")
    chosen = [cell for cell in trained if cell.name == fitting[0]]
    if any(isinstance(cell.config, FineTuneConfig) and cell.config.training.compile for cell in chosen):
        raise UserError(
            f"cell {fitting[0]}: training.compile = true can't be trained in pieces, since what is compiled anew need not "
            "compute the same bits; set it to false, or use `harness run`"
        )
    return chosen


def train_until_limit(
    cell: Cell,
    results: Path,
    around: Environment,
    watcher: ProgressListener,
    *,
    folder: Path,
    bounds: StopLimits,
    on_found: Callable[[ResumePoint], None] = lambda _: None,
    write_card: WriteCard | None = None,
    start_method: StartMethod | None = None,
) -> Record:
    """Go on with a cell's training, and save what became of it.

    A piece that stops is a record with all steps so far, its outcome `interrupted` or `preempted`, which counts as done no
    more than any other of these. The last piece's record is an ordinary one, and the checkpoints are then let go.

    Args:
        cell: One that trains a model.
        results: Where its record is saved.
        around: As for any cell.
        watcher: As for any cell.
        folder: Of its checkpoints.
        bounds: When this piece is to end.
        on_found: Is told what is gone on from before training begins.
        write_card: Writes the card of the model that is kept; without it none is.
        start_method: As the runner's.

    Raises:
        UserError: Before anything is trained: model, data or every checkpoint can't be used, or another training holds
            the folder.
    """
    config = cell.config
    assert isinstance(config, FineTuneConfig)  # noqa: S101 - chosen so
    if (reason := unsupported_reason(config, around.machine)) is not None:
        raise UserError(f"cell {cell.name}: {reason}")
    with (
        exclusive_lock(results),
        exclusive_lock(folder),
        tempfile.TemporaryDirectory(prefix="harness-data-") as temporary,
    ):
        prepared = Preparations(Path(temporary)).prepare(cell)
        assert isinstance(prepared.job, TrainJob)  # noqa: S101 - of a cell that trains
        identity = identify(cell, prepared, around.machine)
        found = find_newest(folder, identity)
        on_found(found)
        flag = Path(temporary) / "stop"
        told = _report_stop(config, around, folder, identity, found.path, flag, bounds)
        watcher.cell_started(cell)
        with (
            Runner(start_method, preload=("harness.execution.ignore_sigterm",)) as runner,
            graceful_stop(flag, bounds.notice),
        ):
            needs = replace(prepared, job=replace(prepared.job, pieces=told))
            record, path = run_and_save(runner, cell, needs, around, watcher, results, write_card)
        watcher.cell_ended(cell, record, path)
        if record.outcome == "ok":
            delete_all(folder)
    if record.outcome == "ok":
        _remove_empty(folder, results / CHECKPOINTS)
    return record


def identify(cell: Cell, prepared: PreparedCell, machine: Machine) -> TrainingIdentity:
    """What makes a checkpoint one of this training."""
    config, data, job = cell.config, prepared.data, prepared.job
    assert isinstance(config, FineTuneConfig)  # noqa: S101 - chosen so
    assert isinstance(job, TrainJob)  # noqa: S101 - of a cell that trains
    return TrainingIdentity(
        config=config.model_dump(mode="json"),
        config_hash=cell.config_hash,
        repeat=cell.repeat,
        world_size=num_ranks(config, machine),
        model_sha256=job.model.sha256,
        tokenizer_sha256=data.tokenizer_sha256,
        splits={"train": data.train.sha256, "val": data.val.sha256, "test": data.test.sha256},
    )


def _report_stop(
    config: FineTuneConfig,
    around: Environment,
    folder: Path,
    identity: TrainingIdentity,
    resume_from: Path | None,
    flag: Path,
    bounds: StopLimits,
) -> ResumePlan:
    limit = config.limits.timeout_s
    by_timeout = bounds.max_s is None or limit < bounds.max_s
    max_s = limit if by_timeout or bounds.max_s is None else bounds.max_s
    return ResumePlan(
        folder=folder.absolute(),
        identity=identity,
        resume_from=None if resume_from is None else resume_from.absolute(),
        stop=str(flag),
        every_s=config.training.checkpoint_every_s,
        timeout_s=max_s + _TO_STOP_S,
        machine=around.machine.id,
        host=around.machine.host,
        max_s=max_s,
        max_rows=bounds.max_rows,
        time_words=f"limits.timeout_s = {limit:g}" if by_timeout else bounds.time_words,
        rows_words=f"--max-rows {bounds.max_rows}",
    )


def _remove_empty(folder: Path, root: Path) -> None:
    """Leave nothing of a finished training's folder, nor of those around it up to `root`, but what is not the harness's."""
    (folder / ".lock").unlink(missing_ok=True)
    for one in (folder, *folder.parents):
        if one not in (folder, root) and root not in one.parents:
            return
        try:
            one.rmdir()
        except OSError:  # something is left in it
            return
