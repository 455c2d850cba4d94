"""Unwanted differences between records that a report compares, such as in versions or test sets (pure)."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.summary import Summary
from harness.errors import UserError
from harness.schema.cells import Config, Device, FineTuneConfig, flat_config, hash_config
from harness.schema.host_record import Machine
from harness.schema.record import Record

_SHA256_DIGITS = 12  # digits of a hash to show
# Configuration keys that only choose or stop runs. They may differ, since they don't change what is measured.
_IGNORED_KEYS = frozenset(
    {"seed", "training.seeds"} | {f"limits.{key}" for key in ("timeout_s", "budget_minutes", "budget_usd")}
)

# Hash of the configuration without seed and device, number of ranks, whether DDP is used. The device is left out, so
# that the key is equal for the same work on CPU and GPU.
Work = tuple[str, int | None, bool, int]


@dataclass(frozen=True)
class Value:
    """One of a key's differing values, and the machines whose records have this value."""

    shown: str
    machine_ids: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """A key with several values in records that are compared.

    Attributes:
        key: `torch`, `test rows`, or a configuration key such as `training.epochs of study default`.
        num_cells: Number of cells that have any of the values.
    """

    key: str
    values: tuple[Value, ...]
    num_cells: int


def work_key(config: FineTuneConfig) -> Work:
    """Return a key that is equal for cells doing the same work on different machines."""
    device = Device.parse(config.device)
    return hash_config(config, ignore=("seed", "device")), device.num_ranks, device.ddp, device.num_nodes


def differences(summaries: Iterable[Summary]) -> list[Difference]:
    """Find the keys in which measured cells differ although they should not.

    Cells of the same study and name are compared by configuration; cells with the same work by data rows and model; all
    cells by the versions of torch, transformers and the measuring code, and by the environment variables that can move a
    figure. Builds of one torch release (+cpu, +cu130) count as equal.
    """
    rows = [row for row in summaries if row.kind == "fine_tune" and row.num_ok]
    tally = _Tally()
    for members in _by_name(rows):
        for row, key, value in _configurations(members):
            tally.add(key, value, row.machine_id, row.cell)
    by_work: dict[Work, list[Summary]] = defaultdict(list)
    for row in rows:
        if isinstance(row.config, FineTuneConfig):
            by_work[work_key(row.config)].append(row)
    for members in by_work.values():
        _compare(members, _inputs, tally)
    _compare(rows, _versions, tally)
    _compare(rows, functools.partial(_variables, _variable_names(rows)), tally)
    return tally.differences()


def describe_difference(difference: Difference, names: Mapping[str, str] | None = None) -> str:
    """Format a difference, such as `torch: 2.12.0 on A; 2.13.0 on B and C`.

    Args:
        difference: The difference.
        names: Maps machine ids to the names to show; None to show the ids.
    """
    shown = names or {}
    values = [
        f"{value.shown} on {_join([shown.get(name, name) for name in value.machine_ids])}"
        for value in difference.values
    ]
    return f"{difference.key}: {'; '.join(values)}"


def _join(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def require_same(differing: Sequence[Difference]) -> None:
    """Refuse records that differ.

    Raises:
        UserError: If there is a difference; the message lists each key with its values and their machines.
    """
    if differing:
        raise UserError(
            "\n".join([
                "--strict: these records should not be compared, since they differ in",
                *(f"  {describe_difference(difference)}" for difference in differing),
                "leave some of them out (name the folders or archives that belong together), measure them again with "
                "the same study and packages, or report without --strict",
            ])
        )  # fmt: skip


def slice_words(machine: Machine) -> str | None:
    """Describe the measured part of a machine, such as `1 of 2 CPUs, 1.5 GiB`; None if all of it was measured."""
    cpu, parts = machine.cpu, []
    if cpu.num_usable < cpu.num_logical:
        parts.append(f"{cpu.num_usable} of {cpu.num_logical} CPUs")
    if machine.memory_limit_bytes is not None:
        parts.append(f"{machine.memory_limit_bytes / 2**30:.3g} GiB")
    return ", ".join(parts) or None


class _Tally:
    """A collection of the values of each key, with the machines and cells that have them."""

    def __init__(self) -> None:
        self._machines: dict[str, dict[str, dict[str, None]]] = {}
        self._cells: dict[str, set[str]] = defaultdict(set)

    def add(self, key: str, value: str, machine_id: str, cell: str) -> None:
        """Add one value of a key.

        Args:
            key: The key.
            value: The value.
            machine_id: Machine whose records have this value.
            cell: Cell whose records have this value.
        """
        self._machines.setdefault(key, {}).setdefault(value, {})[machine_id] = None
        self._cells[key].add(cell)

    def differences(self) -> list[Difference]:
        """Return every key with at least two values."""
        return [
            Difference(
                key, tuple(Value(value, tuple(ids)) for value, ids in sorted(values.items())), len(self._cells[key])
            )
            for key, values in self._machines.items()
            if len(values) > 1
        ]


def _compare(
    members: Sequence[Summary], read: Callable[[Record], Iterator[tuple[str, str | None]]], tally: _Tally
) -> None:
    """Add to the tally each key that has several values among the members; None (not recorded) is ignored."""
    values = [(row, key, value) for row in members for run in row.ok_records for key, value in read(run) if value]
    distinct: dict[str, set[str]] = defaultdict(set)
    for _, key, value in values:
        distinct[key].add(value)
    for row, key, value in values:
        if len(distinct[key]) > 1:
            tally.add(key, value, row.machine_id, row.cell)


def _inputs(record: Record) -> Iterator[tuple[str, str | None]]:
    data, model = record.data, record.model
    yield "training rows", data.train.sha256[:_SHA256_DIGITS] if data else None
    yield "test rows", data.test.sha256[:_SHA256_DIGITS] if data else None
    yield "model", model.sha256[:_SHA256_DIGITS] if model and model.sha256 else None


def _versions(record: Record) -> Iterator[tuple[str, str | None]]:
    torch = record.packages.get("torch")
    yield "torch", torch.partition("+")[0] if torch else None
    yield "transformers", record.packages.get("transformers")
    yield "measuring version", f"{record.measuring_version}"


def _variable_names(rows: Iterable[Summary]) -> list[str]:
    return sorted({name for row in rows for record in row.ok_records for name in record.machine.environment or ()})


def _variables(names: Iterable[str], record: Record) -> Iterator[tuple[str, str | None]]:
    """Yield each variable with its value, `not set`, or None for older records, which hold no variables."""
    environment = record.machine.environment
    for name in names:
        yield f"variable {name}", None if environment is None else environment.get(name) or "not set"


def _by_name(rows: Iterable[Summary]) -> list[list[Summary]]:
    groups: dict[tuple[str, str], list[Summary]] = defaultdict(list)
    for row in rows:
        groups[row.study, row.cell].append(row)
    return list(groups.values())


def _configurations(members: Sequence[Summary]) -> Iterator[tuple[Summary, str, str]]:
    """Yield (summary, key, value) of each differing key if machines have different configurations of one cell name."""
    hashes: dict[str, set[str]] = defaultdict(set)
    for row in members:
        hashes[row.machine_id].add(hash_config(row.config, ignore=("seed",)))
    if len({frozenset(of_machine) for of_machine in hashes.values()}) == 1:
        return
    flat = [_flat(row.config) for row in members]
    for key in flat[0]:
        if len({str(fields.get(key)) for fields in flat}) > 1:
            for row, fields in zip(members, flat, strict=True):
                yield row, f"{key} of study {row.study}", str(fields.get(key))


def _flat(config: Config) -> dict[str, Any]:
    return {key: value for key, value in flat_config(config).items() if key not in _IGNORED_KEYS}
