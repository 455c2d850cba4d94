"""Learning curves: what more training data buys and costs, in sentences, charts and a table (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.estimate import Estimate, value_of
from harness.analysis.power_law import PowerLaw
from harness.analysis.summary import CellKey
from harness.decision.learning_curve import (
    CurvePoint,
    Gain,
    LearningCurve,
    extrapolated_gain,
    learning_curves,
    measured_gain,
    whole_error,
)
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
_ENOUGH = 0.95  # share of the reachable accuracy that counts as enough
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
    """State what more data bought, what it would buy, how much is enough, and what training on all rows takes."""
    sentences = [_measured_gain(curve, assumptions, money)]
    if isinstance(curve.law, PowerLaw):
        sentences += [*_extrapolation(curve, curve.law, assumptions, money), _enough(curve.law)]
    else:
        sentences.append(f"Nothing is foretold beyond what was measured: {curve.law.reason}.")
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


def _extrapolation(curve: LearningCurve, law: PowerLaw, assumptions: Assumptions, money: MoneyFormat) -> list[str]:
    gain = extrapolated_gain(curve)
    reached = None if gain is None else law.accuracy(gain.end)
    if gain is None or not isinstance(reached, Estimate):
        return []
    all_rows = law.accuracy(curve.num_available)
    too_far = [] if isinstance(all_rows, Estimate) else [f"Of all rows no figure is given: {all_rows.reason}."]
    fitted = f"{law.smallest:,} to {law.largest:,}"
    return [
        *too_far,
        f"{gain.end:,} examples would buy {_signed(gain.accuracy)} more than {gain.start:,} for "
        f"{_compute_cost(gain, money)}, and come to {_three_decimals(reached)}, as foretold by a power law through "
        f"{fitted} examples{_label_cost(gain, assumptions, money)}.",
    ]


def _enough(law: PowerLaw) -> str:
    """State how many examples reach most of the accuracy that the law predicts at its farthest point."""
    examples, reachable = law.examples_for_share(_ENOUGH), law.reachable_accuracy()
    lead = f"{_ENOUGH:.0%} of the reachable accuracy"
    definition = f"reachable is what {law.max_num_train:,.0f} examples would give, {_three_decimals(reachable)}"
    if examples.value < law.smallest:
        return f"{lead} needs fewer than the {law.smallest:,} examples of the smallest size fitted ({definition})."
    ends = f"{_two_digits(examples.low)} to {_two_digits(examples.high)}"
    return f"{lead} needs about {_two_digits(examples.value)} examples ({ends}; {definition})."


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


def _three_decimals(accuracy: Estimate) -> str:
    return with_interval(f"{accuracy.value:.3f}", _three_decimal_ends(accuracy))


def _three_decimal_ends(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low:.3f} to {estimate.high:.3f}"


def _two_digits(number: float | None) -> str:
    """Format a number of examples with two digits: an extrapolation is no more precise."""
    return f"{float(f'{number or 0.0:.1e}'):,.0f}"


def _duration_ends(estimate: Estimate | None) -> str:
    """Format a duration's interval; empty if both ends read the same."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    low, high = seconds(estimate.low), seconds(estimate.high)
    return "" if low == high else f"{low} to {high}"


def _signed_percent(share: float) -> str:
    return f"{share * 100:+.1f}%"
