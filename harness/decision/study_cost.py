"""The cost of benchmarking: all runs of a study, failed ones included, by machine (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.errors import Unavailable
from harness.pricing import formulas
from harness.pricing.cost import Priced
from harness.pricing.prices import Price
from harness.schema.assumptions import RentalTerms
from harness.schema.record import Record


@dataclass(frozen=True)
class MachineCost:
    """Cost of the runs on one machine, which may be several hosts with one id.

    Attributes:
        seconds: Total seconds of the runs, from submission to end, on each machine that they occupied.
        usd: Cost of `seconds` only.
        usd_billed: Provider's bill if each host is ordered once for all its runs.
        missing: Why there is no price; None if there is a price.
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
    """The cost of all machines, in the report's order; totals are None if any machine has no price."""

    machines: tuple[MachineCost, ...]

    @property
    def num_runs(self) -> int:
        """Number of runs on all machines."""
        return sum(machine.num_runs for machine in self.machines)

    @property
    def num_failed(self) -> int:
        """Number of failed runs on all machines."""
        return sum(machine.num_failed for machine in self.machines)

    @property
    def seconds(self) -> float:
        """Seconds of all runs."""
        return sum(machine.seconds for machine in self.machines)

    @property
    def usd(self) -> float | None:
        """Cost of the measured seconds only."""
        return _sum(machine.usd for machine in self.machines)

    @property
    def usd_billed(self) -> float | None:
        """The amount to compare with an invoice."""
        return _sum(machine.usd_billed for machine in self.machines)


def study_cost(cells: Sequence[Priced], rental: RentalTerms, records: Iterable[Record] | None = None) -> StudyCost:
    """Total the cost of all runs.

    Args:
        cells: All cells of the report; their prices are the machines' prices.
        rental: The seconds of machine start-up and set-up, which are billed too.
        records: All records, including those replaced by a newer run; by default the cells' records only.
    """
    prices = {
        cell.summary.machine_id: cell.price or Unavailable(cell.missing or "no price") for cell in reversed(cells)
    }
    by_machine: dict[str, list[Record]] = {cell.summary.machine_id: [] for cell in cells}
    if records is None:
        records = [record for cell in cells for record in cell.summary.records]
    for record in records:
        if record.machine.id in by_machine:
            by_machine[record.machine.id].append(record)
    return StudyCost(tuple(_machine_cost(name, runs, prices[name], rental) for name, runs in by_machine.items()))


def _machine_cost(
    machine_id: str, runs: Sequence[Record], price: Price | Unavailable, rental: RentalTerms
) -> MachineCost:
    """Total the runs of one machine.

    Args:
        machine_id: The machine.
        runs: The machine's records.
        price: The machine's hourly price.
        rental: The seconds of machine start-up and set-up, which are billed too.
    """
    by_host: dict[str | None, float] = {}
    for run in runs:
        for host in _hosts(run):
            by_host[host] = by_host.get(host, 0.0) + run.duration_s
    seconds = sum(by_host.values())
    known, missing = (None, price.reason) if isinstance(price, Unavailable) else (price, None)
    # Leave out hosts with 0 s, which had unsupported and skipped cells only: no machine is ordered for those cells.
    billed_s = [host_s for host_s in by_host.values() if host_s > 0]
    return MachineCost(
        machine_id=machine_id,
        num_runs=len(runs),
        num_failed=sum(run.outcome != "ok" for run in runs),
        num_hosts=len(by_host),
        seconds=seconds,
        usd=None if known is None else formulas.usd_of_seconds(known.usd_per_hour, seconds),
        usd_billed=None if known is None else _sum(_billed(known, host_s, rental) for host_s in billed_s),
        missing=missing,
    )


def _hosts(run: Record) -> list[str | None]:
    """Return the hosts of the machines that a run occupied; made-up ones for those of which nothing is known."""
    hosts = [machine.host for machine in run.machines]
    num_nodes = run.num_nodes if run.duration_s else 1
    return hosts + [f"node {index}" for index in range(len(hosts), num_nodes)]


def _billed(price: Price, seconds: float, rental: RentalTerms) -> float | None:
    if price.plan == "own":
        return formulas.usd_of_seconds(price.usd_per_hour, seconds)
    before_s = rental.startup_s + rental.setup_s
    billed_s = formulas.billed_seconds(seconds, before_s, price.minimum_s, price.granularity_s)
    return formulas.usd_of_seconds(price.usd_per_hour, billed_s)


def _sum(amounts: Iterable[float | None]) -> float | None:
    known = list(amounts)
    return None if None in known else sum(amount for amount in known if amount is not None)
