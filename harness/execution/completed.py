"""TODO: say in one line what this module is for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from harness.execution.dominance import find_oom_bound
from harness.machine.describe import package_version
from harness.schema.cells import Cell
from harness.schema.host_record import Machine
from harness.schema.record import (
    FINISHED,
    MEASURING_VERSION,
    Record,
)

_VERSIONS = ("torch", "transformers")


State = Literal["done", "stale", "to do"]


def find_done(
    cell: Cell, records: Sequence[Record], machine: Machine, *, skip: bool = True
) -> tuple[State, Record | None]:
    """Tell whether a cell was measured, by its newest finished record of any study on this machine.

    One that was skipped is done for as long as what it was skipped for holds; never without `skip`.
    """
    return find_all_done([cell], records, machine, skip=skip)[0]


def find_all_done(
    cells: Iterable[Cell], records: Sequence[Record], machine: Machine, *, skip: bool = True
) -> list[tuple[State, Record | None]]:
    """Tell of each cell what `find_done` tells; each record is looked at once."""
    versions = _versions_here()
    of_run: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for record in records:
        of_run[record.config_hash, record.repeat].append(record)
    out_of_memory = ran_out(records, machine) if skip and any(one.outcome == "skipped" for one in records) else []
    found = []
    for cell in cells:
        state: State = "to do"
        last = None
        for record in of_run.get((cell.config_hash, cell.repeat), ()):
            needless = record.outcome == "skipped" and find_oom_bound(cell.config, out_of_memory, machine)
            if not _finished(record, cell) and (not needless or state == "done"):
                continue
            if state != "done" or _fresh(record, machine, versions):
                state, last = ("done" if _fresh(record, machine, versions) else "stale"), record
        found.append((state, last))
    return found


def ran_out(records: Sequence[Record], machine: Machine) -> list[Record]:
    """The fresh records of cells whose newest fresh run ran out of memory."""
    versions = _versions_here()
    newest: dict[tuple[str, int], Record] = {}
    for record in records:
        if record.outcome in FINISHED and _fresh(record, machine, versions):
            newest[record.config_hash, record.repeat] = record
    return [record for record in newest.values() if record.outcome == "oom"]


def _finished(record: Record, cell: Cell) -> bool:
    if record.outcome == "timeout":
        return record.config.limits.timeout_s >= cell.config.limits.timeout_s
    return record.outcome in FINISHED


def _fresh(record: Record, machine: Machine, versions: Mapping[str, str]) -> bool:
    """Whether the same machine, host and code would measure it again."""
    return (
        (record.machine.id, record.machine.host) == (machine.id, machine.host)
        and record.measuring_version == MEASURING_VERSION
        and all(record.packages.get(name, "not installed") == version for name, version in versions.items())
    )


def _versions_here() -> dict[str, str]:
    # Looked up once, and not for every record.
    return {name: package_version(name) for name in _VERSIONS}
