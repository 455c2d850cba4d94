"""The model of the best validation, kept on disk while training goes on."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedModel

from harness.dataset.sources import WEIGHTS_FILE
from harness.execution.messages import TrainHistory
from harness.files import atomic_write_text
from harness.schema.training_record import Evaluation, SavedWeights
from harness.worker.distributed import DistributedContext, any_across_ranks
from harness.worker.safetensors_io import read_weights, write_weights
from harness.worker.train_state import OnProgress

_TRAINED = "trained.safetensors"
# In a checkpoint: the best weights until then, and what is known of them.
_BEST, _BEST_FACTS = "best.safetensors", "best.json"


class BestModelSaver:
    """Writes a model's weights whenever a validation is the best so far, and reads the best ones back at the end.

    Of a training in pieces every checkpoint holds them too, and the last piece's end is the training's.

    All of it happens with the training clock stopped, and every rank waits for the first, so that no step is longer for it.
    A disk that can't take them costs no training: it is said on stderr, and nothing is kept. Of a model that is trained in part
    only that part is written until all is measured: the rest is mapped from the checkpoint, and what no step reads of it would
    come into memory.
    """

    def __init__(
        self, model: PreTrainedModel, folder: Path | None, place: DistributedContext, beat: OnProgress
    ) -> None:
        """`folder` is None where nothing is to be kept."""
        self._model, self._folder, self._place, self._beat = model, folder, place, beat
        self._best: Evaluation | None = None
        self._kept: SavedWeights | None = None
        self._seconds, self._failed = 0.0, False
        self._in_part = not all(parameter.requires_grad for parameter in model.parameters())

    def on_validation(self, trace: TrainHistory) -> None:
        """See the newest validation; of equal ones the first is the best."""
        newest = trace.evaluations[-1]
        if self._folder is None or self._failed or (self._best and newest.accuracy <= self._best.accuracy):
            return
        self._best = newest
        self._write(newest, newest.num_updates)

    def restore(self, trace: TrainHistory) -> None:
        """Make the model the kept one; where there was no validation at all, keep it as it is."""
        if self._folder is None or self._failed or trace.diverged or trace.stopped:
            return
        num_updates = len(trace.num_samples)
        if self._best is None:
            self._write(None, num_updates)
        elif self._best.num_updates != num_updates:
            began = time.perf_counter()
            read_weights(self._model, self._folder / self._name, self._beat, trained_only=self._in_part)
            self._seconds += time.perf_counter() - began

    def finish(self, trace: TrainHistory) -> SavedWeights | None:
        """Write what was left out, when all is measured; give what was kept, and the seconds of it all, on rank 0."""
        if trace.stopped:
            return None
        if self._in_part and self._kept is not None and self._folder is not None:
            if self._place.rank == 0:  # as it was then, whatever came after: training may have diverged
                read_weights(self._model, self._folder / _TRAINED, self._beat, trained_only=True)
            self._in_part = False
            self._write(self._best, self._kept.num_updates, alone=True)
            (self._folder / _TRAINED).unlink(missing_ok=True)
        return self._kept and self._kept.model_copy(update={"keep_s": self._seconds})

    def write_to(self, checkpoint: Path) -> list[str]:
        """Leave the best so far in a checkpoint, on rank 0; give the files' names.

        Raises:
            OSError: When they can't be written.
        """
        if self._folder is None or self._kept is None or self._best is None:
            return []
        _link_or_copy(self._folder / self._name, checkpoint / _BEST)
        kept = self._kept.model_copy(update={"keep_s": self._seconds})
        told = {"validation": self._best.model_dump(mode="json"), "kept": kept.model_dump(mode="json")}
        atomic_write_text(checkpoint / _BEST_FACTS, json.dumps(told))
        return [_BEST, _BEST_FACTS]

    def resume(self, checkpoint: Path, before: TrainHistory) -> None:
        """Take what `write_to` left, on every rank; nothing is kept where the best until then could not be."""
        if self._folder is None:
            return
        facts = checkpoint / _BEST_FACTS
        if not facts.is_file():
            self._failed = bool(before.evaluations)
            return
        told = json.loads(facts.read_text(encoding="utf-8"))
        self._best = Evaluation.model_validate(told["validation"])
        self._seconds = told["kept"]["keep_s"]
        self._attempt(lambda: self._take(checkpoint / _BEST, SavedWeights.model_validate(told["kept"])))

    @property
    def _name(self) -> str:
        return _TRAINED if self._in_part else WEIGHTS_FILE

    def _write(self, seen: Evaluation | None, num_updates: int, *, alone: bool = False) -> None:
        self._attempt(lambda: self._write_files(seen, num_updates), alone=alone)

    def _attempt(self, work: Callable[[], None], *, alone: bool = False) -> None:
        """Have rank 0 do what a full disk may prevent; unless it is `alone`, all ranks wait, and know how it went."""
        began, failed = time.perf_counter(), False
        if self._place.rank == 0:
            try:
                work()
            except OSError:
                traceback.print_exc()
                sys.stderr.write("the model can't be kept; training goes on\n")
                failed, self._kept = True, None
        self._failed = failed if alone else any_across_ranks(failed, self._place)
        self._seconds += time.perf_counter() - began

    def _write_files(self, seen: Evaluation | None, num_updates: int) -> None:
        assert self._folder is not None  # noqa: S101 - asked before
        if self._kept is None:
            self._write_config(self._folder)
        told = {} if seen is None else {"validation": seen.model_dump_json()}
        path = self._folder / self._name
        sha256, num_bytes = write_weights(self._model, path, told, self._beat, trained_only=self._in_part)
        self._kept = SavedWeights(num_updates=num_updates, sha256=sha256, num_bytes=num_bytes, keep_s=0.0)

    def _take(self, weights: Path, kept: SavedWeights) -> None:
        assert self._folder is not None  # noqa: S101 - asked before
        self._write_config(self._folder)
        _link_or_copy(weights, self._folder / self._name)
        self._kept = kept

    def _write_config(self, folder: Path) -> None:
        self._model.config.architectures = [type(self._model).__name__]
        self._model.config.save_pretrained(folder)


def _link_or_copy(source: Path, target: Path) -> None:
    """Give a file, which is replaced but never altered, a second name; on another file system a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
