"""Raw steps to samples a second, with an interval: within a run, between runs and between hosts (pure)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, median

from harness.analysis.estimate import MIN_RUNS, Estimate, t_interval
from harness.analysis.log_ratio import LogRatio, ratio_of_sums, sum_variances
from harness.analysis.steady_state import warmup_steps
from harness.schema.record import Record
from harness.schema.training_record import Training

BASIS_ONE_RUN = "within one run: spread between runs unknown"
BASIS_TWO_RUNS = "within 2 runs, reaching over both: spread between runs hardly known"


@dataclass(frozen=True)
class HostSpread:
    """What several hosts of one kind of machine show on one cell.

    Attributes:
        samples_per_s: Mean of the hosts' own means; Student's interval between them from 3 hosts on, None of 2.
        least, most: The slowest and the fastest host's mean.
    """

    num_hosts: int
    samples_per_s: Estimate
    slowest: float
    fastest: float


@dataclass(frozen=True)
class ThroughputWindow:
    """One run's measured steps: what is left after warm-up, on the clock of its slowest rank.

    Attributes:
        seconds: Of that rank, by step.
    """

    num_warmup: int
    seconds: tuple[float, ...]
    num_samples: tuple[int, ...]
    num_real_tokens: tuple[int, ...]
    num_padded_tokens: tuple[int, ...]

    @property
    def samples_per_s(self) -> float:
        """All samples over all seconds; the mean of the steps' rates would weigh fast steps too much."""
        return sum(self.num_samples) / sum(self.seconds)

    @cached_property
    def log_rate(self) -> LogRatio | None:
        """Samples a second by this run's steps alone, as a logarithm; None with fewer than two steps."""
        return ratio_of_sums(self.seconds, self.num_samples)


def measure_windows(trainings: Sequence[Training]) -> list[ThroughputWindow]:
    """Leave the same warm-up out of all runs of a cell, so that they compare over the same batches; none of a run without a step.

    Evaluations apart, each rank's steps tile its own clock, and its waiting for the others' gradients lies inside
    them. So the run lasted as long as the longest sum over one rank's steps. The sum of each step's longest rank
    would count again what one rank was late in a step and made up for in the next.
    """
    runs = [training.steps for training in trainings if training.steps.num_samples]
    first = warmup_steps([(_slowest(run.seconds), run.num_padded_tokens) for run in runs])
    return [
        ThroughputWindow(
            num_warmup=first,
            seconds=max((rank[first:] for rank in run.seconds), key=sum),
            num_samples=run.num_samples[first:],
            num_real_tokens=run.num_real_tokens[first:],
            num_padded_tokens=run.num_padded_tokens[first:],
        )
        for run in runs
    ]


def _slowest(seconds: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """Of each step, its longest rank's."""
    return seconds[0] if len(seconds) == 1 else tuple(map(max, zip(*seconds, strict=True)))


def throughput(windows: Sequence[ThroughputWindow]) -> Estimate | None:
    """Samples a second: the mean of the runs' own ratios; None without a run.

    Its interval is Student's between 3 runs or more, and the steps are not asked. With fewer it is that of the steps
    within each run, which does not hold what differs from run to run; of two runs it is widened to reach over both.
    """
    if not windows:
        return None
    rates = [window.samples_per_s for window in windows]
    if len(rates) >= MIN_RUNS:
        return t_interval(rates, f"between {len(rates)} runs")
    value, basis = fmean(rates), BASIS_ONE_RUN if len(rates) == 1 else BASIS_TWO_RUNS
    parts = []
    for window in windows:
        found = window.log_rate
        if found is None or found.variance is None:
            return Estimate(value, None, None, basis)
        parts.append((found.variance / len(windows) ** 2, found.degrees_of_freedom))
    half = LogRatio(math.log(value), *sum_variances(parts), basis).half_width
    return Estimate(value, min(value * math.exp(-half), *rates), max(value * math.exp(half), *rates), basis)


def within_run_fraction(windows: Sequence[ThroughputWindow]) -> float | None:
    """Half the interval within one run, over its value; the median of the runs that have one, None without any."""
    known = [found for window in windows if (found := window.log_rate) is not None and found.variance is not None]
    return median(math.expm1(found.half_width) for found in known) if known else None


def host_spread(records: Iterable[Record]) -> HostSpread | None:
    """How far hosts of one kind differ; None unless two hosts or more ran well and are told apart."""
    runs = [
        (record.machine.host, record.training)
        for record in records
        if record.outcome == "ok" and record.machine.host and record.training and record.training.steps.num_samples
    ]
    if len({host for host, _ in runs}) < 2:  # noqa: PLR2004 - a spread needs two
        return None
    rates: dict[str, list[float]] = defaultdict(list)
    windows = measure_windows([training for _, training in runs])
    for (host, _), window in zip(runs, windows, strict=True):
        rates[host].append(window.samples_per_s)
    means = [fmean(found) for found in rates.values()]
    basis = f"between {len(means)} hosts"
    mean = t_interval(means, basis) if len(means) >= MIN_RUNS else Estimate(fmean(means), None, None, basis)
    return HostSpread(len(means), mean, min(means), max(means))


def widen_over_hosts(rate: Estimate | None, spread: HostSpread | None) -> Estimate | None:
    """A speed whose interval holds what its hosts show: a type of machine is not ranked within their spread.

    Runs of one host say little of the next one, however many there are.
    """
    if rate is None or spread is None:
        return rate
    between = spread.samples_per_s
    ends = (rate.low, rate.high, between.low, between.high, spread.slowest, spread.fastest)
    known = [end for end in ends if end is not None]
    return Estimate(rate.value, min(known), max(known), f"{rate.basis}, reaching over {spread.num_hosts} hosts")
