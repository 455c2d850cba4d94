"""What a choice must fulfil, and whether a measured cell does (pure)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from harness.analysis.estimate import Estimate
from harness.errors import UserError
from harness.pricing import cost
from harness.pricing.cost import Priced
from harness.schema.assumptions import Assumptions

_UNITS_S = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(s|min|m|h|d)")
_GIB = 2**30


@dataclass(frozen=True)
class Requirements:
    """What a choice must fulfil; None where nothing was asked.

    Attributes:
        target_accuracy: On the test set.
        deadline_s: From the order of a machine to the end of the run.
        budget_usd: Of one run, as it is billed.
        gpu_memory_bytes: Of one GPU; a cell on a CPU needs none.
    """

    target_accuracy: float | None = None
    deadline_s: float | None = None
    budget_usd: float | None = None
    gpu_memory_bytes: float | None = None


@dataclass(frozen=True)
class Candidate:
    """A measured cell with what it is judged by.

    Attributes:
        usd: One run as it is billed (`Priced.usd_billed`).
        waited_s: See `cost.waited_seconds`.
        gpu_peak_bytes: Of the fullest GPU; 0 on a CPU, None where it was not read.
        unsure: Where an end of an interval misses what its value fulfils, in words.
    """

    cell: Priced
    usd: Estimate | None
    waited_s: Estimate | None
    gpu_peak_bytes: int | None
    unsure: tuple[str, ...] = ()


@dataclass(frozen=True)
class Requirement:
    """One of them: `read` gives the figure; it is fulfilled from `bound` on where `least`, else up to it."""

    words: str
    unit: str
    bound: float
    least: bool
    read: Callable[[Candidate], Estimate | None]

    def missed_by(self, one: Candidate) -> float | None:
        """How far a cell misses it, as a share of the bound: 0 or less where it is fulfilled; None without a figure."""
        found = self.read(one)
        if found is None:
            return None
        return (self.bound - found.value) / self.bound if self.least else (found.value - self.bound) / self.bound

    def fulfilled(self, one: Candidate) -> bool:
        """Whether the value fulfils it; one that is not known does not."""
        missed = self.missed_by(one)
        return missed is not None and missed <= 0

    def unsure(self, one: Candidate) -> str | None:
        """What an interval says against a value that fulfils it."""
        found = self.read(one)
        end = None if found is None else found.low if self.least else found.high
        if end is None or (end >= self.bound if self.least else end <= self.bound):
            return None
        return f"the interval of its {self.unit_word} reaches {'below' if self.least else 'above'} {self.words}"

    @property
    def unit_word(self) -> str:
        """What the figure is, in a word."""
        return {"accuracy": "accuracy", "s": "time", "usd": "cost", "bytes": "memory"}[self.unit]


def candidate_of(cell: Priced, assumed: Assumptions) -> Candidate:
    """What a cell is judged by."""
    waited = cost.waited_seconds(cell.summary, cell.price, assumed.prices)
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


def parse_requirements(asked: Requirements) -> list[Requirement]:
    """What was asked, in the order in which it is told."""
    found = []
    if asked.target_accuracy is not None:
        words = f"the target accuracy of {asked.target_accuracy:g}"
        found.append(Requirement(words, "accuracy", asked.target_accuracy, True, lambda one: one.cell.summary.accuracy))
    if asked.deadline_s is not None:
        found.append(
            Requirement(
                f"the deadline of {_time(asked.deadline_s)}", "s", asked.deadline_s, False, lambda one: one.waited_s
            )
        )
    if asked.budget_usd is not None:
        words = f"the budget of {asked.budget_usd:g} USD a run"
        found.append(Requirement(words, "usd", asked.budget_usd, False, lambda one: one.usd))
    if asked.gpu_memory_bytes is not None:
        words = f"the GPU memory of {asked.gpu_memory_bytes / _GIB:g} GiB"
        found.append(Requirement(words, "bytes", asked.gpu_memory_bytes, False, _memory))
    return found


def _memory(one: Candidate) -> Estimate | None:
    return None if one.gpu_peak_bytes is None else Estimate(one.gpu_peak_bytes, None, None, "largest of the runs")


def _time(seconds: float) -> str:
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"


def parse_duration(text: str, option: str) -> float:
    """Seconds of `2h`, `90 min`, `1h 30m` or `45s`.

    Raises:
        UserError: When it is none of these, or nothing.
    """
    squeezed = " ".join(text.split())
    parts = _DURATION.findall(squeezed)
    rest = _DURATION.sub("", squeezed).strip()
    total = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if rest or total <= 0:
        raise UserError(f"{option} {text}: a time above 0 such as 2h, 90min, 1h30m or 45s is needed")
    return total
