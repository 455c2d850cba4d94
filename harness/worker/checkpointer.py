"""Save and resume a training: decide when a checkpoint is due, and write it with all ranks."""

from __future__ import annotations

import json
import platform
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from harness import __version__
from harness.execution.jobs import TrainJob
from harness.execution.messages import StopRequest, TrainHistory
from harness.execution.stop_flag import StopFlag, StopReason
from harness.files import atomic_write_text
from harness.machine.describe import package_version
from harness.schema.training_record import AttentionChoice, Checkpoint, PeakMemory, Segment
from harness.store.checkpoint_files import (
    FORMAT_VERSION,
    FileDigest,
    Manifest,
    begin,
    commit,
    digest_file,
    discard,
    earlier_segments,
    write_save_time,
    writing_folder,
)
from harness.worker.best_model import BestModelSaver
from harness.worker.checkpoint_state import (
    MODEL_FILE,
    OPTIMIZER_FILE,
    STATE_FILE,
    history_as_json,
    history_from_json,
    restore_train_state,
    rng_states,
    set_rng_states,
    write_train_state,
)
from harness.worker.distributed import Value, all_gather_object
from harness.worker.meters import Meters
from harness.worker.train_state import TrainContext, TrainState

_PACKAGES = ("torch", "transformers", "safetensors", "numpy")
# A rank requests nothing, a checkpoint, or, by the value of a `StopReason`, a checkpoint and a stop. The highest of all
# ranks' requests is carried out.
_NOTHING, _CHECKPOINT = -1, 0


class Checkpointer:
    """Saves checkpoints of a resumable training, and stops it when a limit is reached or a stop is requested.

    All ranks call its methods between the same steps, and all get the same answer. Every start or resumption of the training
    begins a new segment.

    Attributes:
        history: The log of the training's earlier segments.
        attention_choice: The attention that the first segment chose, which each checkpoint holds.
    """

    def __init__(
        self,
        job: TrainJob,
        state: TrainState,
        context: TrainContext,
        meters: Meters,
        best: BestModelSaver,
        on_failure: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Prepare to save and restore.

        Args:
            job: The training job; its `resume` must be set.
            state: The model and optimizer state to save, and to restore in place.
            context: Configuration and ranks.
            meters: The meters whose readings are saved and restored too.
            best: The saver that adds the best weights so far to each checkpoint.
            on_failure: Called with the reason if a checkpoint can't be written; once, at the first failure.
        """
        assert job.resume is not None  # noqa: S101 - created for resumable trainings only
        self._plan, self._submitted_at = job.resume, job.submitted_at
        self._state, self._context, self._meters, self._best = state, context, meters, best
        self._num_planned = context.num_updates
        self._stop_flag, self._on_failure = StopFlag(job.resume.stop_flag), on_failure
        self._has_failed = False
        self.history = TrainHistory()
        self.attention_choice: AttentionChoice | None = None
        self._first_update, self._num_rows, self._request = 0, 0, _NOTHING
        self._started_at, self._saved_at = datetime.now(UTC), time.perf_counter()
        self._earlier_segments: tuple[Segment, ...] = ()
        self._checkpoints: list[Checkpoint] = []
        self._restore_s: float | None = None
        self._start_s = self._load_s = 0.0

    def resume(self, began: float) -> None:
        """Restore the state that the previous segment saved, if there was one.

        Args:
            began: When this rank's process began, on the clock of `time.perf_counter`.
        """
        if self._plan.resume_from is not None:
            restoring = time.perf_counter()
            self._restore(self._plan.resume_from)
            self._restore_s = time.perf_counter() - restoring
        self._saved_at = time.perf_counter()
        self._start_s, self._load_s = began - self._submitted_at, self._saved_at - began

    def _restore(self, checkpoint: Path) -> None:
        self._earlier_segments = earlier_segments(checkpoint)
        restore_train_state(self._state, checkpoint)
        rank_state = json.loads((checkpoint / _rank_file(self._context.rank)).read_text(encoding="utf-8"))
        self._meters.timer.resume(rank_state["seconds"])
        self._meters.memory.resume(PeakMemory.model_validate(peak) for peak in rank_state["peaks"])
        self.history = history_from_json(rank_state["history"])
        self._first_update = len(self.history.num_samples)
        chosen = rank_state.get("attention_choice")
        self.attention_choice = None if chosen is None else AttentionChoice.model_validate(chosen)
        self._best.resume(checkpoint, self.history)
        # Restored last, since the calls above may draw random numbers.
        set_rng_states(rank_state["random"], self._context.device)

    def should_save(self, history: TrainHistory) -> bool:
        """Return whether any rank requests a checkpoint, with or without a stop; called outside timed steps."""
        self._num_rows += history.num_samples[-1]
        requests = all_gather_object((self._poll_request(), self._num_rows), self._context.distributed)
        self._request = max(request for request, _ in requests)
        max_rows = self._plan.max_rows
        if max_rows is not None and sum(rows for _, rows in requests) >= max_rows:
            self._request = max(self._request, StopReason.ROW_LIMIT)
        return self._request > _NOTHING

    def save(self, history: TrainHistory) -> None:
        """Write a checkpoint, and set `history.stopped` if this segment ends with it.

        If the checkpoint can't be written, the error goes to stderr, and the first such error to the user. Training then
        continues, unless a stop was requested.
        """
        began, num_updates = time.perf_counter(), len(history.num_samples)
        failure: str | None = None
        try:
            with self._meters.memory.paused(), self._context.keepalive():
                path = self._write(history)
        except OSError as error:
            traceback.print_exc()
            failure = str(error)
            if self._context.rank == 0:
                discard(self._plan.folder, num_updates)
            if not self._has_failed:
                self._has_failed = True
                self._on_failure(failure)
        else:
            seconds = time.perf_counter() - began
            self._checkpoints[-1] = self._checkpoints[-1].model_copy(update={"seconds": seconds})
            if path is not None:
                write_save_time(path, seconds)
        self._saved_at = time.perf_counter()
        is_finished = num_updates == self._num_planned or history.stopped_early is not None
        if self._request > _CHECKPOINT and not is_finished:
            history.stopped = StopRequest(StopReason(self._request), num_updates, self._num_planned, failure)

    def segments(self, num_updates: int) -> tuple[Segment, ...]:
        """Return the earlier segments and, last, the current one, which ends after `num_updates` updates of the training."""
        current = Segment(
            first_update=self._first_update,
            num_updates=num_updates - self._first_update,
            started_at=self._started_at,
            machine=self._plan.machine,
            host=self._plan.host,
            torch_build=str(torch.__version__),
            start_s=self._start_s,
            load_s=self._load_s,
            restore_s=self._restore_s,
            checkpoints=tuple(self._checkpoints),
        )
        return (*self._earlier_segments, current)

    def _poll_request(self) -> int:
        now, plan = time.perf_counter(), self._plan
        if (reason := self._stop_flag.reason()) is not None:
            return reason
        if plan.max_s is not None and now - self._submitted_at >= plan.max_s:
            return StopReason.TIME_LIMIT
        return _CHECKPOINT if now - self._saved_at >= plan.save_interval_s else _NOTHING

    def _write(self, history: TrainHistory) -> Path | None:
        """Write a checkpoint with all ranks; return its folder on rank 0.

        Raises:
            OSError: If any rank failed; every rank then raises it.
        """
        folder, num_updates, is_first = self._plan.folder, len(history.num_samples), self._context.rank == 0
        self._collective(lambda: begin(folder, num_updates) if is_first else None)
        digests = self._collective(lambda: self._write_rank_files(writing_folder(folder, num_updates), history))
        files = {name: digest for rank_digests in digests for name, digest in rank_digests.items()}
        num_bytes = sum(digest.num_bytes for digest in files.values())
        self._checkpoints.append(Checkpoint(num_updates=num_updates, seconds=None, num_bytes=num_bytes))
        try:
            paths = self._collective(lambda: commit(folder, self._manifest(num_updates, files)) if is_first else None)
        except OSError:
            self._checkpoints.pop()
            raise
        return paths[self._context.rank]

    def _write_rank_files(self, folder: Path, history: TrainHistory) -> dict[str, FileDigest]:
        """Write this rank's own state; on rank 0, also the state that all ranks share."""
        rank_state = {
            "history": history_as_json(history),
            "seconds": self._meters.timer.seconds(),
            "peaks": [peak.model_dump() for peak in self._meters.memory.peaks_before_pause()],
            "random": rng_states(self._context.device),
            "attention_choice": self.attention_choice and self.attention_choice.model_dump(),
        }
        names = [_rank_file(self._context.rank)]
        atomic_write_text(folder / names[0], json.dumps(rank_state))
        if self._context.rank == 0:
            write_train_state(self._state, folder)
            names += [MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, *self._best.write_to(folder)]
        return {name: digest_file(folder / name) for name in names}

    def _manifest(self, num_updates: int, files: dict[str, FileDigest]) -> Manifest:
        return Manifest(
            format_version=FORMAT_VERSION,
            harness_version=__version__,
            versions={name: package_version(name) for name in _PACKAGES} | {"python": platform.python_version()},
            written_at=datetime.now(UTC),
            identity=self._plan.identity,
            num_updates=num_updates,
            num_updates_planned=self._num_planned,
            segments=self.segments(num_updates),
            files=files,
        )

    def _collective(self, work: Callable[[], Value]) -> list[Value]:
        """Run `work` on every rank and return all results; if it fails on one rank, fail on all.

        Raises:
            OSError: With the message of the first rank that failed.
        """
        own: tuple[Any, str | None]
        try:
            own = work(), None
        except (OSError, SafetensorError) as error:
            own = None, f"{type(error).__name__}: {error}"
        outcomes: list[tuple[Any, str | None]] = all_gather_object(own, self._context.distributed)
        if failures := [failure for _, failure in outcomes if failure]:
            raise OSError(failures[0])
        return [value for value, _ in outcomes]


def _rank_file(rank: int) -> str:
    return f"rank{rank}.json"
