"""Bills of a run on machines of the price table, as estimated before any was rented."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.estimate import map_estimate
from harness.decision.shortlist import Basis, ShortlistRow
from harness.report.charts.base import MEASURE, QUIET, SERIES, Chart, chart_text
from harness.report.charts.horizontal_bars import Bar, bar_chart
from harness.report.formatting import MoneyFormat
from harness.report.sections.shortlist_words import KNOWN

_ROLES: dict[Basis, str] = {"measured": MEASURE, "probe": MEASURE, "scaled": SERIES[0], "datasheet": QUIET}


def shortlist_chart(rows: Sequence[ShortlistRow], money: MoneyFormat) -> Chart | None:
    """Draw the bills with their intervals, coloured by how they are known; None if no bill is known."""
    bars = [
        Bar(
            name=f"{row.price.instance_type}, {KNOWN[row.basis]}",
            estimate=map_estimate(row.usd, money.convert),
            text=chart_text(money.amount(row.usd.value)),
            role=_ROLES[row.basis],
        )
        for row in rows
        if row.usd is not None and row.basis is not None
    ]
    if not bars:
        return None
    title = f"Bill of a run by estimate, {money.code}, with 95 % intervals"
    return bar_chart("chart-shortlist", title, f"{title}; {bars[0].name} has the lowest.", bars)
