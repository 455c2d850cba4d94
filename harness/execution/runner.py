"""Run one cell in processes of its own and return its record."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.forkserver
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from multiprocessing import connection
from typing import Any, Literal

from harness.errors import UserError
from harness.execution.assemble import (
    cuda_memory_cap,
    held_bytes_by_step,
    phase_times,
    progress_marks,
    total_cpu_s,
)
from harness.execution.cell_processes import CellProcesses, OnLoad
from harness.execution.interrupts import let_interrupts_through
from harness.execution.jobs import Environment, Job, NodePart, PreparedCell, TrainJob
from harness.execution.memory_cgroup import OomKillCounter
from harness.execution.messages import OnMessage
from harness.execution.monitors import CellMonitors
from harness.execution.node_link import NodeLink, NodesNotJoinedError, node_facts
from harness.execution.outcome import STOP_TEXTS, Ending, server_lost_ending
from harness.execution.parts import PartResult, merge_parts, unstarted
from harness.execution.rank_process import ForkserverLostError, WorkerEntry, hidden_main, start_process
from harness.execution.socket_folder import choose_socket_folder
from harness.execution.stop_flag import StopReason
from harness.machine.network import address_of, interface_towards
from harness.machine.private_folders import private_folder
from harness.machine.scrub import scrubbed_tail
from harness.machine.support import num_gpus_used, unsupported_reason
from harness.machine.variables import without_thread_variables
from harness.schema.cells import Cell
from harness.schema.record import Record

StartMethod = Literal["forkserver", "spawn"]

_WORKER = "harness.worker.main"
_END_WITH_PARENT = "harness.execution.end_with_parent"


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
        self._cell: CellProcesses | None = None
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
        return merge_parts(cell, prepared, [self._run(cell, prepared, environment, None, on_message, on_load)])

    def run_part(
        self,
        cell: Cell,
        prepared: PreparedCell,
        environment: Environment,
        part: NodePart,
        on_message: OnMessage = lambda _: None,
        on_load: OnLoad = lambda _: None,
    ) -> PartResult:
        """Run this machine's ranks of a cell that trains on several machines; `merge_parts` makes the record of all parts.

        Every machine of the cell calls this with its own part. A failure on one ends the cell on all within seconds.

        Args:
            cell: The cell to run.
            prepared: The cell's job and data on this machine.
            environment: Facts about this machine and checkout.
            part: Which part this machine runs, and how it finds the others.
            on_message: Called with each message of this machine's first rank.
            on_load: Called about once a second with the share of the CPU that other processes took lately.
        """
        return self._run(cell, prepared, environment, part, on_message, on_load)

    def _run(
        self, cell: Cell, prepared: PreparedCell, environment: Environment, part: NodePart | None, on_message: OnMessage,
        on_load: OnLoad,
    ) -> PartResult:  # fmt: skip
        self.stop_reason = None
        machine = environment.machine
        reason = unsupported_reason(cell.config, machine, num_nodes=part.num_nodes if part else 1)
        if reason is not None:
            return unstarted(environment, Ending("unsupported", reason))
        processes = self._cell = CellProcesses(CellMonitors(num_gpus_used(cell.config, machine)))
        if part is not None:
            try:
                processes.interface, processes.link = _join(cell, prepared, environment, part)
            except NodesNotJoinedError as error:
                self._end_cell()
                return unstarted(environment, Ending(error.outcome, error.reason))
        started_at, processes.submitted_at = datetime.now(UTC), time.perf_counter()
        processes.monitors.energy.begin(0.0)
        try:
            with let_interrupts_through():
                processes.start(self._context, self.worker_entry, cell, prepared.job, machine, self._folder)
                ending = processes.wait(prepared, _timeout_s(prepared.job), on_message, on_load)
        except KeyboardInterrupt:
            ending = Ending("interrupted", STOP_TEXTS[StopReason.USER], StopReason.USER)
        except ForkserverLostError:
            ending = server_lost_ending(processes.oom_kills)
        duration_s = time.perf_counter() - processes.submitted_at
        processes.tell_nodes(ending)
        processes.monitors.energy.end(duration_s)
        self.stop_reason = ending.stop_reason
        result = PartResult(environment, ending, started_at, duration_s, processes.interface or None)
        return self._collect(result, processes, cell, prepared)

    def _collect(self, part: PartResult, processes: CellProcesses, cell: Cell, prepared: PreparedCell) -> PartResult:
        """End the cell's processes, and return the part with all measurements added."""
        monitors, ranks = processes.monitors, processes.ranks
        uncapped = cuda_memory_cap(cell) if num_gpus_used(cell.config, part.environment.machine) else None
        start_method = "fresh" if processes.cap else self.start_method
        cap, peaks = processes.cap.facts() if processes.cap else uncapped, monitors.memory_peaks()
        self._end_cell()
        results = tuple(rank.result for rank in ranks)
        return replace(
            part,
            results=results,
            stderr_tails=tuple(scrubbed_tail(rank.stderr) for rank in ranks),
            phases=phase_times(ranks, prepared),
            marks=progress_marks(ranks),
            held_bytes=held_bytes_by_step(ranks),
            peaks=peaks,
            load=monitors.load.snapshot(total_cpu_s(results)),
            start_method=start_method,
            cap=cap,
            gpu_readings=tuple(monitors.gpus.readings),
            energy=monitors.energy.energy(),
        )

    def _end_cell(self) -> None:
        """End the processes of the last cell, and release what watched them."""
        if self._cell is not None:
            self._cell.end()
            self._cell = None


def _join(cell: Cell, prepared: PreparedCell, environment: Environment, part: NodePart) -> tuple[str, NodeLink]:
    """Wait for the other machines of a cell.

    Returns:
        The network interface that joins this machine to them, and the connection to them.

    Raises:
        NodesNotJoinedError: If they did not come, or differ from this one.
    """
    try:
        interface = part.interface or interface_towards(part.master_address)
        address_of(interface)
    except UserError as error:
        raise NodesNotJoinedError("unsupported", str(error)) from None
    try:
        with let_interrupts_through():
            return interface, NodeLink.join(part, node_facts(cell, prepared, environment))
    except KeyboardInterrupt:
        raise NodesNotJoinedError("interrupted", STOP_TEXTS[StopReason.USER]) from None


def _do_nothing() -> None:
    """Do nothing: a child process that runs this function shows that the forkserver is ready."""


def _timeout_s(job: Job) -> float:
    """Return the seconds after which the parent ends the cell; a resumable training normally stops itself earlier."""
    resume = job.resume if isinstance(job, TrainJob) else None
    return job.config.limits.timeout_s if resume is None else resume.timeout_s
