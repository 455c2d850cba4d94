"""Compute samples per second from raw step times, with intervals within runs, between runs and between hosts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, median

import numpy as np

from harness.analysis.estimate import MIN_RUNS, Estimate, t_interval, t_quantile
from harness.analysis.log_ratio import LogRatio, ratio_of_sums, sum_variances
from harness.analysis.run_spread import RunSpread, assumed_spread
from harness.analysis.serial_correlation import RunStart, correlation_matrix, variance_of_mean
from harness.analysis.steady_state import expected_seconds, seconds_by_tokens, warmup_steps
from harness.schema.record import Record
from harness.schema.training_record import PlannedStep, Training


@dataclass(frozen=True)
class HostSpread:
    """One cell's throughput on several hosts of one machine type.

    Attributes:
        samples_per_s: Mean of the hosts' means, with the interval between hosts if there are 3 or more.
        slowest, fastest: Mean of the slowest and of the fastest host, in samples per second.
    """

    num_hosts: int
    samples_per_s: Estimate
    slowest: float
    fastest: float


@dataclass(frozen=True)
class ThroughputWindow:
    """One run's measured steps, without warm-up.

    Attributes:
        num_warmup: Number of steps left out.
        seconds: Step times of the slowest rank.
        num_samples, num_real_tokens, num_padded_tokens: Totals over all ranks, by step.
        planned_step: Of a run that ended once its speed was known, the mean size of all planned steps: the speed is then that
            of the whole plan, since the steps that ran may be longer or shorter ones by chance.
    """

    num_warmup: int
    seconds: tuple[float, ...]
    num_samples: tuple[int, ...]
    num_real_tokens: tuple[int, ...]
    num_padded_tokens: tuple[int, ...]
    planned_step: PlannedStep | None = None

    @cached_property
    def samples_per_s(self) -> float:
        """Total samples over total seconds; the mean of the steps' rates would overweight fast steps."""
        if self.planned_step is None:
            return sum(self.num_samples) / sum(self.seconds)
        planned, tokens = self.planned_step, self.num_padded_tokens
        expected_s = seconds_by_tokens(self.seconds, tokens, [*tokens, planned.num_padded_tokens])
        return planned.num_samples * float(expected_s[:-1].sum() / expected_s[-1]) / sum(self.seconds)

    @cached_property
    def log_rate(self) -> LogRatio | None:
        """log(samples/s) with its variance within this run; None with fewer than two steps."""
        if self.planned_step is None:
            return ratio_of_sums(self.seconds, self.num_samples)
        around_line = log_speed(self.seconds, self.num_padded_tokens)
        return None if around_line is None else replace(around_line, value=math.log(self.samples_per_s))


def measure_windows(trainings: Sequence[Training]) -> list[ThroughputWindow]:
    """Discard the same warm-up from all runs of a cell, so that they are compared over the same batches.

    A rank's steps cover its whole training time except evaluations, and include its waiting for other ranks' gradients.
    So a run took as long as the rank with the largest total. The sum of each step's slowest rank would be too long: it
    would count twice any delay that a rank makes up for in the next step.

    Returns:
        One window per run that has steps.
    """
    runs = [(training.steps, training.planned_step) for training in trainings if training.steps.num_samples]
    num_warmup = warmup_steps([(slowest_rank_by_step(run.seconds), run.num_padded_tokens) for run, _ in runs])
    return [
        ThroughputWindow(
            num_warmup=num_warmup,
            seconds=slowest_rank(run.seconds, num_warmup),
            num_samples=run.num_samples[num_warmup:],
            num_real_tokens=run.num_real_tokens[num_warmup:],
            num_padded_tokens=run.num_padded_tokens[num_warmup:],
            planned_step=planned_step,
        )
        for run, planned_step in runs
    ]


def log_speed(seconds: Sequence[float], num_padded_tokens: Sequence[int]) -> LogRatio | None:
    """Return how the steps' seconds lie around their line over tokens: a log-ratio near 0 with its variance within the run.

    Args:
        seconds: Step times, `(num_steps,)`.
        num_padded_tokens: Their tokens, `(num_steps,)`.
    """
    return ratio_of_sums(seconds, expected_seconds(seconds, num_padded_tokens)) if seconds else None


def slowest_rank(seconds: Iterable[tuple[float, ...]], num_warmup: int) -> tuple[float, ...]:
    """Return the step times, without warm-up, of the rank that took longest in all."""
    return max((rank[num_warmup:] for rank in seconds), key=sum)


def slowest_rank_by_step(seconds: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """Return the longest time that any rank took for each step, from those of each rank, `(num_ranks, num_steps)`."""
    return seconds[0] if len(seconds) == 1 else tuple(map(max, zip(*seconds, strict=True)))


def throughput(
    windows: Sequence[ThroughputWindow], starts: Sequence[RunStart] | None = None, spread: RunSpread | None = None
) -> Estimate | None:
    """Return the mean of the runs' samples per second with its interval; None without runs.

    With 3 runs or more, the interval is Student's t between the logarithms of the runs' speeds. With fewer, its variance
    is that within the runs plus that between runs by `spread`, and the interval includes both runs' values. Either way,
    runs that follow each other on one host are taken to be correlated (see `serial_correlation`).

    Args:
        windows: Measured steps of each run.
        starts: Where and when each run started; None if the runs are independent.
        spread: Spread between runs, for fewer than 3 runs; None for the assumed one.
    """
    if not windows:
        return None
    rates, num_runs = [window.samples_per_s for window in windows], len(windows)
    correlation = np.eye(num_runs) if starts is None else correlation_matrix(starts)
    if num_runs >= MIN_RUNS:
        variance, degrees_of_freedom = variance_of_mean([math.log(rate) for rate in rates], correlation)
        return _around(fmean(rates), variance, degrees_of_freedom, f"between {num_runs} runs")
    spread = spread or assumed_spread()
    mean, basis = fmean(rates), f"{('one run', 'two runs')[num_runs - 1]}, with {spread.basis}"
    parts = [(spread.value**2 * float(correlation.sum()) / num_runs**2, spread.degrees_of_freedom)]
    for window in windows:
        log_rate = window.log_rate
        if log_rate is None or log_rate.variance is None:
            return Estimate(mean, None, None, basis)
        parts.append((log_rate.variance / num_runs**2, log_rate.degrees_of_freedom))
    estimate = _around(mean, *sum_variances(parts), basis)
    return replace(estimate, low=min(estimate.low or mean, *rates), high=max(estimate.high or mean, *rates))


def _around(mean: float, variance: float, degrees_of_freedom: float, basis: str) -> Estimate:
    """Return a mean with its interval by the variance of its logarithm."""
    factor = math.exp(t_quantile(degrees_of_freedom) * math.sqrt(variance))
    return Estimate(mean, mean / factor, mean * factor, basis, degrees_of_freedom)


def within_run_fraction(windows: Sequence[ThroughputWindow]) -> float | None:
    """Return the relative half-width of the interval within one run, median over runs; None if no run has one."""
    log_rates = [rate for window in windows if (rate := window.log_rate) is not None and rate.variance is not None]
    return median(math.expm1(rate.half_width) for rate in log_rates) if log_rates else None


def host_spread(records: Iterable[Record]) -> HostSpread | None:
    """Compare hosts of one machine type; None with fewer than two known hosts."""
    runs = [
        (record.machine.host, record.training)
        for record in records
        if record.outcome == "ok" and record.machine.host and record.training and record.training.steps.num_samples
    ]
    if len({host for host, _ in runs}) < 2:  # noqa: PLR2004 - a spread needs two hosts
        return None
    rates: dict[str, list[float]] = defaultdict(list)
    windows = measure_windows([training for _, training in runs])
    for (host, _), window in zip(runs, windows, strict=True):
        rates[host].append(window.samples_per_s)
    means = [fmean(host_rates) for host_rates in rates.values()]
    basis = f"between {len(means)} hosts"
    mean = t_interval(means, basis) if len(means) >= MIN_RUNS else Estimate(fmean(means), None, None, basis)
    return HostSpread(len(means), mean, min(means), max(means))


def widen_over_hosts(rate: Estimate | None, spread: HostSpread | None) -> Estimate | None:
    """Widen a throughput's interval to include all hosts: runs on one host say little about the next host."""
    if rate is None or spread is None:
        return rate
    between = spread.samples_per_s
    ends = (rate.low, rate.high, between.low, between.high, spread.slowest, spread.fastest)
    known = [end for end in ends if end is not None]
    return Estimate(
        rate.value,
        min(known),
        max(known),
        f"{rate.basis}, reaching over {spread.num_hosts} hosts",
        min(rate.degrees_of_freedom, between.degrees_of_freedom),
    )
