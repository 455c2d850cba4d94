"""Run one cell for a few steps and profile some more: `harness profile`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from harness.dataset.batch_plan import MIN_EVALUATION_BATCH
from harness.errors import UserError
from harness.execution.jobs import Environment, TrainJob
from harness.execution.preparation import Preparations
from harness.execution.runner import Runner
from harness.machine.describe import num_ranks, unsupported_reason
from harness.schema.cells import Cell, FineTuneConfig
from harness.schema.record import Record
from harness.schema.step_profile import StepProfile

_NUM_WARMUP = 3  # until AdamW has its state, and DDP its buckets


@dataclass(frozen=True)
class Profiled:
    """What was found.

    Attributes:
        plain_step_s: Median of the same steps without the profiler, on rank 0's clock.
        trace: Opens in Perfetto (ui.perfetto.dev) and chrome://tracing.
    """

    cell: str
    profile: StepProfile
    plain_step_s: float
    trace: Path

    def as_fields(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"profile": self.profile.model_dump(), "trace": str(self.trace)}


def choose_trained(cells: Sequence[Cell]) -> Cell:
    """The first cell that trains.

    Raises:
        UserError: When there is none.
    """
    for cell in cells:
        if isinstance(cell.config, FineTuneConfig):
            return cell
    raise UserError("no cell that trains a model is among these; a baseline has no steps")


def profile_cell(cell: Cell, around: Environment, num_steps: int, folder: Path) -> Profiled:
    """Train a cell for some steps in a process of its own, then the same steps under the profiler.

    Nothing of it becomes a record. A cap on its memory is left out.

    Args:
        folder: Where the trace is written.

    Raises:
        UserError: When this machine can't do the cell, its model or data can't be had, or it did not end well.
        KeyboardInterrupt: When Ctrl-C ended it.
    """
    config = cell.config
    assert isinstance(config, FineTuneConfig)  # noqa: S101 - chosen so
    reason = unsupported_reason(config, around.machine)
    if reason is not None:
        raise UserError(f"cell {cell.name}: {reason}")
    rows = MIN_EVALUATION_BATCH * num_ranks(config, around.machine)
    data, training, limits = config.data, config.training, config.limits
    short = config.model_copy(
        update={
            "data": data.model_copy(update={"num_val": min(data.num_val, rows), "num_test": min(data.num_test, rows)}),
            "training": training.model_copy(
                update={"max_steps": _NUM_WARMUP + num_steps, "eval_every": 1e6, "target_accuracy": None}
            ),
            "limits": limits.model_copy(update={"memory_limit_gib": None, "max_train_s": None}),
        }
    )
    began = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="harness-profile-") as temporary, Runner() as runner:
        prepared = Preparations(Path(temporary)).prepare(cell.model_copy(update={"config": short}))
        assert isinstance(prepared.job, TrainJob)  # noqa: S101 - of a cell that trains
        written = Path(temporary) / "profile"
        job = replace(prepared.job, profile_prefix=str(written), profile_first=_NUM_WARMUP)
        record = runner.run(cell.model_copy(update={"config": short}), replace(prepared, job=job), around)
        _require_ok(record, cell)
        found = StepProfile.model_validate_json(written.with_suffix(".json").read_text(encoding="utf-8"))
        folder.mkdir(parents=True, exist_ok=True)
        trace = folder / f"{cell.name}-{began:%Y%m%dT%H%M%SZ}.json.gz"
        shutil.move(f"{written}.json.gz", trace)
    assert record.training is not None  # noqa: S101 - it ended well
    return Profiled(cell.name, found, median(record.training.steps.seconds[0][_NUM_WARMUP:]), trace)


def _require_ok(record: Record, cell: Cell) -> None:
    if record.outcome == "interrupted":
        raise KeyboardInterrupt
    if record.outcome != "ok":
        last = f"\n{record.stderr_tail[0][-1]}" if record.stderr_tail and record.stderr_tail[0] else ""
        raise UserError(f"cell {cell.name} ended as {record.outcome}: {record.reason}{last}")
