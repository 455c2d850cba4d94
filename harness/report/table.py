"""Typed tables of text and values, which the page and summary.md write in their own format (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.analysis.estimate import Estimate, value_of
from harness.pricing.cost import Priced
from harness.report.formatting import NOT_MEASURED, MoneyFormat
from harness.report.labels import basis_label


@dataclass(frozen=True)
class Field:
    """One field of a table.

    Attributes:
        sort: The value that the column is sorted by; None is sorted last in both directions.
        extra: A second, quieter line, such as an interval; "; " separates further lines.
        title: The tooltip, such as the reason why there is no value.
        numeric: Whether the text is aligned to the right.
        doubtful: Whether the extra line is a warning.
        cell: Index in the report of the field's cell, if the page recomputes the field for other assumptions. Figures
            that start with `side.` may count machines or lines instead (see sections/machines.py).
        figure: Name of the recomputed figure: an attribute of Priced, or a dotted name such as
            `worth.net_present_value_usd` for an attribute of Worth.
        rewrites_extra: Whether the page also recomputes the extra line: the interval and the price's basis.
    """

    text: str
    sort: float | str | None
    extra: str = ""
    title: str = ""
    numeric: bool = True
    doubtful: bool = False
    cell: int | None = None
    figure: str = ""
    rewrites_extra: bool = False


Row = tuple[Field, ...]


@dataclass(frozen=True)
class Table:
    """Rows under their heads; a table without rows counts as false.

    Attributes:
        num_more: Number of rows that were left out.
    """

    heads: tuple[str, ...]
    rows: tuple[Row, ...]
    num_more: int = 0

    def __bool__(self) -> bool:
        return bool(self.rows)


def table(heads: Sequence[str], rows: Sequence[Row], max_rows: int | None = None) -> Table:
    """Build a table of the first `max_rows` rows (default: all), without columns that hold no figure at all."""
    shown = tuple(rows[:max_rows])
    kept = [index for index in range(len(heads)) if index == 0 or any(holds_figure(row[index]) for row in shown)]
    return Table(
        tuple(heads[index] for index in kept),
        tuple(tuple(row[index] for index in kept) for row in shown),
        len(rows) - len(shown),
    )


def holds_figure(field: Field) -> bool:
    """Return whether a field has a value, words, a second line, or an amount that the page may compute."""
    return field.sort is not None or not field.numeric or field.cell is not None or bool(field.extra)


def text_field(text: str, sort: float | str | None = None, extra: str = "", title: str = "") -> Field:
    """Build a field of words, aligned to the left."""
    return Field(text, sort, extra, title, numeric=False)


def measured_field(text: str | None, value: float | None, why: str = "", extra: str = "") -> Field:
    """Build a field of a measured value, or "not measured" with the reason as tooltip.

    Args:
        text: The formatted value; None without a value.
        value: The value; None if it was not measured.
        why: Why the value was not measured.
        extra: The second line; dropped without a value.
    """
    if value is None or text is None:
        return Field(NOT_MEASURED, None, title=why)
    return Field(text, value, extra)


def amount_field(cell: Priced, index: int, figure: str, why: str, extra: str = "", *, money: MoneyFormat) -> Field:
    """Build a field of one of a cell's amounts; the page recomputes the field for other assumptions.

    Args:
        cell: The priced cell.
        index: Its index in the report.
        figure: Name of an attribute of Priced that holds an estimate in USD.
        why: Why there is no amount, if there is none.
        extra: A further line below the interval and the price's basis.
        money: The report's currency.
    """
    amount: Estimate | None = getattr(cell, figure)
    lines = join_lines(money.interval(amount), basis_label(cell.price), extra)
    field = measured_field(None if amount is None else money.amount(amount.value), value_of(amount), why, lines)
    return replace(field, cell=index, figure=figure, rewrites_extra=True)


def join_lines(*lines: str) -> str:
    """Join the lines that are not empty into a field's extra lines."""
    return "; ".join(filter(None, lines))
