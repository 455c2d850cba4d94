"""Return on investment of each model: the user's value model applied to measured accuracy and cost (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.analysis.estimate import Estimate, map_increasing, value_of
from harness.pricing import formulas
from harness.pricing.cost import Priced
from harness.schema.assumptions import Assumptions, ValueModel
from harness.schema.record import Record

_BINARY = 2


@dataclass(frozen=True)
class WrongAnswers:
    """False positives and false negatives as shares of all examples; `positive` is the name of the second label."""

    positive: str
    false_positive_fraction: float
    false_negative_fraction: float


@dataclass(frozen=True)
class Worth:
    """Costs and benefits of using one model, under the user's values.

    Intervals come from the accuracy; costs count as exact.

    Attributes:
        is_majority: True for the majority-class baseline, which needs no training, labels or serving.
        errors: Rates of false positives and false negatives; None unless there are two labels.
        wrong_usd: Mean cost of a wrong label, weighted by the error rates if the user states both kinds' costs.
        upkeep_usd_per_month: Cost of retraining, trials and idle hours.
        payback_months: Months until the benefits equal the upfront cost; None if they never do.
        break_even_accuracy: Accuracy from which the model pays; above 1, no accuracy is enough; None if accuracy makes
            no difference.
        break_even_items: Items per month from which the model pays; None if no number is enough.
    """

    cell: Priced
    is_majority: bool
    accuracy: Estimate
    errors: WrongAnswers | None
    wrong_usd: float
    upfront_usd: float
    upkeep_usd_per_month: float
    serving_usd_per_million: float
    benefit_usd_per_month: Estimate
    net_present_value_usd: Estimate
    payback_months: float | None
    return_fraction: float | None
    break_even_accuracy: float | None
    break_even_items: float | None


def states_value(assumed: Assumptions) -> bool:
    """Return whether the user stated every value without which a benefit would rest on examples."""
    stated = assumed.set_by_user
    wrong = "value.wrong_usd" in stated or {"value.false_positive_usd", "value.false_negative_usd"} <= stated
    return wrong and {"value.items_per_month", "value.right_usd"} <= stated


def judge_worth(cells: Iterable[Priced], assumed: Assumptions) -> list[Worth]:
    """Compute the worth of every priced cell with an accuracy, baselines included, in the order given."""
    return [worth for cell in cells if (worth := judge_cell_worth(cell, assumed)) is not None]


def judge_cell_worth(cell: Priced, assumed: Assumptions) -> Worth | None:
    """Compute the worth of one cell's model; None without an accuracy or a price."""
    value, accuracy = assumed.value, cell.summary.accuracy
    if accuracy is None or cell.usd_billed is None:
        return None
    is_majority = cell.summary.classifier == "majority"
    trained = 0.0 if is_majority else cell.usd_billed.value * assumed.prices.retraining.trials_per_kept
    engineering = value.engineering_hours if cell.summary.kind == "fine_tune" else value.baseline_engineering_hours
    upfront = formulas.upfront_usd(
        training_usd=trained,
        num_labels=0 if is_majority else value.num_labels,
        label_usd=value.label_usd,
        engineering_hours=0 if is_majority else engineering,
        engineering_usd_per_hour=value.engineering_usd_per_hour,
    )
    upkeep = 0.0 if is_majority else value_of(cell.usd_per_month) or 0.0
    serving = 0.0 if is_majority else value_of(cell.usd_per_million_predictions) or 0.0
    errors = find_errors(cell.summary.ok_records)
    wrong = _wrong_usd(errors, value)
    annuity = formulas.annuity_months(value.horizon_months, value.discount_fraction_per_year)
    today = _today_usd(value, wrong)

    def benefit(reached: float) -> float:
        item = formulas.usd_per_item(reached, value.right_usd, wrong)
        return formulas.monthly_benefit_usd(value.items_per_month, item, today, serving, upkeep)

    monthly = map_increasing(accuracy, benefit)
    return Worth(
        cell=cell,
        is_majority=is_majority,
        accuracy=accuracy,
        errors=errors,
        wrong_usd=wrong,
        upfront_usd=upfront,
        upkeep_usd_per_month=upkeep,
        serving_usd_per_million=serving,
        benefit_usd_per_month=monthly,
        net_present_value_usd=map_increasing(
            monthly, lambda usd: formulas.net_present_value_usd(usd, upfront, annuity)
        ),
        payback_months=formulas.payback_months(monthly.value, upfront),
        return_fraction=formulas.return_fraction(monthly.value, upfront, value.horizon_months),
        break_even_accuracy=formulas.break_even_accuracy(
            value.items_per_month, value.right_usd, wrong, today, serving, upkeep, upfront, annuity
        ),
        break_even_items=formulas.break_even_items(
            formulas.usd_per_item(accuracy.value, value.right_usd, wrong), today, serving, upkeep, upfront, annuity
        ),
    )


def _today_usd(value: ValueModel, wrong: float) -> float:
    """Return the value of an item as it is labelled today."""
    if value.today == "nothing":
        return 0.0
    return formulas.usd_per_item(value.by_hand_accuracy, value.right_usd, wrong) - value.by_hand_usd


def _wrong_usd(errors: WrongAnswers | None, value: ValueModel) -> float:
    if errors is None or value.false_positive_usd is None or value.false_negative_usd is None:
        return value.wrong_usd
    return formulas.mean_cost_of_wrong_usd(
        errors.false_positive_fraction,
        errors.false_negative_fraction,
        value.false_positive_usd,
        value.false_negative_usd,
    )


def find_errors(records: Sequence[Record]) -> WrongAnswers | None:
    """Return the error rates on the test set, means over the runs; None unless there are two labels."""
    shares = []
    for record in records:
        if record.test is None or record.data is None or len(record.data.labels) != _BINARY:
            continue
        pairs, num_rows = record.test.pairs, len(record.test.labels)
        shares.append((pairs[0, 1] / num_rows, pairs[1, 0] / num_rows, record.data.labels[1]))
    if not shares:
        return None
    false_positives, false_negatives, positives = zip(*shares, strict=True)
    return WrongAnswers(positives[-1], fmean(false_positives), fmean(false_negatives))
