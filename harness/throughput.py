"""Raw steps to samples a second, with an interval: within a run, between runs and between hosts (pure)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from harness.intervals import FEWEST_RUNS, Estimate, t_interval, t_quantile
from harness.record import Record, Training
from harness.steadiness import warmup_steps

MOST_BATCHES = 20
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
    least: float
    most: float


@dataclass(frozen=True)
class Window:
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


def measure_window(training: Training) -> Window | None:
    """Leave out the warm-up and take the slowest rank's clock; None without a step.

    Evaluations apart, each rank's steps tile its own clock, and its waiting for the others' gradients lies inside
    them. So the run lasted as long as the longest sum over one rank's steps. The sum of each step's longest rank
    would count again what one rank was late in a step and made up for in the next.
    """
    steps = training.steps
    if not steps.num_samples:
        return None
    first = warmup_steps([max(ranks) for ranks in zip(*steps.seconds, strict=True)])
    return Window(
        num_warmup=first,
        seconds=max((rank[first:] for rank in steps.seconds), key=sum),
        num_samples=steps.num_samples[first:],
        num_real_tokens=steps.num_real_tokens[first:],
        num_padded_tokens=steps.num_padded_tokens[first:],
    )


def throughput(windows: Sequence[Window]) -> Estimate | None:
    """Samples a second: the mean of the runs' own ratios; None without a run.

    Its interval is Student's between 3 runs or more. With fewer it is that of the batch means within each
    run; of two runs it is widened to reach over both.
    """
    if not windows:
        return None
    rates = [window.samples_per_s for window in windows]
    if len(rates) >= FEWEST_RUNS:
        return t_interval(rates, f"between {len(rates)} runs")
    spreads = [_ratio_variance(window) for window in windows]
    value, basis = fmean(rates), BASIS_ONE_RUN if len(rates) == 1 else BASIS_TWO_RUNS
    known = [spread for spread in spreads if spread is not None]
    if len(known) < len(spreads):
        return Estimate(value, None, None, basis)
    freedom = sum(num_batches - 1 for _, num_batches in known)
    half = t_quantile(freedom) * math.sqrt(sum(squared for squared, _ in known)) / len(known)
    low, high = min(value - half, *rates, value), max(value + half, *rates, value)
    return Estimate(value, max(0.0, low), high, basis)


def host_spread(records: Iterable[Record]) -> HostSpread | None:
    """How far hosts of one kind differ; None unless two hosts or more ran well and are told apart."""
    rates: dict[str, list[float]] = defaultdict(list)
    for record in records:
        window = measure_window(record.training) if record.outcome == "ok" and record.training is not None else None
        if window is not None and record.machine.host is not None:
            rates[record.machine.host].append(window.samples_per_s)
    means = [fmean(found) for found in rates.values()]
    if len(means) < 2:  # noqa: PLR2004 - a spread needs two
        return None
    basis = f"between {len(means)} hosts"
    mean = t_interval(means, basis) if len(means) >= FEWEST_RUNS else Estimate(fmean(means), None, None, basis)
    return HostSpread(len(means), mean, min(means), max(means))


def over_hosts(rate: Estimate | None, spread: HostSpread | None) -> Estimate | None:
    """A speed whose interval holds what its hosts show: a type of machine is not ranked within their spread.

    Runs of one host say little of the next one, however many there are.
    """
    if rate is None or spread is None:
        return rate
    between = spread.samples_per_s
    ends = (rate.low, rate.high, between.low, between.high, spread.least, spread.most)
    known = [end for end in ends if end is not None]
    return Estimate(rate.value, min(known), max(known), f"{rate.basis}, reaching over {spread.num_hosts} hosts")


def _ratio_variance(window: Window) -> tuple[float, int] | None:
    """Variance of a run's ratio from batch means, and their number; None with fewer than two steps.

    Neighbouring steps are alike (turbo, other processes, lengths), so single steps would promise too much;
    contiguous batches of them hardly are.
    Var(R) = k / (k - 1) sum((samples_j - R seconds_j)^2) / (sum seconds)^2.
    """
    num_steps = len(window.seconds)
    if num_steps < 2:  # noqa: PLR2004
        return None
    num_batches = min(MOST_BATCHES, num_steps)
    ends = [num_steps * index // num_batches for index in range(num_batches + 1)]
    squared = 0.0
    for first, end in pairwise(ends):
        expected = window.samples_per_s * sum(window.seconds[first:end])
        squared += (sum(window.num_samples[first:end]) - expected) ** 2
    return num_batches / (num_batches - 1) * squared / sum(window.seconds) ** 2, num_batches
