"""The table of measured seconds at other machines' prices, in words (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.estimate import Estimate
from harness.decision.elsewhere import OtherPrices
from harness.pricing.cost import Priced
from harness.report.formatting import MoneyFormat, clean
from harness.report.labels import cell_labels, machine_labels
from harness.report.sections.cell_table import Field

HEADS = ("not measured there", "an hour", "per 1,000 samples", "a run", "seconds measured on")
_MAX_ROWS = 15


@dataclass(frozen=True)
class Moved:
    """What is shown of machines that were not measured; `refused` says of asked ones that may not be shown, why."""

    heads: tuple[str, ...]
    rows: tuple[tuple[Field, ...], ...]
    num_more: int
    refused: tuple[str, ...]


def moved_seconds(answer: OtherPrices | None, cells: Sequence[Priced], money: MoneyFormat) -> Moved | None:
    """The table; None where nothing may be shown, and nothing was asked."""
    if answer is None or not (answer.found or answer.refused):
        return None
    labels = machine_labels(cells)
    return Moved(
        heads=HEADS,
        rows=tuple(_row(one.measured, one.repriced, labels, money) for one in answer.found[:_MAX_ROWS]),
        num_more=max(0, len(answer.found) - _MAX_ROWS),
        refused=tuple(clean(line) for line in answer.refused),
    )


def _row(measured: Priced, moved: Priced, labels: dict[str, str], money: MoneyFormat) -> tuple[Field, ...]:
    price = moved.price
    name = clean((price.instance if price else None) or "no instance named")
    place = ", ".join(clean(part) for part in (price.provider, price.region) if part) if price else ""
    where = labels[measured.summary.machine_id]
    return (
        Field(name, name, place, numeric=False),
        Field(money.hourly(price.usd_per_hour), price.usd_per_hour, clean(price.as_of or ""))
        if price
        else Field("", None),
        _amount(moved.usd_per_1000_samples, money),
        _amount(moved.usd_per_run, money),
        Field(where, where, cell_labels([measured])[measured.key], numeric=False),
    )


def _amount(estimate: Estimate | None, money: MoneyFormat) -> Field:
    if estimate is None:
        return Field("not measured", None)
    return Field(money.amount(estimate.value), estimate.value, money.interval(estimate))
