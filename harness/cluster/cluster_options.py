"""How a study runs on a cluster, and what is said of it while it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.cluster.messages import Detect
from harness.execution.jobs import Environment
from harness.schema.cells import Cell
from harness.schema.record import Record


@dataclass(frozen=True)
class ClusterOptions:
    """How a study runs on a cluster.

    Attributes:
        results: Folder for the records.
        machines: Kinds of machines to run on; None: every kind that is there.
        detect: Which metadata services nodes ask.
        price: Returns what an hour of a node costs; None if unknown.
        budget_usd: Dollars that all nodes together may cost while they are held; None: no limit.
        deadline_s: Seconds after which no cell may end; None: no limit.
        skip: Skip cells larger than one that ran out of memory.
        force: Run cells that are done, too.
    """

    results: Path
    machines: tuple[str, ...] | None
    detect: Detect
    price: Callable[[Environment], float | None]
    budget_usd: float | None = None
    deadline_s: float | None = None
    skip: bool = True
    force: bool = False


@dataclass(frozen=True)
class NodeState:
    """What a node does now, for the screen.

    Attributes:
        cell: Label of its cell; None between two cells.
        share: Share of the training that is done; None where there is none.
        seconds: Seconds since it got its cell, or since it joined.
        usd: Dollars since it joined; None without a price.
    """

    node_id: str
    kind: str
    work: str
    cell: str | None
    share: float | None
    seconds: float
    usd: float | None


class ClusterListener(Protocol):
    """Interface that receives the events of a run on a cluster."""

    def noted(self, text: str) -> None:
        """Handle a sentence that the user should read."""

    def planned(self, kinds: Sequence[str], num_cells: int, num_done: int) -> None:
        """Handle the plan: the kinds of machines, their cells, and how many of these are done."""

    def cell_ended(self, kind: str, record: Record, path: Path) -> None:
        """Handle a record that was saved at `path`."""

    def cells_left_out(self, cells: Sequence[Cell], reason: str) -> None:
        """Handle cells that were not run."""

    def ticked(self, nodes: Sequence[NodeState], held_usd: float) -> None:
        """Handle the state of all nodes, about once a second."""
