"""How certain a ratio of two figures is: noise between runs, noise within them, many cells at once (pure)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import timedelta
from statistics import fmean, variance

from harness.analysis.estimate import MIN_RUNS
from harness.analysis.log_ratio import LogRatio, ratio_of_sums, sum_variances
from harness.analysis.throughput import ThroughputWindow, measure_windows
from harness.schema.interleaving import FEWEST_ROUNDS, ORDER
from harness.schema.record import Record

Round = tuple[float, float, float, float]
SIGNIFICANCE_LEVEL = 0.05  # of false alarms, over all cells of one figure together


def welch_log_ratio(one: Sequence[float], other: Sequence[float], unit: str = "run") -> LogRatio:
    """Welch's comparison of two sides' logarithms, each a run's or a host's own figure; at least one a side.

    With fewer than 3 on a side its spread is not known, so that there is no variance, whatever the other side shows:
    a lone run may have been made in a bad minute.

    Source: B. L. Welch, "The generalization of 'Student's' problem when several different population variances are
    involved", Biometrika 34 (1947), 28-35.
    """
    value = fmean(other) - fmean(one)
    few = [f"{len(found)} in {side}" for side, found in (("A", one), ("B", other)) if len(found) < MIN_RUNS]
    if few:
        say = f"{_count(one, other, unit)}: spread between {unit}s unknown, repeat with repeats = {MIN_RUNS}"
        if unit != "run":
            say = f"{_count(one, other, unit)}: spread between {unit}s unknown, measure {MIN_RUNS} a side"
        return LogRatio(value, None, math.inf, f"{' and '.join(few)}, no spread", say)
    parts = [(variance(found) / len(found), len(found) - 1) for found in (one, other)]
    total, freedom = sum_variances(parts)
    return LogRatio(value, total, freedom, f"between {len(one)} and {len(other)} {unit}s (Welch)")


def compare_runs(
    one: Sequence[ThroughputWindow], other: Sequence[ThroughputWindow], run_spread: float | None = None
) -> LogRatio:
    """Samples a second of two sides' runs: between runs where both sides have 3 or more, else within them.

    The interval within runs does not hold what differs from run to run (where memory lies, other tenants, clocks), and
    no verdict may rest on it. `run_spread` says what that is, as the reader's own assumption: a standard deviation between
    runs of one cell, relative. It comes on top of what is seen within the runs, and then a verdict may.
    """
    logs = [[math.log(window.samples_per_s) for window in side] for side in (one, other)]
    seen = welch_log_ratio(logs[0], logs[1])
    if seen.inconclusive_reason is None:
        return seen
    found = compare_within_runs(one, other)
    if found is None or found.variance is None or run_spread is None:
        return LogRatio(seen.value, found.variance if found else None, found.degrees_of_freedom if found else math.inf,
                        found.basis if found else seen.basis, seen.inconclusive_reason)  # fmt: skip
    assumed = run_spread**2 * (1 / len(one) + 1 / len(other))
    total, freedom = sum_variances([(found.variance, found.degrees_of_freedom), (assumed, math.inf)])
    basis = f"{found.basis}, and {100 * run_spread:g} % between runs, which is assumed"
    return LogRatio(seen.value, total, freedom, basis)


def compare_within_runs(one: Sequence[ThroughputWindow], other: Sequence[ThroughputWindow]) -> LogRatio | None:
    """The same by the runs' steps (see `ratio_of_sums`); None with fewer than two steps.

    Where all runs went through the same batches in the same order (one seed), the sides are held against each other batch
    by batch, so that long and short texts cancel. Else each run's own variance adds up.
    """
    # The sides may have left out warm-ups of different lengths.
    num_steps = min(len(window.seconds) for window in (*one, *other))
    plans = {(window.num_samples[-num_steps:], window.num_padded_tokens[-num_steps:]) for window in (*one, *other)}
    if len(plans) == 1:
        series = [_mean_series([window.seconds[-num_steps:] for window in side]) for side in (one, other)]
        found = ratio_of_sums(*series)
        basis = "within runs, over the same batches"
        return None if found is None else LogRatio(-found.value, found.variance, found.degrees_of_freedom, basis)
    parts = []
    for side in (one, other):
        known = [window.log_rate for window in side]
        for run in known:
            if run is None or run.variance is None:
                return None
            parts.append((run.variance / len(side) ** 2, run.degrees_of_freedom))
    value = fmean(math.log(window.samples_per_s) for window in other)
    value -= fmean(math.log(window.samples_per_s) for window in one)
    return LogRatio(value, *sum_variances(parts), "within runs")


def geometric_mean_ratio(parts: Sequence[LogRatio]) -> LogRatio | None:
    """The geometric mean of cells' ratios, the cells' noise taken as independent; None without a cell.

    It is of these cells and no others. Where one has no certainty, it has none.
    """
    if not parts:
        return None
    value = fmean(part.value for part in parts)
    unsure = [part for part in parts if part.inconclusive_reason is not None]
    basis = f"geometric mean of {len(parts)} cells"
    reason = f"{len(unsure)} of {len(parts)} cells: {unsure[0].inconclusive_reason}" if unsure else None
    known = [(part.variance / len(parts) ** 2, part.degrees_of_freedom) for part in parts if part.variance is not None]
    if len(known) < len(parts):
        return LogRatio(value, None, math.inf, basis, reason)
    total, freedom = sum_variances(known)
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


def _mean_series(runs: Sequence[Sequence[float]]) -> list[float]:
    return [fmean(step) for step in zip(*runs, strict=True)]


def _count(one: Sequence[float], other: Sequence[float], unit: str) -> str:
    fewest = min(len(one), len(other))
    return f"one {unit}" if fewest == 1 else f"{fewest} {unit}s"


def find_abba_rounds(one: Iterable[Record], other: Iterable[Record]) -> list[Round] | None:
    """Logarithms of samples a second, round by round in the order A B B A; None where the runs did not take turns so.

    All runs of both sides, on one computer, in the order of time must fall into rounds, of one seed each, and no round
    may pause for longer than its longest run: one that was stopped in its middle and gone on with later holds what
    changed meanwhile on one side more than on the other.
    """
    runs = sorted([("A", run) for run in one] + [("B", run) for run in other], key=lambda run: run[1].started_at)
    fours = [runs[first : first + len(ORDER)] for first in range(0, len(runs), len(ORDER))]
    computers = {(run.machine.id, run.machine.host) for _, run in runs}
    if len(fours) < FEWEST_ROUNDS or len(computers) != 1 or not all(map(_is_round, fours)):
        return None
    rounds = []
    for four in fours:
        windows = measure_windows([run.training for _, run in four if run.training])
        rates = [math.log(window.samples_per_s) for window in windows]
        if len(rates) != len(ORDER):
            return None
        rounds.append((rates[0], rates[1], rates[2], rates[3]))
    return rounds


def _is_round(four: Sequence[tuple[str, Record]]) -> bool:
    if "".join(side for side, _ in four) != ORDER:
        return False
    if any(len({run.config_hash for side, run in four if side == which}) != 1 for which in "AB"):
        return False
    seconds = [timedelta(seconds=run.duration_s) for _, run in four]
    pauses = [
        later.started_at - (earlier.started_at + took)
        for (_, earlier), (_, later), took in zip(four, four[1:], seconds, strict=False)
    ]
    return max(pauses) <= max(seconds)


def ratio_by_rounds(rounds: Sequence[Round]) -> LogRatio:
    """log(B / A), each round held against its own mean: of 4 R runs, 3 R - 1 degrees of freedom are left.

    What changes from round to round drops out, and a steady drift within one too: A's places in it and B's have the same
    mean. Noise that is alike in neighbouring runs makes the interval rather too wide: with covariances that fall with
    distance, g0 > g1 > g2 > g3 > 0, a round's contrast has variance g0 - g1/2 - g2 + g3/2, of which the runs' spread
    within it shows g0 - g1/2 - g2/3 - g3/6.

    Source: randomised blocks, W. G. Cochran and G. M. Cox, Experimental Designs, 2nd edition (1957), chapter 4.
    """
    contrasts = [(b1 + b2 - a1 - a2) / 2 for a1, b1, b2, a2 in rounds]
    value = fmean(contrasts)
    squares = 0.0
    for four in rounds:
        middle = fmean(four)
        squares += sum((rate - middle - sign * value / 2) ** 2 for rate, sign in zip(four, (-1, 1, 1, -1), strict=True))
    freedom = (len(ORDER) - 1) * len(rounds) - 1
    return LogRatio(value, squares / freedom / len(rounds), freedom, f"{len(rounds)} rounds of A B B A")
