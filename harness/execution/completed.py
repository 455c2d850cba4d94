"""Decide which cells need not run: measured before, or bound to run out of memory as a smaller one did (pure)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from harness.machine.describe import package_version
from harness.machine.support import num_ranks
from harness.schema.cells import BaselineConfig, Cell, FineTuneConfig, hash_config
from harness.schema.host_record import Machine
from harness.schema.record import FINISHED, MEASURING_VERSION, Record

State = Literal["done", "stale", "to do"]

_VERSIONED = ("torch", "transformers")
# A larger size needs no less memory; another seed draws other batches of the same sizes.
_IGNORED_FOR_OOM = ("batch_size", "global_batch_size", "seq_len", "seed")


def find_done(
    cell: Cell, records: Sequence[Record], machine: Machine, *, skip: bool = True
) -> tuple[State, Record | None]:
    """Return a cell's state and the record that decides it; see `find_all_done`."""
    return find_all_done([cell], records, machine, skip=skip)[0]


def find_all_done(
    cells: Iterable[Cell], records: Sequence[Record], machine: Machine, *, skip: bool = True
) -> list[tuple[State, Record | None]]:
    """Return each cell's state by its newest finished record of any study on this machine, and that record.

    A skipped cell counts as done while the OOM record that made it redundant is fresh.

    Args:
        cells: Cells of a study.
        records: Records of this machine, oldest first.
        machine: This machine.
        skip: False if cells must not be skipped; then records of skipped cells don't count.
    """
    versions = _installed_versions()
    records_by_run: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for record in records:
        records_by_run[record.config_hash, record.repeat].append(record)
    has_skipped = skip and any(record.outcome == "skipped" for record in records)
    oom_records = find_oom_records(records, machine) if has_skipped else []
    states = []
    for cell in cells:
        state: State = "to do"
        last = None
        for record in records_by_run.get((cell.config_hash, cell.repeat), ()):
            is_skippable = record.outcome == "skipped" and find_oom_bound(cell.config, oom_records, machine)
            if not _is_finished(record, cell) and (not is_skippable or state == "done"):
                continue
            is_fresh = _is_fresh(record, machine, versions)
            if state != "done" or is_fresh:
                state, last = ("done" if is_fresh else "stale"), record
        states.append((state, last))
    return states


def find_oom_records(records: Sequence[Record], machine: Machine) -> list[Record]:
    """Return the fresh records of cells whose newest fresh run ran out of memory."""
    versions = _installed_versions()
    newest: dict[tuple[str, int], Record] = {}
    for record in records:
        if record.outcome in FINISHED and _is_fresh(record, machine, versions):
            newest[record.config_hash, record.repeat] = record
    return [record for record in newest.values() if record.outcome == "oom"]


def find_oom_bound(config: FineTuneConfig | BaselineConfig, records: Iterable[Record], machine: Machine) -> str | None:
    """Return why a cell would run out of memory: a record of a cell no larger and with no less memory did.

    Sizes are the examples of one device and micro-batch, and the sequence length; everything else must be equal.

    Args:
        config: The cell's configuration.
        records: Records of this machine, of any outcome.
        machine: This machine.

    Returns:
        The reason for the record of the skipped cell; None if no record bounds it.
    """
    if not isinstance(config, FineTuneConfig):
        return None
    batch = config.device_batch(num_ranks(config, machine))
    for record in records:
        other = record.config
        if (
            record.outcome != "oom"
            or not isinstance(other, FineTuneConfig)
            or _config_without_size(other) != _config_without_size(config)
        ):
            continue
        other_batch = other.device_batch(num_ranks(other, machine))
        if batch >= other_batch and config.seq_len >= other.seq_len and _memory_cap(config) <= _memory_cap(other):
            is_larger = batch > other_batch or config.seq_len > other.seq_len
            return f"{'larger than' if is_larger else 'no smaller than'} {record.cell}, which ran out of memory"
    return None


def _is_finished(record: Record, cell: Cell) -> bool:
    if record.outcome == "timeout":
        return record.config.limits.timeout_s >= cell.config.limits.timeout_s
    return record.outcome in FINISHED


def _is_fresh(record: Record, machine: Machine, versions: Mapping[str, str]) -> bool:
    """True if the same machine, host and code would measure it again."""
    return (
        (record.machine.id, record.machine.host) == (machine.id, machine.host)
        and record.measuring_version == MEASURING_VERSION
        and all(record.packages.get(name, "not installed") == version for name, version in versions.items())
    )


def _installed_versions() -> dict[str, str]:
    return {name: package_version(name) for name in _VERSIONED}


def _config_without_size(config: FineTuneConfig) -> str:
    limits = config.limits.model_copy(update={"memory_limit_gib": None, "max_train_s": None})
    return hash_config(config.model_copy(update={"limits": limits}), ignore=_IGNORED_FOR_OOM)


def _memory_cap(config: FineTuneConfig) -> float:
    limit = config.limits.memory_limit_gib
    return math.inf if limit is None else limit
