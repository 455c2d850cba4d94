"""Tables of bench_learning_curve.py's simulated curves: coverage, width, and how often each verdict is right."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, median

from simulated_curves import EXTRA_KINDS, KINDS, Trial

from harness.decision.curve_verdict import MAX_FLAT, MIN_RISE, Trend, trend_of

_NO_FORECAST = "no forecast"
_GAINS = (0.0, MIN_RISE, 0.005, MAX_FLAT, 0.02, 0.1)


def tables(trials: Sequence[Trial]) -> list[str]:
    """Return all tables, in Markdown."""
    asked = [trial for trial in trials if trial.kind in KINDS]
    return [
        _coverage("kind", trials, lambda trial: f"{trial.kind}: {(KINDS | EXTRA_KINDS)[trial.kind]}"),
        _coverage(
            "seeds a size, sd between seeds in points",
            asked,
            lambda trial: f"{trial.setting.num_seeds}, {100 * trial.setting.seed_sd:g}",
        ),
        _coverage("test examples", asked, lambda trial: f"{trial.setting.num_examples:,}"),
        _coverage("sizes", asked, lambda trial: ", ".join(f"{size:,}" for size in trial.setting.sizes)),
        _verdicts(trials),
        _advice(trials),
    ]


def _coverage(head: str, trials: Iterable[Trial], key: Callable[[Trial], str]) -> str:
    """Compare intervals with the truth, by a property of the trials; the lowest coverage of a kind is of KINDS alone."""
    groups = defaultdict(list)
    for trial in trials:
        groups[key(trial)].append(trial)
    by_head = groups.items() if head == "kind" else sorted(groups.items(), key=lambda item: _numbers(item[0]))
    lines = [
        f"| {head} | curves | forecast given | coverage of the gain | lowest of the kinds | coverage of the lead | half-width of the gain, median | oracle's | error of the value, rms |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, group in by_head:
        given = [trial for trial in group if trial.forecast is not None]
        kinds = defaultdict(list)
        for trial in given:
            kinds[trial.kind].append(_covers(trial.forecast, trial.gain))
        oracle = [trial.oracle for trial in given if trial.oracle is not None]
        lines.append(
            f"| {name} | {len(group):,} | {len(given) / len(group):.1%} "
            f"| {fmean(_covers(trial.forecast, trial.gain) for trial in given):.1%} "
            f"| {min(fmean(covered) for covered in kinds.values()):.1%} "
            f"| {fmean(_covers(trial.forecast_lead, trial.lead) for trial in given):.1%} "
            f"| {median((trial.forecast.high - trial.forecast.low) / 2 for trial in given):.4f} "
            f"| {f'{median(oracle):.4f}' if oracle else ''} "
            f"| {fmean((trial.forecast.value - trial.gain) ** 2 for trial in given) ** 0.5:.4f} |"
        )
    return "\n".join(lines)


def _numbers(name: str) -> list[float]:
    return [float(number.replace(",", "")) for number in name.split(", ")]


def _covers(estimate, truth: float) -> bool:
    return estimate.low - 1e-12 <= truth <= estimate.high + 1e-12


def _verdicts(trials: Iterable[Trial]) -> str:
    """Count verdicts by the true gain of a doubling."""
    verdicts = [*Trend, _NO_FORECAST]
    lines = [
        f"| true gain of twice the examples | curves | {' | '.join(verdicts)} |",
        "|---|---:" + "|---:" * len(verdicts) + "|",
    ]
    groups = defaultdict(list)
    for trial in trials:
        index = sum(trial.gain >= bound - 1e-12 for bound in _GAINS) - 1
        groups["none" if trial.kind == "flat" else f"{_GAINS[index]:g} to {_GAINS[index + 1]:g}"].append(trial)
    for name, group in sorted(
        groups.items(), key=lambda item: -1.0 if item[0] == "none" else float(item[0].split()[0])
    ):
        said = [_NO_FORECAST if trial.forecast is None else trend_of(trial.forecast) for trial in group]
        shares = " | ".join(f"{said.count(verdict) / len(group):.1%}" for verdict in verdicts)
        lines.append(f"| {name} | {len(group):,} | {shares} |")
    return "\n".join(lines)


def _advice(trials: Iterable[Trial]) -> str:
    """Count how often following the advice of an unclear verdict settled it."""
    unclear = [trial for trial in trials if trial.forecast is not None and trend_of(trial.forecast) is Trend.UNCLEAR]
    lines = ["| an unclear verdict asks for | of all unclear | settled by it |", "|---|---:|---:|"]
    for index, name in enumerate(("more seeds", "more test examples", "more of both")):
        followed = [trial.settled[index] for trial in unclear if trial.settled[index] is not None]
        lines.append(f"| {name} | {len(followed) / len(unclear):.1%} | {fmean(followed):.1%} |")
    neither = [trial for trial in unclear if trial.settled == (None, None, None)]
    return "\n".join([*lines, f"| no such number suffices | {len(neither) / len(unclear):.1%} | |"])
