"""Costs of measured seconds at the prices of GPU machines that have the same cards but were not measured (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.analysis.estimate import value_of
from harness.errors import Unavailable, UserError
from harness.pricing import cost, durations
from harness.pricing.cost import Priced
from harness.pricing.price_rows import PriceRow
from harness.pricing.price_search import find_hardware, find_instance
from harness.pricing.price_table import PriceTable
from harness.pricing.prices import price_machine
from harness.pricing.rates import price_under_plan
from harness.schema.assumptions import Assumptions
from harness.schema.host_record import Machine, StatedInstance

NOT_MEASURED = "not measured there: the seconds are those of the measured machine, whose card and count it has"


@dataclass(frozen=True)
class OtherPrice:
    """One cell, as measured and repriced for another machine."""

    measured: Priced
    repriced: Priced


@dataclass(frozen=True)
class OtherPrices:
    """Repriced cells, cheapest run first; `refused` has the reasons why requested instance types have no cell."""

    found: tuple[OtherPrice, ...]
    refused: tuple[str, ...]


def price_elsewhere(
    cells: Sequence[Priced], table: PriceTable, assumed: Assumptions, instances: Sequence[str] | None = None
) -> OtherPrices:
    """Reprice each GPU machine's cheapest run for machines with the same cards in the same number.

    Machines with the same cards can still differ in host, disk and links, so the measured seconds are only an estimate
    for them. CPU machines are not repriced: their speed can't be derived from the instance type.

    Args:
        cells: The report's cells.
        table: The price table.
        assumed: The assumptions that priced `cells`.
        instances: Requested instance types; None for all with the same cards.

    Raises:
        UserError: If a requested instance type is not in the table.
    """
    requested = None if instances is None else {name: _find_row(table, name) for name in instances}
    others: list[OtherPrice] = []
    measured_cards: set[tuple[str, ...]] = set()
    for cell in _fastest_gpu_runs(cells):
        cards = card_names(table, cell.summary.records[-1].machine)
        measured_cards |= {cards} if cards else set()
        own = cell.price.instance if cell.price is not None and not cell.price.is_example else None
        for row in _cheapest_rows(table, cards):
            if row.instance_type != own and (requested is None or row.instance_type in requested):
                others += _reprice(cell, row, table, assumed)
    shown = {other.repriced.price.instance for other in others if other.repriced.price is not None}
    refused = [_refusal(row, measured_cards) for name, row in (requested or {}).items() if name not in shown]
    others.sort(key=lambda other: value_of(other.repriced.usd_per_run) or 0.0)
    return OtherPrices(tuple(others), tuple(refused))


def card_names(table: PriceTable, machine: Machine) -> tuple[str, ...]:
    """Return the names in hardware.csv of a machine's cards; empty without cards, or if the table lacks any of them.

    A MIG instance counts as lacking, because it is only a part of the card that it is named after.
    """
    rows = [None if " MIG " in gpu.name else find_hardware(table, gpu.name) for gpu in machine.gpus]
    return () if None in rows else tuple(sorted(row.name for row in rows if row is not None))


def _fastest_gpu_runs(cells: Iterable[Priced]) -> list[Priced]:
    """Return each machine's GPU cell with the shortest run, which is the cheapest cell at any hourly price."""
    best: dict[str, tuple[float, Priced]] = {}
    for cell in cells:
        summary = cell.summary
        seconds = value_of(durations.run_seconds(summary)) if summary.config.on_gpu and summary.num_ok else None
        if seconds is not None:
            seconds *= cell.num_nodes  # each machine is paid for
        if seconds is not None and (summary.machine_id not in best or seconds < best[summary.machine_id][0]):
            best[summary.machine_id] = seconds, cell
    return [cell for _, cell in best.values()]


def _find_row(table: PriceTable, name: str) -> PriceRow:
    row = find_instance(table, name)
    if isinstance(row, Unavailable):
        raise UserError(f"--elsewhere {name}: {row.reason}")
    return row


def _cheapest_rows(table: PriceTable, cards: tuple[str, ...]) -> list[PriceRow]:
    """Return the rows of instance types with these cards, each in its cheapest region."""
    rows: dict[tuple[str, str], PriceRow] = {}
    for row in table.prices:
        if not cards or (row.hardware or "",) * row.accelerator_count != cards:
            continue
        key = row.provider, row.instance_type
        if key not in rows or row.usd_per_hour_on_demand < rows[key].usd_per_hour_on_demand:
            rows[key] = row
    return list(rows.values())


def _reprice(cell: Priced, row: PriceRow, table: PriceTable, assumed: Assumptions) -> list[OtherPrice]:
    """Price a cell by another machine's row; empty if the user's plan has no price for the row, or is `own`.

    Args:
        cell: The cell.
        row: The other machine's row.
        table: The price table.
        assumed: The user's assumptions.
    """
    machine = cell.summary.records[-1].machine
    stated = StatedInstance(instance=row.instance_type, region=row.region)
    price = price_under_plan(price_machine(table, machine, stated=stated), assumed.prices, cell.summary.machine_id)
    if isinstance(price, Unavailable) or price.plan == "own":
        return []
    (repriced,) = cost.price([cell.summary], lambda _summary: replace(price, note=NOT_MEASURED), assumed)
    return [OtherPrice(cell, repriced)]


def _refusal(row: PriceRow, measured_cards: set[tuple[str, ...]]) -> str:
    if row.accelerator_count == 0:
        return f"{row.instance_type} has no GPU: a CPU machine must be measured, its seconds follow from no other's"
    if (row.hardware or "",) * row.accelerator_count in measured_cards:
        return f"{row.instance_type} is what was measured, or is paid as one's own: it stands in the table above"
    has = f"{row.accelerator_count} x {row.hardware or row.accelerator}"
    ran = " and ".join(sorted(f"{len(cards)} x {cards[0]}" for cards in measured_cards)) or "no GPU"
    return f"{row.instance_type} has {has}, and measured was {ran}: another card or number must be measured"
