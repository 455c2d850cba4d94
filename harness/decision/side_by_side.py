"""Comparison of machines: cells with the same work side by side, and the best machine by each figure (pure)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from harness.analysis.estimate import Estimate
from harness.analysis.ranking import rank_all
from harness.analysis.summarize import summarize
from harness.analysis.throughput import HostSpread, host_spread
from harness.decision.cells import has_example_price
from harness.decision.differences import Work, slice_words, work_key
from harness.errors import Unavailable
from harness.pricing import cost, durations
from harness.pricing.cost import Priced
from harness.pricing.prices import Price
from harness.schema.assumptions import Assumptions
from harness.schema.cells import FineTuneConfig
from harness.schema.host_record import Machine
from harness.schema.record import Record

_MIN_TYPES = 2

# Index of the best cell, None if fewer than two are known; and of those that do not differ significantly from it.
LineVerdict = tuple[int | None, tuple[int, ...]]


@dataclass(frozen=True)
class MachineType:
    """Hosts that count as one machine: they have the same id, or the same stated or detected instance type.

    Attributes:
        machine_ids: Ids of the hosts; there are several if hosts of one instance type have different hardware.
        machine: The newest record's machine.
        slice: The measured part of the machine, as text; None if the whole machine was measured.
        num_hosts: Number of known hosts; 1 if hosts are unknown.
    """

    machine_ids: tuple[str, ...]
    machine: Machine
    price: Price | None
    missing: str | None
    slice: str | None
    num_hosts: int


@dataclass(frozen=True)
class ComparedCell:
    """The cells with the same work, one for each machine type; None for a type on which the work was not tried."""

    squares: tuple[Priced | None, ...]

    @property
    def measured(self) -> tuple[Priced, ...]:
        """The cells with a throughput."""
        return tuple(cell for cell in self.squares if cell is not None and _ran(cell))

    @property
    def example(self) -> Priced:
        """A measured cell that represents the work."""
        return self.measured[0]


@dataclass(frozen=True)
class MachineFigure:
    """A figure to rank machines by; `most` is True if the highest value is best, as for a speed."""

    key: str
    read: Callable[[Priced], Estimate | None]
    most: bool = False


SPEED = MachineFigure("fastest", lambda cell: cell.summary.samples_per_s, most=True)
PER_1000 = MachineFigure("per_1000", lambda cell: cell.usd_per_1000_samples)


@dataclass(frozen=True)
class Ranking:
    """Each type's best cell by one figure, and the ranking of the types.

    Attributes:
        best: Best cell of each type; None if no cell of the type has the figure.
        first: Index of the type with the best value; None if fewer than two types have a value.
        level: Indices of the types that do not differ significantly from the first.
    """

    figure: MachineFigure
    best: tuple[Priced | None, ...]
    first: int | None
    level: tuple[int, ...]

    def estimate(self, index: int) -> Estimate | None:
        """Return the figure of a type's best cell; None if the type has none."""
        cell = self.best[index]
        return None if cell is None else self.figure.read(cell)


@dataclass(frozen=True)
class SideBySide:
    """The machine types of a report.

    Attributes:
        lines: Work that was tried on at least two types and succeeded on at least one.
        rankings: Rankings of the types over the lines in `ranked`, one for each figure.
        num_alone: Number of cells that were measured on one type and tried on no other.
        deadline_s: Longest allowed time from ordering a machine to the end of a run, in seconds; None for no limit.
        is_pooled: True if any cell of `lines` pools cells of several machines, and so is not a cell of the report.
    """

    types: tuple[MachineType, ...]
    lines: tuple[ComparedCell, ...]
    rankings: tuple[Ranking, ...]
    num_alone: int
    deadline_s: float | None
    is_pooled: bool

    @property
    def shared(self) -> tuple[ComparedCell, ...]:
        """The lines that at least two types measured."""
        return tuple(line for line in self.lines if len(line.measured) >= _MIN_TYPES)

    @property
    def ranked(self) -> tuple[ComparedCell, ...]:
        """The lines that the rankings cover."""
        return _ranked_lines(self.lines)


def side_by_side(
    cells: Sequence[Priced], assumed: Assumptions, *, deadline_s: float | None = None
) -> SideBySide | None:
    """Compare the machine types of these cells; None unless there are at least two."""
    types = machine_types(cells)
    if len(types) < _MIN_TYPES:
        return None
    type_index = {machine_id: index for index, kind in enumerate(types) for machine_id in kind.machine_ids}
    cells_by_work: dict[Work, dict[int, list[Priced]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        if isinstance(cell.summary.config, FineTuneConfig):
            cells_by_work[work_key(cell.summary.config)][type_index[cell.summary.machine_id]].append(cell)
    lines = [
        ComparedCell(tuple(_square(by_type[i], assumed) if i in by_type else None for i in range(len(types))))
        for by_type in cells_by_work.values()
    ]
    tried = [line for line in lines if sum(cell is not None for cell in line.squares) >= _MIN_TYPES]
    kept = tuple(line for line in tried if line.measured)
    by_key = {cell.key: cell for cell in cells}
    return SideBySide(
        types=types,
        lines=kept,
        rankings=tuple(_rank(figure, kept, len(types)) for figure in _figures(assumed, deadline_s)),
        num_alone=sum(1 for line in lines if len(line.measured) == 1 and line not in tried),
        deadline_s=deadline_s,
        is_pooled=any(by_key[cell.key] is not cell for line in kept for cell in line.squares if cell is not None),
    )


def machine_types(cells: Sequence[Priced]) -> tuple[MachineType, ...]:
    """Group the cells' machines into types, in order of first appearance."""
    groups: dict[tuple[str | None, ...], list[Priced]] = {}
    for cell in cells:
        groups.setdefault(_type_key(cell), []).append(cell)
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
    """Return the spread between the hosts of a cell."""
    return host_spread(cell.summary.records)


def _type_key(cell: Priced) -> tuple[str | None, ...]:
    """Return the stated or detected instance type with its measured part, or else the machine's id.

    The user's own machines are grouped by id, because they all have the same instance name.
    """
    price = cell.price
    if price is None or price.instance is None or price.basis not in ("stated", "detected") or price.plan == "own":
        return ("machine", cell.summary.machine_id)
    part = slice_words(cell.summary.records[-1].machine)
    return ("instance", price.instance, price.provider, price.region, part)


def _square(members: Sequence[Priced], assumed: Assumptions) -> Priced:
    """Choose a type's cell: successful before failed, GPU before CPU; equally preferred successful cells are pooled."""

    def preference(cell: Priced) -> tuple[bool, bool]:
        return cell.summary.samples_per_s is None, _device(cell) != "gpu"

    first = min(members, key=preference)
    same = [cell for cell in members if preference(cell) == preference(first)]
    return first if len(same) == 1 or first.summary.samples_per_s is None else _pooled(same, assumed)


def _pooled(members: Sequence[Priced], assumed: Assumptions) -> Priced:
    """Summarise machines with different ids but one instance type as hosts of one machine."""
    first = members[0]
    machine_id = first.summary.machine_id
    runs = [_with_machine_id(record, machine_id) for cell in members for record in cell.summary.records]
    # The machines' own spread between runs comes from all their cells, not from these runs alone.
    spreads = [cell.summary.run_spread for cell in members if cell.summary.run_spread is not None]
    (summary, *_) = summarize(runs, max(spreads, key=lambda spread: spread.value, default=None))
    price = first.price or Unavailable(first.missing or "no price was found")
    (pooled,) = cost.price([summary], lambda _summary: price, assumed)
    return pooled


def _with_machine_id(record: Record, machine_id: str) -> Record:
    machine = record.machine.model_copy(update={"id": machine_id})
    return record.model_copy(update={"machine": machine})


def _device(cell: Priced) -> str:
    return "gpu" if cell.summary.config.on_gpu else "cpu"


def _figures(assumed: Assumptions, deadline_s: float | None) -> list[MachineFigure]:
    def in_time(cell: Priced) -> Estimate | None:
        seconds = durations.turnaround_seconds(cell.summary, cell.price, assumed.prices)
        late = seconds is None or deadline_s is None or seconds.value > deadline_s
        return None if late else cell.usd_billed

    figures = [
        SPEED,
        PER_1000,
        MachineFigure("run", lambda cell: cell.usd_per_run),
        MachineFigure("to_target", lambda cell: cell.usd_to_target),
    ]
    return figures if deadline_s is None else [*figures, MachineFigure("in_time", in_time)]


def _ranked_lines(lines: Iterable[ComparedCell]) -> tuple[ComparedCell, ...]:
    shared = tuple(line for line in lines if len(line.measured) >= _MIN_TYPES)
    # Training only some layers is cheap but often inaccurate, so such cells are ranked only if there are no others.
    whole = tuple(line for line in shared if getattr(line.example.summary.config, "trainable", "all") == "all")
    return whole or shared


def _rank(figure: MachineFigure, lines: Iterable[ComparedCell], num_types: int) -> Ranking:
    ranked = _ranked_lines(lines)
    best = tuple(_best(figure, [line.squares[index] for line in ranked]) for index in range(num_types))
    return Ranking(figure, best, *verdicts([best], figure)[0])


def verdicts(lines: Sequence[Sequence[Priced | None]], figure: MachineFigure) -> list[LineVerdict]:
    """Rank the cells of each line by a figure; all pairs of all lines count as one family (see `analysis.ranking`).

    Costs that rest on an example price are not ranked.
    """
    compared = [cell for squares in lines for cell in squares if cell is not None and _ran(cell)]
    if not figure.most and any(has_example_price(cell) for cell in compared):
        return [(None, ()) for _ in lines]
    figures = [
        [figure.read(cell) if cell is not None and _ran(cell) else None for cell in squares] for squares in lines
    ]
    return [(ranking.first, ranking.level) for ranking in rank_all(figures, most=figure.most)]


def _best(figure: MachineFigure, cells: Iterable[Priced | None]) -> Priced | None:
    rated = [
        (estimate.value, cell)
        for cell in cells
        if _ran(cell) and cell is not None and (estimate := figure.read(cell)) is not None
    ]
    return (max if figure.most else min)(rated, key=lambda pair: pair[0])[1] if rated else None


def _ran(cell: Priced | None) -> bool:
    return cell is not None and cell.summary.samples_per_s is not None
