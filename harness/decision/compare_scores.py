"""Verdicts on accuracy or macro F1 of two sides' cells (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

from harness.analysis.accuracy import Metric
from harness.analysis.paired_accuracy import PairedScores, pair_scores
from harness.analysis.significance import SIGNIFICANCE_LEVEL, holm
from harness.decision.measure_next import MAX_SEEDS, Measurement, fewest_that_suffice
from harness.decision.metric_verdict import CANNOT_TELL, NO_DIFFERENCE, SCORES, MetricVerdict
from harness.pricing.cost import Priced

ONE_SEED = "one seed: of these trained models, not of what made them"


def judge_scores(pairs: Sequence[tuple[Priced, Priced]], metric: Metric, margin: float) -> list[MetricVerdict | None]:
    """Compare the pairs' scores; None for a pair without a shared test set.

    The p-values are adjusted for the number of pairs.
    """
    compared = [pair_scores(a.summary.ok_records, b.summary.ok_records, metric) for a, b in pairs]
    adjusted = holm([None if paired is None else paired.p_value for paired in compared])
    num_cells = sum(paired is not None for paired in compared)
    return [
        None if paired is None or p is None else _judge(paired, metric, p, margin, num_cells)
        for paired, p in zip(compared, adjusted, strict=True)
    ]


def _judge(paired: PairedScores, metric: Metric, p_value: float, margin: float, num_cells: int) -> MetricVerdict:
    """Turn a difference of scores into a verdict.

    Args:
        paired: Scores on the same test examples.
        metric: Which score it is.
        p_value: Adjusted p-value.
        margin: Equivalence margin.
        num_cells: Number of cells for which the p-value was adjusted.
    """
    figure, change = SCORES[metric], paired.difference
    reason = ONE_SEED if paired.judged == "trained models" else None
    would_decide = None
    if change.low is not None and change.high is not None and -margin <= change.low and change.high <= margin:
        verdict = NO_DIFFERENCE
    elif p_value < SIGNIFICANCE_LEVEL:
        verdict = figure.above if change.value > 0 else figure.below
    else:
        verdict, would_decide = CANNOT_TELL, _what_would_decide(paired, margin, num_cells)
        reason = _why_undecided(paired, num_cells, can_decide=would_decide is not None)
    return MetricVerdict(
        figure=figure,
        a=paired.a,
        b=paired.b,
        change=change,
        p_value=p_value,
        verdict=verdict,
        reason=reason,
        num_seeds=paired.num_seeds,
        judged=paired.judged,
        would_decide=would_decide,
    )


def _why_undecided(paired: PairedScores, num_cells: int, *, can_decide: bool) -> str:
    if paired.p_value < SIGNIFICANCE_LEVEL:
        return f"clear alone, but not among {num_cells} cells"
    reason = "the interval holds 0 and leaves the margin"
    return reason if can_decide else f"{reason}; {MAX_SEEDS} seeds a side would not change that"


def _what_would_decide(paired: PairedScores, margin: float, num_cells: int) -> Measurement | None:
    """Return the fewest seeds and test examples that would give a verdict if the difference stays as measured.

    The interval must either exclude 0, at the level of the strictest of Holm's tests, or lie within the margin; the
    wider of both suffices. None if more than `MAX_SEEDS` seeds a side were needed.
    """
    difference = abs(paired.b - paired.a)
    z, z_of_cells = (NormalDist().inv_cdf(1 - SIGNIFICANCE_LEVEL / 2 / count) for count in (1, max(1, num_cells)))
    needed = max((difference / z_of_cells) ** 2, (max(0.0, margin - difference) / z) ** 2)
    of_seed = paired.variance_of_seed or 0.0  # not seen with one seed: three seeds show it first
    if needed - of_seed / MAX_SEEDS < needed / 4 or needed <= 0:  # too little is left to the test examples
        return None
    num_seeds, num_test = fewest_that_suffice(
        needed, paired.variance_of_example, paired.num_examples, of_seed, min(paired.num_seeds)
    )
    return Measurement("seeds" if num_test is None else "test_examples", (), num_seeds, num_test)
