"""Measured seconds at the prices of machines that were not measured (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.estimate import Estimate, value_of
from harness.decision.elsewhere import OtherPrices
from harness.pricing.cost import Priced
from harness.report.formatting import MoneyFormat, clean
from harness.report.labels import cell_labels, machine_labels
from harness.report.table import Field, Row, Table, measured_field, table, text_field

HEADS = ("not measured there", "an hour", "per 1,000 samples", "a run", "seconds measured on")
_MAX_ROWS = 15


@dataclass(frozen=True)
class OtherPricesSection:
    """The section on prices of machines that were not measured.

    Attributes:
        refused: A clause for each requested instance type that can't be shown, which says why.
    """

    table: Table
    refused: tuple[str, ...]


def other_prices_section(
    other: OtherPrices | None, cells: Sequence[Priced], money: MoneyFormat
) -> OtherPricesSection | None:
    """Build the section; None if no machine can be shown and no requested instance type was refused."""
    if other is None or not (other.found or other.refused):
        return None
    labels = machine_labels(cells)
    rows = [_row(pair.measured, pair.repriced, labels, money) for pair in other.found]
    return OtherPricesSection(table(HEADS, rows, _MAX_ROWS), tuple(clean(reason) for reason in other.refused))


def _row(measured: Priced, repriced: Priced, labels: Mapping[str, str], money: MoneyFormat) -> Row:
    price = repriced.price
    name = clean((price.instance if price else None) or "no instance named")
    place = ", ".join(clean(part) for part in (price.provider, price.region) if part) if price else ""
    hourly = Field("", None)
    if price:
        hourly = Field(money.hourly(price.usd_per_hour), price.usd_per_hour, clean(price.as_of or ""))
    machine = labels[measured.summary.machine_id]
    return (
        text_field(name, name, place),
        hourly,
        _amount(repriced.usd_per_1000_samples, money),
        _amount(repriced.usd_per_run, money),
        text_field(machine, machine, cell_labels([measured])[measured.key]),
    )


def _amount(estimate: Estimate | None, money: MoneyFormat) -> Field:
    return measured_field(money.amount(value_of(estimate)), value_of(estimate), extra=money.interval(estimate))
