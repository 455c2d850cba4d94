"""Which cells a study still has to run on which kind of machine (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.cluster.cluster_options import ClusterOptions
from harness.cluster.machine_kinds import NodeFacts, cells_to_do, choose_kinds, predicted_seconds
from harness.cluster.scheduler import WaitingCell
from harness.schema.cells import Cell
from harness.schema.record import Record


@dataclass(frozen=True)
class Plan:
    """The cells to run.

    Attributes:
        kinds: Kinds of machines that the study runs on.
        num_cells: The study's cells on all kinds, those that are done included.
        waiting: Those to run, for the scheduler.
        cells: The same by the scheduler's key.
    """

    kinds: tuple[str, ...]
    num_cells: int
    waiting: tuple[WaitingCell, ...]
    cells: Mapping[str, Cell]

    def cells_of(self, kind: str) -> list[Cell]:
        """Return the cells to run on a kind."""
        return [self.cells[cell.key] for cell in self.waiting if cell.kind == kind]


def make_plan(
    cells: Sequence[Cell], nodes: Sequence[NodeFacts], records: Sequence[Record], options: ClusterOptions
) -> Plan:
    """Plan the cells that are not done on each kind of machine.

    Args:
        cells: The study's cells.
        nodes: The nodes that described themselves.
        records: All records, oldest first.
        options: How the study runs.

    Raises:
        UserError: If there is no node, or none of a kind that the study names.
    """
    kinds = choose_kinds([node.kind for node in nodes], options.machines)
    waiting: list[WaitingCell] = []
    planned: dict[str, Cell] = {}
    for kind in kinds:
        own = [node for node in nodes if node.kind == kind]
        to_do = list(cells) if options.force else cells_to_do(cells, own, records, skip=options.skip)
        seconds = predicted_seconds(to_do, own, records)
        for cell in to_do:
            key = cell_key(cell.config_hash, cell.repeat, kind)
            planned[key] = cell
            waiting.append(WaitingCell(key, cell.config_hash, kind, seconds[cell.config_hash]))
    return Plan(tuple(kinds), len(kinds) * len(cells), tuple(waiting), planned)


def cell_key(config_hash: str, repeat: int, kind: str) -> str:
    """Return the scheduler's name of a run of a cell on a kind of machine."""
    return f"{config_hash} {repeat} {kind}"
