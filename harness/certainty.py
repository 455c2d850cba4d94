"""How certain a ratio of two figures is: noise between runs, noise within them, many cells at once (pure)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, variance

from harness.intervals import FEWEST_RUNS, Estimate
from harness.throughput import MOST_BATCHES, Window

LEVEL = 0.05  # of false alarms, over all cells of one figure together
_HALF = LEVEL / 2
_MOST_ALIKE = 0.97  # correlation of neighbouring steps; beyond it a run is one step long, as far as its spread tells


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
    freedom: float
    basis: str
    unknown: str | None = None

    def estimate(self) -> Estimate:
        """B / A with its 95 % interval, of this figure alone: not widened for the number of cells."""
        if self.variance is None:
            return Estimate(math.exp(self.value), None, None, self.basis)
        half = _half_width(self)
        return Estimate(math.exp(self.value), math.exp(self.value - half), math.exp(self.value + half), self.basis)

    def p_value(self, at: float = 0.0) -> float | None:
        """Two-sided, of a true value of `at`; None where no verdict may rest on it."""
        if self.variance is None or self.unknown is not None:
            return None
        distance = abs(self.value - at)
        if self.variance <= 0:  # counts of bytes may be the same in every run
            return 1.0 if distance == 0 else 0.0
        from scipy import special

        return 2 * float(special.stdtr(self.freedom, -distance / math.sqrt(self.variance)))

    def inverted(self, shift: float = 0.0) -> LogRatio:
        """Of a figure that is `exp(shift)` over this one: dollars a sample, of samples a second."""
        return LogRatio(shift - self.value, self.variance, self.freedom, self.basis, self.unknown)


def between(one: Sequence[float], other: Sequence[float], unit: str = "run") -> LogRatio:
    """Welch's comparison of two sides' logarithms, each a run's or a host's own figure; at least one a side.

    With fewer than 3 on a side its spread is not known, so that there is no variance, whatever the other side shows:
    a lone run may have been made in a bad minute.

    Source: B. L. Welch, "The generalization of 'Student's' problem when several different population variances are
    involved", Biometrika 34 (1947), 28-35.
    """
    value = fmean(other) - fmean(one)
    few = [f"{len(found)} in {side}" for side, found in (("A", one), ("B", other)) if len(found) < FEWEST_RUNS]
    if few:
        say = f"{_count(one, other, unit)}: spread between {unit}s unknown, repeat with repeats = {FEWEST_RUNS}"
        if unit != "run":
            say = f"{_count(one, other, unit)}: spread between {unit}s unknown, measure {FEWEST_RUNS} a side"
        return LogRatio(value, None, math.inf, f"{' and '.join(few)}, no spread", say)
    parts = [(variance(found) / len(found), len(found) - 1) for found in (one, other)]
    total, freedom = _sum_of(parts)
    return LogRatio(value, total, freedom, f"between {len(one)} and {len(other)} {unit}s (Welch)")


def of_runs(one: Sequence[Window], other: Sequence[Window], run_spread: float | None = None) -> LogRatio:
    """Samples a second of two sides' runs: between runs where both sides have 3 or more, else within them.

    The interval within runs does not hold what differs from run to run (where memory lies, other tenants, clocks), and
    no verdict may rest on it. `run_spread` says what that is, as the reader's own assumption: a standard deviation between
    runs of one cell, relative. It comes on top of what is seen within the runs, and then a verdict may.
    """
    logs = [[math.log(window.samples_per_s) for window in side] for side in (one, other)]
    seen = between(logs[0], logs[1])
    if seen.unknown is None:
        return seen
    found = within(one, other)
    if found is None or found.variance is None or run_spread is None:
        return LogRatio(seen.value, found.variance if found else None, found.freedom if found else math.inf,
                        found.basis if found else seen.basis, seen.unknown)  # fmt: skip
    assumed = run_spread**2 * (1 / len(one) + 1 / len(other))
    total, freedom = _sum_of([(found.variance, found.freedom), (assumed, math.inf)])
    basis = f"{found.basis}, and {100 * run_spread:g} % between runs, which is assumed"
    return LogRatio(seen.value, total, freedom, basis)


def within(one: Sequence[Window], other: Sequence[Window]) -> LogRatio | None:
    """The same by the runs' steps (see `ratio_of_sums`); None with fewer than two steps.

    Where all runs went through the same batches in the same order (one seed), the sides are held against each other batch
    by batch, so that long and short texts cancel. Else each run's own variance adds up.
    """
    plans = {(window.num_samples, window.num_padded_tokens) for window in (*one, *other)}
    if len(plans) == 1:
        series = [_mean_series([window.seconds for window in side]) for side in (one, other)]
        found = ratio_of_sums(*series)
        basis = "within runs, over the same batches"
        return None if found is None else LogRatio(-found.value, found.variance, found.freedom, basis)
    parts = []
    for side in (one, other):
        known = [ratio_of_sums(window.seconds, window.num_samples) for window in side]
        for run in known:
            if run is None or run.variance is None:
                return None
            parts.append((run.variance / len(side) ** 2, run.freedom))
    value = fmean(math.log(window.samples_per_s) for window in other)
    value -= fmean(math.log(window.samples_per_s) for window in one)
    return LogRatio(value, *_sum_of(parts), "within runs")


def ratio_of_sums(below: Sequence[float], above: Sequence[float]) -> LogRatio | None:
    """log(sum of `above` / sum of `below`) by steps; None with fewer than two, without variance where fewer are independent.

    Neighbouring steps are alike, so that single steps would promise too much. Two ways allow for it, and the wider
    interval counts: 20 contiguous batches of steps, Var(log R) = k / (k - 1) sum((above_j - R below_j)^2) / (sum above)^2
    over them; and, since in short runs batches are still alike, the steps themselves, taken as fewer independent ones:
    n (1 - r) / (1 + r) for a correlation r of neighbours.

    Source: B. Schmeiser, "Batch size effects in the analysis of simulation output", Operations Research 30 (1982),
    556-568; H. J. Thiebaux and F. W. Zwiers, "The interpretation and estimation of effective sample size", Journal of
    Climate and Applied Meteorology 23 (1984), 800-811.
    """
    num_steps = len(below)
    if num_steps < 2:  # noqa: PLR2004 - a spread needs two
        return None
    total, ratio = sum(above), sum(above) / sum(below)
    rests = [one - ratio * other for one, other in zip(above, below, strict=True)]
    value, num_batches = math.log(ratio), min(MOST_BATCHES, num_steps)
    ends = [num_steps * index // num_batches for index in range(num_batches + 1)]
    batches = [sum(rests[first:end]) for first, end in pairwise(ends)]
    spread = num_batches / (num_batches - 1) * sum(rest**2 for rest in batches) / total**2
    by_batches = LogRatio(value, spread, num_batches - 1, f"{num_batches} batches of steps")
    squares = sum(rest**2 for rest in rests)
    if squares <= 0:
        return by_batches
    alike = sum(one * other for one, other in pairwise(rests)) / squares
    # Of short series it comes out too small, by about (1 + 3 r) / n (Marriott and Pope, Biometrika 41 (1954), 390-402).
    alike = min(_MOST_ALIKE, max(0.0, alike + (1 + 3 * alike) / num_steps))
    num_free = num_steps * (1 - alike) / (1 + alike)
    if num_free < 2:  # noqa: PLR2004 - as above: of one step, in effect
        return LogRatio(value, None, math.inf, "steps that all hang together")
    spread = squares / total**2 * num_steps**2 / (num_free * max(num_steps - 1, 1))
    by_steps = LogRatio(value, spread, max(1.0, num_free - 1), f"{num_steps} steps, {num_free:.0f} of them independent")
    return max(by_batches, by_steps, key=_half_width)


def overall(parts: Sequence[LogRatio]) -> LogRatio | None:
    """The geometric mean of cells' ratios, the cells' noise taken as independent; None without a cell.

    It is of these cells and no others. Where one has no certainty, it has none.
    """
    if not parts:
        return None
    value = fmean(part.value for part in parts)
    unsure = [part for part in parts if part.unknown is not None]
    basis = f"geometric mean of {len(parts)} cells"
    reason = f"{len(unsure)} of {len(parts)} cells: {unsure[0].unknown}" if unsure else None
    known = [(part.variance / len(parts) ** 2, part.freedom) for part in parts if part.variance is not None]
    if len(known) < len(parts):
        return LogRatio(value, None, math.inf, basis, reason)
    total, freedom = _sum_of(known)
    return LogRatio(value, total, freedom, basis, reason)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust for many comparisons: at most one family in 20 has a false alarm at all; None stays out of the family.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6
    (1979), 65-70.
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    so_far = 0.0
    for rank, (p, index) in enumerate(known):
        so_far = max(so_far, min(1.0, (len(known) - rank) * p))
        adjusted[index] = so_far
    return adjusted


def mcnemar(num_lost: int, num_won: int) -> float:
    """Exact two-sided p of as many examples that A alone and that B alone had right, if either were as likely.

    Source: Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12 (1947), 153-157; exact by the binomial distribution.
    """
    if num_lost + num_won == 0:
        return 1.0
    from scipy import stats

    return float(stats.binomtest(num_won, num_lost + num_won, 0.5).pvalue)


def _half_width(found: LogRatio) -> float:
    """Of the 95 % interval of the logarithm; 0 without a variance."""
    from scipy import special

    return float(special.stdtrit(found.freedom, 1 - _HALF)) * math.sqrt(found.variance or 0.0)


def _sum_of(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Variance of a sum, and its degrees of freedom by Welch and Satterthwaite."""
    total = sum(part for part, _ in parts)
    lost = sum(part**2 / freedom for part, freedom in parts)
    return total, (total**2 / lost if lost > 0 else math.inf)


def _mean_series(runs: Sequence[Sequence[float]]) -> list[float]:
    return [fmean(step) for step in zip(*runs, strict=True)]


def _count(one: Sequence[float], other: Sequence[float], unit: str) -> str:
    fewest = min(len(one), len(other))
    return f"one {unit}" if fewest == 1 else f"{fewest} {unit}s"
