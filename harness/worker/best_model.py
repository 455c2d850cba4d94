"""The model of the best validation, kept on disk while training continues."""

from __future__ import annotations

import json
import os
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedModel

from harness.dataset.model_folder import WEIGHTS_FILE
from harness.execution.messages import TrainHistory
from harness.files import atomic_write_text
from harness.schema.training_record import Evaluation, SavedWeights
from harness.worker.distributed import any_across_ranks, copy_from_rank_0
from harness.worker.safetensors_io import read_weights, write_weights
from harness.worker.train_state import TrainContext

_TRAINED_WEIGHTS = "trained.safetensors"
# Files inside a checkpoint: the best weights so far, and their validation.
_BEST_WEIGHTS, _BEST_FACTS = "best.safetensors", "best.json"


class BestModelSaver:
    """Saves the weights after each validation that is the best so far, and restores the best weights at the end.

    Checkpoints of a resumable training include the best weights so far.

    Rank 0 saves while the training clock is stopped and all other ranks wait, so no step takes longer. If the weights can't
    be written, training continues, the user is told, and no model is kept. For a partly frozen model, only the trained part is
    written until the measurement is over: the frozen part is mapped from the pretrained model's file, and reading it would
    bring pages into memory that no step needs.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        folder: Path | None,
        context: TrainContext,
        on_failure: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Save to `folder`; with None, save nothing. `on_failure` is called once, with the reason, if saving fails."""
        self._model, self._folder, self._context, self._on_failure = model, folder, context, on_failure
        self._best: Evaluation | None = None
        self._saved: SavedWeights | None = None
        self._seconds, self._failed = 0.0, False
        self._trained_only = not all(parameter.requires_grad for parameter in model.parameters())

    def on_validation(self, history: TrainHistory) -> None:
        """Save the weights if the latest validation is better than every earlier one."""
        latest = history.evaluations[-1]
        if self._folder is None or self._failed or (self._best and latest.accuracy <= self._best.accuracy):
            return
        self._best = latest
        self._save(latest, latest.num_updates)

    def restore(self, history: TrainHistory) -> None:
        """Load the best weights into the model; if there was no validation, save the model as it is."""
        if self._folder is None or self._failed or history.diverged or history.stopped:
            return
        num_updates = len(history.num_samples)
        if self._best is None:
            self._save(None, num_updates)
        elif self._best.num_updates != num_updates:
            began = time.perf_counter()
            distributed = self._context.distributed
            if distributed.rank == 0 or not distributed.over_machines:
                self._read(self._folder / self._weights_name)
            if distributed.over_machines:  # the file is on rank 0's disk alone
                copy_from_rank_0(self._model)
            self._seconds += time.perf_counter() - began

    def finish(self, history: TrainHistory) -> SavedWeights | None:
        """Write the whole model after all measurements, if only its trained part was saved so far.

        Returns:
            On rank 0, the facts of the saved weights, with the seconds that all saving took. None on other ranks, or if
            nothing was saved.
        """
        if history.stopped:
            return None
        if self._trained_only and self._saved is not None and self._folder is not None:
            if self._context.rank == 0:  # after a divergence, `restore` did not load these weights
                self._read(self._folder / _TRAINED_WEIGHTS)
            self._trained_only = False
            num_updates = self._saved.num_updates
            self._attempt(lambda: self._write_files(self._best, num_updates), alone=True)
            (self._folder / _TRAINED_WEIGHTS).unlink(missing_ok=True)
        return self._saved and self._saved.model_copy(update={"keep_s": self._seconds})

    def write_to(self, checkpoint: Path) -> list[str]:
        """Add the best weights so far to a checkpoint; called on rank 0 only.

        Returns:
            The names of the added files.

        Raises:
            OSError: If a file can't be written.
        """
        if self._folder is None or self._saved is None or self._best is None:
            return []
        _link_or_copy(self._folder / self._weights_name, checkpoint / _BEST_WEIGHTS)
        saved = self._saved.model_copy(update={"keep_s": self._seconds})
        facts = {"validation": self._best.model_dump(mode="json"), "kept": saved.model_dump(mode="json")}
        atomic_write_text(checkpoint / _BEST_FACTS, json.dumps(facts))
        return [_BEST_WEIGHTS, _BEST_FACTS]

    def resume(self, checkpoint: Path, history: TrainHistory) -> None:
        """Take over the best weights from a checkpoint; called on every rank.

        If earlier segments validated but could not save the weights, this segment saves none either.
        """
        if self._folder is None:
            return
        path = checkpoint / _BEST_FACTS
        if not path.is_file():
            self._failed = bool(history.evaluations)
            if self._failed and self._context.rank == 0:
                self._on_failure("an earlier part of this training could not save it")
            return
        facts = json.loads(path.read_text(encoding="utf-8"))
        self._best = Evaluation.model_validate(facts["validation"])
        self._seconds = facts["kept"]["keep_s"]
        saved = SavedWeights.model_validate(facts["kept"])
        self._attempt(lambda: self._copy_from(checkpoint / _BEST_WEIGHTS, saved))

    @property
    def _weights_name(self) -> str:
        return _TRAINED_WEIGHTS if self._trained_only else WEIGHTS_FILE

    def _read(self, path: Path) -> None:
        read_weights(self._model, path, self._context.heartbeat, trained_only=self._trained_only)

    def _save(self, validation: Evaluation | None, num_updates: int) -> None:
        self._attempt(lambda: self._write_files(validation, num_updates))

    def _attempt(self, work: Callable[[], None], *, alone: bool = False) -> None:
        """Run `work` on rank 0; an OSError, such as of a full disk, stops all saving but not the training.

        Unless `alone`, all ranks wait for rank 0 and learn whether `work` failed.
        """
        began, failed = time.perf_counter(), False
        if self._context.rank == 0:
            try:
                work()
            except OSError as error:
                traceback.print_exc()
                self._on_failure(error.strerror or str(error))
                failed, self._saved = True, None
        self._failed = failed if alone else any_across_ranks(failed, self._context.distributed)
        self._seconds += time.perf_counter() - began

    def _write_files(self, validation: Evaluation | None, num_updates: int) -> None:
        assert self._folder is not None  # noqa: S101 - checked by the callers
        if self._saved is None:
            self._write_config(self._folder)
        metadata = {} if validation is None else {"validation": validation.model_dump_json()}
        path = self._folder / self._weights_name
        sha256, num_bytes = write_weights(
            self._model, path, metadata, self._context.heartbeat, trained_only=self._trained_only
        )
        self._saved = SavedWeights(num_updates=num_updates, sha256=sha256, num_bytes=num_bytes, keep_s=0.0)

    def _copy_from(self, weights: Path, saved: SavedWeights) -> None:
        assert self._folder is not None  # noqa: S101 - checked by the callers
        self._write_config(self._folder)
        _link_or_copy(weights, self._folder / self._weights_name)
        self._saved = saved

    def _write_config(self, folder: Path) -> None:
        self._model.config.architectures = [type(self._model).__name__]
        self._model.config.save_pretrained(folder)


def _link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it if it can't be linked, such as to another file system.

    A link is safe: weight files are replaced later, but never modified.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
