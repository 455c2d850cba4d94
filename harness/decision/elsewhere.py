"""Measured seconds at the price of a machine that was not measured: GPU machines with the same cards alone (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.analysis.estimate import value_of
from harness.errors import UserError
from harness.pricing import cost
from harness.pricing.cost import Priced
from harness.pricing.prices import Price, PriceRow, PriceTable, find_hardware, find_instance, price_machine
from harness.pricing.rates import price_under_plan
from harness.schema.assumptions import Assumptions
from harness.schema.host_record import Machine, StatedInstance

NOT_MEASURED = "not measured there: the seconds are those of the measured machine, whose card and count it has"


@dataclass(frozen=True)
class OtherPrice:
    """One cell's measured seconds at another machine's price.

    Attributes:
        measured: As it ran.
        moved: The same with the other machine's price.
    """

    measured: Priced
    moved: Priced


@dataclass(frozen=True)
class OtherPrices:
    """What may be shown, cheapest run first; `refused` says of each asked machine that may not, why."""

    found: tuple[OtherPrice, ...]
    refused: tuple[str, ...]


def price_elsewhere(
    cells: Sequence[Priced], table: PriceTable, assumed: Assumptions, asked: Sequence[str] | None = None
) -> OtherPrices:
    """Put each GPU machine's cheapest run at the price of other machines with the same cards, and as many of them.

    Host, disk and links differ between such machines too, so that even these seconds are no measurement. A CPU
    machine's speed follows from no name: it must be measured.

    Args:
        cells: Of the report.
        table: Where the others' prices stand.
        assumed: As `cells` were priced.
        asked: Instance types that are wanted; None for every one that may be shown.

    Raises:
        UserError: When an asked instance type is not in the table.
    """
    wanted = None if asked is None else {name: _row(table, name) for name in asked}
    found: list[OtherPrice] = []
    for cell in _best_runs(cells):
        cards = card_names(table, cell.summary.records[-1].machine)
        own = cell.price.instance if cell.price is not None and cell.price.basis != "assumed" else None
        for row in _cheapest_rows(table, cards):
            if row.instance_type != own and (wanted is None or row.instance_type in wanted):
                found += _repriced(cell, row, table, assumed)
    shown = {one.moved.price.instance for one in found if one.moved.price is not None}
    measured = {names for cell in _best_runs(cells) if (names := card_names(table, cell.summary.records[-1].machine))}
    refused = [_refusal(row, measured) for name, row in (wanted or {}).items() if name not in shown]
    return OtherPrices(tuple(sorted(found, key=lambda one: value_of(one.moved.usd_per_run) or 0.0)), tuple(refused))


def card_names(table: PriceTable, machine: Machine) -> tuple[str, ...]:
    """The machine's cards by hardware.csv's names; empty without a GPU, or where one is not in that table.

    An instance of a GPU that MIG has divided is not the card it is named after.
    """
    rows = [None if " MIG " in gpu.name else find_hardware(table, gpu.name) for gpu in machine.gpus]
    return () if None in rows else tuple(sorted(row.name for row in rows if row is not None))


def _best_runs(cells: Iterable[Priced]) -> list[Priced]:
    """Of each machine, the cheapest run on a GPU."""
    best: dict[str, Priced] = {}
    for cell in cells:
        on_gpu = cell.summary.config.on_gpu
        seconds = value_of(cost.run_seconds(cell.summary)) if on_gpu and cell.summary.num_ok else None
        known = best.get(cell.summary.machine_id)
        if seconds is not None and (known is None or seconds < (value_of(cost.run_seconds(known.summary)) or 0.0)):
            best[cell.summary.machine_id] = cell
    return list(best.values())


def _row(table: PriceTable, name: str) -> PriceRow:
    found = find_instance(table, name)
    if isinstance(found, str):
        raise UserError(f"--elsewhere {name}: {found}")
    return found


def _cheapest_rows(table: PriceTable, cards: tuple[str, ...]) -> list[PriceRow]:
    """Of each instance type with these cards, its cheapest region."""
    rows: dict[tuple[str, str], PriceRow] = {}
    for row in table.prices:
        if not cards or (row.hardware or "",) * row.accelerator_count != cards:
            continue
        key = row.provider, row.instance_type
        if key not in rows or row.usd_per_hour_on_demand < rows[key].usd_per_hour_on_demand:
            rows[key] = row
    return list(rows.values())


def _repriced(cell: Priced, row: PriceRow, table: PriceTable, assumed: Assumptions) -> list[OtherPrice]:
    machine = cell.summary.records[-1].machine
    stated = StatedInstance(instance=row.instance_type, region=row.region)
    found = price_under_plan(price_machine(table, machine, stated=stated), assumed.prices, cell.summary.machine_id)
    if not isinstance(found, Price) or found.plan == "own":
        return []
    (moved,) = cost.price([cell.summary], lambda _summary: replace(found, note=NOT_MEASURED), assumed)
    return [OtherPrice(cell, moved)]


def _refusal(row: PriceRow, measured: set[tuple[str, ...]]) -> str:
    if row.accelerator_count == 0:
        return f"{row.instance_type} has no GPU: a CPU machine must be measured, its seconds follow from no other's"
    has = f"{row.accelerator_count} x {row.hardware or row.accelerator}"
    if (row.hardware or "",) * row.accelerator_count in measured:
        return f"{row.instance_type} is what was measured, or is paid as one's own: it stands in the table above"
    ran = " and ".join(sorted(f"{len(cards)} x {cards[0]}" for cards in measured)) or "no GPU"
    return f"{row.instance_type} has {has}, and measured was {ran}: another card or number must be measured"
