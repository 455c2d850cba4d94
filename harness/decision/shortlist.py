"""Machines of the price table estimated for a study, and which of them to rent and measure first (values alone)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.analysis.estimate import Estimate
from harness.pricing.price_rows import PriceRow
from harness.schema.assumptions import RentalTerms

# `measured`: records of this instance type, of the cell or of cells that compute alike; `probe`: a probe of it; `scaled`: one
# of these on another size of its family; `datasheet`: what the GPU's datasheet says.
Basis = Literal["measured", "probe", "scaled", "datasheet"]


@dataclass(frozen=True)
class ShortlistRow:
    """One row of the price table.

    Attributes:
        cell: The study's cell with the lowest bill there; the first that fits if none was predicted; None if none can run.
        basis: How the figures are known; None: they must be measured.
        fits: Whether the cell fits the memory, by prediction; None if no cell can run, or its memory is not known.
        largest_batch: Largest batch size per device that the cell could have there.
        samples_per_s: Training rows per second.
        hours: From ordering the machine to the end of a run, on demand.
        usd, usd_spot: Bill of that, on demand and spot.
        reasons: Why the interval is wide, or why the machine must be measured.
        misses: Which of `deadline` and `budget` the run misses.
    """

    price: PriceRow
    cell: str | None = None
    basis: Basis | None = None
    fits: bool | None = None
    largest_batch: int | None = None
    samples_per_s: Estimate | None = None
    hours: Estimate | None = None
    usd: Estimate | None = None
    usd_spot: Estimate | None = None
    reasons: tuple[str, ...] = ()
    misses: tuple[str, ...] = ()


@dataclass(frozen=True)
class ToMeasure:
    """A machine to rent and measure first.

    Attributes:
        probability: That it, or a machine with the same GPUs, is the cheapest.
        seconds, usd: Of all the study's cells that run there, with the machine's start and set-up.
        num_runs: How many runs these are, repeats and seeds included.
    """

    row: ShortlistRow
    probability: float
    seconds: Estimate
    usd: Estimate | None
    num_runs: int


@dataclass(frozen=True)
class Shortlist:
    """The result.

    Attributes:
        rows: All rows that pass the filters: by bill, then those that must be measured.
        measure_first: At most three.
        probability: That the cheapest machine is among these, or among the measured ones.
        num_samples: Training rows of a run, repetitions included, that every bill is for.
        note: How the batches are known.
        rental: Assumed seconds of a machine's start and set-up.
        unreadable: Files that are not records, and why.
    """

    rows: tuple[ShortlistRow, ...]
    measure_first: tuple[ToMeasure, ...]
    probability: float | None
    num_samples: int
    note: str
    rental: RentalTerms
    unreadable: tuple[str, ...]
