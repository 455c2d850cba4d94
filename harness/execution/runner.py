"""Run one cell in processes of its own and return its record."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.forkserver
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from multiprocessing import connection
from typing import Any, Literal

from harness.errors import UserError
from harness.execution.assemble import (
    baseline_with_peaks,
    blank_record,
    checksum_mismatch,
    cuda_memory_cap,
    held_bytes_by_step,
    merge_probes,
    merge_ranks,
    model_facts,
    phase_times,
    progress_marks,
    total_cpu_s,
)
from harness.execution.heartbeat import Heartbeat
from harness.execution.interrupts import let_interrupts_through
from harness.execution.jobs import Environment, FeaturesJob, Job, PreparedCell, TrainJob
from harness.execution.memory_cap import GIB, MemoryCap
from harness.execution.memory_cgroup import OomKillCounter
from harness.execution.messages import Message, OnMessage
from harness.execution.monitors import CellMonitors
from harness.execution.outcome import GRACEFUL, STOP_TEXTS, Ending, classify_outcome, server_lost_ending
from harness.execution.rank_process import (
    ForkserverLostError,
    RankProcess,
    WorkerEntry,
    end_ranks,
    hidden_main,
    start_process,
    start_rank,
)
from harness.execution.socket_folder import choose_socket_folder
from harness.execution.stop_flag import StopReason
from harness.machine.private_folders import private_folder
from harness.machine.scrub import scrubbed_tail
from harness.machine.support import num_gpus_used, num_ranks, num_threads, unsupported_reason
from harness.machine.variables import without_thread_variables
from harness.schema.cells import Cell
from harness.schema.host_record import Machine
from harness.schema.record import Record

StartMethod = Literal["forkserver", "spawn"]
# Called with the share of the CPU that other processes took lately, or None while it is not known.
OnLoad = Callable[[float | None], None]

_WORKER = "harness.worker.main"
_END_WITH_PARENT = "harness.execution.end_with_parent"
# Seconds to wait for other ranks to exit after a rank has failed.
_LATE_EXIT_S = 0.5
_TICK_S = 1.0


def run_worker(job: Job, pipe: connection.Connection, stderr: str) -> None:
    """Run the worker in a new process. Imports the worker only here, because the parent must not load torch."""
    import_module(_END_WITH_PARENT)
    import_module(_WORKER).run(job, pipe, stderr)


class Runner:
    """Runs cells one at a time, in processes forked from a server process that has loaded torch and the model classes.

    The runner is a context manager, and no process that it started outlives it.

    Attributes:
        start_method: How multiprocessing starts processes; with `spawn`, each process loads torch itself.
        worker_entry: Module-level function that each rank's process calls.
        stop_reason: Why the last cell was stopped on request; None if it was not.
    """

    def __init__(
        self,
        start_method: StartMethod | None = None,
        preload: tuple[str, ...] = (),
        worker_entry: WorkerEntry = run_worker,
    ) -> None:
        """Choose the start method.

        Args:
            start_method: The start method; None: the forkserver on Linux, else `spawn`.
            preload: Modules that the forkserver imports besides the worker.
            worker_entry: Module-level function that each rank's process calls.
        """
        # Not the forkserver on macOS, whose system libraries do not survive a fork.
        self.start_method: StartMethod = start_method or ("forkserver" if sys.platform == "linux" else "spawn")
        self.worker_entry = worker_entry
        self.stop_reason: StopReason | None = None
        self._preload = (_END_WITH_PARENT, *preload, _WORKER)
        self._context: Any = multiprocessing.get_context(self.start_method)
        self._ranks: list[RankProcess] = []
        self._monitors = CellMonitors(num_gpus=0)
        self._cap: MemoryCap | None = None
        self._stack = contextlib.ExitStack()
        self._folder = self._stack.enter_context(private_folder("cell"))

    def __enter__(self) -> Runner:
        """Start the forkserver, which loads torch, without waiting for it."""
        if self.start_method == "forkserver":
            choose_socket_folder()
            self._context.set_forkserver_preload(list(self._preload))
            with hidden_main(), without_thread_variables():
                multiprocessing.forkserver.ensure_running()
        return self

    def __exit__(self, *exception: object) -> None:
        """End all processes that still run."""
        self._end_cell()
        self._stack.close()

    def wait_until_warm(self) -> None:
        """Wait until the forkserver has imported everything, so that the first cell starts as fast as the others.

        Raises:
            UserError: The forkserver was ended meanwhile.
        """
        if self.start_method == "forkserver":
            process, oom_kills = self._context.Process(target=_do_nothing), OomKillCounter()
            try:
                start_process(process)
            except ForkserverLostError:
                reason = oom_kills.reason() or "perhaps memory ran out"
                raise UserError(f"the process that loads torch was ended while it did so: {reason}") from None
            process.join()

    def run(
        self,
        cell: Cell,
        prepared: PreparedCell,
        environment: Environment,
        on_message: OnMessage = lambda _: None,
        on_load: OnLoad = lambda _: None,
    ) -> Record:
        """Run one cell and return its record, however the cell ends; after Ctrl-C its outcome is `interrupted`.

        Args:
            cell: The cell to run.
            prepared: The cell's job and data.
            environment: Facts about this machine and checkout.
            on_message: Called with each message of rank 0.
            on_load: Called about once a second with the share of the CPU that other processes took lately.
        """
        self.stop_reason = None
        reason = unsupported_reason(cell.config, environment.machine)
        if reason is not None:
            return blank_record(cell, environment, "unsupported", reason).model_copy(update={"data": prepared.data})
        oom_kills = OomKillCounter()
        monitors = self._monitors = CellMonitors(num_gpus_used(cell.config, environment.machine))
        started_at, submitted_at = datetime.now(UTC), time.perf_counter()
        monitors.energy.begin(0.0)
        try:
            with let_interrupts_through():
                self._start(cell, prepared.job, environment.machine, submitted_at)
                ending = self._wait(submitted_at, prepared, on_message, on_load, oom_kills)
        except KeyboardInterrupt:
            ending = Ending("interrupted", STOP_TEXTS[StopReason.USER], StopReason.USER)
        except ForkserverLostError:
            ending = server_lost_ending(oom_kills)
        duration_s = time.perf_counter() - submitted_at
        monitors.energy.end(duration_s)
        self.stop_reason = ending.stop_reason
        record = blank_record(cell, environment, ending.outcome, ending.reason)
        return self._complete(record, cell, prepared, {"started_at": started_at, "duration_s": duration_s})

    def _complete(
        self, record: Record, cell: Cell, prepared: PreparedCell, times: Mapping[str, datetime | float]
    ) -> Record:
        """End the cell's processes, and return its record with all measurements added."""
        monitors, ranks = self._monitors, self._ranks
        start_method = "fresh" if self._cap else self.start_method
        uncapped = cuda_memory_cap(cell) if num_gpus_used(cell.config, record.machine) else None
        cap, peaks = self._cap.facts() if self._cap else uncapped, monitors.memory_peaks()
        self._end_cell()
        results = [rank.result for rank in ranks]
        training = merge_ranks(results, prepared, cell, peaks)
        first = results[0] if results else None
        measured = {
            **times,
            "stderr_tail": tuple(scrubbed_tail(rank.stderr) for rank in ranks),
            "phases": phase_times(ranks, prepared),
            "load": monitors.load.snapshot(total_cpu_s(results)),
            "start_method": start_method,
            "cap": cap,
            "data": prepared.data,
            "model": model_facts(first),
            "baseline": baseline_with_peaks(first, peaks),
            "marks": progress_marks(ranks),
            "held_bytes": () if training else held_bytes_by_step(ranks),
            "gpu_readings": tuple(monitors.gpus.readings),
            "energy": monitors.energy.energy(),
            "training": training,
            "probe": merge_probes(results, num_threads(cell.config, record.machine)),
        }
        if mismatch := checksum_mismatch(results):
            record = record.model_copy(update={"outcome": "crashed", "reason": mismatch})
        # Validate the whole record, because model_copy does not validate its arguments.
        return Record.model_validate(record.model_copy(update=measured).model_dump())

    def _start(self, cell: Cell, job: Job, machine: Machine, submitted_at: float) -> None:
        world_size = num_ranks(cell.config, machine)
        folder, token = self._folder, f"{time.monotonic_ns():x}"
        heartbeat = folder / f"{token}-heartbeat"
        Heartbeat(heartbeat, world_size).close()
        context, limit = self._context, cell.config.limits.memory_limit_gib
        if limit is not None and not num_gpus_used(cell.config, machine):
            self._cap = MemoryCap(int(limit * GIB), world_size, folder)
            context = multiprocessing.get_context("spawn")
        for rank in range(world_size):
            rank_job: Job = replace(job, submitted_at=submitted_at)
            if isinstance(rank_job, TrainJob):
                rank_job = replace(
                    rank_job, rank=rank, world_size=world_size, num_threads=num_threads(rank_job.config, machine),
                    rendezvous=str(folder / f"{token}-rendezvous"), heartbeat=str(heartbeat),
                )  # fmt: skip
            elif isinstance(rank_job, FeaturesJob):
                rank_job = replace(rank_job, num_threads=num_threads(rank_job.config, machine))
            stderr = folder / f"{token}-rank{rank}.log"
            with self._cap.spawn_inside(stderr) if self._cap else contextlib.nullcontext():
                self._ranks.append(start_rank(context, self.worker_entry, rank_job, stderr))
        self._monitors.attach([rank.process.pid for rank in self._ranks], heartbeat, self._cap)

    def _wait(
        self,
        submitted_at: float,
        prepared: PreparedCell,
        on_message: OnMessage,
        on_load: OnLoad,
        oom_kills: OomKillCounter,
    ) -> Ending:
        """Wait until every rank has ended, a rank has failed, or time is up; read messages and monitors meanwhile."""
        timeout_s = _timeout_s(prepared.job)
        while True:
            running = [rank for rank in self._ranks if rank.ended_at is None]
            if not running:
                return classify_outcome(self._ranks, self._cap, oom_kills, prepared.limit_texts)
            remaining_s = submitted_at + timeout_s - time.perf_counter()
            if remaining_s <= 0:
                return Ending("timeout", f"not done after limits.timeout_s = {timeout_s:g} s")
            ready = connection.wait(
                [item for rank in running for item in (rank.pipe, rank.process.sentinel)], min(remaining_s, _TICK_S)
            )
            now = time.perf_counter() - submitted_at
            if hang := self._monitors.poll(now):
                return Ending("timeout", hang)
            on_load(self._monitors.others_fraction)
            for rank in running:
                if rank.pipe in ready or rank.process.sentinel in ready:
                    rank.receive(now, self._notify(on_message, now) if rank is self._ranks[0] else _ignore)
                if rank.process.sentinel in ready or rank.result is not None:
                    rank.join(now)
            if any(rank.ended_at is not None and not _ended_gracefully(rank) for rank in running):
                self._drain_late_exits(submitted_at)
                return classify_outcome(self._ranks, self._cap, oom_kills, prepared.limit_texts)

    def _notify(self, on_message: OnMessage, now: float) -> OnMessage:
        """Pass rank 0's messages to the monitors, then to the caller."""

        def notify(message: Message) -> None:
            self._monitors.on_message(message, now)
            on_message(message)

        return notify

    def _drain_late_exits(self, submitted_at: float) -> None:
        """Wait briefly for other ranks to exit, so that the first failure is known.

        A rank's message that it lost the connection can arrive before the exit of the rank that caused the loss.
        """
        running = {rank.process.sentinel: rank for rank in self._ranks if rank.ended_at is None}
        for sentinel in connection.wait(list(running), _LATE_EXIT_S) if running else ():
            rank, now = running[sentinel], time.perf_counter() - submitted_at
            rank.receive(now, _ignore)
            rank.process.join()
            rank.ended_at = now

    def _end_cell(self) -> None:
        """End the cell's processes, and release its monitors and memory cap."""
        end_ranks(self._ranks)
        self._ranks = []
        self._monitors.close()
        if self._cap is not None:
            self._cap.close()
            self._cap = None


def _ignore(message: Message) -> None:
    """Ignore a message of a rank other than 0, whose progress is not shown."""


def _do_nothing() -> None:
    """Do nothing: a child process that runs this function shows that the forkserver is ready."""


def _ended_gracefully(rank: RankProcess) -> bool:
    return rank.result is not None and rank.result.outcome in GRACEFUL


def _timeout_s(job: Job) -> float:
    """Return the seconds after which the parent ends the cell; a resumable training normally stops itself earlier."""
    resume = job.resume if isinstance(job, TrainJob) else None
    return job.config.limits.timeout_s if resume is None else resume.timeout_s
