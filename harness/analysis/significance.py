"""Test whether two configurations differ: Welch's t-test, block design for interleaved runs, Holm, McNemar."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import timedelta
from statistics import fmean, variance

from harness.analysis.estimate import MIN_RUNS
from harness.analysis.log_ratio import FloatArray, LogRatio, ratio_of_sums, sum_variances
from harness.analysis.serial_correlation import variance_of_mean
from harness.analysis.throughput import ThroughputWindow, measure_windows
from harness.schema.interleaving import MIN_ROUNDS, ORDER
from harness.schema.record import Record

SIGNIFICANCE_LEVEL = 0.05  # familywise error rate over all cells of one metric

Round = tuple[float, float, float, float]  # log(samples/s) of the four runs A B B A


def welch_log_ratio(
    logs_a: Sequence[float], logs_b: Sequence[float], unit: str = "run", correlation: FloatArray | None = None
) -> LogRatio:
    """Compare the means of two samples of logarithms with Welch's t-test.

    The variance of the difference is s_a^2 / n_a + s_b^2 / n_b. With fewer than 3 values on a side the result has no
    variance, whatever the other side's spread, because a single run may have been disturbed.

    Source: B. L. Welch, "The generalization of 'Student's' problem when several different population variances are
    involved", Biometrika 34 (1947), 28-35.

    Args:
        logs_a: Logarithm of the value of each run or host of side A, at least one.
        logs_b: Logarithm of the value of each run or host of side B, at least one.
        unit: `run` or `host`, for messages.
        correlation: Correlation of A's values followed by B's, shape `(num_values, num_values)`; None if independent.
    """
    value = fmean(logs_b) - fmean(logs_a)
    few = [f"{len(logs)} in {side}" for side, logs in (("A", logs_a), ("B", logs_b)) if len(logs) < MIN_RUNS]
    if few:
        fewest = min(len(logs_a), len(logs_b))
        count = f"one {unit}" if fewest == 1 else f"{fewest} {unit}s"
        fix = f"repeat with repeats = {MIN_RUNS}" if unit == "run" else f"measure {MIN_RUNS} a side"
        reason = f"{count}: spread between {unit}s unknown, {fix}"
        return LogRatio(value, None, math.inf, f"{' and '.join(few)}, no spread", reason)
    independent = sum_variances([(variance(logs) / len(logs), len(logs) - 1) for logs in (logs_a, logs_b)])
    total, degrees_of_freedom = independent
    if correlation is not None:
        total, degrees_of_freedom = max(independent, _correlated_variance(logs_a, logs_b, correlation))
    basis = f"between {len(logs_a)} and {len(logs_b)} {unit}s (Welch)"
    return LogRatio(value, total, degrees_of_freedom, basis)


def _correlated_variance(
    logs_a: Sequence[float], logs_b: Sequence[float], correlation: FloatArray
) -> tuple[float, float]:
    """Return the variance of the difference of two means of correlated values, and its degrees of freedom.

    Drift that both sides share cancels: the covariance of the means is subtracted. The caller never goes below the
    variance of independent runs, since it is only assumed that the drift is shared.
    """
    num_a = len(logs_a)
    of_a, of_b = correlation[:num_a, :num_a], correlation[num_a:, num_a:]
    parts = [variance_of_mean(logs_a, of_a), variance_of_mean(logs_b, of_b)]
    total, degrees_of_freedom = sum_variances(parts)
    # Of the standard deviations of the two means, the correlation of the means is what their runs' correlation implies.
    between = float(correlation[:num_a, num_a:].mean()) / math.sqrt(float(of_a.mean()) * float(of_b.mean()))
    return total - 2 * between * math.sqrt(parts[0][0] * parts[1][0]), degrees_of_freedom


def compare_runs(
    windows_a: Sequence[ThroughputWindow],
    windows_b: Sequence[ThroughputWindow],
    run_spread: float | None = None,
    correlation: FloatArray | None = None,
) -> LogRatio:
    """Compare two sides' throughput by the spread between runs if both sides have 3 or more runs, else within runs.

    The variance within runs excludes what differs from run to run (memory layout, other tenants, clock frequency). So
    a comparison within runs is inconclusive, unless the user assumes a spread between runs, which is then added.

    Args:
        windows_a: Measured steps of A's runs.
        windows_b: Measured steps of B's runs.
        run_spread: Assumed relative standard deviation between runs of one cell; None for no assumption.
        correlation: Assumed correlation of A's runs followed by B's, shape `(num_runs, num_runs)`; None if independent.
    """
    logs_a, logs_b = ([math.log(window.samples_per_s) for window in side] for side in (windows_a, windows_b))
    between = welch_log_ratio(logs_a, logs_b, correlation=correlation)
    if between.inconclusive_reason is None:
        return between
    within = compare_within_runs(windows_a, windows_b)
    if within is None:
        return LogRatio(between.value, None, math.inf, between.basis, between.inconclusive_reason)
    if within.variance is None or run_spread is None:
        return LogRatio(
            between.value, within.variance, within.degrees_of_freedom, within.basis, between.inconclusive_reason
        )
    assumed = run_spread**2 * (1 / len(windows_a) + 1 / len(windows_b))
    total, degrees_of_freedom = sum_variances([(within.variance, within.degrees_of_freedom), (assumed, math.inf)])
    basis = f"{within.basis}, and {100 * run_spread:g} % between runs, which is assumed"
    return LogRatio(between.value, total, degrees_of_freedom, basis)


def compare_within_runs(
    windows_a: Sequence[ThroughputWindow], windows_b: Sequence[ThroughputWindow]
) -> LogRatio | None:
    """Compare two sides' throughput by the variance within runs; None if a run has fewer than two steps.

    If all runs processed the same batches in the same order (one seed), compare batch by batch, so that the effect of
    long and short texts cancels. Otherwise, add up the runs' own variances.
    """
    # Runs may have warm-ups of different lengths, so compare their common last steps.
    num_steps = min(len(window.seconds) for window in (*windows_a, *windows_b))
    plans = {
        (window.num_samples[-num_steps:], window.num_padded_tokens[-num_steps:]) for window in (*windows_a, *windows_b)
    }
    if len(plans) == 1:
        mean_a, mean_b = (
            [fmean(step) for step in zip(*(window.seconds[-num_steps:] for window in side), strict=True)]
            for side in (windows_a, windows_b)
        )
        seconds_ratio = ratio_of_sums(mean_a, mean_b)
        if seconds_ratio is None:
            return None
        basis = "within runs, over the same batches"
        return LogRatio(-seconds_ratio.value, seconds_ratio.variance, seconds_ratio.degrees_of_freedom, basis)
    parts = []
    for side in (windows_a, windows_b):
        for rate in [window.log_rate for window in side]:
            if rate is None or rate.variance is None:
                return None
            parts.append((rate.variance / len(side) ** 2, rate.degrees_of_freedom))
    value = fmean(math.log(window.samples_per_s) for window in windows_b)
    value -= fmean(math.log(window.samples_per_s) for window in windows_a)
    return LogRatio(value, *sum_variances(parts), "within runs")


def find_abba_rounds(runs_a: Iterable[Record], runs_b: Iterable[Record]) -> list[Round] | None:
    """Group interleaved runs into rounds A B B A, by start time; None if the runs are not in such rounds.

    All runs must be on one host and form complete rounds of one configuration a side. No pause within a round may be
    longer than its longest run: a change of the host during a long pause would affect one side more.
    """
    runs = sorted([("A", run) for run in runs_a] + [("B", run) for run in runs_b], key=lambda run: run[1].started_at)
    groups = [runs[first : first + len(ORDER)] for first in range(0, len(runs), len(ORDER))]
    hosts = {(run.machine.id, run.machine.host) for _, run in runs}
    if len(groups) < MIN_ROUNDS or len(hosts) != 1 or not all(map(_is_round, groups)):
        return None
    rounds = []
    for group in groups:
        windows = measure_windows([run.training for _, run in group if run.training])
        rates = [math.log(window.samples_per_s) for window in windows]
        if len(rates) != len(ORDER):
            return None
        rounds.append((rates[0], rates[1], rates[2], rates[3]))
    return rounds


def _is_round(group: Sequence[tuple[str, Record]]) -> bool:
    if "".join(side for side, _ in group) != ORDER:
        return False
    if any(len({run.config_hash for run_side, run in group if run_side == side}) != 1 for side in "AB"):
        return False
    durations = [timedelta(seconds=run.duration_s) for _, run in group]
    pauses = [
        later.started_at - (earlier.started_at + duration)
        for (_, earlier), (_, later), duration in zip(group, group[1:], durations, strict=False)
    ]
    return max(pauses) <= max(durations)


def ratio_by_rounds(rounds: Sequence[Round]) -> LogRatio:
    """Estimate log(B / A) from R interleaved rounds as a randomised block design with 3 R - 1 degrees of freedom.

    Differences between rounds cancel, and so does linear drift within a round, because A's and B's positions have the
    same mean. A round's contrast is (b1 + b2 - a1 - a2) / 2, and the estimate is the mean contrast. Its variance is the
    residual sum of squares after removing each round's mean and the effect, divided by the degrees of freedom and by R.
    Autocorrelation makes the interval conservative: with autocovariances g0 > g1 > g2 > g3 > 0, a contrast has variance
    g0 - g1/2 - g2 + g3/2, while the residuals estimate g0 - g1/2 - g2/3 - g3/6.

    Source: W. G. Cochran and G. M. Cox, "Experimental designs", 2nd edition (1957), chapter 4.

    Args:
        rounds: log(samples/s) of each round's runs in the order A B B A, shape `(num_rounds, 4)`.
    """
    contrasts = [(b1 + b2 - a1 - a2) / 2 for a1, b1, b2, a2 in rounds]
    value = fmean(contrasts)
    squares = 0.0
    for rates in rounds:
        mean = fmean(rates)
        squares += sum((rate - mean - sign * value / 2) ** 2 for rate, sign in zip(rates, (-1, 1, 1, -1), strict=True))
    degrees_of_freedom = (len(ORDER) - 1) * len(rounds) - 1
    variance_of_mean = squares / degrees_of_freedom / len(rounds)
    return LogRatio(value, variance_of_mean, degrees_of_freedom, f"{len(rounds)} rounds of A B B A")


def geometric_mean_ratio(parts: Sequence[LogRatio]) -> LogRatio | None:
    """Return the geometric mean of independent cells' ratios; None without cells.

    The result is about these cells only. It is inconclusive if any cell's ratio is inconclusive.
    """
    if not parts:
        return None
    value = fmean(part.value for part in parts)
    inconclusive = [part for part in parts if part.inconclusive_reason is not None]
    basis = f"geometric mean of {len(parts)} cells"
    reason = None
    if inconclusive:
        reason = f"{len(inconclusive)} of {len(parts)} cells: {inconclusive[0].inconclusive_reason}"
    known = [(part.variance / len(parts) ** 2, part.degrees_of_freedom) for part in parts if part.variance is not None]
    if len(known) < len(parts):
        return LogRatio(value, None, math.inf, basis, reason)
    total, degrees_of_freedom = sum_variances(known)
    return LogRatio(value, total, degrees_of_freedom, basis, reason)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values for multiple comparisons with Holm's step-down method; None values stay None.

    The method controls the familywise error rate: the probability of any false positive.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6
    (1979), 65-70.
    """
    ascending = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    running_max = 0.0
    for rank, (p, index) in enumerate(ascending):
        running_max = max(running_max, min(1.0, (len(ascending) - rank) * p))
        adjusted[index] = running_max
    return adjusted


def mcnemar(num_only_a: int, num_only_b: int) -> float:
    """Return the two-sided p-value of McNemar's exact test on paired classifications.

    Source: Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12 (1947), 153-157; exact version by the binomial distribution.

    Args:
        num_only_a: Examples that only A classified correctly.
        num_only_b: Examples that only B classified correctly.
    """
    if num_only_a + num_only_b == 0:
        return 1.0
    from scipy import stats

    return float(stats.binomtest(num_only_b, num_only_a + num_only_b, 0.5).pvalue)
