"""`harness shortlist`: which machines of the price table are worth renting for a study, before any was rented."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.analysis.estimate import map_estimate, map_increasing
from harness.decision.shortlist import Shortlist, ShortlistRow, ToMeasure
from harness.decision.worth_measuring import choose_to_measure
from harness.pricing.formulas import SECONDS_PER_HOUR
from harness.pricing.price_search import PriceQuery, search
from harness.pricing.price_table import load_prices
from harness.schema.assumptions import load_assumptions
from harness.schema.cells import Cell
from harness.schema.record import Record
from harness.store.archive import read_records
from harness.store.record_files import LoadedRecords
from harness.workflows.judged_machines import Judge, JudgedMachine
from harness.workflows.machine_times import MachineTimes
from harness.workflows.measured_times import MeasuredTimes
from harness.workflows.study_work import plan_study


@dataclass(frozen=True)
class ShortlistOptions:
    """What the user asked for.

    Attributes:
        query: Filters on the price table.
        deadline_s: Longest time from ordering a machine to the end of a run.
        budget_usd: Highest bill of a run on demand.
        prices: The user's prices.toml.
        results: Folders with records; those that don't exist are left out.
        num_samples: Training rows that every bill is for; None for those of the study's cell that trains on most.
    """

    query: PriceQuery
    num_samples: int | None = None
    deadline_s: float | None = None
    budget_usd: float | None = None
    prices: Path | None = None
    results: tuple[Path, ...] = ()


def make_shortlist(
    cells: Sequence[Cell], options: ShortlistOptions, known: Sequence[Record] | None = None
) -> Shortlist:
    """Estimate every machine of the price table that passes the filters, and choose what to measure first.

    Args:
        cells: The study's cells.
        options: What the user asked for.
        known: Records to judge by; None: records and probes of the folders that `options` names.

    Raises:
        UserError: If no cell trains, no row passes the filters, or a file is wrong.
    """
    table, book = load_prices(), load_assumptions(options.prices).prices
    rows = search(table, options.query)
    study = plan_study(cells)
    loaded = LoadedRecords.of(known, ()) if known is not None else read_records(_existing(options.results))
    times = MachineTimes(table, MeasuredTimes(loaded.records, loaded.probes))
    num_samples = options.num_samples or max(times.work(cell, 1).num_rows for cell in study.cells)
    judge = Judge(study.cells, times, table, book, num_samples)
    machines = [judge.judge(row) for row in rows]
    contenders = [(machine, contender) for machine in machines if (contender := machine.contender()) is not None]
    picks = choose_to_measure(
        [contender for _, contender in contenders], deadline_s=options.deadline_s, budget_usd=options.budget_usd
    )
    return Shortlist(
        rows=tuple(sorted((_limited(machine.row, options) for machine in machines), key=_order)),
        measure_first=tuple(_to_measure(contenders[pick.index][0], pick.probability) for pick in picks.picks),
        probability=picks.probability,
        num_samples=num_samples,
        note=study.note,
        rental=book.rental,
        unreadable=loaded.unreadable,
    )


def _existing(folders: Sequence[Path]) -> list[Path]:
    return [folder for folder in folders if folder.exists()]


def _to_measure(machine: JudgedMachine, probability: float) -> ToMeasure:
    seconds = machine.study_seconds()
    return ToMeasure(
        row=machine.row,
        probability=probability,
        seconds=map_increasing(seconds, machine.waited),
        usd=map_estimate(seconds, machine.bill),
        num_runs=machine.num_runs,
    )


def _limited(row: ShortlistRow, options: ShortlistOptions) -> ShortlistRow:
    """Say which limits a run misses by its estimated time and bill."""
    hours, usd, misses = row.hours, row.usd, []
    if options.deadline_s is not None and hours is not None and hours.value * SECONDS_PER_HOUR > options.deadline_s:
        misses.append("deadline")
    if options.budget_usd is not None and usd is not None and usd.value > options.budget_usd:
        misses.append("budget")
    return replace(row, misses=tuple(misses))


def _order(row: ShortlistRow) -> tuple[float, bool, tuple[str, str, str]]:
    """Sort by bill; without one, machines that fit come first."""
    return (math.inf if row.usd is None else row.usd.value), not row.fits, row.price.key
