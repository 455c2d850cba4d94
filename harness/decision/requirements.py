"""The user's requirements on a run: deadline, budget, GPU memory, and which cells meet them (pure)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from harness.analysis.estimate import Estimate, value_of
from harness.errors import UserError
from harness.pricing import durations
from harness.pricing.cost import Priced
from harness.schema.assumptions import Assumptions
from harness.schema.settings import parse_share

_UNITS_S = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(s|min|m|h|d)")
_GIB = 2**30


@dataclass(frozen=True)
class Requirements:
    """The user's requirements; a requirement of None is not set.

    Attributes:
        deadline_s: Longest time from ordering a machine to the end of the run.
        budget_usd: Highest billed cost of a run.
        gpu_memory_bytes: Memory of a GPU, which no peak may exceed; every CPU cell meets this requirement.
    """

    deadline_s: float | None = None
    budget_usd: float | None = None
    gpu_memory_bytes: float | None = None


@dataclass(frozen=True)
class Candidate:
    """A measured cell with the figures that requirements refer to.

    Attributes:
        usd: Billed cost of a run (`Priced.usd_billed`).
        waited_s: Turnaround time (`durations.turnaround_seconds`).
        gpu_peak_bytes: Highest peak memory of any GPU; 0 on a CPU, None if not measured.
    """

    cell: Priced
    usd: Estimate | None
    waited_s: Estimate | None
    gpu_peak_bytes: int | None


@dataclass(frozen=True)
class Requirement:
    """A requirement on one figure: value >= `bound` if `least`, else value <= `bound`."""

    words: str
    unit: str
    bound: float
    least: bool
    read: Callable[[Candidate], Estimate | None]

    def missed_by(self, candidate: Candidate) -> float | None:
        """Return by how much a cell misses the bound, relative to the bound.

        The result is 0 or less if the cell meets the requirement, and None if the cell lacks the figure.
        """
        figure = self.read(candidate)
        if figure is None:
            return None
        return (self.bound - figure.value) / self.bound if self.least else (figure.value - self.bound) / self.bound

    def fulfilled(self, candidate: Candidate) -> bool:
        """Return True if the cell has the figure and its value meets the requirement."""
        missed = self.missed_by(candidate)
        return missed is not None and missed <= 0


@dataclass(frozen=True)
class UnmetRequirement:
    """A requirement, and the cells that miss it.

    Attributes:
        demand: The requirement, as text.
        num_cells: Number of cells that miss the requirement; a cell may miss several requirements.
        nearest: The cell that misses the requirement by the least, preferably a cell that misses no other requirement.
        nearest_value: The value of `nearest` in `unit`; None if unknown.
        unit: `s`, `usd` or `bytes`.
    """

    demand: str
    num_cells: int
    nearest: Candidate | None
    nearest_value: float | None
    unit: str


def qualifier(requirements: Requirements, assumed: Assumptions) -> Callable[[Priced], bool]:
    """Return a function that says whether a cell's values meet every requirement; unknown values do not."""
    demands = parse_requirements(requirements)

    def qualifies(cell: Priced) -> bool:
        candidate = candidate_of(cell, assumed)
        # The majority class needs no machine.
        return cell.summary.classifier == "majority" or all(demand.fulfilled(candidate) for demand in demands)

    return qualifies


def unmet_requirements(
    cells: Iterable[Priced], requirements: Requirements, assumed: Assumptions
) -> list[UnmetRequirement]:
    """Return each requirement with the cells that miss it."""
    demands, candidates = parse_requirements(requirements), [candidate_of(cell, assumed) for cell in cells]
    return [_unmet(demand, demands, candidates) for demand in demands]


def _unmet(demand: Requirement, demands: Sequence[Requirement], candidates: Sequence[Candidate]) -> UnmetRequirement:
    failing = [candidate for candidate in candidates if not demand.fulfilled(candidate)]
    others = [other for other in demands if other is not demand]
    alone = [candidate for candidate in failing if all(other.fulfilled(candidate) for other in others)]
    known = [candidate for candidate in alone or failing if demand.missed_by(candidate) is not None]
    nearest = min(known, key=lambda candidate: demand.missed_by(candidate) or 0.0, default=None)
    value = None if nearest is None else value_of(demand.read(nearest))
    return UnmetRequirement(demand.words, len(failing), nearest, value, demand.unit)


def candidate_of(cell: Priced, assumed: Assumptions) -> Candidate:
    """Collect those figures of a cell that requirements refer to."""
    waited = durations.turnaround_seconds(cell.summary, cell.price, assumed.prices)
    return Candidate(cell, cell.usd_billed, waited, _gpu_peak(cell))


def _gpu_peak(cell: Priced) -> int | None:
    if not cell.summary.config.on_gpu:
        return 0
    marks = [
        mark.num_bytes
        for record in cell.summary.ok_records
        if record.training is not None
        for mark in record.training.peak_memory
        if mark.source == "cuda_reserved"
    ]
    return max(marks, default=None)


def parse_requirements(requirements: Requirements) -> list[Requirement]:
    """Return the requirements that are set, in the order in which they are shown."""
    demands = []
    if requirements.deadline_s is not None:
        demands.append(
            Requirement(
                f"the deadline of {_time(requirements.deadline_s)}",
                "s",
                requirements.deadline_s,
                False,
                lambda candidate: candidate.waited_s,
            )
        )
    if requirements.budget_usd is not None:
        text = f"the budget of {requirements.budget_usd:g} USD a run"
        demands.append(Requirement(text, "usd", requirements.budget_usd, False, lambda candidate: candidate.usd))
    if requirements.gpu_memory_bytes is not None:
        text = f"the GPU memory of {requirements.gpu_memory_bytes / _GIB:g} GiB"
        demands.append(Requirement(text, "bytes", requirements.gpu_memory_bytes, False, _memory))
    return demands


def _memory(candidate: Candidate) -> Estimate | None:
    return (
        None
        if candidate.gpu_peak_bytes is None
        else Estimate(candidate.gpu_peak_bytes, None, None, "largest of the runs")
    )


def _time(seconds: float) -> str:
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"


def parse_duration(text: str, option: str) -> float:
    """Parse a duration such as `2h`, `90 min`, `1h 30m` or `45s` into seconds.

    Raises:
        UserError: If the text is not a duration above 0.
    """
    squeezed = " ".join(text.split())
    parts = _DURATION.findall(squeezed)
    rest = _DURATION.sub("", squeezed).strip()
    total = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if rest or total <= 0:
        raise UserError(f"{option} {text}: a time above 0 such as 2h, 90min, 1h30m or 45s is needed")
    return total


def read_share(text: str, option: str) -> float:
    """Parse an option's share such as `0.78`, `78` or `78%`: above 1 it is percent.

    Raises:
        UserError: If the text is no share, or exactly 1, which could mean 1 % or 100 %.
    """
    try:
        return parse_share(text)
    except ValueError as error:
        raise UserError(f"{option} {text}: {error} is needed") from None


def parse_points(text: str, option: str) -> float:
    """Parse percentage points such as `1`, `0.5` or `2%` into a fraction.

    Raises:
        UserError: If the text is no number from 0 to 100.
    """
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:  # noqa: PLR2004
        raise UserError(f"{option} {text}: percentage points from 0 to 100 are needed")
    return value / 100
