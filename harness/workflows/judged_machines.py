"""Rows of the price table, judged for a study: which cells fit, which is the cheapest, and what it costs there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.analysis.estimate import Estimate, bound, map_estimate
from harness.decision.shortlist import ShortlistRow
from harness.decision.worth_measuring import Contender
from harness.errors import Unavailable
from harness.prediction.memory_fit import largest_batch, needed_bytes
from harness.pricing.cost import billed_cost
from harness.pricing.formulas import SECONDS_PER_HOUR
from harness.pricing.price_rows import PriceRow
from harness.pricing.price_table import PriceTable
from harness.pricing.prices import Price, price_of_row
from harness.pricing.rates import price_under_plan
from harness.schema.assumptions import PriceBook
from harness.workflows.machine_times import MachineTime, MachineTimes
from harness.workflows.memory_budget import GIB, SYSTEM_BYTES, gpu_memory_gib
from harness.workflows.study_work import StudyCell

_Able = tuple[StudyCell, int]  # a cell that a machine can run, and its number of ranks there


@dataclass(frozen=True)
class JudgedMachine:
    """A row with what the choice of machines needs.

    Attributes:
        num_samples: Training rows that the bill is for.
        best: The cell with the lowest bill; None if none was predicted.
        runs: The time of each cell that fits and was predicted.
    """

    row: ShortlistRow
    price: Price
    book: PriceBook
    num_samples: int
    best: MachineTime | None = None
    runs: tuple[MachineTime, ...] = ()

    def bill(self, seconds: float, plan: str = "on_demand") -> float | None:
        """Return the bill of a run."""
        return billed_cost(seconds, self.price, self.book, plan)

    def waited(self, seconds: float) -> float:
        """Return the seconds from ordering the machine to the end of a run."""
        return self.book.rental.startup_s + self.book.rental.setup_s + seconds

    def contender(self) -> Contender | None:
        """Return the machine as a contender for the lowest bill; None if nothing is known of its time."""
        if self.best is None:
            return None
        run, is_measured = self.best.run(self.num_samples), self.best.basis == "measured"
        return Contender(_kind(self.row.price), run, self.bill, self.waited, is_measured)

    def study_seconds(self) -> Estimate:
        """Return the seconds of all the study's runs there; one error of all is taken, so that none cancels out."""
        value, low, high = (
            sum(each.cell.num_runs * bound(each.run(each.num_samples).estimate(each.basis), side) for each in self.runs)
            for side in ("value", "low", "high")
        )
        return Estimate(value, low, high, "all runs of the study")

    @property
    def num_runs(self) -> int:
        """Runs of the study that the machine can do."""
        return sum(each.cell.num_runs for each in self.runs)


class Judge:
    """Judges machines for one study."""

    def __init__(
        self, cells: Sequence[StudyCell], times: MachineTimes, table: PriceTable, book: PriceBook, num_samples: int
    ) -> None:
        """Keep what all machines are judged by.

        Args:
            cells: The study's cells.
            times: What they take on a machine.
            table: The price table.
            book: The user's rates and assumptions.
            num_samples: Training rows that every bill is for.
        """
        self._cells, self._times, self._table = cells, times, table
        self._book, self._num_samples = book, num_samples
        self._needed: dict[tuple[str, int], float] = {}

    def judge(self, row: PriceRow) -> JudgedMachine:
        """Choose the cell with the lowest bill on a machine, among those that fit, and price it."""
        machine = JudgedMachine(ShortlistRow(row), self._rented(row), self._book, self._num_samples)
        memory = self._memory_bytes(row)
        able = [(cell, ranks) for cell in self._cells if (ranks := self._times.world_size(cell, row)) is not None]
        fitting = [each for each in able if self._fits(each, memory)]
        times = [self._times.time(cell, row, ranks) for cell, ranks in fitting]
        known = tuple(time for time in times if not isinstance(time, Unavailable))
        if not known:
            reasons = tuple(dict.fromkeys(time.reason for time in times if isinstance(time, Unavailable)))
            return replace(machine, row=self._must_be_measured(row, fitting or able, memory, reasons))
        best = min(known, key=lambda time: time.run(self._num_samples).seconds)
        largest = self._largest(next(each for each in fitting if each[0] is best.cell), memory)
        machine = replace(machine, best=best, runs=known)
        return replace(machine, row=_priced(machine, best, largest))

    def _must_be_measured(
        self, row: PriceRow, able: Sequence[_Able], memory: float | None, reasons: tuple[str, ...]
    ) -> ShortlistRow:
        """Return the row of a machine whose times are not known, with the first cell that it can run."""
        if not able:
            device = "a GPU" if row.accelerator_count else "a CPU"
            return ShortlistRow(row, reasons=(f"the study has no cell for {device}",))
        largest = self._largest(able[0], memory)
        return ShortlistRow(
            row,
            cell=able[0][0].name,
            fits=None if largest is None else self._fits(able[0], memory),
            largest_batch=largest,
            reasons=reasons or ("no cell fits its memory",),
        )

    def _rented(self, row: PriceRow) -> Price:
        """Return a row's price on demand and spot, with the user's rates and discounts."""
        on_demand = self._book.model_copy(update={"plan": "on_demand"})
        price = price_under_plan(price_of_row(self._table, row, "stated", None), on_demand, machine_id="")
        assert isinstance(price, Price)  # noqa: S101 - every row has an on-demand price
        return price

    def _memory_bytes(self, row: PriceRow) -> float | None:
        """Return the memory of one GPU, or of the machine less what its system takes; None if unknown."""
        if not row.accelerator_count:
            return row.memory_gib * GIB - SYSTEM_BYTES
        size = gpu_memory_gib(self._table, row)
        return None if size is None else size * GIB

    def _fits(self, able: _Able, memory: float | None) -> bool:
        """Return whether a cell fits by prediction; True where nothing can be predicted."""
        cell, ranks = able
        if memory is None or not cell.shape.is_memory_predicted:
            return True
        if (cell.name, ranks) not in self._needed:
            work = self._times.work(cell, ranks)
            self._needed[cell.name, ranks] = needed_bytes(
                cell.config, cell.shape, ranks, num_shapes=work.training.num_shapes, longest=work.longest
            )
        return self._needed[cell.name, ranks] <= memory

    def _largest(self, able: _Able, memory: float | None) -> int | None:
        """Return the largest batch size that fits; None where nothing can be predicted."""
        cell, ranks = able
        if memory is None or not cell.shape.is_memory_predicted:
            return None
        num_shapes = self._times.work(cell, ranks).training.num_shapes
        max_batch = max(1, len(cell.lengths["train"]) // (ranks * cell.config.training.grad_accum))
        return largest_batch(
            cell.config, cell.shape, ranks, num_shapes=num_shapes, num_bytes=memory, max_batch=max_batch
        )


def _priced(machine: JudgedMachine, best: MachineTime, largest: int | None) -> ShortlistRow:
    run = best.run(machine.num_samples).estimate(best.basis)
    return ShortlistRow(
        price=machine.row.price,
        cell=best.cell.name,
        basis=best.basis,
        fits=None if largest is None else True,
        largest_batch=largest,
        samples_per_s=best.samples_per_s(),
        hours=map_estimate(run, lambda seconds: machine.waited(seconds) / SECONDS_PER_HOUR),
        usd=map_estimate(run, machine.bill),
        usd_spot=map_estimate(run, lambda seconds: machine.bill(seconds, "spot")),
        reasons=best.train.reasons,
    )


def _kind(row: PriceRow) -> str:
    """Name what machines have in common of which one measurement tells: their GPUs, or else their type."""
    return f"{row.accelerator_count} x {row.hardware}" if row.hardware else row.instance_type
