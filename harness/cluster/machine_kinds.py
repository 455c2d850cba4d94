"""Kinds of machines in a cluster, and which cells each kind still has to run.

Pure functions of what nodes said and of records.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.cluster.nodes import MACHINE_LABEL
from harness.errors import UserError
from harness.execution.completed import find_all_done
from harness.execution.jobs import Environment
from harness.schema.cells import Cell
from harness.schema.host_record import Machine
from harness.schema.record import Record

_GIB = 2**30
_COMPARED = ("torch", "transformers")
_UNKNOWN_S = 60.0  # of a cell that nothing is known of; without a better guess all such cells are alike


@dataclass(frozen=True)
class NodeFacts:
    """A node that described itself.

    Attributes:
        usd_per_hour: Price of an hour; None if unknown.
    """

    node_id: str
    kind: str
    environment: Environment
    usd_per_hour: float | None


def kind_of(environment: Environment, labels: Mapping[str, str]) -> str:
    """Return the kind of a node: its label, else its instance type, else what it consists of.

    The label comes first, because it tells apart machines whose type a cloud names alike: with and without a GPU, for example.
    """
    if label := labels.get(MACHINE_LABEL):
        return label
    if environment.detected is not None:
        return environment.detected.instance
    machine = environment.machine
    if machine.cloud_product is not None:
        return machine.cloud_product
    name = f"{len(machine.gpus)} x {machine.gpus[0].name}" if machine.gpus else machine.cpu.model
    cores, memory = machine.cpu.num_usable, machine.memory_limit_bytes or machine.memory_bytes
    return f"{name}, {cores} core{'' if cores == 1 else 's'}, {round(memory / _GIB)} GiB"


def choose_kinds(there: Iterable[str], machines: Sequence[str] | None) -> list[str]:
    """Return the kinds that a study runs on, in the study's order.

    Args:
        there: Kinds in the cluster.
        machines: `cluster.machines` of the study; None: every kind that is there.

    Raises:
        UserError: If there is no node, or none of a kind that the study names.
    """
    kinds = sorted(set(there))
    if not kinds:
        raise UserError("the cluster has no node with CPUs for tasks")
    if machines is None:
        return kinds
    missing = [name for name in machines if name not in kinds]
    if missing:
        raise UserError(f"cluster.machines: not in the cluster: {', '.join(missing)}; there is: {'; '.join(kinds)}")
    return list(dict.fromkeys(machines))


def version_differences(nodes: Sequence[NodeFacts]) -> list[str]:
    """Return a sentence for Python and each package whose versions differ between nodes."""
    sentences = []
    for name in ("Python", *_COMPARED):
        kinds: dict[str, set[str]] = defaultdict(set)
        for node in nodes:
            kinds[_version(node.environment, name)].add(node.kind)
        if len(kinds) > 1:
            versions = "; ".join(f"{version} on {', '.join(sorted(kinds[version]))}" for version in sorted(kinds))
            sentences.append(f"{name} differs between nodes: {versions}")
    return sentences


def _version(environment: Environment, name: str) -> str:
    return environment.machine.python if name == "Python" else environment.packages.get(name, "not installed")


def cells_to_do(
    cells: Sequence[Cell], nodes: Sequence[NodeFacts], records: Sequence[Record], *, skip: bool
) -> list[Cell]:
    """Return the cells that no node of this kind has measured yet, on whatever host.

    The nodes of a cloud are other hosts each day, so that the host of a record is not asked for, as `harness run` does.

    Args:
        cells: The study's cells.
        nodes: Nodes of one kind.
        records: All records, oldest first.
        skip: As in `find_all_done`.
    """
    done: set[tuple[str, int]] = set()
    for environment in {node.environment.machine.id: node.environment for node in nodes}.values():
        for machine in hosts_of(environment.machine, records):
            own = [each for each in records if (each.machine.id, each.machine.host) == (machine.id, machine.host)]
            states = find_all_done(cells, own, machine, skip=skip, packages=environment.packages)
            done |= {_key(cell) for cell, (state, _) in zip(cells, states, strict=True) if state == "done"}
    return [cell for cell in cells if _key(cell) not in done]


def hosts_of(machine: Machine, records: Iterable[Record]) -> list[Machine]:
    """Return the machine once for each host of its kind that has records."""
    hosts = {record.machine.host for record in records if record.machine.id == machine.id}
    return [machine.model_copy(update={"host": host}) for host in hosts]


def predicted_seconds(cells: Sequence[Cell], nodes: Sequence[NodeFacts], records: Sequence[Record]) -> dict[str, float]:
    """Return what each cell is predicted to take on a kind of machine, by the configuration's hash.

    A cell that was measured there takes what it took; one that was measured elsewhere, what it took there; of any other the
    longest of those is taken.

    Args:
        cells: The cells.
        nodes: Nodes of one kind.
        records: All records, oldest first.
    """
    machines = {node.environment.machine.id for node in nodes}
    finished = [record for record in records if record.outcome == "ok"]
    elsewhere = {record.config_hash: record.duration_s for record in finished}
    here = {record.config_hash: record.duration_s for record in finished if record.machine.id in machines}
    known = elsewhere | here
    longest = max((known[cell.config_hash] for cell in cells if cell.config_hash in known), default=_UNKNOWN_S)
    return {cell.config_hash: known.get(cell.config_hash, longest) for cell in cells}


def _key(cell: Cell) -> tuple[str, int]:
    return cell.config_hash, cell.repeat
