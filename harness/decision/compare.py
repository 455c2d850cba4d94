"""A/B comparison of two sets of records: which cells changed, by how much, and how certainly (pure)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.analysis.accuracy import Metric
from harness.analysis.log_ratio import LogRatio
from harness.analysis.serial_correlation import correlation_matrix, run_start
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
from harness.decision.cells import comparable_in_dollars
from harness.decision.compare_scores import judge_scores
from harness.decision.metric_verdict import (
    CANNOT_TELL,
    DOLLARS,
    MEMORY,
    NO_DIFFERENCE,
    SCORES,
    SPEED,
    ComparedFigure,
    MetricVerdict,
)
from harness.decision.pairing import Pairing, UnpairedCell
from harness.pricing import formulas
from harness.pricing.cost import Priced
from harness.schema.record import Record


@dataclass(frozen=True)
class CompareOptions:
    """The user's settings; all are fractions.

    Attributes:
        margin: Equivalence margin of ratios: from 1 / (1 + margin) to 1 + margin counts as no difference.
        accuracy_margin: Equivalence margin of differences of the metric.
        run_spread: Relative standard deviation between runs, assumed if there are too few runs; None for no assumption.
        fail_above: Slow-down above which a cell fails the comparison if significant; None to never fail.
        metric: Score to compare.
    """

    margin: float = 0.03
    accuracy_margin: float = 0.01
    run_spread: float | None = None
    fail_above: float | None = None
    metric: Metric = "accuracy"


@dataclass(frozen=True)
class CellComparison:
    """One cell on both sides.

    Attributes:
        figures: Maps a figure's key to its verdict, in the order speed, memory, dollars, score; figures that a side
            lacks are left out.
        fails: True if the cell is significantly slower than `fail_above` allows.
    """

    a: Priced
    b: Priced
    figures: dict[str, MetricVerdict]
    fails: bool

    @property
    def speed(self) -> MetricVerdict:
        """The verdict on speed, which is never left out."""
        return self.figures[SPEED.key]


@dataclass(frozen=True)
class Comparison:
    """The comparison of two sides.

    Attributes:
        overall: Maps a figure's key to the verdict on the geometric mean over cells; scores are left out.
        num_decidable: Number of cells whose speed comparison is conclusive; `fail_above` applies to these cells only.
    """

    asked: CompareOptions
    pairing: Pairing
    cells: tuple[CellComparison, ...]
    overall: dict[str, MetricVerdict]
    num_decidable: int

    @property
    def lost(self) -> tuple[UnpairedCell, ...]:
        """Cells that succeeded in A and failed in B."""
        return tuple(cell for cell in self.pairing.alone if cell.side == "A" and cell.other is not None)

    @property
    def failed(self) -> bool:
        """True if `fail_above` is set and any cell is significantly slower than it allows, or failed in B only."""
        return self.asked.fail_above is not None and (any(cell.fails for cell in self.cells) or bool(self.lost))


def compare(pairing: Pairing, options: CompareOptions | None = None) -> Comparison:
    """Compare every pair of cells by every figure, with each figure's p-values adjusted for the number of cells."""
    options = options or CompareOptions()
    pairs = pairing.pairs
    speeds = [_speed(a, b, options.run_spread) for a, b in pairs]
    families: list[tuple[ComparedFigure, list[LogRatio | None], Callable[[Priced], float | None]]] = [
        (SPEED, list(speeds), _samples_per_s),
        (MEMORY, [_memory(a, b) for a, b in pairs], _bytes),
        (DOLLARS, [_dollars(a, b, speed) for (a, b), speed in zip(pairs, speeds, strict=True)], _usd),
    ]
    verdicts: list[dict[str, MetricVerdict]] = [{} for _ in pairs]
    overall: dict[str, MetricVerdict] = {}
    for figure, ratios, read in families:
        adjusted = holm([None if ratio is None else ratio.p_value() for ratio in ratios])
        for by_key, (a, b), ratio, p in zip(verdicts, pairs, ratios, adjusted, strict=True):
            if ratio is not None:
                by_key[figure.key] = _judge(figure, ratio, p, options.margin, (read(a), read(b)), len(ratios))
        if mean := geometric_mean_ratio([ratio for ratio in ratios if ratio is not None]):
            overall[figure.key] = _judge(figure, mean, mean.p_value(), options.margin, (None, None), 1)
    scores = judge_scores(pairs, options.metric, options.accuracy_margin)
    for by_key, score in zip(verdicts, scores, strict=True):
        if score is not None:
            by_key[SCORES[options.metric].key] = score
    fails = _fails(speeds, options.fail_above)
    cells = tuple(
        CellComparison(a, b, by_key, fail) for (a, b), by_key, fail in zip(pairs, verdicts, fails, strict=True)
    )
    return Comparison(options, pairing, cells, overall, sum(speed.inconclusive_reason is None for speed in speeds))


def _judge(
    figure: ComparedFigure,
    ratio: LogRatio,
    p_value: float | None,
    margin: float,
    sides: tuple[float | None, ...],
    num: int,
) -> MetricVerdict:
    """Turn a ratio into a verdict.

    Args:
        figure: The compared figure.
        ratio: B / A.
        p_value: Adjusted p-value of the ratio.
        margin: Equivalence margin.
        sides: The figure's value on sides A and B.
        num: Number of cells for which the p-value was adjusted.
    """
    change = ratio.estimate()
    verdict, reason = CANNOT_TELL, ratio.inconclusive_reason
    if ratio.inconclusive_reason is None and change.low is not None and change.high is not None:
        if 1 / (1 + margin) <= change.low and change.high <= 1 + margin:
            verdict = NO_DIFFERENCE
        elif p_value is not None and p_value < SIGNIFICANCE_LEVEL:
            verdict = figure.below if ratio.value < 0 else figure.above
        else:
            alone = num > 1 and (ratio.p_value() or 0.0) < SIGNIFICANCE_LEVEL
            reason = (
                f"clear alone, but not among {num} cells" if alone else "the interval holds 1 and leaves the margin"
            )
    return MetricVerdict(
        figure, sides[0], sides[1], change, p_value, verdict, reason, ratio.inconclusive_reason is None
    )


def _fails(speeds: Sequence[LogRatio], fail_above: float | None) -> list[bool]:
    """Return, for each cell, whether its speed ratio is significantly below `1 - fail_above`.

    The p-values are adjusted for the number of cells.
    """
    if fail_above is None:
        return [False for _ in speeds]
    limit = math.log1p(-fail_above)
    adjusted = holm([speed.p_value(at=limit) for speed in speeds])
    return [
        p is not None and p < SIGNIFICANCE_LEVEL and speed.value < limit
        for speed, p in zip(speeds, adjusted, strict=True)
    ]


def _speed(a: Priced, b: Priced, run_spread: float | None) -> LogRatio:
    """Compare speeds: by rounds if the runs were interleaved, by hosts if a side has several hosts, else by runs."""
    rounds = find_abba_rounds(a.summary.ok_records, b.summary.ok_records)
    if rounds is not None:
        return ratio_by_rounds(rounds)
    windows_a, windows_b = _windows(a), _windows(b)
    runs = [window for _, window in windows_a], [window for _, window in windows_b]
    if all(len({run.machine.host for run, _ in side}) == 1 for side in (windows_a, windows_b)):
        starts = [run_start(run) for run, _ in (*windows_a, *windows_b)]
        return compare_runs(runs[0], runs[1], run_spread, correlation_matrix(starts))
    ratio = welch_log_ratio(_log_speed_by_host(windows_a), _log_speed_by_host(windows_b), "host")
    inside = compare_within_runs(runs[0], runs[1])
    if ratio.inconclusive_reason is None or inside is None:
        return ratio
    return LogRatio(ratio.value, inside.variance, inside.degrees_of_freedom, inside.basis, ratio.inconclusive_reason)


def _log_speed_by_host(runs: Iterable[tuple[Record, ThroughputWindow]]) -> list[float]:
    """Return the mean logarithm of samples/s of each host."""
    groups: dict[str | None, list[float]] = defaultdict(list)
    for run, window in runs:
        groups[run.machine.host].append(math.log(window.samples_per_s))
    return [fmean(logs) for logs in groups.values()]


def _windows(cell: Priced) -> list[tuple[Record, ThroughputWindow]]:
    ran = [run for run in cell.summary.ok_records if run.training and run.training.steps.num_samples]
    windows = measure_windows([run.training for run in ran if run.training])
    return list(zip(ran, windows, strict=True))


def _memory(a: Priced, b: Priced) -> LogRatio | None:
    """Compare peak memory; None if the sides were read from different sources."""
    source = a.summary.peak_memory_source
    if source is None or source != b.summary.peak_memory_source:
        return None
    logs_a, logs_b = ([math.log(size) for size in _peaks(cell)] for cell in (a, b))
    return welch_log_ratio(logs_a, logs_b) if logs_a and logs_b else None


def _peaks(cell: Priced) -> list[int]:
    source = cell.summary.peak_memory_source
    return [size for run in cell.summary.ok_records if source and (size := _peak(run, source))]


def _peak(run: Record, source: str) -> int | None:
    return peak_memory(run, source)  # type: ignore[arg-type] # a summary keeps a source's name as plain text


def _dollars(a: Priced, b: Priced, speed: LogRatio) -> LogRatio | None:
    """Compare the cost of training per sample; hourly prices count as exact, and examples don't rank machines."""
    if not a.usd_per_hour or not b.usd_per_hour:
        return None
    if not comparable_in_dollars((a, b)):
        return None
    return speed.inverted(math.log(b.usd_per_hour / a.usd_per_hour))


def _samples_per_s(cell: Priced) -> float | None:
    return _geometric_mean(window.samples_per_s for _, window in _windows(cell))


def _usd(cell: Priced) -> float | None:
    rate = _samples_per_s(cell)
    return None if cell.usd_per_hour is None else formulas.usd_per_1000_samples(cell.usd_per_hour, rate)


def _bytes(cell: Priced) -> float | None:
    return _geometric_mean(_peaks(cell))


def _geometric_mean(values: Iterable[float]) -> float | None:
    """Return the geometric mean; None without values.

    The ratio B / A of geometric means equals the change that the comparison shows.
    """
    logs = [math.log(value) for value in values]
    return math.exp(fmean(logs)) if logs else None
