"""A training's whole state to files and back: weights, optimiser, scaler, schedule, random states, and what was seen."""

from __future__ import annotations

import json
import math
import platform
import random
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from harness import __version__
from harness.execution.heartbeat import Heartbeat
from harness.execution.jobs import TrainJob
from harness.execution.messages import StopRequest, TrainHistory
from harness.execution.stop_flag import StopFlag, StopReason
from harness.files import atomic_write_text
from harness.machine.describe import package_version
from harness.schema.training_record import Checkpoint, Evaluation, PeakMemory, Segment
from harness.store.checkpoint_files import (
    FORMAT_VERSION,
    FileDigest,
    Manifest,
    begin,
    commit,
    digest_file,
    earlier_segments,
    write_save_time,
    writing_folder,
)
from harness.worker.best_model import BestModelSaver
from harness.worker.distributed import DistributedContext, Told, all_gather_object
from harness.worker.meters import MemoryMeter, StepTimer
from harness.worker.train_state import TrainState

_WEIGHTS, _OPTIMIZER, _STATE = "model.safetensors", "optimizer.safetensors", "state.json"
_VERSIONS = ("torch", "transformers", "safetensors", "numpy")
# A rank's request, the strongest last: nothing, a checkpoint, or a checkpoint and a stop for a `StopReason`.
_NOTHING, _CHECKPOINT = -1, 0


class CheckpointWriter:
    """Says between steps when a checkpoint is due, writes it, and ends the piece where that is asked for.

    All ranks ask it between the same steps, and agree.
    """

    def __init__(
        self,
        job: TrainJob,
        trainee: TrainState,
        place: DistributedContext,
        timer: StepTimer,
        memory: MemoryMeter,
        num_planned: int,
        pulse: Heartbeat | None,
        best: BestModelSaver,
    ) -> None:
        assert job.resume is not None  # noqa: S101 - what a keeper is made for
        self._pieces, self._ordered_at = job.resume, job.submitted_at
        self._trainee, self._place, self._timer, self._memory = trainee, place, timer, memory
        self._num_planned, self._pulse, self._best = num_planned, pulse, best
        self._stop = StopFlag(job.resume.stop_flag)
        self.before = TrainHistory()
        self._first, self._num_rows, self._wish = 0, 0, _NOTHING
        self._started_at, self._kept_at = datetime.now(UTC), time.perf_counter()
        self._earlier: tuple[Segment, ...] = ()
        self._written: list[Checkpoint] = []
        self._restore_s: float | None = None
        self._start_s = self._load_s = 0.0

    def resume(self, began: float) -> None:
        """Put everything that training moves as the piece before left it, if there was one.

        Args:
            began: When this rank did, on perf_counter's clock.
        """
        if self._pieces.resume_from is not None:
            restoring = time.perf_counter()
            self._restore(self._pieces.resume_from)
            self._restore_s = time.perf_counter() - restoring
        self._kept_at = time.perf_counter()
        self._start_s, self._load_s = began - self._ordered_at, self._kept_at - began

    def _restore(self, source: Path) -> None:
        self._earlier = earlier_segments(source)
        _restore_train_state(self._trainee, source)
        told = json.loads((source / _rank_file(self._place.rank)).read_text(encoding="utf-8"))
        self._timer.resume(told["seconds"])
        self._memory.resume(PeakMemory.model_validate(peak) for peak in told["peaks"])
        self.before = _history_from(told["trace"])
        self._first = len(self.before.num_samples)
        self._best.resume(source, self.before)
        _set_rng_states(told["random"], self._place.device)  # last: what was done above may have drawn numbers

    def should_save(self, trace: TrainHistory) -> bool:
        """Whether any rank wishes for a checkpoint now, or for one and an end."""
        self._num_rows += trace.num_samples[-1]
        told = all_gather_object((self._wishes_for(), self._num_rows), self._place)
        self._wish = max(wish for wish, _ in told)
        limit = self._pieces.max_rows
        if limit is not None and sum(rows for _, rows in told) >= limit:
            self._wish = max(self._wish, StopReason.ROW_LIMIT)
        return self._wish > _NOTHING

    def save(self, trace: TrainHistory) -> None:
        """Write a checkpoint. One that can't be written is said in the rank's output, and training goes on."""
        began, num_updates = time.perf_counter(), len(trace.num_samples)
        failure: str | None = None
        at_work = self._pulse.keepalive(self._place.rank) if self._pulse else nullcontext()
        try:
            with self._memory.looking_away(), at_work:
                path = self._write(trace)
        except OSError as error:
            traceback.print_exc()
            failure = str(error)
        else:
            seconds = time.perf_counter() - began
            self._written[-1] = self._written[-1].model_copy(update={"seconds": seconds})
            if path is not None:
                write_save_time(path, seconds)
        self._kept_at = time.perf_counter()
        is_done = num_updates == self._num_planned or trace.stopped_early is not None
        if self._wish > _CHECKPOINT and not is_done:
            trace.stopped = StopRequest(StopReason(self._wish), num_updates, self._num_planned, failure)

    def segments(self, num_updates: int) -> tuple[Segment, ...]:
        """The pieces of this training, this one last."""
        own = Segment(
            first_update=self._first,
            num_updates=num_updates - self._first,
            started_at=self._started_at,
            machine=self._pieces.machine,
            host=self._pieces.host,
            torch_build=str(torch.__version__),
            start_s=self._start_s,
            load_s=self._load_s,
            restore_s=self._restore_s,
            checkpoints=tuple(self._written),
        )
        return (*self._earlier, own)

    def _wishes_for(self) -> int:
        now, pieces = time.perf_counter(), self._pieces
        if (reason := self._stop.reason()) is not None:
            return reason
        if pieces.max_s is not None and now - self._ordered_at >= pieces.max_s:
            return StopReason.TIME_LIMIT
        return _CHECKPOINT if now - self._kept_at >= pieces.save_interval_s else _NOTHING

    def _write(self, trace: TrainHistory) -> Path | None:
        """Write a checkpoint with all ranks; give its folder to rank 0.

        Raises:
            OSError: On every rank, when one of them could not.
        """
        folder, num_updates, is_first = self._pieces.folder, len(trace.num_samples), self._place.rank == 0
        self._together(lambda: begin(folder, num_updates) if is_first else None)
        parts = self._together(lambda: self._write_own(writing_folder(folder, num_updates), trace))
        files = {name: sealed for part in parts for name, sealed in part.items()}
        num_bytes = sum(sealed.num_bytes for sealed in files.values())
        self._written.append(Checkpoint(num_updates=num_updates, seconds=None, num_bytes=num_bytes))
        try:
            return self._together(lambda: commit(folder, self._manifest(num_updates, files)) if is_first else None)[
                self._place.rank
            ]
        except OSError:
            self._written.pop()
            raise

    def _write_own(self, writing: Path, trace: TrainHistory) -> dict[str, FileDigest]:
        """Write what this rank knows; rank 0 what is the same on all of them, too."""
        told = {
            "trace": _history_fields(trace),
            "seconds": self._timer.seconds(),
            "peaks": [peak.model_dump() for peak in self._memory.peaks_so_far()],
            "random": _rng_states(self._place.device),
        }
        names = [_rank_file(self._place.rank)]
        atomic_write_text(writing / names[0], json.dumps(told))
        if self._place.rank == 0:
            _write_train_state(self._trainee, writing)
            names += [_WEIGHTS, _OPTIMIZER, _STATE, *self._best.write_to(writing)]
        return {name: digest_file(writing / name) for name in names}

    def _manifest(self, num_updates: int, files: dict[str, FileDigest]) -> Manifest:
        return Manifest(
            format_version=FORMAT_VERSION,
            harness_version=__version__,
            versions={name: package_version(name) for name in _VERSIONS} | {"python": platform.python_version()},
            written_at=datetime.now(UTC),
            identity=self._pieces.identity,
            num_updates=num_updates,
            num_updates_planned=self._num_planned,
            segments=self.segments(num_updates),
            files=files,
        )

    def _together(self, work: Callable[[], Told]) -> list[Told]:
        """Do a part of the work on every rank, and go on when all have: what fails on one fails on all.

        Raises:
            OSError: With the words of the rank that failed.
        """
        own: tuple[Any, str | None]
        try:
            own = work(), None
        except (OSError, SafetensorError) as error:
            own = None, f"{type(error).__name__}: {error}"
        told: list[tuple[Any, str | None]] = all_gather_object(own, self._place)
        if failures := [failure for _, failure in told if failure]:
            raise OSError(failures[0])
        return [value for value, _ in told]


def _rank_file(rank: int) -> str:
    return f"rank{rank}.json"


def _write_train_state(trainee: TrainState, folder: Path) -> None:
    """Write what all ranks have alike."""
    optimizer = trainee.optimizer.state_dict()
    moments = {
        f"{index}.{name}": value.contiguous()
        for index, state in optimizer["state"].items()
        for name, value in state.items()
        if isinstance(value, torch.Tensor)  # without momentum SGD's is None
    }
    save_file({name: parameter.detach() for name, parameter in trainee.model.named_parameters()}, folder / _WEIGHTS)
    save_file(moments, folder / _OPTIMIZER)
    told = {
        "learning_rates": [group["lr"] for group in optimizer["param_groups"]],
        "schedule": trainee.schedule.state_dict(),
        "scaler": trainee.scaler.state_dict(),
        "num_skipped": float(trainee.num_skipped),
    }
    atomic_write_text(folder / _STATE, json.dumps(told))


def _restore_train_state(trainee: TrainState, folder: Path) -> None:
    """Read what `_write_trainee` wrote, each weight to where it is: the sums of another place may differ in a bit."""
    weights = load_file(folder / _WEIGHTS)
    with torch.no_grad():
        for name, parameter in trainee.model.named_parameters():
            parameter.copy_(weights.pop(name))
    told = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    state: defaultdict[int, dict[str, torch.Tensor]] = defaultdict(dict)
    for key, value in load_file(folder / _OPTIMIZER).items():
        index, _, name = key.partition(".")
        state[int(index)][name] = value.clone()  # from the mapped file to memory of its own
    groups = trainee.optimizer.state_dict()["param_groups"]
    rates = told["learning_rates"]
    trainee.optimizer.load_state_dict(
        {"state": dict(state), "param_groups": [group | {"lr": lr} for group, lr in zip(groups, rates, strict=True)]}
    )
    trainee.schedule.load_state_dict(told["schedule"])
    if told["scaler"]:
        trainee.scaler.load_state_dict(told["scaler"])
    trainee.num_skipped.fill_(told["num_skipped"])


def _rng_states(device: torch.device) -> dict[str, Any]:
    version, words, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
        "cuda": torch.cuda.get_rng_state(device).numpy().tobytes().hex() if device.type == "cuda" else None,
    }


def _set_rng_states(told: dict[str, Any], device: torch.device) -> None:
    version, words, gauss = told["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = told["numpy"]
    np.random.set_state((kind, np.asarray(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(_bytes_of(told["torch"]))
    if device.type == "cuda" and told["cuda"] is not None:
        torch.cuda.set_rng_state(_bytes_of(told["cuda"]), device)


def _bytes_of(digits: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(digits), dtype=torch.uint8)


def _history_fields(trace: TrainHistory) -> dict[str, Any]:
    told = {field.name: getattr(trace, field.name) for field in fields(TrainHistory) if field.name != "stopped"}
    told["evaluations"] = [one.model_dump() for one in trace.evaluations]
    # JSON has no word for what is no finite number.
    told["loss_sums"] = [loss if math.isfinite(loss) else str(loss) for loss in trace.loss_sums]
    return told


def _history_from(told: dict[str, Any]) -> TrainHistory:
    evaluations = [Evaluation.model_validate(one) for one in told["evaluations"]]
    return TrainHistory(**told | {"evaluations": evaluations, "loss_sums": [float(loss) for loss in told["loss_sums"]]})
