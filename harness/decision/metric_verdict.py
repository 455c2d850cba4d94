"""The verdict on one figure of two sides (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.accuracy import Metric
from harness.analysis.estimate import Estimate
from harness.analysis.paired_accuracy import Judged
from harness.decision.measure_next import Measurement

NO_DIFFERENCE, CANNOT_TELL = "no difference", "cannot tell"


@dataclass(frozen=True)
class ComparedFigure:
    """A compared figure; `below` and `above` are the verdicts if B is significantly below or above A."""

    key: str
    below: str
    above: str


SPEED = ComparedFigure("samples_per_s", "slower", "faster")
MEMORY = ComparedFigure("peak_memory_bytes", "less", "more")
DOLLARS = ComparedFigure("usd_per_1000_samples", "cheaper", "dearer")
SCORES: dict[Metric, ComparedFigure] = {
    "accuracy": ComparedFigure("accuracy", "worse", "better"),
    "macro_f1": ComparedFigure("macro_f1", "worse", "better"),
}


@dataclass(frozen=True)
class MetricVerdict:
    """The verdict on one figure of a cell, or of all cells together.

    Attributes:
        a, b: Each side's geometric mean over runs (for scores, the mean); None for all cells together.
        change: B / A (for scores, B - A), with a 95 % interval that is not adjusted for the number of cells.
        p_value: p-value, Holm-adjusted over all cells of this figure; None if the comparison is inconclusive.
        reason: Why there is no verdict, or what limits the verdict; None otherwise.
        is_certain: False if the interval is not reliable enough for a verdict.
        num_seeds: For scores, the number of compared seeds of A and of B.
        judged: For scores, whether the verdict is about the recipes or about the trained models.
        would_decide: For scores that are undecided, seeds and test examples a side that would give a verdict if the
            difference stays as measured; None if ten seeds a side would not.
    """

    figure: ComparedFigure
    a: float | None
    b: float | None
    change: Estimate
    p_value: float | None
    verdict: str
    reason: str | None
    is_certain: bool = True
    num_seeds: tuple[int, int] | None = None
    judged: Judged | None = None
    would_decide: Measurement | None = None

    @property
    def is_score(self) -> bool:
        """Whether the figure is a score, which is compared by its difference."""
        return self.figure.key in SCORES
