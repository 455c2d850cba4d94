"""Cells of several machines in one table: the same work side by side, and who leads in what (pure)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from harness.analysis.estimate import Estimate, intervals_disjoint
from harness.analysis.summarize import summarize
from harness.analysis.throughput import HostSpread, host_spread
from harness.decision.differences import Work, slice_words, work_key
from harness.pricing import cost
from harness.pricing.cost import Priced
from harness.pricing.prices import Price
from harness.schema.assumptions import Assumptions
from harness.schema.cells import FineTuneConfig
from harness.schema.host_record import Machine
from harness.schema.record import Record

_LEAST_TYPES = 2


@dataclass(frozen=True)
class MachineType:
    """One kind of machine: hosts with one id, or with one instance type that was stated or detected.

    Attributes:
        machine_ids: Several where hosts of one instance type are not built alike.
        machine: Of its newest record.
        slice: What part of the machine it is; None for all of it.
        num_hosts: That are told apart; 1 where they are not.
    """

    machine_ids: tuple[str, ...]
    machine: Machine
    price: Price | None
    missing: str | None
    slice: str | None
    num_hosts: int


@dataclass(frozen=True)
class ComparedCell:
    """The same work on every type: one that ran it, could not run it (`num_ok` 0), or was not asked to (None)."""

    squares: tuple[Priced | None, ...]

    @property
    def measured(self) -> tuple[Priced, ...]:
        """Those with a speed."""
        return tuple(cell for cell in self.squares if cell is not None and _ran(cell))

    @property
    def example(self) -> Priced:
        """One that stands for the work."""
        return self.measured[0]


@dataclass(frozen=True)
class MachineFigure:
    """What machines are ranked by; `most` is better for a speed, the least for an amount."""

    key: str
    read: Callable[[Priced], Estimate | None]
    most: bool = False


SPEED = MachineFigure("fastest", lambda cell: cell.summary.samples_per_s, most=True)
PER_1000 = MachineFigure("per_1000", lambda cell: cell.usd_per_1000_samples)


@dataclass(frozen=True)
class Ranking:
    """Each type's best cell by one figure, and what may be said of them.

    Attributes:
        best: By type; None where none of its cells has the figure.
        first: The type with the best value; None where fewer than two have one.
        level: Types whose interval meets that of the first, or that can't be told for want of an interval.
    """

    figure: MachineFigure
    best: tuple[Priced | None, ...]
    first: int | None
    level: tuple[int, ...]

    def estimate(self, index: int) -> Estimate | None:
        """A type's figure."""
        cell = self.best[index]
        return None if cell is None else self.figure.read(cell)


@dataclass(frozen=True)
class SideBySide:
    """The machines of a report.

    Attributes:
        lines: Work that was tried on two types or more and ended well on one at least.
        rankings: Over the lines that two types or more measured, the head alone left out where the whole was trained.
        num_alone: Cells that were measured on one type, and tried on no other.
        deadline_s: From the order of a machine to the end of a run.
    """

    types: tuple[MachineType, ...]
    lines: tuple[ComparedCell, ...]
    rankings: tuple[Ranking, ...]
    num_alone: int
    deadline_s: float | None

    @property
    def shared(self) -> tuple[ComparedCell, ...]:
        """The lines that can be compared: two types or more measured them."""
        return tuple(line for line in self.lines if len(line.measured) >= _LEAST_TYPES)

    @property
    def ranked(self) -> tuple[ComparedCell, ...]:
        """The lines that machines are ranked over."""
        return _ranked(self.lines)


def side_by_side(
    cells: Sequence[Priced], assumed: Assumptions, *, deadline_s: float | None = None
) -> SideBySide | None:
    """Lay the machines of these cells side by side; None unless there are two types or more."""
    types = machine_types(cells)
    if len(types) < _LEAST_TYPES:
        return None
    place = {machine_id: index for index, one in enumerate(types) for machine_id in one.machine_ids}
    found: dict[Work, dict[int, list[Priced]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        if isinstance(cell.summary.config, FineTuneConfig):
            found[work_key(cell.summary.config)][place[cell.summary.machine_id]].append(cell)
    lines = [
        ComparedCell(tuple(_square(by_type[i], assumed) if i in by_type else None for i in range(len(types))))
        for by_type in found.values()
    ]
    tried = [line for line in lines if sum(cell is not None for cell in line.squares) >= _LEAST_TYPES]
    kept = tuple(line for line in tried if line.measured)
    return SideBySide(
        types=types,
        lines=kept,
        rankings=tuple(_rank(figure, kept, len(types)) for figure in _figures(assumed, deadline_s)),
        num_alone=sum(1 for line in lines if len(line.measured) == 1 and line not in tried),
        deadline_s=deadline_s,
    )


def machine_types(cells: Sequence[Priced]) -> tuple[MachineType, ...]:
    """Kinds of machine in order of first appearance."""
    groups: dict[tuple[str | None, ...], list[Priced]] = {}
    for cell in cells:
        groups.setdefault(_kind(cell), []).append(cell)
    types = []
    for members in groups.values():
        records = [record for cell in members for record in cell.summary.records]
        newest = max(records, key=lambda record: record.started_at).machine
        types.append(
            MachineType(
                machine_ids=tuple(dict.fromkeys(cell.summary.machine_id for cell in members)),
                machine=newest,
                price=next((cell.price for cell in members if cell.price is not None), None),
                missing=next((cell.missing for cell in members if cell.missing), None),
                slice=slice_words(newest),
                num_hosts=max(1, len({record.machine.host for record in records} - {None})),
            )
        )
    return tuple(types)


def hosts_of(cell: Priced) -> HostSpread | None:
    """The spread between the hosts of one square."""
    return host_spread(cell.summary.records)


def _kind(cell: Priced) -> tuple[str | None, ...]:
    """An instance type that was stated or detected, with what part of it was measured; else the machine's id.

    Of own hardware every machine has the same name, which makes them no type.
    """
    price = cell.price
    if price is None or price.instance is None or price.basis not in ("stated", "detected") or price.plan == "own":
        return ("machine", cell.summary.machine_id)
    part = slice_words(cell.summary.records[-1].machine)
    return ("instance", price.instance, price.provider, price.region, part)


def _square(members: Sequence[Priced], assumed: Assumptions) -> Priced:
    """One type's cell: what ran before what did not, the GPU's before the CPU's, and hosts of one instance type as one."""

    def preference(cell: Priced) -> tuple[bool, bool]:
        return cell.summary.samples_per_s is None, _device(cell) != "gpu"

    first = min(members, key=preference)
    same = [cell for cell in members if preference(cell) == preference(first)]
    return first if len(same) == 1 or first.summary.samples_per_s is None else _pooled(same, assumed)


def _pooled(members: Sequence[Priced], assumed: Assumptions) -> Priced:
    """Machines with ids of their own but one instance type, summarised as hosts of one machine."""
    first = members[0]
    machine_id = first.summary.machine_id
    runs = [_renamed(record, machine_id) for cell in members for record in cell.summary.records]
    (summary, *_) = summarize(runs)
    found = first.price or first.missing or "no price was found"
    (pooled,) = cost.price([summary], lambda _summary: found, assumed)
    return pooled


def _renamed(record: Record, machine_id: str) -> Record:
    machine = record.machine.model_copy(update={"id": machine_id})
    return record.model_copy(update={"machine": machine})


def _device(cell: Priced) -> str:
    return "gpu" if cell.summary.config.on_gpu else "cpu"


def _figures(assumed: Assumptions, deadline_s: float | None) -> list[MachineFigure]:
    def in_time(cell: Priced) -> Estimate | None:
        seconds = cost.waited_seconds(cell.summary, cell.price, assumed.prices)
        late = seconds is None or deadline_s is None or seconds.value > deadline_s
        return None if late else cell.usd_billed

    figures = [
        SPEED,
        PER_1000,
        MachineFigure("run", lambda cell: cell.usd_per_run),
        MachineFigure("to_target", lambda cell: cell.usd_to_target),
    ]
    return figures if deadline_s is None else [*figures, MachineFigure("in_time", in_time)]


def _ranked(lines: Iterable[ComparedCell]) -> tuple[ComparedCell, ...]:
    shared = tuple(line for line in lines if len(line.measured) >= _LEAST_TYPES)
    # Training the head alone is other work: quick and cheap, and often good for nothing.
    whole = tuple(line for line in shared if getattr(line.example.summary.config, "trainable", "all") == "all")
    return whole or shared


def _rank(figure: MachineFigure, lines: Iterable[ComparedCell], num_types: int) -> Ranking:
    ranked = _ranked(lines)
    best = tuple(_best(figure, [line.squares[index] for line in ranked]) for index in range(num_types))
    return Ranking(figure, best, *verdict(best, figure))


def verdict(cells: Sequence[Priced | None], figure: MachineFigure) -> tuple[int | None, tuple[int, ...]]:
    """The place of the best of these cells, and of those that can't be told from it; none with fewer than two figures."""
    found = {
        index: estimate
        for index, cell in enumerate(cells)
        if _ran(cell) and cell is not None and (estimate := figure.read(cell)) is not None
    }
    if len(found) < _LEAST_TYPES:
        return None, ()
    first = (max if figure.most else min)(found, key=lambda index: found[index].value)
    return first, tuple(
        index for index in found if index != first and not intervals_disjoint(found[first], found[index])
    )


def _best(figure: MachineFigure, cells: Iterable[Priced | None]) -> Priced | None:
    found = [
        (estimate.value, cell)
        for cell in cells
        if _ran(cell) and cell is not None and (estimate := figure.read(cell)) is not None
    ]
    return (max if figure.most else min)(found, key=lambda pair: pair[0])[1] if found else None


def _ran(cell: Priced | None) -> bool:
    return cell is not None and cell.summary.samples_per_s is not None
