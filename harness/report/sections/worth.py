"""Is it worth it: the reader's value model in sentences and rows (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.analysis.estimate import Estimate, value_of
from harness.analysis.summary import CellKey
from harness.decision.choice import Choice, bound, overlap
from harness.decision.worth import Worth, judge_worth
from harness.pricing.cost import Priced
from harness.report.formatting import MoneyFormat, clean, interval, number, percent
from harness.report.labels import common_values, describe, machine_labels, short_labels
from harness.report.sections.assumptions import count_given, input_rows
from harness.report.sections.cell_table import Field, basis_label
from harness.schema.assumptions import Assumptions

WORTH_HEADS = (
    *("model", "test accuracy", "benefit a month", "net present value", "pays back after", "return"),
    *("break-even accuracy", "break-even items a month", "paid before", "upkeep a month"),
)
# Of the heads from the third on, by Worth's names.
_FIGURES = (
    *("benefit_usd_per_month", "net_present_value_usd", "payback_months", "return_fraction"),
    *("break_even_accuracy", "break_even_items", "upfront_usd", "upkeep_usd_per_month"),
)
MAX_MODELS = 12
_MAX_NAMED = 3


@dataclass(frozen=True)
class WorthWords:
    """The section in words.

    Attributes:
        sentences: The answer; why there is none, where nothing can be judged.
        rows: In the order of WORTH_HEADS: always the commonest answer, TF-IDF, and the models that are not worse.
        inputs: The value model, in the order of INPUT_HEADS.
        marked: How many of those are the reader's.
    """

    sentences: tuple[str, ...]
    rows: tuple[tuple[Field, ...], ...]
    num_more: int
    inputs: tuple[tuple[Field, ...], ...]
    marked: str


def worth_words(cells: Sequence[Priced], choice: Choice, assumed: Assumptions, money: MoneyFormat) -> WorthWords:
    """What each model would bring; those whose accuracy is clearly below the best's are left out."""
    models = [cell for cell in choice.rivals if cell.summary.accuracy is not None]
    models.sort(key=lambda cell: cell is not choice.pick)
    baselines = _told_apart(choice.baselines)
    judged = judge_worth([*baselines, *models], assumed)
    labels, places = short_labels(cells), {cell.key: index for index, cell in enumerate(cells)}
    names = {
        one.cell.key: labels[one.cell.key] if one.cell.summary.kind == "fine_tune" else _name(one.cell, cells)
        for one in judged
    }
    shown = judged[: len(baselines) + MAX_MODELS]
    given, total = count_given(assumed, "value")
    return WorthWords(
        sentences=tuple(_sentences(judged, names, assumed, cells, money)),
        rows=tuple(_row(one, names[one.cell.key], places[one.cell.key], money) for one in shown),
        num_more=len(judged) - len(shown),
        inputs=tuple(input_rows(assumed, "value")),
        marked=_marked(given, total),
    )


def _told_apart(baselines: Sequence[Priced]) -> list[Priced]:
    """Each baseline once: on another machine it answers the same."""
    found = {(describe(cell, {}), value_of(cell.summary.accuracy)): cell for cell in reversed(baselines)}
    return list(found.values())[::-1]


def _marked(given: int, total: int) -> str:
    if given == 0:
        return (
            f"All {total} values are examples and no facts: put yours into a value.toml (harness report --value FILE)."
        )
    rest = f"; the other {total - given} are examples and no facts" if given < total else ""
    return f"{given} of {total} values are yours{rest}."


def _name(cell: Priced, cells: Sequence[Priced]) -> str:
    machines = machine_labels(cells)
    several = len(machines) > 1 and cell.summary.kind == "fine_tune"
    where = f" on {machines[cell.summary.machine_id]}" if several else ""
    return describe(cell, common_values(cells)) + where


def _sentences(
    judged: Sequence[Worth],
    names: dict[CellKey, str],
    assumed: Assumptions,
    cells: Sequence[Priced],
    money: MoneyFormat,
) -> list[str]:
    if not judged:
        return ["Nothing can be judged yet: no model has both a test accuracy and a price."]
    best = max(judged, key=lambda one: one.net_present_value_usd.value)
    level = [
        names[one.cell.key]
        for one in judged
        if one is not best and overlap(one.net_present_value_usd, best.net_present_value_usd)
    ]
    months = f"{assumed.value.horizon_months:g} months"
    name, value = _name(best.cell, cells), best.net_present_value_usd
    if bound(value, "high") <= 0:
        lead = f"Nothing measured is worth its money over {months}: even {name} ends at {money.with_interval(value)}"
    elif bound(value, "low") <= 0:
        lead = f"Whether it is worth its money over {months} can't be told: {name} comes to {money.with_interval(value)}, both sides of 0"
    else:
        most = "has the highest figure" if level else "brings most"
        lead = (
            f"Over {months} {name} {most}, {money.with_interval(value)} in today's money, "
            f"{money.amount(best.benefit_usd_per_month.value)} a month"
        )
    return [f"{lead}.", *_apart(level), *_limits(best, name)]


def _apart(level: Sequence[str]) -> list[str]:
    if not level:
        return []
    more = len(level) - _MAX_NAMED
    shown = "; ".join(level[:_MAX_NAMED]) + (f"; and {more} more" if more > 0 else "")
    return [f"It can't be told apart from: {shown}. Intervals are those of test accuracy."]


def _limits(best: Worth, name: str) -> list[str]:
    if best.break_even_accuracy is None:
        return []
    items = best.break_even_items
    volume = "at no number of items" if items is None else f"from {number(items)} items a month on"
    reached = percent(best.accuracy.value)
    return [f"{clean(name)} pays {_accuracy(best.break_even_accuracy)} (measured: {reached}), and {volume}."]


def _accuracy(share: float) -> str:
    if share > 1:
        return f"at no accuracy, since it would take {percent(share)}"
    return "at any accuracy" if share <= 0 else f"from an accuracy of {percent(share)} on"


def _row(one: Worth, name: str, place: int, money: MoneyFormat) -> tuple[Field, ...]:
    """In the order of WORTH_HEADS; the page rewrites what follows from assumptions."""
    name_field, accuracy, *figures = _fields(one, name, money)
    found = [
        replace(field, cell=place, figure=f"worth.{figure}", rests=figure.endswith(("_usd", "_month")))
        for figure, field in zip(_FIGURES, figures, strict=True)
    ]
    return (name_field, accuracy, *found)


def _fields(one: Worth, name: str, money: MoneyFormat) -> tuple[Field, ...]:
    basis, share, items = basis_label(one.cell.price), one.break_even_accuracy, one.break_even_items
    return (
        Field(name, name, numeric=False),
        Field(percent(one.accuracy.value), one.accuracy.value, interval(one.accuracy, "percent")),
        _amount(one.benefit_usd_per_month, basis, money),
        _amount(one.net_present_value_usd, basis, money),
        _figure(
            "never", None if one.payback_months is None else f"{number(one.payback_months)} months", one.payback_months
        ),
        _figure(
            "nothing is paid before",
            None if one.return_fraction is None else percent(one.return_fraction),
            one.return_fraction,
        ),
        _figure("accuracy makes no difference", None if share is None else _share(share), share),
        _figure("no number is enough", None if items is None else f"{items:,.0f}", items),
        Field(money.amount(one.upfront_usd), one.upfront_usd, basis),
        Field(money.amount(one.upkeep_usd_per_month), one.upkeep_usd_per_month, basis),
    )


def _share(share: float) -> str:
    if share > 1:
        return f"none ({percent(share)})"
    return "any" if share <= 0 else percent(share)


def _amount(found: Estimate, basis: str, money: MoneyFormat) -> Field:
    return Field(money.amount(found.value), found.value, "; ".join(filter(None, (money.interval(found), basis))))


def _figure(otherwise: str, text: str | None, value: float | None) -> Field:
    return Field(otherwise, None) if text is None else Field(text, value)
