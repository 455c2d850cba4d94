"""Two sides' cells laid beside each other: which do the same work, which stand alone, in what the sides differ (pure)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

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
        other: The other side's, where that was tried and did not end well.
    """

    side: Side
    cell: Priced
    other: Priced | None


@dataclass(frozen=True)
class Pairing:
    """What may be compared, and what not.

    Attributes:
        notes: What a reader should know before believing any ratio, a sentence each.
    """

    pairs: tuple[tuple[Priced, Priced], ...]
    alone: tuple[UnpairedCell, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


def pair_cells(
    one: Sequence[Priced],
    other: Sequence[Priced],
    machine_a: str | None = None,
    machine_b: str | None = None,
    *,
    across: Iterable[str] = (),
) -> Pairing:
    """Match fine-tuning cells by the hash of their configuration without seeds; what is left, by its work.

    A side of several machines is narrowed to one by a machine's id or a part of it. Only where both sides hold the same
    machines may all stay: each is then compared with itself.

    Args:
        across: Keys of a configuration that are compared, so that cells may differ in them: `training.compile`.

    Raises:
        UserError: Where it is not clear which machine is meant, or nothing matches.
    """
    sides = [_chosen(one, machine_a, "A"), _chosen(other, machine_b, "B")]
    ids = [{cell.summary.machine_id for cell in side} for side in sides]
    if ids[0] != ids[1]:
        _require_one(sides, ids)
    by_machine = ids[0] == ids[1]
    pairs, left = _matched(*sides, by_machine=by_machine, ignore=("seed", *across))
    ran = tuple(pair for pair in pairs if all(_ran(cell) for cell in pair))
    alone = [found for pair in pairs for found in _failed(*pair)]
    alone += [UnpairedCell(side, cell, None) for side, cells in left for cell in cells if _ran(cell)]
    if not ran and not alone:
        raise UserError("nothing to compare: neither side has a fine-tuning cell that ended well")
    return Pairing(ran, tuple(alone), tuple(_differences(*sides)), tuple(_notes(ran)))


def _chosen(cells: Iterable[Priced], machine: str | None, side: Side) -> list[Priced]:
    found = [cell for cell in cells if isinstance(cell.summary.config, FineTuneConfig)]
    ids = sorted({cell.summary.machine_id for cell in found})
    if not found:
        raise UserError(f"{side}: no record of a fine-tuning cell was found: name a folder, file or archive of records")
    if machine is None:
        return found
    meant = [one for one in ids if one == machine] or [one for one in ids if machine in one]
    if len(meant) != 1:
        say = "stands for several" if meant else "is none"
        raise UserError(f"{side}: machine {machine!r} {say} of those found: {', '.join(ids)}")
    return [cell for cell in found if cell.summary.machine_id == meant[0]]


def _require_one(sides: Sequence[Sequence[Priced]], ids: Sequence[set[str]]) -> None:
    for side, cells, found in zip("AB", sides, ids, strict=True):
        if cells and len(found) > 1:
            raise UserError(
                f"{side} holds records of several machines: choose one by --machine-{side.lower()} or as "
                f"PATH:MACHINE, of {', '.join(sorted(found))}"
            )


def _matched(
    one: Sequence[Priced], other: Sequence[Priced], *, by_machine: bool, ignore: Sequence[str]
) -> tuple[list[tuple[Priced, Priced]], list[tuple[Side, list[Priced]]]]:
    def exact(cell: Priced) -> Hashable:
        return machine(cell), hash_config(cell.summary.config, ignore=ignore)

    def same_work(cell: Priced) -> Hashable:
        config = cell.summary.config
        return machine(cell), work_key(config) if isinstance(config, FineTuneConfig) else None

    def machine(cell: Priced) -> str | None:
        return cell.summary.machine_id if by_machine else None

    pairs: list[tuple[Priced, Priced]] = []
    mine, theirs = list(one), list(other)
    for key in (exact, same_work):
        groups = _grouped(mine, key), _grouped(theirs, key)
        # One of a kind on each side: of a machine's CPU and GPU cell it is not clear which is meant.
        shared = [name for name, cells in groups[0].items() if len(cells) == len(groups[1].get(name, ())) == 1]
        pairs += [(groups[0][name][0], groups[1][name][0]) for name in shared]
        done = set(shared)
        mine, theirs = ([cell for cell in cells if key(cell) not in done] for cells in (mine, theirs))
    return pairs, [("A", mine), ("B", theirs)]


def _grouped(cells: Iterable[Priced], key: Callable[[Priced], Hashable]) -> dict[Hashable, list[Priced]]:
    found: dict[Hashable, list[Priced]] = defaultdict(list)
    for cell in cells:
        found[key(cell)].append(cell)
    return found


def _ran(cell: Priced) -> bool:
    return cell.summary.samples_per_s is not None


def _failed(one: Priced, other: Priced) -> Iterator[UnpairedCell]:
    """Of a pair where not both ran: the one that did."""
    if _ran(one) and not _ran(other):
        yield UnpairedCell("A", one, other)
    elif _ran(other) and not _ran(one):
        yield UnpairedCell("B", other, one)


def _differences(one: Sequence[Priced], other: Sequence[Priced]) -> Iterator[Difference]:
    """What differs between the sides, named A and B instead of by machine: both may be one machine at two times."""
    sides: dict[Side, Sequence[Priced]] = {"A": one, "B": other}
    for key, read in _FACTS:
        values: dict[str, dict[str, None]] = defaultdict(dict)
        sets = [{fact for record in _records(cells) if (fact := read(record))} for cells in sides.values()]
        for side, found in zip(sides, sets, strict=True):
            for value in sorted(found):
                values[value][side] = None
        if sets[0] != sets[1] and all(sets):
            yield Difference(
                key, tuple(Value(value, tuple(which)) for value, which in values.items()), len(one) + len(other)
            )
    named = [replace(cell.summary, machine_id=side) for side, cells in sides.items() for cell in cells]
    yield from differences(named)


# Same id, another host: of one type, but not the same computer.
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
    one, other = (_records(cells) for cells in zip(*pairs, strict=True)) if pairs else ([], [])
    if not one or not other:
        return
    for side, cells in zip("AB", zip(*pairs, strict=True), strict=True):
        warned = sum(bool(cell.summary.warnings) for cell in cells)
        if warned:
            yield f"{warned} of {side}'s {len(cells)} cells have warnings, which `harness report` spells out."
    same = {_run(record) for record in one} & {_run(record) for record in other}
    if same:
        yield f"{len(same)} runs stand on both sides: they say nothing of a difference."
    elif {_computer(record) for record in one} == {_computer(record) for record in other}:
        began = [
            (min(times), max(times)) for times in ([record.started_at for record in side] for side in (one, other))
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
