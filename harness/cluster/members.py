"""A node that belongs to a run: its agent, what it does, and the calls that it has not answered yet."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from harness.cluster.cluster_options import NodeState
from harness.cluster.connection import Call, Cluster, RayNode
from harness.cluster.machine_kinds import NodeFacts
from harness.cluster.messages import Described, Progressed, RunCell, Session, StopOutcome
from harness.cluster.scheduler import Placement
from harness.cluster.study_inputs import StudyInput
from harness.schema.cells import Cell

Step = Literal["describe", "collect", "prepare", "run", "stop", "acknowledge"]
_POLL_EVERY_S = 2.0
_SECONDS_PER_HOUR = 3600
HANG_S = 60.0


@dataclass(frozen=True)
class Running:
    """The cell that a node runs, with this computer's clocks."""

    cell: Cell
    placement: Placement
    started_at: datetime
    began: float


@dataclass(frozen=True)
class SharedInput:
    """An input of the study in Ray's store of objects."""

    source: StudyInput
    stored: Call


class Member:
    """A node with its agent.

    Attributes:
        joined_at: When its agent was started.
        described: What it is; None until it says so.
        kind: Its kind; its address until it is known.
        facts: What it is, with kind and price; None until its waiting records are saved.
        running: Its cell; None between two cells.
        is_ready: Whether it may get cells.
        was_ready: Whether it ever was.
        is_stopping: Whether it was asked to end its cell and itself.
        is_announced: Whether Ray was told that the node will end.
        progress: What it does.
        calls: What it was asked and has not answered, besides how it is.
    """

    def __init__(self, cluster: Cluster, node: RayNode, session: Session, now: float) -> None:
        """Start the node's agent."""
        self._cluster, self.node, self.joined_at = cluster, node, now
        self._agent: Any = cluster.start_agent(node, session)
        self.described: Described | None = None
        self.kind = node.address
        self.facts: NodeFacts | None = None
        self.running: Running | None = None
        self.is_ready = self.was_ready = self.is_stopping = self.is_announced = False
        self.progress = Progressed("starting")
        self.calls: dict[Call, Step] = {}
        self._poll: Call | None = None
        self._polled_at = now
        self._ask("describe", self._agent.describe.remote())

    @property
    def node_id(self) -> str:
        """Ray's id of the node."""
        return self.node.node_id

    def collect(self) -> None:
        """Ask for the records that wait on the node."""
        self._ask("collect", self._agent.waiting.remote())

    def acknowledge(self, names: Sequence[str]) -> None:
        """Let the node forget records that are saved."""
        if names:
            self._ask("acknowledge", self._agent.acknowledge.remote(list(names)))

    def prepare(self, cells: Sequence[Cell], inputs: Sequence[SharedInput]) -> None:
        """Send the study's files, and let the node prepare the cells."""
        names = [(each.source.name, each.source.inside) for each in inputs]
        self._ask("prepare", self._agent.prepare.remote(list(cells), names, *(each.stored for each in inputs)))

    def run(self, cell: Cell, placement: Placement, command: RunCell, now: float) -> None:
        """Let the node run a cell."""
        self.running = Running(cell, placement, datetime.now(UTC), now)
        self.progress, self._polled_at = Progressed("starting"), now
        self._ask("run", self._agent.run_cell.remote(command))

    def stop(self, outcome: StopOutcome, reason: str | None) -> None:
        """Ask the node once to end its cell and itself; the call of `run` then ends with the cell's record."""
        if not self.is_stopping:
            self.is_stopping = True
            self._ask("stop", self._agent.stop.remote(outcome, reason))

    def end(self) -> None:
        """End the agent, and with it the node's process."""
        self.is_stopping, self.is_ready = True, False
        self._cluster.end_agent(self._agent)

    def poll(self, now: float) -> Call | None:
        """Ask what the node does, every few seconds; return the question that waits for its answer."""
        if self.described is not None and self._poll is None and now - self._polled_at >= _POLL_EVERY_S:
            self._poll, self._polled_at = self._agent.progress.remote(), now
        return self._poll

    def answered(self, progress: Progressed) -> None:
        """Take in the answer."""
        self.progress, self._poll = progress, None

    def hangs(self, now: float) -> bool:
        """Return whether the node has not answered for a minute."""
        return self._poll is not None and now - self._polled_at > HANG_S

    def state(self, now: float) -> NodeState:
        """Return what the node does now."""
        running, facts = self.running, self.facts
        usd_per_hour = None if facts is None else facts.usd_per_hour
        return NodeState(
            node_id=self.node_id,
            kind=self.kind,
            work="idle" if self.is_ready and running is None else self.progress.work,
            cell=None if running is None else running.cell.label,
            share=None if running is None else self.progress.share,
            seconds=now - (self.joined_at if running is None else running.began),
            usd=None if usd_per_hour is None else usd_per_hour * (now - self.joined_at) / _SECONDS_PER_HOUR,
        )

    def _ask(self, step: Step, call: Call) -> None:
        self.calls[call] = step


def clock() -> float:
    """Return seconds on this computer's monotonic clock; no time of a node is ever compared with it."""
    return time.perf_counter()
