"""`harness profile`: train a cell for a few steps, then profile as many more."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from harness.errors import UserError
from harness.execution.jobs import Environment, TrainJob
from harness.execution.preparation import Preparations
from harness.execution.runner import Runner
from harness.machine.private_folders import private_folder
from harness.machine.support import num_ranks, unsupported_reason
from harness.schema.cells import MIN_EVALUATION_BATCH, Cell, FineTuneConfig
from harness.schema.record import Record
from harness.schema.step_profile import StepProfile
from harness.workflows.short_run import shorten

_NUM_WARMUP = 3  # unmeasured steps, in which AdamW allocates its state and DDP rebuilds its buckets


@dataclass(frozen=True)
class ProfiledCell:
    """The profile of a cell's steps.

    Attributes:
        plain_step_s: Median step time without the profiler, on rank 0's clock, in seconds.
        trace: Trace file for Perfetto (ui.perfetto.dev) or chrome://tracing.
    """

    cell: str
    profile: StepProfile
    plain_step_s: float
    trace: Path

    def as_fields(self) -> dict[str, object]:
        """Return the fields of `--json`."""
        return asdict(self) | {"profile": self.profile.model_dump(), "trace": str(self.trace)}


def first_trained_cell(cells: Sequence[Cell]) -> Cell:
    """Return the first cell that trains.

    Raises:
        UserError: If no cell trains.
    """
    for cell in cells:
        if isinstance(cell.config, FineTuneConfig):
            return cell
    raise UserError("none of these cells trains a model; a baseline has no steps")


def profile_cell(cell: Cell, environment: Environment, num_steps: int, folder: Path) -> ProfiledCell:
    """Train a cell for a few steps in a process of its own, then run as many steps under the profiler.

    No record is saved. A memory cap of the cell is ignored.

    Args:
        cell: A cell that trains.
        environment: This machine and its software.
        num_steps: Number of steps without the profiler, and again with it.
        folder: Folder for the trace.

    Returns:
        The profile, with the path of the trace.

    Raises:
        UserError: If this machine doesn't support the cell, model or data is not available, or the run failed.
        KeyboardInterrupt: If Ctrl-C stopped the run.
    """
    config = cell.config
    assert isinstance(config, FineTuneConfig)  # noqa: S101 - see Args
    reason = unsupported_reason(config, environment.machine)
    if reason is not None:
        raise UserError(f"cell {cell.name}: {reason}")
    short = shorten(
        config,
        max_rows=MIN_EVALUATION_BATCH * num_ranks(config, environment.machine),
        training={"max_steps": _NUM_WARMUP + num_steps, "eval_every": 1e6, "target_accuracy": None},
    )
    short_cell = cell.model_copy(update={"config": short})
    started_at = datetime.now(UTC)
    with private_folder("profile") as temporary, Runner() as runner:
        prepared = Preparations(temporary).prepare(short_cell)
        assert isinstance(prepared.job, TrainJob)  # noqa: S101 - the cell trains
        prefix = temporary / "profile"
        job = replace(prepared.job, profile_prefix=str(prefix), profile_first=_NUM_WARMUP)
        record = runner.run(short_cell, replace(prepared, job=job), environment)
        _require_ok(record, cell)
        step_profile = StepProfile.model_validate_json(prefix.with_suffix(".json").read_text(encoding="utf-8"))
        folder.mkdir(parents=True, exist_ok=True)
        trace = folder / f"{cell.name}-{started_at:%Y%m%dT%H%M%SZ}.json.gz"
        shutil.move(f"{prefix}.json.gz", trace)
    assert record.training is not None  # noqa: S101 - the outcome is ok
    return ProfiledCell(cell.name, step_profile, median(record.training.steps.seconds[0][_NUM_WARMUP:]), trace)


def _require_ok(record: Record, cell: Cell) -> None:
    if record.outcome == "interrupted":
        raise KeyboardInterrupt
    if record.outcome != "ok":
        last = f"\n{record.stderr_tail[0][-1]}" if record.stderr_tail and record.stderr_tail[0] else ""
        raise UserError(f"cell {cell.name} ended as {record.outcome}: {record.reason}{last}")
