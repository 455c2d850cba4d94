"""The user's requirements on a configuration, and whether a measured cell meets them (pure)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from harness.analysis.estimate import Estimate
from harness.errors import UserError
from harness.pricing import durations
from harness.pricing.cost import Priced
from harness.schema.assumptions import Assumptions

_UNITS_S = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(s|min|m|h|d)")
_GIB = 2**30


@dataclass(frozen=True)
class Requirements:
    """The user's requirements; a requirement of None is not set.

    Attributes:
        target_accuracy: Lowest accuracy on the test set.
        deadline_s: Longest time from ordering a machine to the end of the run.
        budget_usd: Highest billed cost of a run.
        gpu_memory_bytes: Memory of a GPU, which no peak may exceed; every CPU cell meets this requirement.
    """

    target_accuracy: float | None = None
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
        unsure: Requirements, as text, that a value meets but an end of its interval misses.
    """

    cell: Priced
    usd: Estimate | None
    waited_s: Estimate | None
    gpu_peak_bytes: int | None
    unsure: tuple[str, ...] = ()


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

    def unsure(self, candidate: Candidate) -> str | None:
        """Describe how the figure's interval crosses the bound; None if it doesn't."""
        figure = self.read(candidate)
        end = None if figure is None else figure.low if self.least else figure.high
        if end is None or (end >= self.bound if self.least else end <= self.bound):
            return None
        return f"the interval of its {self.unit_word} reaches {'below' if self.least else 'above'} {self.words}"

    @property
    def unit_word(self) -> str:
        """The figure's name."""
        return {"accuracy": "accuracy", "s": "time", "usd": "cost", "bytes": "memory"}[self.unit]


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
    if requirements.target_accuracy is not None:
        text = f"the target accuracy of {requirements.target_accuracy:g}"
        demands.append(
            Requirement(
                text, "accuracy", requirements.target_accuracy, True, lambda candidate: candidate.cell.summary.accuracy
            )
        )
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
