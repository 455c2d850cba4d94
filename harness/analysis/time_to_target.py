"""Seconds to the target accuracy: all seconds that a cell's runs spend on it, for each run that reaches it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from harness.analysis.estimate import MIN_RUNS, Estimate, t_quantile
from harness.schema.cells import FineTuneConfig
from harness.schema.record import Record


@dataclass(frozen=True)
class TargetRun:
    """One run on its way to the target.

    Attributes:
        spent_s: Seconds of set-up, training and validations until a validation reached the target; until the end if
            none did.
        least_s: The same until the first validation, whatever its accuracy.
        whole_s: The same until the end. The test evaluation is not part of it.
        is_reached: Whether a validation reached the target.
        is_lost: Whether a later validation fell below the target again.
    """

    spent_s: float
    least_s: float
    whole_s: float
    is_reached: bool
    is_lost: bool


def target_run(run: Record) -> TargetRun | None:
    """Return a run's way to its target; None without a target, of a cell of speed alone, or if the run neither ended well nor diverged.

    A diverged run without measurements has spent its whole duration.
    """
    config, training = run.config, run.training
    if not isinstance(config, FineTuneConfig) or run.outcome not in ("ok", "diverged"):
        return None
    target = config.training.target_accuracy if config.measure == "all" else None
    if target is None:
        return None
    if training is None:  # only of a run that diverged: one that ended well has its training
        return TargetRun(run.duration_s, run.duration_s, run.duration_s, is_reached=False, is_lost=False)
    setup_s, validated_s, ends_s = setup_seconds(run) or 0.0, 0.0, []
    for evaluation in training.evaluations:
        validated_s += evaluation.evaluate_s
        ends_s.append(setup_s + evaluation.train_s + validated_s)
    whole_s = max([setup_s + (run.phases.train_s or 0.0) + validated_s, *ends_s])
    reached = [evaluation.accuracy >= target for evaluation in training.evaluations]
    first = reached.index(True) if any(reached) else None
    return TargetRun(
        spent_s=whole_s if first is None else ends_s[first],
        least_s=ends_s[0] if ends_s else whole_s,
        whole_s=whole_s,
        is_reached=first is not None,
        is_lost=first is not None and not all(reached[first:]),
    )


def setup_seconds(run: Record) -> float | None:
    """Return the seconds of starting, loading, tokenising, choosing attention and compiling; None if none was measured."""
    training = run.training
    choice = training.attention_choice if training else None
    parts = [run.phases.start_s, run.phases.load_s, run.phases.tokenise_s]
    parts += [choice.choose_s if choice else None, training.compile_s if training else None]
    known = [part for part in parts if part is not None]
    return sum(known) if known else None


def seconds_per_success(runs: Sequence[TargetRun], rate: Estimate | None) -> Estimate | None:
    """Return the seconds that all runs spent over the number that reached the target; None if none did.

    This is what reaching the target costs if one repeats runs until one reaches it. With a the mean seconds of the
    runs that reached it, b those of a whole run, and o = (1 - p) / p the odds of missing it, it is a + b o. Its
    interval combines two: of a, Student's t between the logarithms of 3 runs or more, else from a run's first
    validation to its end; of o, by Jeffreys' interval of p.

    One run that reached the target has the interval of its speed only.

    Source: L. D. Brown, T. T. Cai and A. DasGupta, "Interval estimation for a binomial proportion", Statistical Science
    16 (2001), 101-133; sum of both by G. Y. Zou and A. Donner, Statistics in Medicine 27 (2008), 1693-1702.

    Args:
        runs: The cell's runs with a target.
        rate: The cell's throughput.
    """
    reached = [run for run in runs if run.is_reached]
    if not reached:
        return None
    num_runs, num_reached = len(runs), len(reached)
    value = sum(run.spent_s for run in runs) / num_reached
    slower = rate.value / rate.low if rate is not None and rate.low else None
    faster = rate.value / rate.high if rate is not None and rate.high else None
    if num_runs == 1:
        basis = f"{rate.basis if rate else 'one run'}; whether another run reaches the target is unknown"
        return _scaled(value, faster, slower, basis)
    mean = fmean(run.spent_s for run in reached)
    if num_reached >= MIN_RUNS:
        logs = [math.log(run.spent_s) for run in reached]
        factor = math.exp(t_quantile(num_reached - 1) * stdev(logs) / math.sqrt(num_reached))
        low, high = mean / factor, mean * factor
    else:
        low = min(run.least_s for run in runs) * (faster or 1.0)
        high = max(run.whole_s for run in runs) * (slower or 1.0)
    whole_s = fmean(run.whole_s for run in runs)
    odds = (num_runs - num_reached) / num_reached
    fewest, most = _odds_of_missing(num_reached, num_runs)
    below = math.hypot(mean - low, whole_s * (odds - fewest))
    above = math.hypot(high - mean, whole_s * (most - odds))
    basis = f"{num_reached} of {num_runs} runs reached the target"
    return Estimate(value, max(low, value - below), value + above, basis)


def _scaled(value: float, faster: float | None, slower: float | None, basis: str) -> Estimate:
    low, high = (None if factor is None else value * factor for factor in (faster, slower))
    return Estimate(value, low, high, basis)


def _odds_of_missing(num_reached: int, num_runs: int) -> tuple[float, float]:
    """Return the 95 % interval of the odds (1 - p) / p of missing the target, by Jeffreys' interval of p."""
    from scipy import special

    shapes = num_reached + 0.5, num_runs - num_reached + 0.5
    least, most = (float(special.betaincinv(*shapes, share)) for share in (0.025, 0.975))
    return (0.0 if num_reached == num_runs else (1 - most) / most), (1 - least) / least
