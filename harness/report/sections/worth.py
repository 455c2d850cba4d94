"""The section "Is it worth it": each model under the user's value model, in sentences and a table (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.analysis.estimate import Estimate, bound, value_of
from harness.decision.choice import Choice
from harness.decision.worth import Worth, judge_worth
from harness.pricing.cost import Priced
from harness.report.formatting import MoneyFormat, clean, interval, number, percent
from harness.report.labels import basis_label, cell_indices, common_values, describe, machine_labels, short_labels
from harness.report.sections.assumptions import assumptions_table, count_given
from harness.report.table import Field, Row, Table, join_lines, table, text_field
from harness.schema.assumptions import Assumptions

HEADS = (
    *("model", "test accuracy", "benefit a month", "net present value", "pays back after", "return"),
    *("break-even accuracy", "break-even items a month", "paid before", "upkeep a month"),
)
# The attributes of Worth that the columns from the third on show.
_FIGURES = (
    *("benefit_usd_per_month", "net_present_value_usd", "payback_months", "return_fraction"),
    *("break_even_accuracy", "break_even_items", "upfront_usd", "upkeep_usd_per_month"),
)
MAX_MODELS = 12


@dataclass(frozen=True)
class WorthSection:
    """The section on whether fine-tuning is worth its cost.

    Attributes:
        sentences: The answer, or why nothing can be judged.
        models: A row for the majority class, TF-IDF and every model that is good enough.
        assumptions: The value model's assumptions.
        marked: A sentence on how many of these assumptions are the user's.
    """

    sentences: tuple[str, ...]
    models: Table
    assumptions: Table
    marked: str


def worth_section(
    cells: Sequence[Priced], choice: Choice, assumptions: Assumptions, money: MoneyFormat
) -> WorthSection:
    """Build the section; models that lose more than is tolerated are left out.

    Args:
        cells: Every cell of the report.
        choice: The chosen way, what it was chosen from, and the baselines.
        assumptions: The assumptions that priced the cells, and the value model.
        money: The report's currency.
    """
    models = [way.cell for way in choice.admitted if way.kind == "fine_tune" and way.cell is not None]
    models.sort(key=lambda cell: cell is not choice.pick)
    baselines = _distinct(choice.baselines)
    judged = judge_worth([*baselines, *models], assumptions)
    labels, indices, usual = short_labels(cells), cell_indices(cells), common_values(cells)
    names = {
        worth.cell.key: labels[worth.cell.key]
        if worth.cell.summary.kind == "fine_tune"
        else describe(worth.cell, usual)
        for worth in judged
    }
    rows = [_row(worth, names[worth.cell.key], indices[worth.cell.key], money) for worth in judged]
    return WorthSection(
        sentences=tuple(_sentences(judged, cells, assumptions, money)),
        models=table(HEADS, rows, len(baselines) + MAX_MODELS),
        assumptions=assumptions_table(assumptions, "value"),
        marked=_marked(*count_given(assumptions, "value")),
    )


def _distinct(baselines: Sequence[Priced]) -> list[Priced]:
    """Drop repeats of a baseline, because a baseline gives the same answers on every machine."""
    by_result = {(describe(cell, {}), value_of(cell.summary.accuracy)): cell for cell in reversed(baselines)}
    return list(by_result.values())[::-1]


def _marked(num_given: int, total: int) -> str:
    if num_given == 0:
        return (
            f"All {total} values are examples and no facts: put yours into a value.toml (harness report --value FILE)."
        )
    rest = f"; the other {total - num_given} are examples and no facts" if num_given < total else ""
    return f"{num_given} of {total} values are yours{rest}."


def _sentences(
    judged: Sequence[Worth],
    cells: Sequence[Priced],
    assumptions: Assumptions,
    money: MoneyFormat,
) -> list[str]:
    """Name the model with the highest net present value, and state where it breaks even.

    Args:
        judged: Every judged model.
        cells: Every cell of the report.
        assumptions: The value model.
        money: The report's currency.
    """
    if not judged:
        return ["Nothing can be judged yet: no model has both a test accuracy and a price."]
    best = max(judged, key=lambda worth: worth.net_present_value_usd.value)
    name, value = _full_name(best.cell, cells), best.net_present_value_usd
    months, amount = f"{assumptions.value.horizon_months:g} months", money.with_interval(value)
    if bound(value, "high") <= 0:
        lead = f"Nothing measured is worth its money over {months}: even {name} ends at {amount}"
    elif bound(value, "low") <= 0:
        lead = f"Whether it is worth its money over {months} is not certain: {name} brings {amount}"
    else:
        monthly = money.amount(best.benefit_usd_per_month.value)
        lead = f"Over {months} {name} has the highest value, {amount} in today's money, {monthly} a month"
    return [f"{lead}.", *_break_even(best, name)]


def _full_name(cell: Priced, cells: Sequence[Priced]) -> str:
    """Describe a model, and name its machine if there are several."""
    machines = machine_labels(cells)
    several = len(machines) > 1 and cell.summary.kind == "fine_tune"
    where = f" on {machines[cell.summary.machine_id]}" if several else ""
    return describe(cell, common_values(cells)) + where


def _break_even(best: Worth, name: str) -> list[str]:
    """State from which accuracy on, and from how many items a month on, the best model pays."""
    accuracy, items = best.break_even_accuracy, best.break_even_items
    if accuracy is None:
        return []
    if accuracy > 1:
        pays = f"at no accuracy, since it would take {percent(accuracy)}"
    else:
        pays = "at any accuracy" if accuracy <= 0 else f"from an accuracy of {percent(accuracy)} on"
    volume = "at no number of items" if items is None else f"from {number(items)} items a month on"
    return [f"{clean(name)} pays {pays} (measured: {percent(best.accuracy.value)}), and {volume}."]


def _row(worth: Worth, name: str, index: int, money: MoneyFormat) -> Row:
    """Build a model's row; the page recomputes the fields that depend on assumptions."""
    fields = [
        replace(field, cell=index, figure=f"worth.{figure}", rewrites_extra=figure.endswith(("_usd", "_month")))
        for figure, field in zip(_FIGURES, _fields(worth, money), strict=True)
    ]
    accuracy = Field(percent(worth.accuracy.value), worth.accuracy.value, interval(worth.accuracy, "percent"))
    return (text_field(name, name), accuracy, *fields)


def _fields(worth: Worth, money: MoneyFormat) -> list[Field]:
    """Build a field for each of `_FIGURES`."""
    basis, accuracy, items = basis_label(worth.cell.price), worth.break_even_accuracy, worth.break_even_items
    months, returned = worth.payback_months, worth.return_fraction
    return [
        _amount(worth.benefit_usd_per_month, basis, money),
        _amount(worth.net_present_value_usd, basis, money),
        Field("never" if months is None else f"{number(months)} months", months),
        Field("nothing is paid before" if returned is None else percent(returned), returned),
        Field(_accuracy_text(accuracy), accuracy),
        Field("no number is enough" if items is None else f"{items:,.0f}", items),
        Field(money.amount(worth.upfront_usd), worth.upfront_usd, basis),
        Field(money.amount(worth.upkeep_usd_per_month), worth.upkeep_usd_per_month, basis),
    ]


def _accuracy_text(accuracy: float | None) -> str:
    if accuracy is None:
        return "accuracy makes no difference"
    if accuracy > 1:
        return f"none ({percent(accuracy)})"
    return "any" if accuracy <= 0 else percent(accuracy)


def _amount(amount: Estimate, basis: str, money: MoneyFormat) -> Field:
    return Field(money.amount(amount.value), amount.value, join_lines(money.interval(amount), basis))
