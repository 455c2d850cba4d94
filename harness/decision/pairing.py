"""Pairing of two sides' cells: pairs with the same work, unpaired cells, and differences between the sides (pure)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from harness.decision.cells import comparable_in_dollars
from harness.decision.differences import Difference, Value, differences, work_key
from harness.errors import UserError
from harness.pricing.cost import Priced
from harness.schema.cells import FineTuneConfig, hash_config
from harness.schema.record import Record

Side = Literal["A", "B"]


@dataclass(frozen=True)
class UnpairedCell:
    """A cell that only one side measured.

    Attributes:
        other: The failed cell of the other side; None if the other side did not try the cell.
    """

    side: Side
    cell: Priced
    other: Priced | None


@dataclass(frozen=True)
class Pairing:
    """Pairs to compare, and cells without a partner.

    Attributes:
        notes: Caveats that apply to all ratios, one sentence each.
    """

    pairs: tuple[tuple[Priced, Priced], ...]
    alone: tuple[UnpairedCell, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


def pair_cells(
    cells_a: Sequence[Priced],
    cells_b: Sequence[Priced],
    machine_a: str | None = None,
    machine_b: str | None = None,
    *,
    across: Iterable[str] = (),
) -> Pairing:
    """Pair fine-tuning cells by configuration without seeds, and cells that remain by `work_key`.

    If both sides have the same machines, each machine is compared with itself; otherwise each side must have a single
    machine.

    Args:
        cells_a: Cells of side A.
        cells_b: Cells of side B.
        machine_a: Machine id of side A, or a unique part of the id; needed if A has several machines.
        machine_b: Machine id of side B, or a unique part of the id; needed if B has several machines.
        across: Configuration keys in which paired cells may differ, such as `training.compile`.

    Raises:
        UserError: If the choice of machines is ambiguous, or there is nothing to compare.
    """
    sides = [_cells_of_machine(cells_a, machine_a, "A"), _cells_of_machine(cells_b, machine_b, "B")]
    ids = [{cell.summary.machine_id for cell in side} for side in sides]
    if ids[0] != ids[1]:
        _require_one(sides, ids)
    by_machine = ids[0] == ids[1]
    pairs, unmatched = _match(*sides, by_machine=by_machine, ignore=("seed", *across))
    ran = tuple(pair for pair in pairs if all(_ran(cell) for cell in pair))
    alone = [unpaired for pair in pairs for unpaired in _failed_partner(*pair)]
    alone += [UnpairedCell(side, cell, None) for side, cells in unmatched for cell in cells if _ran(cell)]
    if not ran and not alone:
        raise UserError("nothing to compare: neither side has a fine-tuning cell that ended well")
    return Pairing(ran, tuple(alone), tuple(_differences(*sides)), tuple(_notes(ran)))


def _cells_of_machine(cells: Iterable[Priced], machine: str | None, side: Side) -> list[Priced]:
    """Return a side's fine-tuning cells, of one machine if `machine` names it."""
    models = [cell for cell in cells if isinstance(cell.summary.config, FineTuneConfig)]
    ids = sorted({cell.summary.machine_id for cell in models})
    if not models:
        raise UserError(f"{side}: no record of a fine-tuning cell was found: name a folder, file or archive of records")
    if machine is None:
        return models
    matching = [name for name in ids if name == machine] or [name for name in ids if machine in name]
    if len(matching) != 1:
        problem = "matches several" if matching else "matches none"
        raise UserError(f"{side}: machine {machine!r} {problem} of those found: {', '.join(ids)}")
    return [cell for cell in models if cell.summary.machine_id == matching[0]]


def _require_one(sides: Sequence[Sequence[Priced]], ids: Sequence[set[str]]) -> None:
    for side, cells, machine_ids in zip("AB", sides, ids, strict=True):
        if cells and len(machine_ids) > 1:
            raise UserError(
                f"{side} holds records of several machines: choose one by --machine-{side.lower()} or as "
                f"PATH:MACHINE, of {', '.join(sorted(machine_ids))}"
            )


def _match(
    cells_a: Sequence[Priced], cells_b: Sequence[Priced], *, by_machine: bool, ignore: Sequence[str]
) -> tuple[list[tuple[Priced, Priced]], list[tuple[Side, list[Priced]]]]:
    """Pair cells whose configuration, or else whose work, occurs once on each side.

    Args:
        cells_a: Cells of side A.
        cells_b: Cells of side B.
        by_machine: Only pair cells of the same machine.
        ignore: Configuration keys that may differ.

    Returns:
        The pairs, and each side's cells without a partner.
    """

    def exact(cell: Priced) -> Hashable:
        return machine(cell), hash_config(cell.summary.config, ignore=ignore)

    def same_work(cell: Priced) -> Hashable:
        config = cell.summary.config
        return machine(cell), work_key(config) if isinstance(config, FineTuneConfig) else None

    def machine(cell: Priced) -> str | None:
        return cell.summary.machine_id if by_machine else None

    pairs: list[tuple[Priced, Priced]] = []
    rest_a, rest_b = list(cells_a), list(cells_b)
    for key in (exact, same_work):
        groups = _group(rest_a, key), _group(rest_b, key)
        # Keys with several cells on a side (such as on CPU and GPU) are left unpaired, since a pair would be ambiguous.
        shared = [name for name, cells in groups[0].items() if len(cells) == len(groups[1].get(name, ())) == 1]
        pairs += [(groups[0][name][0], groups[1][name][0]) for name in shared]
        paired = set(shared)
        rest_a, rest_b = ([cell for cell in cells if key(cell) not in paired] for cells in (rest_a, rest_b))
    return pairs, [("A", rest_a), ("B", rest_b)]


def _group(cells: Iterable[Priced], key: Callable[[Priced], Hashable]) -> dict[Hashable, list[Priced]]:
    groups: dict[Hashable, list[Priced]] = defaultdict(list)
    for cell in cells:
        groups[key(cell)].append(cell)
    return groups


def _ran(cell: Priced) -> bool:
    return cell.summary.samples_per_s is not None


def _failed_partner(a: Priced, b: Priced) -> Iterator[UnpairedCell]:
    """Yield the successful cell of a pair whose other cell failed."""
    if _ran(a) and not _ran(b):
        yield UnpairedCell("A", a, b)
    elif _ran(b) and not _ran(a):
        yield UnpairedCell("B", b, a)


def _differences(cells_a: Sequence[Priced], cells_b: Sequence[Priced]) -> Iterator[Difference]:
    """Yield the differences between the sides.

    Values are attributed to sides A and B instead of machines, because both sides may be one machine at two times.
    """
    sides: dict[Side, Sequence[Priced]] = {"A": cells_a, "B": cells_b}
    for key, read in _FACTS:
        values: dict[str, dict[str, None]] = defaultdict(dict)
        sets = [{fact for record in _records(cells) if (fact := read(record))} for cells in sides.values()]
        for side, facts in zip(sides, sets, strict=True):
            for value in sorted(facts):
                values[value][side] = None
        if sets[0] != sets[1] and all(sets):
            yield Difference(
                key, tuple(Value(value, tuple(names)) for value, names in values.items()), len(cells_a) + len(cells_b)
            )
    named = [replace(cell.summary, machine_id=side) for side, cells in sides.items() for cell in cells]
    yield from differences(named)


# Hosts are compared besides machine ids, because different computers of one type share an id.
_FACTS: tuple[tuple[str, Callable[[Record], str | None]], ...] = (
    ("machine", lambda record: record.machine.id),
    ("host", lambda record: record.machine.host and record.machine.host[:8]),
    ("kernel", lambda record: record.machine.kernel),
    ("Python", lambda record: record.machine.python),
    ("allocator", lambda record: record.machine.allocator),
)


def _records(cells: Iterable[Priced]) -> list[Record]:
    return [record for cell in cells for record in cell.summary.ok_records]


def _notes(pairs: Sequence[tuple[Priced, Priced]]) -> Iterator[str]:
    records_a, records_b = (_records(cells) for cells in zip(*pairs, strict=True)) if pairs else ([], [])
    if not records_a or not records_b:
        return
    for side, cells in zip("AB", zip(*pairs, strict=True), strict=True):
        warned = sum(bool(cell.summary.warnings) for cell in cells)
        if warned:
            yield f"{warned} of {side}'s {len(cells)} cells have warnings, which `harness report` spells out."
    if not all(comparable_in_dollars(pair) for pair in pairs):
        yield "Costs of different machines are not compared where a price is an example: state both prices."
    same = {_run(record) for record in records_a} & {_run(record) for record in records_b}
    if same:
        yield f"{len(same)} runs stand on both sides: they say nothing of a difference."
    elif {_computer(record) for record in records_a} == {_computer(record) for record in records_b}:
        began = [
            (min(times), max(times))
            for times in ([record.started_at for record in side] for side in (records_a, records_b))
        ]
        if began[0][1] < began[1][0] or began[1][1] < began[0][0]:
            first, second = ("A", "B") if began[0][1] < began[1][0] else ("B", "A")
            yield (
                f"All runs of {first} were made before those of {second}: what changed on the machine between them is in "
                "every ratio, and in no interval; take turns to keep it out."
            )


def _computer(record: Record) -> tuple[str, str | None]:
    return record.machine.id, record.machine.host


def _run(record: Record) -> tuple[object, ...]:
    return *_computer(record), record.config_hash, record.repeat, record.started_at
