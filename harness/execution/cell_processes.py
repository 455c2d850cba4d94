"""The processes of one cell on this machine: start all ranks, wait until they or the cell's other machines end it."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from pathlib import Path
from typing import Any

from harness.execution.heartbeat import Heartbeat, hang_reason
from harness.execution.jobs import FeaturesJob, Job, PreparedCell, TrainJob
from harness.execution.memory_cap import GIB, MemoryCap
from harness.execution.memory_cgroup import OomKillCounter
from harness.execution.messages import Message, OnMessage
from harness.execution.monitors import CellMonitors
from harness.execution.node_link import NodeLink
from harness.execution.outcome import GRACEFUL, Ending, classify_outcome
from harness.execution.rank_process import RankProcess, WorkerEntry, end_ranks, start_rank
from harness.machine.network import tcp_url
from harness.machine.support import num_gpus_used, num_threads, ranks_per_node
from harness.schema.cells import Cell
from harness.schema.host_record import Machine

# Called with the share of the CPU that other processes took lately, or None while it is not known.
OnLoad = Callable[[float | None], None]

# Seconds to wait for other ranks to exit after a rank has failed.
_LATE_EXIT_S = 0.5
_TICK_S = 1.0


@dataclass
class CellProcesses:
    """The ranks of one cell on this machine, and what watches and limits them.

    Attributes:
        monitors: Measure the cell from outside its processes.
        link: The connection to the cell's other machines; None: there are none.
        interface: Network interface that joins them; empty: there are none.
        ranks: Empty until `start`.
        cap: The memory cap; None without one.
        submitted_at: When the cell was submitted, on perf_counter's clock.
        oom_kills: Counts the kernel's OOM kills since the cell began.
    """

    monitors: CellMonitors
    link: NodeLink | None = None
    interface: str = ""
    ranks: list[RankProcess] = field(default_factory=list)
    cap: MemoryCap | None = None
    submitted_at: float = 0.0
    oom_kills: OomKillCounter = field(default_factory=OomKillCounter)

    def start(
        self, context: Any, entry: WorkerEntry, cell: Cell, job: Job, machine: Machine, folder: Path  # noqa: ANN401 - contexts share no type
    ) -> None:  # fmt: skip
        """Start this machine's ranks.

        Args:
            context: multiprocessing's context of the start method; capped ranks are fresh processes instead.
            entry: Module-level function that each rank's process calls.
            cell: The cell.
            job: Its job, without a rank's own part.
            machine: This machine.
            folder: Private folder for logs, heartbeats and the ranks' rendezvous.

        Raises:
            ForkserverLostError: The forkserver was ended.
        """
        num_here, token = ranks_per_node(cell.config, machine), f"{time.monotonic_ns():x}"
        first, world_size = self._numbering(num_here)
        heartbeat, limit = folder / f"{token}-heartbeat", cell.config.limits.memory_limit_gib
        Heartbeat(heartbeat, num_here).close()
        if limit is not None and not num_gpus_used(cell.config, machine):
            self.cap = MemoryCap(int(limit * GIB), num_here, folder)
            context = multiprocessing.get_context("spawn")
        for local_rank in range(num_here):
            rank_job: Job = replace(job, submitted_at=self.submitted_at)
            if isinstance(rank_job, TrainJob):
                rank_job = replace(
                    rank_job, rank=first + local_rank, world_size=world_size, local_rank=local_rank,
                    local_world_size=num_here, num_threads=num_threads(rank_job.config, machine),
                    rendezvous=self._rendezvous(folder / f"{token}-rendezvous"), interface=self.interface,
                    heartbeat=str(heartbeat),
                )  # fmt: skip
            elif isinstance(rank_job, FeaturesJob):
                rank_job = replace(rank_job, num_threads=num_threads(rank_job.config, machine))
            stderr = folder / f"{token}-rank{local_rank}.log"
            with self.cap.spawn_inside(stderr) if self.cap else contextlib.nullcontext():
                self.ranks.append(start_rank(context, entry, rank_job, stderr))
        self.monitors.attach([rank.process.pid for rank in self.ranks], heartbeat, self.cap, world_size)

    def wait(self, prepared: PreparedCell, timeout_s: float, on_message: OnMessage, on_load: OnLoad) -> Ending:
        """Wait until every rank has ended, a rank or another machine has failed, or time is up; read monitors meanwhile.

        Args:
            prepared: The cell's inputs.
            timeout_s: Seconds since submission after which the cell is ended.
            on_message: Called with each message of this machine's first rank.
            on_load: Called about once a second with the share of the CPU that other processes took lately.
        """
        while True:
            running = [rank for rank in self.ranks if rank.ended_at is None]
            if not running:
                return self._classify(prepared)
            remaining_s = self.submitted_at + timeout_s - time.perf_counter()
            if remaining_s <= 0:
                return Ending("timeout", f"not done after limits.timeout_s = {timeout_s:g} s")
            waited_for = [item for rank in running for item in (rank.pipe, rank.process.sentinel)]
            ready = connection.wait([*waited_for, *(self.link.pipes if self.link else ())], min(remaining_s, _TICK_S))
            now = time.perf_counter() - self.submitted_at
            self.monitors.poll(now)
            on_load(self.monitors.others_fraction)
            for rank in running:
                if rank.pipe in ready or rank.process.sentinel in ready:
                    rank.receive(now, self._notify(on_message, now) if rank is self.ranks[0] else _ignore)
                if rank.process.sentinel in ready or rank.result is not None:
                    rank.join(now)
            if any(rank.ended_at is not None and not _ended_gracefully(rank) for rank in running):
                self._drain_late_exits()
                return self._classify(prepared)
            if elsewhere := self.link.poll(now, self.monitors.stall) if self.link else None:
                return self._classify_elsewhere(elsewhere, prepared)
            if hang := self._hang_reason():
                return Ending("timeout", hang)

    def tell_nodes(self, ending: Ending) -> None:
        """Tell the cell's other machines how this one's part ended."""
        if self.link is not None:
            is_whole = bool(self.ranks) and all(map(_ended_gracefully, self.ranks))
            self.link.tell(ending, failed=not is_whole or ending.outcome not in GRACEFUL)

    def end(self) -> None:
        """End the processes, and release monitors, memory cap and connections."""
        end_ranks(self.ranks)
        self.monitors.close()
        if self.cap is not None:
            self.cap.close()
        if self.link is not None:
            self.link.close()

    def _numbering(self, num_here: int) -> tuple[int, int]:
        """Return the number of this machine's first rank, and the number of ranks on all machines."""
        if self.link is None:
            return 0, num_here
        return self.link.part.node_index * num_here, self.link.part.num_nodes * num_here

    def _rendezvous(self, path: Path) -> str:
        return f"file://{path}" if self.link is None else tcp_url(self.link.part.master_address, self.link.store_port)

    def _hang_reason(self) -> str | None:
        """Return which rank hangs; of several machines, the first decides for all."""
        own, link = self.monitors.stall, self.link
        if own is None or (link is not None and link.part.node_index > 0):
            return None
        others = link.peer_stalls if link is not None else ()
        return None if others is None else hang_reason([own, *others])

    def _classify(self, prepared: PreparedCell) -> Ending:
        first, world_size = self._numbering(len(self.ranks))
        return classify_outcome(
            self.ranks, self.cap, self.oom_kills, prepared.limit_texts, first_rank=first, world_size=world_size
        )

    def _classify_elsewhere(self, elsewhere: Ending, prepared: PreparedCell) -> Ending:
        """Return how another machine ended the cell, unless a rank of this one failed at the same time."""
        self._drain_late_exits()
        own = self._classify(prepared)
        return own if own.outcome not in GRACEFUL and not own.is_consequence else elsewhere

    def _notify(self, on_message: OnMessage, now: float) -> OnMessage:
        """Pass the first rank's messages to the monitors, then to the caller."""

        def notify(message: Message) -> None:
            self.monitors.on_message(message, now)
            on_message(message)

        return notify

    def _drain_late_exits(self) -> None:
        """Wait briefly for other ranks to exit, so that the first failure is known.

        A rank's message that it lost the connection can arrive before the exit of the rank that caused the loss.
        """
        running = {rank.process.sentinel: rank for rank in self.ranks if rank.ended_at is None}
        for sentinel in connection.wait(list(running), _LATE_EXIT_S) if running else ():
            rank, now = running[sentinel], time.perf_counter() - self.submitted_at
            rank.receive(now, _ignore)
            rank.process.join()
            rank.ended_at = now


def _ignore(message: Message) -> None:
    """Ignore a message of a rank other than the first, whose progress is not shown."""


def _ended_gracefully(rank: RankProcess) -> bool:
    return rank.result is not None and rank.result.outcome in GRACEFUL
