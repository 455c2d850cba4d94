"""Cells to records: start, wait, time out, reap every descendant, classify."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from multiprocessing import connection
from pathlib import Path
from typing import Any, Literal

import psutil

from harness.execution.assemble import (
    GIB,
    baseline_result,
    blank_record,
    checksum_mismatch,
    cuda_memory_cap,
    held_bytes_by_step,
    merge_ranks,
    phase_times,
    progress_marks,
    total_cpu_s,
)
from harness.execution.heartbeat import HangDetector, Heartbeat
from harness.execution.jobs import Environment, Job, PreparedCell, Progress, TrainJob
from harness.execution.memory_cap import MemoryCap, OomKillCounter
from harness.execution.memory_sampler import MemorySampler
from harness.execution.outcome import GRACEFUL, classify_outcome
from harness.execution.rank_process import RankProcess, receive_messages
from harness.machine.describe import num_gpus_used, num_ranks, num_threads, unsupported_reason
from harness.machine.energy_meter import EnergyMeter
from harness.machine.gpu_monitor import GpuMonitor
from harness.machine.load_monitor import LoadMonitor
from harness.machine.scrub import scrubbed_tail
from harness.schema.cells import Cell, FineTuneConfig
from harness.schema.host_record import Machine
from harness.schema.record import Record

StartMethod = Literal["forkserver", "spawn"]


_WORKER = "harness.worker.main"


_TERMINATE_S = 3.0


_LAST_NEWS_S = 0.5


_TICK_S = 1.0


class Runner:
    """Starts cells, one at a time, from a warm process that has torch and the model classes loaded.

    A context: nothing that it started is left when it is left.
    """

    def __init__(self, start_method: StartMethod | None = None, preload: tuple[str, ...] = ()) -> None:
        self._preload = (_WORKER, *preload)
        # macOS's system libraries do not survive a fork.
        self.start_method: StartMethod = start_method or ("forkserver" if sys.platform == "linux" else "spawn")
        self._context: Any = multiprocessing.get_context(self.start_method)
        self._ranks: list[RankProcess] = []
        self._watch: HangDetector | None = None
        self._cage: MemoryCap | None = None
        self._census: MemorySampler | None = None
        self._load: LoadMonitor | None = None
        self._gpus, self._energy = GpuMonitor(0), EnergyMeter(0)
        self._folder = tempfile.TemporaryDirectory(prefix="harness-")

    def __enter__(self) -> Runner:
        """Begin to load torch in the forkserver; returns at once."""
        if self.start_method == "forkserver":
            self._context.set_forkserver_preload(list(self._preload))
            with _without_main():
                multiprocessing.forkserver.ensure_running()
        return self

    def __exit__(self, *exception: object) -> None:
        """End what still runs."""
        self._end_ranks()
        self._folder.cleanup()

    def wait_until_warm(self) -> None:
        """Return when the forkserver has loaded all: the first cell then starts as quickly as the others."""
        if self.start_method == "forkserver":
            with _without_main():
                process = self._context.Process(target=_do_nothing)
                process.start()
            process.join()

    def run(
        self, cell: Cell, prepared: PreparedCell, around: Environment, on_progress: Progress = lambda _: None
    ) -> Record:
        """Run one cell alone and return its record, whatever becomes of it; Ctrl-C makes it `interrupted`."""
        reason = unsupported_reason(cell.config, around.machine)
        if reason is not None:
            return blank_record(cell, around, "unsupported", reason).model_copy(update={"data": prepared.data})
        num_gpus = num_gpus_used(cell.config, around.machine)
        kills = OomKillCounter()
        load = self._load = LoadMonitor(num_gpus)
        self._gpus, self._energy = GpuMonitor(num_gpus), EnergyMeter(num_gpus)
        started_at, ordered_at = datetime.now(UTC), time.perf_counter()
        self._energy.begin(0.0)
        try:
            self._start(cell, prepared.job, around.machine, ordered_at)
            outcome, reason = self._wait(ordered_at, _timeout_s(cell, prepared.job), on_progress, kills)
        except KeyboardInterrupt:
            outcome, reason = "interrupted", "stopped by the user"
        duration_s = time.perf_counter() - ordered_at
        self._energy.end(duration_s)
        ranks, start_method = self._ranks, "fresh" if self._cage else self.start_method
        cap = self._cage.cap() if self._cage else cuda_memory_cap(cell) if num_gpus else None
        peaks = self._census.peaks() if self._census else ()
        self._end_ranks()
        ends = [rank.end or {} for rank in ranks]
        training = merge_ranks(ranks, prepared, cell, peaks)
        record = blank_record(cell, around, outcome, reason).model_copy(
            update={
                "started_at": started_at,
                "duration_s": duration_s,
                "stderr_tail": tuple(scrubbed_tail(rank.stderr) for rank in ranks),
                "phases": phase_times(ranks, prepared),
                "load": load.snapshot(total_cpu_s(ends)),
                "start_method": start_method,
                "cap": cap,
                "data": prepared.data,
                "model": ends[0].get("model") if ends else None,
                "baseline": baseline_result(ends[0], peaks) if ends else None,
                "marks": progress_marks(ranks),
                "held_bytes": () if training else held_bytes_by_step(ranks),
                "gpu_readings": tuple(self._gpus.readings),
                "energy": self._energy.energy(),
                "training": training,
            }
        )
        mismatch = checksum_mismatch(ends)
        if mismatch:
            record = record.model_copy(update={"outcome": "crashed", "reason": mismatch})
        # Checked as a whole once more: model_copy trusts what it is given.
        return Record.model_validate(record.model_dump())

    def _start(self, cell: Cell, job: Job, machine: Machine, ordered_at: float) -> None:
        # Resolved here so that the child finds the module in the forkserver's memory, and the parent never imports it.
        world_size = num_ranks(cell.config, machine) if isinstance(cell.config, FineTuneConfig) else 1
        token = f"{time.monotonic_ns():x}"
        pulse = Path(self._folder.name) / f"{token}-pulse"
        Heartbeat(pulse, world_size).close()
        context, limit = self._context, cell.config.limits.memory_limit_gib
        if limit is not None and not num_gpus_used(cell.config, machine):
            self._cage = MemoryCap(int(limit * GIB), world_size, Path(self._folder.name))
            context = multiprocessing.get_context("spawn")
        for rank in range(world_size):
            told: Job = replace(job, submitted_at=ordered_at)
            if isinstance(told, TrainJob):
                told = replace(
                    told, rank=rank, world_size=world_size, num_threads=num_threads(told.config, machine),
                    rendezvous=f"{self._folder.name}/{token}-rendezvous", pulse=str(pulse),
                )  # fmt: skip
            receiver, sender = context.Pipe(duplex=False)
            stderr = Path(self._folder.name) / f"{token}-rank{rank}.log"
            with _without_main(), self._cage.spawn_inside(stderr) if self._cage else contextlib.nullcontext():
                process = context.Process(target=_worker_entry, args=(told, sender, str(stderr)))
                process.start()
            sender.close()
            self._ranks.append(RankProcess(process, receiver, stderr))
        pids = [rank.process.pid for rank in self._ranks]
        self._watch = HangDetector(pulse, pids) if world_size > 1 else None
        self._census = None if num_gpus_used(cell.config, machine) else MemorySampler(pids, self._cage)

    def _wait(
        self, ordered_at: float, timeout_s: float, on_progress: Progress, kills: OomKillCounter
    ) -> tuple[str, str | None]:
        """Block until every rank ended, one failed, or time is up; wakes on messages and on one timer."""
        while True:
            waiting = [rank for rank in self._ranks if rank.ended_at is None]
            if not waiting:
                return classify_outcome(self._ranks, self._cage, kills)
            left = ordered_at + timeout_s - time.perf_counter()
            if left <= 0:
                return "timeout", f"not done after limits.timeout_s = {timeout_s:g} s"
            ready = connection.wait(
                [item for rank in waiting for item in (rank.pipe, rank.process.sentinel)], min(left, _TICK_S)
            )
            now = time.perf_counter() - ordered_at
            self._look(now)
            if self._watch is not None and (hung := self._watch.poll(now)):
                return "timeout", hung
            for rank in waiting:
                if rank.pipe in ready or rank.process.sentinel in ready:
                    receive_messages(
                        rank, now, self._first_ranks(on_progress, now) if rank is self._ranks[0] else _ignore
                    )
                if rank.process.sentinel in ready or rank.end is not None:
                    rank.process.join(_TERMINATE_S if rank.end is not None else None)
                    rank.ended_at = now
            if any(rank.ended_at is not None and (rank.end or {}).get("outcome") not in GRACEFUL for rank in waiting):
                self._hear_the_dead(ordered_at)
                return classify_outcome(self._ranks, self._cage, kills)

    def _look(self, now: float) -> None:
        """Read the instruments that stand outside the measured processes; each reads only when it is due."""
        self._gpus.poll(now)
        self._energy.poll(now)
        if self._load is not None:
            self._load.poll(now)
        if self._census is not None:
            self._census.poll(now)

    def _first_ranks(self, on_progress: Progress, now: float) -> Progress:
        """What rank 0 tells goes to the screen, to the count of all ranks' memory, and ends that of energy."""

        def hear(message: dict[str, Any]) -> None:
            if self._census is not None:
                self._census.on_message(message, now)
            if message["kind"] == "phase" and message["name"] == "after":
                self._energy.end(now)
            on_progress(message)

        return hear

    def _hear_the_dead(self, ordered_at: float) -> None:
        """A rank that complains of a lost neighbour may be heard before the news that the neighbour died."""
        running = {rank.process.sentinel: rank for rank in self._ranks if rank.ended_at is None}
        for sentinel in connection.wait(list(running), _LAST_NEWS_S) if running else ():
            rank = running[sentinel]
            receive_messages(rank, now := time.perf_counter() - ordered_at, _ignore)
            rank.process.join()
            rank.ended_at = now

    def _end_ranks(self) -> None:
        """End every process of the cell and all they started; SIGTERM, then SIGKILL, until none is left."""
        victims: list[psutil.Process] = []
        for rank in self._ranks:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(rank.process.pid)
                victims += [process, *process.children(recursive=True)]
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.terminate()
        _, alive = psutil.wait_procs(victims, timeout=_TERMINATE_S)
        for victim in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        psutil.wait_procs(alive, timeout=_TERMINATE_S)
        for rank in self._ranks:
            # Orphans of a rank that died keep its process group.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(rank.process.pid, signal.SIGKILL)
            rank.process.join()
            rank.pipe.close()
        self._ranks, self._census = [], None
        self._gpus.close()
        self._energy.close()
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._cage is not None:
            self._cage.close()
            self._cage = None


def _ignore(message: dict[str, Any]) -> None:
    """Hear a rank whose progress is not shown."""


def _do_nothing() -> None:
    """Run in a child that proves the forkserver ready."""


def _worker_entry(job: Job, pipe: connection.Connection, stderr: str) -> None:
    import_module(_WORKER).run(job, pipe, stderr)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Keep multiprocessing from running the parent's main script in every child, which would import the whole CLI."""
    main = sys.modules["__main__"]
    hidden = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    main.__spec__ = None
    main.__dict__.pop("__file__", None)
    try:
        yield
    finally:
        main.__dict__.update(hidden)


def _timeout_s(cell: Cell, job: Job) -> float:
    """When a cell is ended; a training in pieces stops by itself before that."""
    pieces = job.pieces if isinstance(job, TrainJob) else None
    return cell.config.limits.timeout_s if pieces is None else pieces.timeout_s
