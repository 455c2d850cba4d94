"""Two sets of records: which cells changed, by how much, with what certainty (pure)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.analysis.estimate import Estimate
from harness.analysis.log_ratio import LogRatio
from harness.analysis.paired_accuracy import PairedAccuracy, pair_accuracies
from harness.analysis.significance import (
    SIGNIFICANCE_LEVEL,
    compare_runs,
    compare_within_runs,
    find_abba_rounds,
    geometric_mean_ratio,
    holm,
    ratio_by_rounds,
    welch_log_ratio,
)
from harness.analysis.summarize import peak_memory
from harness.analysis.throughput import ThroughputWindow, measure_windows
from harness.decision.pairing import Pairing, UnpairedCell
from harness.pricing import formulas
from harness.pricing.cost import Priced
from harness.schema.record import Record

NO_DIFFERENCE, CANNOT_TELL = "no difference", "cannot tell"
SLOWER = "slower"


@dataclass(frozen=True)
class ComparedFigure:
    """What is compared; `below` and `above` are said where B / A is certainly below or above 1."""

    key: str
    below: str
    above: str


SPEED = ComparedFigure("samples_per_s", SLOWER, "faster")
MEMORY = ComparedFigure("peak_memory_bytes", "less", "more")
DOLLARS = ComparedFigure("usd_per_1000_samples", "cheaper", "dearer")
ACCURACY = ComparedFigure("accuracy", "worse", "better")


@dataclass(frozen=True)
class CompareOptions:
    """What the reader states; all fractions.

    Attributes:
        margin: What counts as no difference: a ratio between 1 / (1 + margin) and 1 + margin.
        accuracy_margin: The same for accuracies, which are subtracted.
        run_spread: Standard deviation between runs, assumed where there are too few to tell; None: nothing is assumed.
        fail_above: A slow-down beyond this, if certain, fails; None: nothing does.
    """

    margin: float = 0.03
    accuracy_margin: float = 0.01
    run_spread: float | None = None
    fail_above: float | None = None


@dataclass(frozen=True)
class MetricVerdict:
    """One figure of a cell, or of all cells together.

    Attributes:
        a, b: Geometric mean of the runs on each side, of accuracies the mean; None of all cells together.
        change: B / A, of accuracies B - A, with the 95 % interval of this cell alone.
        p_value: Adjusted by Holm for all cells of this figure; None where no verdict may rest on the interval.
        reason: Why it can't be told, or what limits the verdict.
        is_certain: Whether a verdict may rest on the interval.
    """

    figure: ComparedFigure
    a: float | None
    b: float | None
    change: Estimate
    p_value: float | None
    verdict: str
    reason: str | None
    is_certain: bool = True


@dataclass(frozen=True)
class CellComparison:
    """One cell on both sides; a figure is None where a side lacks it.

    Attributes:
        figures: By key, in the order speed, memory, dollars, accuracy.
        fails: Slower, with certainty, by more than the reader allows.
    """

    a: Priced
    b: Priced
    figures: dict[str, MetricVerdict]
    fails: bool

    @property
    def speed(self) -> MetricVerdict:
        """The figure that every pair has."""
        return self.figures[SPEED.key]


@dataclass(frozen=True)
class Comparison:
    """All that may be said of two sides.

    Attributes:
        overall: Geometric means over cells, by key; without accuracy.
        held: Cells whose verdict `fail_above` could hold at all.
    """

    asked: CompareOptions
    pairing: Pairing
    cells: tuple[CellComparison, ...]
    overall: dict[str, MetricVerdict]
    held: int

    @property
    def lost(self) -> tuple[UnpairedCell, ...]:
        """Cells that ran in A, and did not end well in B."""
        return tuple(one for one in self.pairing.alone if one.side == "A" and one.other is not None)

    @property
    def failed(self) -> bool:
        """Whether `fail_above` was asked for, and some cell certainly slowed down by more or no longer runs."""
        return self.asked.fail_above is not None and (any(cell.fails for cell in self.cells) or bool(self.lost))


def compare(pairing: Pairing, asked: CompareOptions | None = None) -> Comparison:
    """Judge every pair by every figure, each figure's cells as one family."""
    asked = asked or CompareOptions()
    pairs = pairing.pairs
    speeds = [_speed(a, b, asked.run_spread) for a, b in pairs]
    families: list[tuple[ComparedFigure, list[LogRatio | None], Callable[[Priced], float | None]]] = [
        (SPEED, list(speeds), _samples_per_s),
        (MEMORY, [_memory(a, b) for a, b in pairs], _bytes),
        (DOLLARS, [_dollars(a, b, speed) for (a, b), speed in zip(pairs, speeds, strict=True)], _usd),
    ]
    found: list[dict[str, MetricVerdict]] = [{} for _ in pairs]
    together: dict[str, MetricVerdict] = {}
    for figure, ratios, read in families:
        adjusted = holm([None if one is None else one.p_value() for one in ratios])
        for place, (a, b), one, p in zip(found, pairs, ratios, adjusted, strict=True):
            if one is not None:
                place[figure.key] = _judge(figure, one, p, asked.margin, (read(a), read(b)), len(ratios))
        if mean := geometric_mean_ratio([one for one in ratios if one is not None]):
            together[figure.key] = _judge(figure, mean, mean.p_value(), asked.margin, (None, None), 1)
    for place, judged in zip(found, _accuracies(pairs, asked.accuracy_margin), strict=True):
        if judged is not None:
            place[ACCURACY.key] = judged
    fails = _fails(speeds, asked.fail_above)
    cells = tuple(CellComparison(a, b, place, fail) for (a, b), place, fail in zip(pairs, found, fails, strict=True))
    return Comparison(asked, pairing, cells, together, sum(one.inconclusive_reason is None for one in speeds))


def _judge(
    figure: ComparedFigure,
    found: LogRatio,
    p_value: float | None,
    margin: float,
    sides: tuple[float | None, ...],
    num: int,
) -> MetricVerdict:
    change = found.estimate()
    verdict, reason = CANNOT_TELL, found.inconclusive_reason
    if found.inconclusive_reason is None and change.low is not None and change.high is not None:
        if 1 / (1 + margin) <= change.low and change.high <= 1 + margin:
            verdict = NO_DIFFERENCE
        elif p_value is not None and p_value < SIGNIFICANCE_LEVEL:
            verdict = figure.below if found.value < 0 else figure.above
        else:
            alone = num > 1 and (found.p_value() or 0.0) < SIGNIFICANCE_LEVEL
            reason = (
                f"clear alone, but not among {num} cells" if alone else "the interval holds 1 and leaves the margin"
            )
    return MetricVerdict(
        figure, sides[0], sides[1], change, p_value, verdict, reason, found.inconclusive_reason is None
    )


def _fails(speeds: Sequence[LogRatio], fail_above: float | None) -> list[bool]:
    """Which cells are certainly slower than `1 - fail_above`, as a family of their own."""
    if fail_above is None:
        return [False for _ in speeds]
    limit = math.log1p(-fail_above)
    adjusted = holm([one.p_value(at=limit) for one in speeds])
    return [
        p is not None and p < SIGNIFICANCE_LEVEL and one.value < limit for one, p in zip(speeds, adjusted, strict=True)
    ]


def _accuracies(pairs: Iterable[tuple[Priced, Priced]], margin: float) -> list[MetricVerdict | None]:
    found = [pair_accuracies(a.summary.ok_records, b.summary.ok_records) for a, b in pairs]
    flat = [(index, won, p) for index, one in enumerate(found) if one for won, p in one.tests]
    adjusted = holm([p for _, _, p in flat])
    signs: dict[int, set[bool]] = defaultdict(set)
    least: dict[int, float] = {}
    for (index, won, _), p in zip(flat, adjusted, strict=True):
        least[index] = min(least.get(index, 1.0), 1.0 if p is None else p)
        if p is not None and p < SIGNIFICANCE_LEVEL:
            signs[index].add(won)
    return [
        None if one is None else _judge_accuracy(one, signs[index], least.get(index), margin)
        for index, one in enumerate(found)
    ]


def _judge_accuracy(found: PairedAccuracy, signs: set[bool], p_value: float | None, margin: float) -> MetricVerdict:
    change, verdict = found.difference, CANNOT_TELL
    reason = "the interval holds 0 and leaves the margin" if not signs else None
    if len(signs) > 1:
        reason = "better by some seeds, worse by others"
    elif change.low is not None and change.high is not None and -margin <= change.low and change.high <= margin:
        verdict, reason = NO_DIFFERENCE, None
    elif signs:
        verdict = ACCURACY.above if signs == {True} else ACCURACY.below
        reason = "one seed: of these two trained models, not of what made them" if len(found.tests) == 1 else None
    return MetricVerdict(ACCURACY, found.a, found.b, change, p_value, verdict, reason)


def _speed(a: Priced, b: Priced, run_spread: float | None) -> LogRatio:
    """By rounds where the runs took turns; between hosts where a side has several, since many of one say little of the next."""
    rounds = find_abba_rounds(a.summary.ok_records, b.summary.ok_records)
    if rounds is not None:
        return ratio_by_rounds(rounds)
    one, other = _windows(a), _windows(b)
    runs = [window for _, window in one], [window for _, window in other]
    if all(len({host for host, _ in side}) == 1 for side in (one, other)):
        return compare_runs(runs[0], runs[1], run_spread)
    found, inside = welch_log_ratio(_by_host(one), _by_host(other), "host"), compare_within_runs(runs[0], runs[1])
    if found.inconclusive_reason is None or inside is None:
        return found
    return LogRatio(found.value, inside.variance, inside.degrees_of_freedom, inside.basis, found.inconclusive_reason)


def _by_host(runs: Iterable[tuple[str | None, ThroughputWindow]]) -> list[float]:
    """Each host's mean logarithm."""
    groups: dict[str | None, list[float]] = defaultdict(list)
    for host, window in runs:
        groups[host].append(math.log(window.samples_per_s))
    return [fmean(found) for found in groups.values()]


def _windows(cell: Priced) -> list[tuple[str | None, ThroughputWindow]]:
    ran = [run for run in cell.summary.ok_records if run.training and run.training.steps.num_samples]
    windows = measure_windows([run.training for run in ran if run.training])
    return [(run.machine.host, window) for run, window in zip(ran, windows, strict=True)]


def _memory(a: Priced, b: Priced) -> LogRatio | None:
    """Of runs' peaks by the same instrument; None where the sides were not read by one."""
    source = a.summary.peak_memory_source
    if source is None or source != b.summary.peak_memory_source:
        return None
    one, other = ([math.log(size) for size in _peaks(cell)] for cell in (a, b))
    return welch_log_ratio(one, other) if one and other else None


def _peaks(cell: Priced) -> list[int]:
    source = cell.summary.peak_memory_source
    return [size for run in cell.summary.ok_records if source and (size := _peak(run, source))]


def _peak(run: Record, source: str) -> int | None:
    return peak_memory(run, source)  # type: ignore[arg-type] # a summary keeps a source's name as plain text


def _dollars(a: Priced, b: Priced, speed: LogRatio) -> LogRatio | None:
    """Training alone: an hour's price over samples a second, the price taken as exact."""
    if a.price is None or b.price is None or a.price.usd_per_hour <= 0 or b.price.usd_per_hour <= 0:
        return None
    return speed.inverted(math.log(b.price.usd_per_hour / a.price.usd_per_hour))


def _samples_per_s(cell: Priced) -> float | None:
    return _geometric(window.samples_per_s for _, window in _windows(cell))


def _usd(cell: Priced) -> float | None:
    rate = _samples_per_s(cell)
    return None if cell.price is None else formulas.usd_per_1000_samples(cell.price.usd_per_hour, rate)


def _bytes(cell: Priced) -> float | None:
    return _geometric(_peaks(cell))


def _geometric(values: Iterable[float]) -> float | None:
    """So that B over A is the ratio that is shown."""
    logs = [math.log(value) for value in values]
    return math.exp(fmean(logs)) if logs else None
