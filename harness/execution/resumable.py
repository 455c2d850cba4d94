"""Resumable training: run one cell from its newest checkpoint until training is complete or a stop is requested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from harness.errors import UserError
from harness.execution.hidden_paths import hide_homes_of_config
from harness.execution.jobs import Environment, PreparedCell, ResumePlan, TrainJob
from harness.execution.preparation import Preparations, require_meaningful_accuracy
from harness.execution.quiet import wait_for_quiet
from harness.execution.runner import Runner, StartMethod
from harness.execution.stop_flag import StopReason, graceful_stop
from harness.execution.sweep import PREPARING, ProgressListener, exclusive_lock, run_and_save
from harness.machine.private_folders import private_folder
from harness.machine.support import num_ranks, unsupported_reason
from harness.schema.cells import Cell, FineTuneConfig
from harness.schema.host_record import Machine
from harness.schema.record import Record
from harness.store.checkpoint_files import ResumePoint, TrainingIdentity, delete_all, find_newest
from harness.store.record_files import folder_name
from harness.store.saved_models import WriteCard

CHECKPOINTS = "checkpoints"
# Seconds that a stopping segment has to finish its step, validate and write a checkpoint, before the parent ends it.
_STOP_GRACE_S = 600.0


@dataclass(frozen=True)
class StopLimits:
    """Limits at which one segment stops; a limit of None does not apply.

    Attributes:
        max_s: Most seconds since the cell was submitted.
        max_s_text: `max_s` in the user's words, for the record's reason.
        max_rows: Most rows that this segment trains on.
        preemption_notice: Function that asks whether the cloud takes this machine back.
    """

    max_s: float | None = None
    max_s_text: str = ""
    max_rows: int | None = None
    preemption_notice: Callable[[], bool] | None = None


class SegmentEnd(NamedTuple):
    """The record of a segment, and why the segment was stopped on request; None if it was not."""

    record: Record
    stop_reason: StopReason | None


def checkpoints_folder(cell: Cell, results: Path) -> Path:
    """Return the default folder of a training's checkpoints: below `results`, but where reports don't read records."""
    repeat = f"-r{cell.repeat}" if cell.repeat else ""
    return results / CHECKPOINTS / folder_name(cell.study) / f"{folder_name(cell.name)}-{cell.config_hash}{repeat}"


def choose_cell(cells: list[Cell], name: str | None) -> list[Cell]:
    """Return all repeats of the fine-tuning cell with the given name, or with a name that contains it.

    Raises:
        UserError: No cell matches, several do, or the cell can't be trained resumably.
    """
    fine_tunings = [cell for cell in cells if isinstance(cell.config, FineTuneConfig)]
    names = list(dict.fromkeys(cell.name for cell in fine_tunings))
    matches = [known for known in names if name is None or known == name]
    matches = matches or [known for known in names if name and name in known]
    if len(matches) != 1:
        problem = "--cell is needed" if name is None else f"--cell {name}: {len(matches)} fine-tuning cells match"
        raise UserError(f"{problem}; cells of the study: {', '.join(names) or 'none'}")
    chosen = [cell for cell in fine_tunings if cell.name == matches[0]]
    if any(isinstance(cell.config, FineTuneConfig) and cell.config.training.compile for cell in chosen):
        raise UserError(
            f"cell {matches[0]}: a training with training.compile = true can't be resumed, because recompiled code "
            "may compute different bits; set it to false, or use `harness run`"
        )
    return chosen


def train_until_limit(
    cell: Cell,
    results: Path,
    environment: Environment,
    listener: ProgressListener,
    *,
    folder: Path,
    limits: StopLimits,
    on_resume_point: Callable[[ResumePoint], None] = lambda _: None,
    write_card: WriteCard | None = None,
    start_method: StartMethod | None = None,
) -> SegmentEnd:
    """Train a cell from its newest checkpoint until training is complete or a limit is reached, and save its record.

    The checkpoints of a complete training are deleted.

    Args:
        cell: A fine-tuning cell.
        results: Folder of records.
        environment: Facts about this machine and checkout.
        listener: Informed of the cell's start, progress and end.
        folder: Folder of the checkpoints.
        limits: When to stop.
        on_resume_point: Called with the checkpoint to resume from, before training begins.
        write_card: Returns the text of a saved model's card; None: no model is saved.
        start_method: How processes are started; see `Runner`.

    Raises:
        UserError: Before training begins: this machine can't run the cell, the model, the data or all checkpoints are
            unusable, or another process uses one of the folders.
    """
    config = cell.config
    assert isinstance(config, FineTuneConfig)  # noqa: S101 - see `choose_cell`
    if (reason := unsupported_reason(config, environment.machine)) is not None:
        raise UserError(f"cell {cell.name}: {reason}")
    with (
        exclusive_lock(results),
        exclusive_lock(folder),
        private_folder("data") as temporary,
    ):
        listener.setup_started(PREPARING)
        prepared = Preparations(temporary).prepare(cell)
        listener.setup_ended()
        require_meaningful_accuracy(cell, prepared)
        listener.data_prepared(prepared.data)
        identity = identify_training(cell, prepared, environment.machine)
        resume_point = find_newest(folder, identity)
        on_resume_point(resume_point)
        stop_flag = temporary / "stop"
        plan, limit_texts = plan_segment(
            config, environment.machine, folder, identity, resume_point.path, stop_flag, limits
        )
        listener.cell_started(cell)
        waited_s = wait_for_quiet(config.limits, partial(listener.waiting_for_quiet, cell))
        with (
            Runner(start_method, preload=("harness.execution.ignore_sigterm",)) as runner,
            graceful_stop(stop_flag, limits.preemption_notice),
        ):
            prepared = replace(prepared, job=replace(_train_job(prepared), resume=plan), limit_texts=limit_texts)
            record, path = run_and_save(runner, cell, prepared, environment, listener, results, write_card, waited_s)
            stop_reason = runner.stop_reason
        listener.cell_ended(cell, record, path)
        if record.outcome == "ok":
            delete_all(folder)
    if record.outcome == "ok":
        remove_empty_folders(folder, results / CHECKPOINTS)
    return SegmentEnd(record, stop_reason)


def identify_training(cell: Cell, prepared: PreparedCell, machine: Machine) -> TrainingIdentity:
    """Return the identity of a cell's training; only checkpoints with the same identity belong to the training."""
    config, data, job = cell.config, prepared.data, _train_job(prepared)
    assert isinstance(config, FineTuneConfig)  # noqa: S101 - see `choose_cell`
    return TrainingIdentity(
        config=hide_homes_of_config(config).model_dump(mode="json"),
        config_hash=cell.config_hash,
        repeat=cell.repeat,
        world_size=num_ranks(config, machine),
        model_sha256=job.model.sha256,
        tokenizer_sha256=data.tokenizer_sha256,
        splits={"train": data.train.sha256, "val": data.val.sha256, "test": data.test.sha256},
    )


def plan_segment(
    config: FineTuneConfig,
    machine: Machine,
    folder: Path,
    identity: TrainingIdentity,
    resume_from: Path | None,
    stop_flag: Path,
    limits: StopLimits,
) -> tuple[ResumePlan, dict[StopReason, str]]:
    """Plan one segment of a resumable training.

    Args:
        config: The cell's configuration.
        machine: This machine.
        folder: Folder of the checkpoints.
        identity: Identity of the training.
        resume_from: Checkpoint to resume from; None: train from the beginning.
        stop_flag: File of the `StopFlag`.
        limits: The user's limits; the study's `limits.timeout_s` applies in addition.

    Returns:
        The plan for the ranks, and the text of each limit for the record's reason.
    """
    timeout_s, max_s, max_s_text = config.limits.timeout_s, limits.max_s, limits.max_s_text
    if max_s is None or timeout_s < max_s:
        max_s, max_s_text = timeout_s, f"limits.timeout_s = {timeout_s:g}"
    plan = ResumePlan(
        folder=folder.absolute(),
        identity=identity,
        resume_from=None if resume_from is None else resume_from.absolute(),
        stop_flag=stop_flag,
        save_interval_s=config.training.checkpoint_every_s,
        timeout_s=max_s + _STOP_GRACE_S,
        machine=machine.id,
        host=machine.host,
        max_s=max_s,
        max_rows=limits.max_rows,
    )
    return plan, {StopReason.TIME_LIMIT: max_s_text, StopReason.ROW_LIMIT: f"--max-rows {limits.max_rows}"}


def remove_empty_folders(folder: Path, root: Path) -> None:
    """Remove a finished training's folder and its parents up to `root`, as long as they are empty."""
    (folder / ".lock").unlink(missing_ok=True)
    for path in (folder, *folder.parents):
        if path not in (folder, root) and root not in path.parents:
            return
        try:
            path.rmdir()
        except OSError:  # not empty
            return


def _train_job(prepared: PreparedCell) -> TrainJob:
    assert isinstance(prepared.job, TrainJob)  # noqa: S101 - see `choose_cell`
    return prepared.job
