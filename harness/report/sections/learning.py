"""Learning curves: what more training data buys and costs, in sentences, charts and a table (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.curve_planning import FACTORS
from harness.analysis.estimate import Estimate, value_of
from harness.analysis.power_law import PowerLaw
from harness.analysis.summary import CellKey
from harness.decision.curve_verdict import MAX_FLAT, Trend, judge_curve
from harness.decision.learning_curve import (
    CurvePoint,
    Gain,
    LearningCurve,
    forecast_gains,
    forecast_lead,
    learning_curves,
    measured_gain,
    whole_error,
)
from harness.errors import Unavailable
from harness.pricing import formulas
from harness.pricing.cost import Priced
from harness.report.charts.base import Chart
from harness.report.charts.learning import MAX_CURVES, learning_charts
from harness.report.formatting import MoneyFormat, interval, percent, seconds, with_interval
from harness.report.labels import cell_indices, cell_labels, machine_labels
from harness.report.sections.assumptions import EXAMPLE, YOURS
from harness.report.table import Field, Row, Table, amount_field, join_lines, measured_field, table, text_field
from harness.schema.assumptions import Assumptions

HEADS = (
    *("model", "training examples", "test accuracy", "training", "a run"),
    *("training on all rows, estimated", "cost of that", "estimate against measured"),
)
_VERDICTS = {
    Trend.RISES: "The curve still rises.",
    Trend.RISES_SLOWLY: f"The curve still rises, but twice the examples buy {MAX_FLAT:.2f} at most.",
    Trend.FLAT: f"The curve has flattened: twice the examples buy {MAX_FLAT:.2f} at most.",
}
_EARLIER = (-3, -4)  # indices of the points before a curve's last two
_NO_SPEED = "a baseline has no samples a second"


@dataclass(frozen=True)
class Learning:
    """The section on the value of more training data.

    Attributes:
        sentences: Each curve's name and sentences.
        sizes: A row for every training size of every curve.
        num_more: Number of curves that are not shown.
    """

    curves: tuple[LearningCurve, ...]
    sentences: tuple[tuple[str, tuple[str, ...]], ...]
    sizes: Table
    charts: tuple[Chart, ...]
    num_more: int


def learning_section(cells: Sequence[Priced], assumptions: Assumptions, money: MoneyFormat) -> Learning | None:
    """Build the section; None if no cells differ only in the number of training examples."""
    curves = learning_curves(cells)
    if not curves:
        return None
    shown, indices = curves[:MAX_CURVES], cell_indices(cells)
    names = curve_names(shown, cells)
    named = list(zip(shown, names, strict=True))
    return Learning(
        curves=tuple(curves),
        sentences=tuple((name, tuple(curve_sentences(curve, assumptions, money))) for curve, name in named),
        sizes=table(
            HEADS, [_row(curve, point, name, indices, money) for curve, name in named for point in curve.points]
        ),
        charts=tuple(learning_charts(shown, names, indices, assumptions.value.label_usd, money)),
        num_more=len(curves) - len(shown),
    )


def curve_names(curves: Sequence[LearningCurve], cells: Sequence[Priced]) -> list[str]:
    """Name each curve by the settings in which it differs from the others, and by its machine if there are several."""
    largest = [curve.largest.cell for curve in curves]
    labels, machines = cell_labels(largest, hidden=("data.num_train",)), machine_labels(cells)
    several = len({cell.summary.machine_id for cell in largest}) > 1
    return [labels[cell.key] + (f" on {machines[cell.summary.machine_id]}" if several else "") for cell in largest]


def curve_sentences(curve: LearningCurve, assumptions: Assumptions, money: MoneyFormat) -> list[str]:
    """State what more data bought, what twice the data would buy, and what training on all rows takes."""
    sentences = [_measured_gain(curve, assumptions, money)]
    if isinstance(curve.law, Unavailable):
        sentences.append(f"No forecast beyond what was measured: {curve.law.reason}.")
    else:
        sentences += _forecast(curve, curve.law, assumptions, money)
    return [*sentences, *_all_rows(curve, money)]


def _measured_gain(curve: LearningCurve, assumptions: Assumptions, money: MoneyFormat) -> str:
    gain = measured_gain(curve)
    return (
        f"From {gain.start:,} to {gain.end:,} examples buys {_signed(gain.accuracy)} of test accuracy for "
        f"{_compute_cost(gain, money)}, as measured{_earlier_gains(curve)}{_label_cost(gain, assumptions, money)}."
    )


def _earlier_gains(curve: LearningCurve) -> str:
    """State the largest size's gain over the two sizes before the last two, in brackets; empty without such sizes."""
    gains = [
        f"from {curve.points[point].num_train:,} {_signed(curve.errors.gain(point, -1))}"
        for point in _EARLIER
        if -point <= len(curve.points)
    ]
    return with_interval("", ", ".join(gains))


def _forecast(curve: LearningCurve, law: PowerLaw, assumptions: Assumptions, money: MoneyFormat) -> list[str]:
    doubling, *all_rows = forecast_gains(curve)
    sentences = [
        f"Twice the examples, {doubling.end:,}, would buy {_signed(doubling.accuracy)} for "
        f"{_compute_cost(doubling, money)}, by the curves through {law.smallest:,} to {law.largest:,} examples"
        f"{_label_cost(doubling, assumptions, money)}.",
        *_lead(curve),
        _verdict(curve),
    ]
    sentences += [
        f"All {gain.end:,} rows of the source would buy {_signed(gain.accuracy)} for {_compute_cost(gain, money)}"
        f"{_label_cost(gain, assumptions, money)}."
        for gain in all_rows
    ]
    if curve.num_available > doubling.end:
        too_far = law.gain(curve.num_available)
        sentences += [f"No forecast for all rows: {too_far.reason}."] if isinstance(too_far, Unavailable) else []
    return sentences


def _lead(curve: LearningCurve) -> list[str]:
    """State how far above the best baseline the model is, and would be with twice the examples."""
    now, then, baseline = curve.errors.lead(), forecast_lead(curve), curve.baseline
    if now is None or then is None or baseline is None or baseline.summary.data is None:
        return []
    name, num_train = cell_labels([baseline])[baseline.key], baseline.summary.data.train.num_rows
    trained = "" if baseline.summary.classifier == "majority" else f" on {num_train:,} examples"
    return [
        f"Against the best baseline as measured, {name}{trained}, it is at {_signed(now)} and would be at "
        f"{_signed(then)}."
    ]


def _verdict(curve: LearningCurve) -> str:
    """State whether the curve still rises, or what would settle that."""
    judged = judge_curve(curve)
    if judged is None:
        return ""
    if judged.more is None:
        return _VERDICTS[judged.trend]
    more, has_seeds = judged.more, curve.largest.cell.summary.kind != "baseline"
    ways = [f"{more.seeds} times the seeds"] if more.seeds and has_seeds else []
    ways += [f"{more.examples} times the test examples"] if more.examples else []
    ways += [f"{more.both} times the seeds and the test examples together"] if more.both and has_seeds else []
    lead = "These runs can't show whether the curve has flattened"
    if ways:
        return f"{lead}; {' or '.join(ways)} probably would."
    return f"{lead}, nor would {FACTORS[-1]} times the {'seeds and ' if has_seeds else ''}test examples: measure a larger size."


def _all_rows(curve: LearningCurve, money: MoneyFormat) -> list[str]:
    """State the time and cost of training on all rows, as estimated from the largest measured part of the rows."""
    parts = [point for point in curve.points if point.whole_s is not None and point is not curve.whole]
    if not parts:
        return []
    part = parts[-1]
    cost = part.cell.usd_whole_dataset
    lead = (
        f"Training on all {curve.num_available:,} rows of the source is estimated from {part.num_train:,} at "
        f"{with_interval(seconds(value_of(part.whole_s)), _duration_ends(part.whole_s))}"
        f"{'' if cost is None else f' and {money.amount(cost.value)}'}"
    )
    error = whole_error(curve, part)
    if error is None or curve.whole is None:
        return [f"{lead}."]
    return [f"{lead}; it took {seconds(curve.whole.train_s)}, so that the estimate is off by {_signed_percent(error)}."]


def _row(curve: LearningCurve, point: CurvePoint, name: str, indices: Mapping[CellKey, int], money: MoneyFormat) -> Row:
    cell, index, whole_s = point.cell, indices[point.cell.key], point.whole_s
    error = whole_error(curve, point)
    is_whole = point is curve.whole
    no_error = _NO_SPEED if whole_s is None else "all rows" if is_whole else "all rows were not measured"
    return (
        text_field(name, name),
        Field(f"{point.num_train:,}", point.num_train, "all rows" if is_whole else ""),
        Field(
            percent(point.accuracy.value),
            point.accuracy.value,
            join_lines(interval(point.accuracy, "percent"), point.accuracy.basis),
        ),
        Field(seconds(point.train_s), point.train_s),
        amount_field(cell, index, "usd_per_run", cell.missing or "no price", money=money),
        measured_field(seconds(value_of(whole_s)), value_of(whole_s), _NO_SPEED, _duration_ends(whole_s)),
        amount_field(cell, index, "usd_whole_dataset", cell.missing or _NO_SPEED, money=money),
        measured_field(
            None if error is None else _signed_percent(error),
            error,
            no_error,
            "" if curve.whole is None else f"took {seconds(curve.whole.train_s)}",
        ),
    )


def _compute_cost(gain: Gain, money: MoneyFormat) -> str:
    if gain.usd is None:
        return f"{seconds(max(0.0, gain.seconds))} more of a run"
    return f"{money.amount(gain.usd)} of compute"


def _label_cost(gain: Gain, assumptions: Assumptions, money: MoneyFormat) -> str:
    """State the cost of labelling the additional examples."""
    label_usd, num_labels = assumptions.value.label_usd, gain.end - gain.start
    cost = formulas.upfront_usd(0.0, num_labels, label_usd, 0.0, 0.0)
    origin = YOURS if "value.label_usd" in assumptions.set_by_user else f"an {EXAMPLE}"
    return f"; at {money.amount(label_usd)} a label ({origin}) the {num_labels:,} more labels cost {money.amount(cost)}"


def _signed(gain: Estimate) -> str:
    return with_interval(f"{gain.value:+.3f}", _three_decimal_ends(gain))


def _three_decimal_ends(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low:.3f} to {estimate.high:.3f}"


def _duration_ends(estimate: Estimate | None) -> str:
    """Format a duration's interval; empty if both ends read the same."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    low, high = seconds(estimate.low), seconds(estimate.high)
    return "" if low == high else f"{low} to {high}"


def _signed_percent(share: float) -> str:
    return f"{share * 100:+.1f}%"
