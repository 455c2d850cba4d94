"""Decide which cells need not run: those measured before, and those that would run out of memory as a smaller cell did.

Pure functions.
"""

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
from harness.schema.variables import obeyed_spoilers

State = Literal["done", "stale", "to do"]

_VERSIONED = ("torch", "transformers")
# Keys that may differ between a cell and the cell that ran out of memory: the sizes are compared separately, and a seed
# changes only which rows are in a batch.
_IGNORED_FOR_OOM = ("batch_size", "global_batch_size", "seq_len", "seed")


def find_done(
    cell: Cell, records: Sequence[Record], machine: Machine, *, skip: bool = True
) -> tuple[State, Record | None]:
    """Return a cell's state and the record that decides it; see `find_all_done`."""
    return find_all_done([cell], records, machine, skip=skip)[0]


def find_all_done(
    cells: Iterable[Cell],
    records: Sequence[Record],
    machine: Machine,
    *,
    skip: bool = True,
    packages: Mapping[str, str] | None = None,
) -> list[tuple[State, Record | None]]:
    """Return the state of each cell, and the record that decides it.

    The newest finished record of the cell in any study decides, but a fresh record comes before any stale record. A
    record is fresh if machine, host, package versions, measuring code and the variables that spoil figures are still the
    same. A skipped cell counts as done while a fresh record of another cell that ran out of memory is the reason to skip it.

    Args:
        cells: Cells of a study.
        records: Records of this machine, oldest first.
        machine: This machine.
        skip: False if cells must not be skipped; then records of skipped cells don't count.
        packages: Versions of the machine's packages; None: those that are installed here.

    Returns:
        For each cell its state, and the deciding record; None for a cell to do.
    """
    versions = _installed_versions(packages)
    records_by_run: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for record in records:
        records_by_run[record.config_hash, record.repeat].append(record)
    has_skipped = skip and any(record.outcome == "skipped" for record in records)
    oom_records = find_oom_records(records, machine, packages) if has_skipped else []
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


def find_oom_records(
    records: Sequence[Record], machine: Machine, packages: Mapping[str, str] | None = None
) -> list[Record]:
    """Return the newest fresh record of each configuration and repeat, if the outcome of that record is `oom`.

    Args:
        records: Records of the machine, oldest first.
        machine: The machine.
        packages: Versions of its packages; None: those that are installed here.
    """
    versions = _installed_versions(packages)
    newest: dict[tuple[str, int], Record] = {}
    for record in records:
        if record.outcome in FINISHED and _is_fresh(record, machine, versions):
            newest[record.config_hash, record.repeat] = record
    return [record for record in newest.values() if record.outcome == "oom"]


def find_oom_bound(config: FineTuneConfig | BaselineConfig, records: Iterable[Record], machine: Machine) -> str | None:
    """Return why a cell would run out of memory: a cell that is no larger, and may use as much memory or more, did.

    A cell's sizes are its examples per device and micro-batch, and its sequence length. Otherwise, the two cells must be
    equal in all settings that affect what is measured, except the seed and `limits.max_train_s`.

    Args:
        config: The cell's configuration.
        records: Records of this machine, of any outcome.
        machine: This machine.

    Returns:
        The reason for the record of the skipped cell; None if no record shows that the cell would run out of memory.
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


def fresh_records(records: Iterable[Record], machine: Machine) -> list[Record]:
    """Return the records that this machine would measure again: its own, with the packages and variables of now."""
    versions = _installed_versions()
    return [record for record in records if _is_fresh(record, machine, versions)]


def _is_finished(record: Record, cell: Cell) -> bool:
    if record.outcome == "timeout":
        return record.config.limits.timeout_s >= cell.config.limits.timeout_s
    return record.outcome in FINISHED


def _is_fresh(record: Record, machine: Machine, versions: Mapping[str, str]) -> bool:
    """Return whether a record's machine, host, packages, measuring code and spoiling variables are the current ones."""
    return (
        (record.machine.id, record.machine.host) == (machine.id, machine.host)
        and _has_same_variables(record, machine)
        and record.measuring_version == MEASURING_VERSION
        and all(record.packages.get(name, "not installed") == version for name, version in versions.items())
    )


def _has_same_variables(record: Record, machine: Machine) -> bool:
    """Return whether the same variables spoiled the record's figures as would now; older records don't tell.

    Otherwise a cell that a variable made `unsupported` would stay so after the variable is gone.
    """
    if record.machine.environment is None:
        return True
    before, now = (
        obeyed_spoilers(environment, on_gpu=record.config.on_gpu)
        for environment in (record.machine.environment, machine.environment)
    )
    return before == now


def _installed_versions(packages: Mapping[str, str] | None = None) -> dict[str, str]:
    if packages is not None:
        return {name: packages.get(name, "not installed") for name in _VERSIONED}
    return {name: package_version(name) for name in _VERSIONED}


def _config_without_size(config: FineTuneConfig) -> str:
    limits = config.limits.model_copy(update={"memory_limit_gib": None, "max_train_s": None})
    return hash_config(config.model_copy(update={"limits": limits}), ignore=_IGNORED_FOR_OOM)


def _memory_cap(config: FineTuneConfig) -> float:
    limit = config.limits.memory_limit_gib
    return math.inf if limit is None else limit
