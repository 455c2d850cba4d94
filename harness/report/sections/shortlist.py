"""The section on machines of the price table that are worth renting to measure (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.estimate import value_of
from harness.decision.shortlist import Shortlist, ShortlistRow
from harness.report.charts.base import Chart
from harness.report.charts.shortlist import shortlist_chart
from harness.report.formatting import MoneyFormat, listed
from harness.report.sections.shortlist_words import HEADS, advice, remarks, row_fields, shown_rows
from harness.report.table import Field, Row, Table, table, text_field


@dataclass(frozen=True)
class ShortlistSection:
    """The section on machines to rent and measure.

    Attributes:
        finding: The machines to measure first, in short.
        headline: Whether to measure anything first.
        picks: What to measure, a machine each, and a remark.
        table: The machines with the lowest bills.
        remarks: What a bill holds, what is not shown, and why intervals are wide.
    """

    finding: str
    headline: str
    picks: tuple[str, ...]
    table: Table
    remarks: tuple[str, ...]
    chart: Chart | None


def shortlist_section(found: Shortlist | None, money: MoneyFormat) -> ShortlistSection | None:
    """Build the section; None if no machine's time is known."""
    if found is None or found.probability is None:
        return None
    rows = shown_rows(found)
    headline, *picks = advice(found, money)
    return ShortlistSection(
        finding=listed([pick.row.price.instance_type for pick in found.measure_first]) or "nothing to measure first",
        headline=headline,
        picks=tuple(line.removeprefix("- ") for line in picks),
        table=table(HEADS, [_table_row(row, money) for row in rows]),
        remarks=tuple(remarks(found, rows)),
        chart=shortlist_chart(rows, money),
    )


def _table_row(row: ShortlistRow, money: MoneyFormat) -> Row:
    machine, *figures, cell = row_fields(row, money)
    values = (row.usd, row.usd_spot, row.hours, row.samples_per_s)
    return (
        text_field(machine[0], machine[0], machine[1]),
        *(Field(text, value_of(value), extra) for (text, extra), value in zip(figures, values, strict=True)),
        text_field(cell[0], cell[0], cell[1]),
    )
