"""The logarithm of a ratio of two figures, how certain it is, and how certain a run's own steps make it (pure)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.analysis.estimate import Estimate, t_quantile

FloatArray = NDArray[np.float64]
MAX_BATCHES = 10
_MOST_ALIKE = 0.97  # correlation of neighbouring steps; beyond it a run is one step long, as far as its spread tells

_ROUNDING = 1e-12  # of a sum: steps that differ by less are all alike


@dataclass(frozen=True)
class LogRatio:
    """log(B / A) of a positive figure, by the natural logarithm: ratios then add, and B / A mirrors A / B.

    Attributes:
        variance: Of the value; None where nothing tells it.
        freedom: Student's degrees of freedom.
        basis: What the variance covers, in words.
        unknown: Why no verdict may rest on it; None where one may.
    """

    value: float
    variance: float | None
    degrees_of_freedom: float
    basis: str
    inconclusive_reason: str | None = None

    @property
    def half_width(self) -> float:
        """Of the 95 % interval of the logarithm; 0 without a variance."""
        return t_quantile(self.degrees_of_freedom) * math.sqrt(self.variance or 0.0)

    def estimate(self) -> Estimate:
        """B / A with its 95 % interval, of this figure alone: not widened for the number of cells."""
        if self.variance is None:
            return Estimate(math.exp(self.value), None, None, self.basis)
        half = self.half_width
        return Estimate(math.exp(self.value), math.exp(self.value - half), math.exp(self.value + half), self.basis)

    def p_value(self, at: float = 0.0) -> float | None:
        """Two-sided, of a true value of `at`; None where no verdict may rest on it."""
        if self.variance is None or self.inconclusive_reason is not None:
            return None
        distance = abs(self.value - at)
        if self.variance <= 0:  # counts of bytes may be the same in every run
            return 1.0 if distance == 0 else 0.0
        from scipy import special

        return 2 * float(special.stdtr(self.degrees_of_freedom, -distance / math.sqrt(self.variance)))

    def inverted(self, shift: float = 0.0) -> LogRatio:
        """Of a figure that is `exp(shift)` over this one: dollars a sample, of samples a second."""
        return LogRatio(
            shift - self.value, self.variance, self.degrees_of_freedom, self.basis, self.inconclusive_reason
        )


def ratio_of_sums(below: Sequence[float] | FloatArray, above: Sequence[float] | FloatArray) -> LogRatio | None:
    """log(sum of `above` / sum of `below`) by steps; None with fewer than two, without variance where fewer are independent.

    Neighbouring steps are alike, so that single steps would promise too much. Two ways allow for it, and the wider
    interval counts: 10 contiguous batches of steps, Var(log R) = k / (k - 1) sum((above_j - R below_j)^2) / (sum above)^2
    over them; and, since in short runs batches are still alike, the steps themselves, taken as fewer independent ones:
    n (1 - r) / (1 + r) for a correlation r of neighbours.

    Source: B. Schmeiser, "Batch size effects in the analysis of simulation output", Operations Research 30 (1982),
    556-568; H. J. Thiebaux and F. W. Zwiers, "The interpretation and estimation of effective sample size", Journal of
    Climate and Applied Meteorology 23 (1984), 800-811.
    """
    num_steps = len(below)
    if num_steps < 2:  # noqa: PLR2004 - a spread needs two
        return None
    under, over = np.asarray(below, dtype=float), np.asarray(above, dtype=float)
    total = float(over.sum())
    ratio = total / float(under.sum())
    rests = over - ratio * under
    value, num_batches = math.log(ratio), min(MAX_BATCHES, num_steps)
    batches = np.add.reduceat(rests, num_steps * np.arange(num_batches) // num_batches)
    spread = num_batches / (num_batches - 1) * float(batches @ batches) / total**2
    by_batches = LogRatio(value, spread, num_batches - 1, f"{num_batches} batches of steps")
    squares = float(rests @ rests)
    if squares <= (_ROUNDING * total) ** 2:
        return by_batches
    alike = float(rests[:-1] @ rests[1:]) / squares
    # Of short series it comes out too small, by about (1 + 3 r) / n (Marriott and Pope, Biometrika 41 (1954), 390-402).
    alike = min(_MOST_ALIKE, max(0.0, alike + (1 + 3 * alike) / num_steps))
    num_free = num_steps * (1 - alike) / (1 + alike)
    if num_free < 2:  # noqa: PLR2004 - as above: of one step, in effect
        return LogRatio(value, None, math.inf, "steps that all hang together")
    spread = squares / total**2 * num_steps**2 / (num_free * max(num_steps - 1, 1))
    by_steps = LogRatio(value, spread, max(1.0, num_free - 1), f"{num_steps} steps, {num_free:.0f} of them independent")
    return max(by_batches, by_steps, key=lambda found: found.half_width)


def sum_variances(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Variance of a sum, and its degrees of freedom by Welch and Satterthwaite."""
    total = sum(part for part, _ in parts)
    lost = sum(part**2 / freedom for part, freedom in parts)
    return total, (total**2 / lost if lost > 0 else math.inf)
