"""Which records may stand side by side: in what, beside the machine, they differ (pure)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.summary import Summary
from harness.errors import UserError
from harness.schema.cells import Config, Device, FineTuneConfig, flat_config, hash_config
from harness.schema.host_record import Machine
from harness.schema.record import Record

_SHOWN_SIGNS = 12  # of a SHA-256: enough to tell two apart
# Say when to stop, or which runs there are: a difference in one is no difference in what was measured.
_NO_MATTER = frozenset(
    {"seed", "training.seeds"} | {f"limits.{key}" for key in ("timeout_s", "budget_minutes", "budget_usd")}
)

# A cell without its seeds and without the kind of its devices: the same work on a CPU and on a GPU.
Work = tuple[str, int | None, bool]


@dataclass(frozen=True)
class Value:
    """One of the values that differ, and the machines whose records have it."""

    shown: str
    machine_ids: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """In what records differ that stand side by side.

    Attributes:
        key: `torch`, `test rows`, or a key of a study's configuration, such as `training.epochs of study default`.
        num_cells: In how many cells.
    """

    key: str
    values: tuple[Value, ...]
    num_cells: int


def work_key(config: FineTuneConfig) -> Work:
    """What tells whether two machines did the same work."""
    device = Device.parse(config.device)
    return hash_config(config, ignore=("seed", "device")), device.num_ranks, device.ddp


def differences(summaries: Iterable[Summary]) -> list[Difference]:
    """Every key in which measured cells of one report differ, though they should not.

    Cells of one name in one study should have one configuration on every machine; the same work should have the same
    rows and the same model; and all cells one release of torch and of transformers, and one version of the measuring
    code. Builds of one release (+cpu, +cu130) are the same.
    """
    rows = [row for row in summaries if row.kind == "fine_tune" and row.num_ok]
    found = _Tally()
    for members in _by_name(rows):
        for row, key, value in _configurations(members):
            found.add(key, value, row.machine_id, row.cell)
    by_work: dict[Work, list[Summary]] = defaultdict(list)
    for row in rows:
        if isinstance(row.config, FineTuneConfig):
            by_work[work_key(row.config)].append(row)
    for members in by_work.values():
        _compare(members, _inputs, found)
    _compare(rows, _versions, found)
    return found.differences()


def describe_difference(difference: Difference, names: Mapping[str, str] | None = None) -> str:
    """A difference in words: `torch: 2.12.0 on A; 2.13.0 on B and C`."""
    told = names or {}
    values = [
        f"{value.shown} on {_listed([told.get(one, one) for one in value.machine_ids])}" for value in difference.values
    ]
    return f"{difference.key}: {'; '.join(values)}"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def require_same(found: Sequence[Difference]) -> None:
    """Refuse records that differ.

    Raises:
        UserError: With every key, its values and their machines.
    """
    if found:
        raise UserError(
            "\n".join([
                "--strict: these records should not be compared, since they differ in",
                *(f"  {describe_difference(difference)}" for difference in found),
                "leave some of them out (name the folders or archives that belong together), measure them anew with "
                "the same study and packages, or report without --strict",
            ])
        )  # fmt: skip


def slice_words(machine: Machine) -> str | None:
    """What part of a machine it is that was measured: `1 of 2 CPUs, 1.5 GiB`; None where it is all of it."""
    cpu, parts = machine.cpu, []
    if cpu.num_usable < cpu.num_logical:
        parts.append(f"{cpu.num_usable} of {cpu.num_logical} CPUs")
    if machine.memory_limit_bytes is not None:
        parts.append(f"{machine.memory_limit_bytes / 2**30:.3g} GiB")
    return ", ".join(parts) or None


class _Tally:
    """Values by key, with the machines and cells that have them."""

    def __init__(self) -> None:
        self._machines: dict[str, dict[str, dict[str, None]]] = {}
        self._cells: dict[str, set[str]] = defaultdict(set)

    def add(self, key: str, value: str, machine_id: str, cell: str) -> None:
        """Note that a record of this machine has this value."""
        self._machines.setdefault(key, {}).setdefault(value, {})[machine_id] = None
        self._cells[key].add(cell)

    def differences(self) -> list[Difference]:
        """Every key that has two values or more."""
        return [
            Difference(
                key, tuple(Value(value, tuple(ids)) for value, ids in sorted(values.items())), len(self._cells[key])
            )
            for key, values in self._machines.items()
            if len(values) > 1
        ]


def _compare(members: Sequence[Summary], read: Any, found: _Tally) -> None:  # noqa: ANN401 - one of the two below
    """Add what differs within these members; what is None was not recorded, and differs from nothing."""
    seen = [(row, key, value) for row in members for run in row.ok_records for key, value in read(run) if value]
    kinds: dict[str, set[str]] = defaultdict(set)
    for _, key, value in seen:
        kinds[key].add(value)
    for row, key, value in seen:
        if len(kinds[key]) > 1:
            found.add(key, value, row.machine_id, row.cell)


def _inputs(record: Record) -> Iterator[tuple[str, str | None]]:
    data, model = record.data, record.model
    yield "training rows", data.train.sha256[:_SHOWN_SIGNS] if data else None
    yield "test rows", data.test.sha256[:_SHOWN_SIGNS] if data else None
    yield "model", model.sha256[:_SHOWN_SIGNS] if model and model.sha256 else None


def _versions(record: Record) -> Iterator[tuple[str, str | None]]:
    torch = record.packages.get("torch")
    yield "torch", torch.partition("+")[0] if torch else None
    yield "transformers", record.packages.get("transformers")
    yield "measuring version", f"{record.measuring_version}"


def _by_name(rows: Iterable[Summary]) -> list[list[Summary]]:
    groups: dict[tuple[str, str], list[Summary]] = defaultdict(list)
    for row in rows:
        groups[row.study, row.cell].append(row)
    return list(groups.values())


def _configurations(members: Sequence[Summary]) -> Iterator[tuple[Summary, str, str]]:
    """What differs in the configurations of cells that have one name, where machines have not the same ones."""
    hashes: dict[str, set[str]] = defaultdict(set)
    for row in members:
        hashes[row.machine_id].add(hash_config(row.config, ignore=("seed",)))
    if len({frozenset(found) for found in hashes.values()}) == 1:
        return
    flat = [_flat(row.config) for row in members]
    for key in flat[0]:
        if len({str(fields.get(key)) for fields in flat}) > 1:
            for row, fields in zip(members, flat, strict=True):
                yield row, f"{key} of study {row.study}", str(fields.get(key))


def _flat(config: Config) -> dict[str, Any]:
    return {key: value for key, value in flat_config(config).items() if key not in _NO_MATTER}
