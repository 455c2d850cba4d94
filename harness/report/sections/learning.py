"""How much data is worth paying for, in sentences and a table (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.estimate import Estimate
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
from harness.errors import Unavailable
from harness.pricing import formulas
from harness.pricing.cost import Priced
from harness.report.charts.base import Chart
from harness.report.charts.learning import MAX_CURVES, learning_charts
from harness.report.formatting import MoneyFormat, interval, percent, seconds
from harness.report.labels import cell_labels, machine_labels
from harness.report.sections.assumptions import EXAMPLE, YOURS
from harness.report.sections.cell_table import Field, amount_field, known
from harness.schema.assumptions import Assumptions

HEADS = (
    *("model", "training examples", "test accuracy", "training", "a run"),
    *("training on all rows, estimated", "cost of that", "estimate against measured"),
)
ENOUGH = 0.95
_EARLIER = (-3, -4)  # places of a curve
_NO_SPEED = "a baseline has no samples a second"


@dataclass(frozen=True)
class Learning:
    """The section in words.

    Attributes:
        sentences: By curve, its name and what is said of it.
        rows: In the order of HEADS.
        num_more: Curves that are not shown.
    """

    sentences: tuple[tuple[str, tuple[str, ...]], ...]
    rows: tuple[tuple[Field, ...], ...]
    charts: tuple[Chart, ...]
    num_more: int


def learning(cells: Sequence[Priced], assumed: Assumptions, money: MoneyFormat) -> Learning | None:
    """Everything that the section says; None where no cells differ in the number of training examples alone."""
    found = learning_curves(cells)
    if not found:
        return None
    shown, places = found[:MAX_CURVES], {cell.key: index for index, cell in enumerate(cells)}
    names = curve_names(shown, cells)
    return Learning(
        sentences=tuple(
            (name, tuple(curve_sentences(curve, assumed, money))) for curve, name in zip(shown, names, strict=True)
        ),
        rows=tuple(
            _row(curve, point, name, places, money)
            for curve, name in zip(shown, names, strict=True)
            for point in curve.points
        ),
        charts=tuple(learning_charts(shown, names, places, assumed.value.label_usd, money)),
        num_more=len(found) - len(shown),
    )


def curve_names(curves: Sequence[LearningCurve], cells: Sequence[Priced]) -> list[str]:
    """What each curve's cells have in common, and the others have not."""
    largest = [curve.largest.cell for curve in curves]
    labels, machines = cell_labels(largest, untold=("data.num_train",)), machine_labels(cells)
    several = len({cell.summary.machine_id for cell in largest}) > 1
    return [labels[cell.key] + (f" on {machines[cell.summary.machine_id]}" if several else "") for cell in largest]


def curve_sentences(curve: LearningCurve, assumed: Assumptions, money: MoneyFormat) -> list[str]:
    """What more data bought, what it would buy, how much is enough, and what all of it takes."""
    said = [_gained(measured_gain(curve), _earlier(curve), assumed, money)]
    if isinstance(curve.law, PowerLaw):
        said += [*_foretold(curve, curve.law, assumed, money), _enough(curve.law)]
    else:
        said.append(f"Nothing is foretold beyond what was measured: {curve.law.reason}.")
    return [*said, *_whole(curve, money)]


def _gained(gain: Gain, earlier: str, assumed: Assumptions, money: MoneyFormat) -> str:
    return (
        f"From {gain.start:,} to {gain.end:,} examples buys {_signed(gain.accuracy)} of test accuracy for "
        f"{_compute(gain, money)}, as measured{earlier}{_labels(gain, assumed, money)}."
    )


def _earlier(curve: LearningCurve) -> str:
    """What the most examples buy against sizes before the last two, in brackets; empty where there is none."""
    gains = [
        f"from {curve.points[place].num_train:,} {_signed(curve.errors.gain(place, -1))}"
        for place in _EARLIER
        if -place <= len(curve.points)
    ]
    return f" ({', '.join(gains)})" if gains else ""


def _foretold(curve: LearningCurve, law: PowerLaw, assumed: Assumptions, money: MoneyFormat) -> list[str]:
    gain = extrapolated_gain(curve)
    reached = None if gain is None else law.accuracy(gain.end)
    if gain is None or not isinstance(reached, Estimate):
        return []
    too_far = law.accuracy(curve.num_available)
    refused = [f"Of all rows no figure is given: {too_far.reason}."] if isinstance(too_far, Unavailable) else []
    fitted = f"{law.smallest:,} to {law.largest:,}"
    return [
        *refused,
        f"{gain.end:,} examples would buy {_signed(gain.accuracy)} more than {gain.start:,} for {_compute(gain, money)}, and come to "
        f"{_share(reached)}, as foretold by a power law through {fitted} examples{_labels(gain, assumed, money)}.",
    ]


def _enough(law: PowerLaw) -> str:
    found, reachable = law.examples_for_share(ENOUGH), law.reachable_accuracy()
    lead = f"{ENOUGH:.0%} of the reachable accuracy"
    what = f"reachable is what {law.max_num_train:,.0f} examples would give, {_share(reachable)}"
    if found.value < law.smallest:
        return f"{lead} needs fewer than the {law.smallest:,} examples of the smallest size fitted ({what})."
    ends = f"{_about(found.low)} to {_about(found.high)}"
    return f"{lead} needs about {_about(found.value)} examples ({ends}; {what})."


def _whole(curve: LearningCurve, money: MoneyFormat) -> list[str]:
    """From the largest part that was measured."""
    parts = [point for point in curve.points if point.whole_s is not None and point is not curve.whole]
    if not parts:
        return []
    part = parts[-1]
    estimate, cell = part.whole_s, part.cell
    assert estimate is not None  # noqa: S101 - chosen so
    paid = "" if cell.usd_whole_dataset is None else f" and {money.amount(cell.usd_whole_dataset.value)}"
    lead = (
        f"Training on all {curve.num_available:,} rows of the source is estimated from {part.num_train:,} at "
        f"{seconds(estimate.value)}{_ends(estimate)}{paid}"
    )
    error = whole_error(curve, part)
    if error is None or curve.whole is None:
        return [f"{lead}."]
    return [f"{lead}; it took {seconds(curve.whole.train_s)}, so that the estimate is off by {_percent(error)}."]


def _row(
    curve: LearningCurve, point: CurvePoint, name: str, places: Mapping[CellKey, int], money: MoneyFormat
) -> tuple[Field, ...]:
    cell, place, whole_s = point.cell, places[point.cell.key], point.whole_s
    error = whole_error(curve, point)
    is_whole = point is curve.whole
    told = "all rows" if is_whole else "all rows were not measured"
    return (
        Field(name, name, numeric=False),
        Field(f"{point.num_train:,}", point.num_train, "all rows" if is_whole else ""),
        Field(
            percent(point.accuracy.value),
            point.accuracy.value,
            "; ".join(filter(None, (interval(point.accuracy, "percent"), point.accuracy.basis))),
        ),
        Field(seconds(point.train_s), point.train_s),
        amount_field(cell, place, "usd_per_run", cell.missing or "no price", money=money),
        known(
            None if whole_s is None else seconds(whole_s.value),
            None if whole_s is None else whole_s.value,
            _NO_SPEED,
            "" if whole_s is None else _ends(whole_s).strip(" ()"),
        ),
        amount_field(cell, place, "usd_whole_dataset", cell.missing or _NO_SPEED, money=money),
        known(
            None if error is None else _percent(error), error, told if whole_s is not None else _NO_SPEED,
            "" if curve.whole is None else f"took {seconds(curve.whole.train_s)}",
        ),
    )  # fmt: skip


def _compute(gain: Gain, money: MoneyFormat) -> str:
    if gain.usd is None:
        return f"{seconds(max(0.0, gain.seconds))} more of a run"
    return f"{money.amount(gain.usd)} of compute"


def _labels(gain: Gain, assumed: Assumptions, money: MoneyFormat) -> str:
    """What the labels would cost that are more, at the reader's price or the example."""
    each, number = assumed.value.label_usd, gain.end - gain.start
    cost = formulas.upfront_usd(0.0, number, each, 0.0, 0.0)
    whose = YOURS if "value.label_usd" in assumed.set_by_user else f"an {EXAMPLE}"
    return f"; at {money.amount(each)} a label ({whose}) the {number:,} more labels cost {money.amount(cost)}"


def _signed(gain: Estimate) -> str:
    return f"{gain.value:+.3f}" + (
        "" if gain.low is None or gain.high is None else f" ({gain.low:.3f} to {gain.high:.3f})"
    )


def _share(accuracy: Estimate) -> str:
    return f"{accuracy.value:.3f}" + (
        "" if accuracy.low is None or accuracy.high is None else f" ({accuracy.low:.3f} to {accuracy.high:.3f})"
    )


def _about(number: float | None) -> str:
    """Two digits: more are not known of an extrapolation."""
    return f"{float(f'{number or 0.0:.1e}'):,.0f}"


def _ends(estimate: Estimate) -> str:
    """Empty where both ends read the same: it is narrower than the digits shown."""
    if estimate.low is None or estimate.high is None:
        return ""
    low, high = seconds(estimate.low), seconds(estimate.high)
    return "" if low == high else f" ({low} to {high})"


def _percent(share: float) -> str:
    return f"{share * 100:+.1f}%"
