"""What measuring itself cost: every run of the records, failed ones included, by machine (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.pricing import formulas
from harness.pricing.cost import Priced
from harness.pricing.prices import Price
from harness.schema.assumptions import RentalTerms
from harness.schema.record import Record


@dataclass(frozen=True)
class MachineCost:
    """The runs on one machine, or on several hosts of its kind.

    Attributes:
        seconds: From each run's order to its end, summed.
        usd: Of those seconds alone.
        usd_billed: As if each host had been ordered once for all its runs.
        missing: Why there are no dollars.
    """

    machine_id: str
    num_runs: int
    num_failed: int
    num_hosts: int
    seconds: float
    usd: float | None
    usd_billed: float | None
    missing: str | None


@dataclass(frozen=True)
class StudyCost:
    """All machines, in the report's order; dollars are None where one machine has no price."""

    machines: tuple[MachineCost, ...]

    @property
    def num_runs(self) -> int:
        """On all machines."""
        return sum(machine.num_runs for machine in self.machines)

    @property
    def num_failed(self) -> int:
        """Of them, those that did not end well."""
        return sum(machine.num_failed for machine in self.machines)

    @property
    def seconds(self) -> float:
        """Machines added up."""
        return sum(machine.seconds for machine in self.machines)

    @property
    def usd(self) -> float | None:
        """Of measured seconds alone."""
        return _sum(machine.usd for machine in self.machines)

    @property
    def usd_billed(self) -> float | None:
        """What an invoice is held against."""
        return _sum(machine.usd_billed for machine in self.machines)


def study_cost(cells: Sequence[Priced], rental: RentalTerms, records: Iterable[Record] | None = None) -> StudyCost:
    """Add up what was run.

    Args:
        cells: Every cell of the report, by which machines are priced.
        rental: What is billed beside the seconds.
        records: All that were found, those among them that a newer run replaced; by default those of the cells, the
            newest of each seed and repeat.
    """
    prices = {cell.summary.machine_id: cell.price or cell.missing or "no price" for cell in reversed(cells)}
    by_machine: dict[str, list[Record]] = {cell.summary.machine_id: [] for cell in cells}
    found = [record for cell in cells for record in cell.summary.records] if records is None else records
    for record in found:
        if record.machine.id in by_machine:
            by_machine[record.machine.id].append(record)
    return StudyCost(tuple(_machine(name, runs, prices[name], rental) for name, runs in by_machine.items()))


def _machine(machine_id: str, runs: Sequence[Record], price: Price | str, rental: RentalTerms) -> MachineCost:
    by_host: dict[str | None, float] = {}
    for run in runs:
        by_host[run.machine.host] = by_host.get(run.machine.host, 0.0) + run.duration_s
    seconds = sum(by_host.values())
    known = price if isinstance(price, Price) else None
    # What ended at once, unsupported or skipped, ordered no machine.
    billed = [_billed(known, spent_s, rental) for spent_s in by_host.values() if spent_s > 0]
    return MachineCost(
        machine_id=machine_id,
        num_runs=len(runs),
        num_failed=sum(run.outcome != "ok" for run in runs),
        num_hosts=len(by_host),
        seconds=seconds,
        usd=None if known is None else formulas.usd_of_seconds(known.usd_per_hour, seconds),
        usd_billed=None if known is None else _sum(billed),
        missing=None if known is not None else str(price),
    )


def _billed(price: Price | None, seconds: float, rental: RentalTerms) -> float | None:
    if price is None or price.plan == "own":
        return None if price is None else formulas.usd_of_seconds(price.usd_per_hour, seconds)
    before_s = rental.startup_s + rental.setup_s
    billed_s = formulas.billed_seconds(seconds, before_s, price.minimum_s, price.granularity_s)
    return formulas.usd_of_seconds(price.usd_per_hour, billed_s)


def _sum(amounts: Iterable[float | None]) -> float | None:
    known = list(amounts)
    return None if None in known else sum(amount for amount in known if amount is not None)
