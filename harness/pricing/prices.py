"""Hourly machine prices: finds a machine's row in the price table by what the user, cloud or hardware states."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Literal

from harness.errors import Unavailable, UserError
from harness.pricing.example_row import count_gpus, find_example_row, gpu_names, rows_with_gpus_of
from harness.pricing.price_rows import PriceRow, days_old
from harness.pricing.price_search import find_instance
from harness.pricing.price_table import PriceTable
from harness.schema.assumptions import Plan, PriceBook, find_rate
from harness.schema.host_record import DetectedInstance, Machine, StatedInstance

if TYPE_CHECKING:
    from harness.analysis.summary import Summary

PriceSource = Literal["given", "stated", "detected", "assumed"]

_GIB = 2**30
_MAX_CHOICES = 60  # longer lists are unusable in a menu


@dataclass(frozen=True)
class Price:
    """The hourly price of a machine, and its source.

    Attributes:
        usd_per_hour: USD per useful hour under the plan.
        basis: `given`: --usd-per-hour; `stated`: the user named the instance; `detected`: the metadata service or the
            firmware named the instance; `assumed`: an example, since the machine is not known to be an instance type.
        note: How the machine differs from its row's hardware, or why a row is its example; None without a remark.
        usd_per_hour_listed: The table's on-demand price.
        usd_per_hour_on_demand, usd_per_hour_spot: The user's rates, after discounts and contracts; None if unknown.
        granularity_s, minimum_s: The provider's billing unit and minimum, in seconds.
        paid: Derivation of `usd_per_hour` from the table's price, as text; None if they are equal.
        is_listed: False if the table lacks the instance, so that the price is from the user's own rates.
        priced_on: Date of the look-up, at which `age_days` is computed.
    """

    usd_per_hour: float
    instance: str | None
    provider: str | None
    region: str | None
    basis: PriceSource
    as_of: str | None
    source: str | None
    note: str | None
    usd_per_hour_listed: float | None = None
    usd_per_hour_on_demand: float | None = None
    usd_per_hour_spot: float | None = None
    plan: Plan = "on_demand"
    granularity_s: float = 1.0
    minimum_s: float = 0.0
    paid: str | None = None
    is_listed: bool = True
    priced_on: date | None = None

    @property
    def age_days(self) -> int | None:
        """Days from the price's date to its look-up; None if the price has no date."""
        return None if self.as_of is None or self.priced_on is None else days_old(self.as_of, self.priced_on)

    @property
    def is_example(self) -> bool:
        """True if nobody named the instance, so that the price is that of similar hardware."""
        return self.basis == "assumed"

    @property
    def stands_in(self) -> bool:
        """True if it is an example in place of the machine's own price: it prices that machine, but ranks none."""
        return self.is_example and self.plan != "own"

    @property
    def basis_word(self) -> str:
        """The basis as readers see it, before the word price."""
        return "example" if self.is_example else self.basis


def price_machine(
    table: PriceTable,
    machine: Machine,
    *,
    stated: StatedInstance | None = None,
    detected: DetectedInstance | None = None,
    usd_per_hour: float | None = None,
    needed_bytes: int = 0,
    book: PriceBook | None = None,
) -> Price | Unavailable:
    """Price an hour of a machine.

    The first known source decides: `usd_per_hour`, `stated`, `detected`, the firmware's product name, and finally an
    example: the row that comes nearest to the machine.

    Args:
        table: The price table.
        machine: The machine to price.
        stated: The instance that the user named.
        detected: The instance that the cloud's metadata service named.
        usd_per_hour: Price given by the user.
        needed_bytes: Least main memory of an example row.
        book: The user's own rates, which also price instances that the table lacks.

    Raises:
        UserError: If `usd_per_hour` is not a positive number.
    """
    if usd_per_hour is not None:
        if not 0 < usd_per_hour < math.inf:
            raise UserError(f"--usd-per-hour {usd_per_hour:g}: must be a number above 0")
        return Price(
            usd_per_hour, None, None, None, "given", None, "--usd-per-hour", None,
            usd_per_hour_listed=usd_per_hour, usd_per_hour_on_demand=usd_per_hour,
        )  # fmt: skip
    if stated is not None:
        row = find_instance(table, stated.instance, stated.region)
        if isinstance(row, PriceRow):
            return price_of_row(table, row, "stated", _mismatch(table, row, machine))
        return _price_by_rate(table, stated.instance, stated.region, "stated", book) or row
    names = [] if detected is None else [(detected.instance, detected.region)]
    if machine.cloud_vendor is not None and machine.cloud_product is not None:
        names.append((machine.cloud_product, None))
    for instance, region in names:
        if (price := _price_detected(table, machine, instance, region, book)) is not None:
            return price
    example = _example_price(table, machine, needed_bytes)
    if detected is None or isinstance(example, Unavailable):
        return example
    return replace(example, note=f"{detected.instance} was detected, and the table lacks it; {example.note}")


def _price_detected(
    table: PriceTable, machine: Machine, instance: str, region: str | None, book: PriceBook | None
) -> Price | None:
    """Price a detected instance by its region's row in the table, else by the user's rate, else by any region's row."""
    # Google's names omit attached GPUs, so try the table's names with GPUs, such as n1-standard-4+1xT4.
    attached = [row for row in table.prices if row.instance_type.startswith(f"{instance}+")]
    instance = next((row.instance_type for row in attached if _mismatch(table, row, machine) is None), instance)
    row = find_instance(table, instance, region)
    derivation: str | None = None
    if isinstance(row, Unavailable):
        if (price := _price_by_rate(table, instance, region, "detected", book)) is not None:
            return price
        row = find_instance(table, instance)
        derivation = f"the table has no price of it in {region}, where it runs"
    if isinstance(row, Unavailable):
        return None
    return replace(price_of_row(table, row, "detected", _mismatch(table, row, machine)), paid=derivation)


def _price_by_rate(
    table: PriceTable, instance: str, region: str | None, basis: PriceSource, book: PriceBook | None
) -> Price | None:
    """Price an instance that the table lacks by the user's rate for their plan, else by their on-demand rate."""
    if book is None:
        return None
    region = region or next((rate.region for rate in book.rate if rate.instance == instance and rate.region), None)
    on_demand, spot, committed = (
        find_rate(book, instance, region, plan) for plan in ("on_demand", "spot", "committed")
    )
    rate = {"spot": spot, "committed": committed}.get(book.plan) or on_demand
    if rate is None:
        return None
    return Price(
        usd_per_hour=rate.usd_per_hour, instance=instance, provider=None, region=region, basis=basis,
        as_of=None if rate.as_of is None else rate.as_of.isoformat(), source=rate.source, note=None,
        usd_per_hour_on_demand=None if on_demand is None else on_demand.usd_per_hour,
        usd_per_hour_spot=None if spot is None else spot.usd_per_hour,
        is_listed=False, priced_on=table.today,
    )  # fmt: skip


def price_finder(
    table: PriceTable,
    summaries: Iterable[Summary],
    *,
    instances: Mapping[str, str] | None = None,
    usd_per_hour: float | Mapping[str, float] | None = None,
    book: PriceBook | None = None,
) -> Callable[[Summary], Price | Unavailable]:
    """Price each machine of `summaries` once, and return a function that looks up a summary's price.

    A machine's instance is that of its newest record with a stated instance, else of its newest record with a detected
    instance. An example row has at least the main memory that the machine's largest cell used.

    Args:
        table: The price table.
        summaries: Summaries of every machine to price.
        instances: Maps machine ids to instance types, which override the records.
        usd_per_hour: Price of every machine, or a map from machine ids to prices; overrides all other sources.
        book: The user's own rates.

    Raises:
        UserError: If an override names a machine not in `summaries`, or an instance not in `table`.
    """
    from harness.analysis.summarize import peak_memory

    machines: dict[str, list[Summary]] = {}
    for summary in summaries:
        machines.setdefault(summary.machine_id, []).append(summary)
    overrides = dict(instances or {})
    hourly = usd_per_hour if isinstance(usd_per_hour, Mapping) else dict.fromkeys(machines, usd_per_hour)
    _check_overrides(table, machines, overrides, hourly, book)
    prices: dict[str, Price | Unavailable] = {}
    for machine_id, group in machines.items():
        records = sorted(
            (record for summary in group for record in summary.records), key=lambda record: record.started_at
        )
        stated = next((record.stated for record in reversed(records) if record.stated is not None), None)
        detected = next((record.detected for record in reversed(records) if record.detected is not None), None)
        if machine_id in overrides:
            stated = StatedInstance(instance=overrides[machine_id], region=None)
        prices[machine_id] = price_machine(
            table,
            records[-1].machine,
            stated=stated,
            detected=detected,
            usd_per_hour=hourly.get(machine_id),
            needed_bytes=max((peak_memory(record, "rss") or 0) // record.num_nodes for record in records),
            book=book,
        )
    return lambda summary: prices[summary.machine_id]


def _check_overrides(
    table: PriceTable,
    machines: Iterable[str],
    instances: Mapping[str, str],
    hourly: Mapping[str, float | None],
    book: PriceBook | None,
) -> None:
    """Raise UserError for an unknown machine id or instance type; arguments as for `price_finder`."""
    known = sorted(machines)
    for machine_id in [*instances, *hourly]:
        if machine_id not in known:
            near = difflib.get_close_matches(machine_id, known, n=3, cutoff=0) or ["none"]
            raise UserError(f"no records of a machine {machine_id!r}; there are records of {', '.join(near)}")
    for machine_id, name in instances.items():
        row = find_instance(table, name)
        if isinstance(row, Unavailable) and _price_by_rate(table, name, None, "stated", book) is None:
            raise UserError(f"--instance {machine_id}={name}: {row.reason}")


def choices(table: PriceTable, machine: Machine, own: Price | Unavailable) -> tuple[Price | None, ...]:
    """Return the prices that the report offers for a machine's measurements.

    The first is the machine's own price, or None if it has none. Then come rows of the price table: for a GPU machine,
    those with the same GPUs, where the measured seconds should hold; for a CPU machine, those with enough CPUs and
    memory. Burstable instances are left out, and only the cheapest rows are kept.
    """
    memory_bytes = machine.memory_limit_bytes or machine.memory_bytes
    fitting = [
        row
        for row in rows_with_gpus_of(table, machine)
        if machine.gpus or (row.vcpus >= machine.cpu.num_logical and row.memory_gib * _GIB >= memory_bytes)
    ]
    cheapest = sorted(fitting, key=lambda row: row.usd_per_hour_on_demand)[:_MAX_CHOICES]
    others = (price_of_row(table, row, "stated", _mismatch(table, row, machine)) for row in cheapest)
    if isinstance(own, Unavailable):
        return None, *others
    return own, *(price for price in others if _row_key(price) != _row_key(own))


def _row_key(price: Price) -> tuple[str | None, ...]:
    return price.provider, price.instance, price.region


def _example_price(table: PriceTable, machine: Machine, needed_bytes: int) -> Price | Unavailable:
    """Price a machine that is not known to be an instance type by the row that comes nearest to it."""
    example = find_example_row(table, machine, needed_bytes)
    if isinstance(example, Unavailable):
        return example
    return price_of_row(table, example.row, "assumed", example.note)


def price_of_row(table: PriceTable, row: PriceRow, basis: PriceSource, note: str | None) -> Price:
    """Return a row's on-demand price, with its provider's billing rules.

    Args:
        table: The price table that holds the row.
        row: The row.
        basis: How the row was found.
        note: Remark on how well the row fits; None without a remark.
    """
    billing = next((rule for rule in table.billing if rule.provider == row.provider), None)
    return Price(
        usd_per_hour=row.usd_per_hour_on_demand,
        instance=row.instance_type,
        provider=row.provider,
        region=row.region,
        basis=basis,
        as_of=row.as_of,
        source=row.source,
        note=note,
        usd_per_hour_listed=row.usd_per_hour_on_demand,
        usd_per_hour_on_demand=row.usd_per_hour_on_demand,
        usd_per_hour_spot=row.usd_per_hour_spot,
        granularity_s=1.0 if billing is None else billing.granularity_s,
        minimum_s=0.0 if billing is None else billing.minimum_s,
        priced_on=table.today,
    )


def _mismatch(table: PriceTable, row: PriceRow, machine: Machine) -> str | None:
    """Describe how a machine differs from the hardware that its row lists; None if it doesn't differ."""
    actual = gpu_names(table, machine)
    # A row without a GPU model is given the machine's model, so that only the numbers of GPUs are compared.
    listed = [row.hardware or (actual[0] if actual else row.accelerator or "")] * row.accelerator_count
    if listed == actual and row.vcpus == machine.cpu.num_logical:
        return None
    return (
        f"{row.instance_type} has {count_gpus(listed)} and {row.vcpus} logical CPUs; "
        f"seen: {count_gpus(actual)} and {machine.cpu.num_logical} logical CPUs"
    )
