"""What an hour of a machine costs: look-up in the price table by what the user, the cloud or the hardware says."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Literal

from harness.errors import UserError
from harness.pricing.price_rows import HardwareRow, PriceRow, days_old
from harness.pricing.price_search import burstable, find_hardware, find_instance, gpu_peak_flops
from harness.pricing.price_table import PriceTable, load_prices, tables_folder
from harness.schema.assumptions import Plan, PriceBook, find_rate
from harness.schema.host_record import DetectedInstance, Machine, StatedInstance

if TYPE_CHECKING:
    from harness.analysis.summary import Summary

__all__ = [
    "HardwareRow",
    "Price",
    "PriceRow",
    "PriceSource",
    "PriceTable",
    "burstable",
    "choices",
    "find_hardware",
    "find_instance",
    "gpu_peak_flops",
    "load_prices",
    "price_finder",
    "price_machine",
    "tables_folder",
]

PriceSource = Literal["given", "stated", "detected", "assumed"]

_GIB = 2**30
_MOST_CHOICES = 60  # a longer list helps nobody choose


@dataclass(frozen=True)
class Price:
    """What an hour of a machine costs, and how we know.

    Attributes:
        usd_per_hour: Of a useful hour, under the plan.
        basis: `given`: --usd-per-hour; `stated`: the user named the instance; `detected`: the cloud's metadata service
            or the firmware did; `assumed`: a stand-in, the cheapest row that covers the machine.
        note: Where stated and seen hardware disagree, or why the stand-in was chosen; None if nothing to say.
        usd_per_hour_listed: On demand, as the table has it.
        usd_per_hour_on_demand, usd_per_hour_spot: After discounts and contracts; None where not known.
        granularity_s, minimum_s: The provider bills whole units of this many seconds, and so many at least.
        paid: How `usd_per_hour` follows from the table's price, in words; None where it is that price.
        is_listed: False where the table lacks the instance, and only the reader's own rates price it.
        priced_on: The day of the look-up, to which ages are counted.
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
        """Days from the price's date to its look-up; None where it has no date."""
        return None if self.as_of is None or self.priced_on is None else days_old(self.as_of, self.priced_on)


def price_machine(
    table: PriceTable,
    machine: Machine,
    *,
    stated: StatedInstance | None = None,
    detected: DetectedInstance | None = None,
    usd_per_hour: float | None = None,
    needed_bytes: int = 0,
    book: PriceBook | None = None,
) -> Price | str:
    """Price an hour of a machine.

    As given, else stated, else detected by the cloud's metadata service, else by the firmware, else as a stand-in,
    which has at least `needed_bytes` of main memory. `book` holds the reader's own rates, by which an instance that
    the table lacks is priced all the same.

    Returns:
        The price, or why there is none and what to give.

    Raises:
        UserError: When `usd_per_hour` is no price.
    """
    if usd_per_hour is not None:
        if not 0 < usd_per_hour < math.inf:
            raise UserError(f"--usd-per-hour: found {usd_per_hour:g}; allowed: a number above 0")
        return Price(
            usd_per_hour, None, None, None, "given", None, "--usd-per-hour", None,
            usd_per_hour_listed=usd_per_hour, usd_per_hour_on_demand=usd_per_hour,
        )  # fmt: skip
    if stated is not None:
        found = find_instance(table, stated.instance, stated.region)
        if isinstance(found, PriceRow):
            return _as_price(table, found, "stated", _disagreement(table, found, machine))
        return _by_rate(table, stated.instance, stated.region, "stated", book) or found
    seen = [] if detected is None else [(detected.instance, detected.region)]
    if machine.cloud_vendor is not None and machine.cloud_product is not None:
        seen.append((machine.cloud_product, None))
    for instance, region in seen:
        if (price := _price_detected(table, machine, instance, region, book)) is not None:
            return price
    stand_in = _fallback_price(table, machine, needed_bytes)
    if detected is None or isinstance(stand_in, str):
        return stand_in
    return replace(stand_in, note=f"{detected.instance} was detected, and the table lacks it; {stand_in.note}")


def _price_detected(
    table: PriceTable, machine: Machine, instance: str, region: str | None, book: PriceBook | None
) -> Price | None:
    """Price what was detected: in its region, else by the reader's rate, else where the table has it."""
    # Google's names leave out the GPUs that were attached; the table's are such as n1-standard-4+1xT4.
    attached = [row for row in table.prices if row.instance_type.startswith(f"{instance}+")]
    instance = next((row.instance_type for row in attached if _disagreement(table, row, machine) is None), instance)
    row = find_instance(table, instance, region)
    elsewhere: str | None = None
    if isinstance(row, str):
        if (price := _by_rate(table, instance, region, "detected", book)) is not None:
            return price
        row = find_instance(table, instance)
        elsewhere = f"the table has no price of it in {region}, where it runs"
    if isinstance(row, str):
        return None
    return replace(_as_price(table, row, "detected", _disagreement(table, row, machine)), paid=elsewhere)


def _by_rate(
    table: PriceTable, instance: str, region: str | None, basis: PriceSource, book: PriceBook | None
) -> Price | None:
    """The reader's own rate for an instance that the table lacks: of their plan, else on demand."""
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
) -> Callable[[Summary], Price | str]:
    """Price every machine of `summaries` once, so that all its cells have one price.

    What the newest record with a stated instance says holds for the machine (else the newest with a detected one), and a
    stand-in has the main memory that the largest of its cells needed. `instances` (machine id to instance type) overrides
    what records state; `usd_per_hour` (of every machine, or by machine id) overrides all else. `book` holds the reader's
    own rates.

    Returns:
        What gives a summary's price, or says why it has none and what to give.

    Raises:
        UserError: When an override names no machine of `summaries` or no row of `table`.
    """
    from harness.analysis.summarize import peak_memory

    machines: dict[str, list[Summary]] = {}
    for summary in summaries:
        machines.setdefault(summary.machine_id, []).append(summary)
    named = dict(instances or {})
    hourly = usd_per_hour if isinstance(usd_per_hour, Mapping) else dict.fromkeys(machines, usd_per_hour)
    _check_overrides(table, machines, named, hourly, book)
    found: dict[str, Price | str] = {}
    for machine_id, group in machines.items():
        records = sorted((record for one in group for record in one.records), key=lambda one: one.started_at)
        stated = next((record.stated for record in reversed(records) if record.stated is not None), None)
        detected = next((record.detected for record in reversed(records) if record.detected is not None), None)
        if machine_id in named:
            stated = StatedInstance(instance=named[machine_id], region=None)
        found[machine_id] = price_machine(
            table,
            records[-1].machine,
            stated=stated,
            detected=detected,
            usd_per_hour=hourly.get(machine_id),
            needed_bytes=max(peak_memory(record, "rss") or 0 for record in records),
            book=book,
        )
    return lambda summary: found[summary.machine_id]


def _check_overrides(
    table: PriceTable,
    machines: Iterable[str],
    instances: Mapping[str, str],
    hourly: Mapping[str, float | None],
    book: PriceBook | None,
) -> None:
    known = sorted(machines)
    for machine_id in [*instances, *hourly]:
        if machine_id not in known:
            near = difflib.get_close_matches(machine_id, known, n=3, cutoff=0) or ["none"]
            raise UserError(f"no records of a machine {machine_id!r}; there are those of {', '.join(near)}")
    for machine_id, name in instances.items():
        row = find_instance(table, name)
        if isinstance(row, str) and _by_rate(table, name, None, "stated", book) is None:
            raise UserError(f"--instance {machine_id}={name}: {row}")


def choices(table: PriceTable, machine: Machine, own: Price | str) -> tuple[Price | None, ...]:
    """Prices that a reader may put on what a machine measured: its own first, None where it has none.

    Of a machine with GPUs, rows with the same card and number of them, at which the measured seconds are taken to
    hold. Of a CPU machine no other kind of CPU may stand in: a row that covers its CPUs and memory is what its reader
    says that it is. At most the cheapest few, no burstable one.
    """
    memory_bytes = machine.memory_limit_bytes or machine.memory_bytes
    fitting = [
        row
        for row in _with_gpus_of(table, machine)
        if machine.gpus or (row.vcpus >= machine.cpu.num_logical and row.memory_gib * _GIB >= memory_bytes)
    ]
    cheapest = sorted(fitting, key=lambda row: row.usd_per_hour_on_demand)[:_MOST_CHOICES]
    others = (_as_price(table, row, "stated", _disagreement(table, row, machine)) for row in cheapest)
    first = own if isinstance(own, Price) else None
    return first, *(price for price in others if first is None or _place(price) != _place(first))


def _place(price: Price) -> tuple[str | None, ...]:
    return price.provider, price.instance, price.region


def _with_gpus_of(table: PriceTable, machine: Machine) -> list[PriceRow]:
    """Rows with a machine's GPUs and as many of them, none without any; no burstable one."""
    gpus = _gpu_names(table, machine)
    kinds: set[str | None] = {*gpus} or {None}
    return [
        row
        for row in table.prices
        if not burstable(row) and row.accelerator_count == len(gpus) and {row.hardware} == kinds
    ]


def _fallback_price(table: PriceTable, machine: Machine, needed_bytes: int) -> Price | str:
    fitting = [
        row
        for row in _with_gpus_of(table, machine)
        if row.vcpus >= machine.cpu.num_logical and row.memory_gib * _GIB >= needed_bytes
    ]
    needs = f"{_gpu_words(_gpu_names(table, machine))}, at least {machine.cpu.num_logical} logical CPUs" + (
        f" and {needed_bytes / _GIB:.1f} GiB of memory" if needed_bytes else ""
    )
    if not fitting:
        give = "give --usd-per-hour (such as --usd-per-hour 1.20), or --instance with the name of a row"
        return f"no row of the price table has {needs}: {give}"
    cheapest = min(fitting, key=lambda row: row.usd_per_hour_on_demand)
    return _as_price(table, cheapest, "assumed", f"stand-in: the cheapest on-demand row, not burstable, with {needs}")


def _as_price(table: PriceTable, row: PriceRow, basis: PriceSource, note: str | None) -> Price:
    billing = next((one for one in table.billing if one.provider == row.provider), None)
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


def _disagreement(table: PriceTable, row: PriceRow, machine: Machine) -> str | None:
    """Say where a machine is not what its row lists; None where it is."""
    seen = _gpu_names(table, machine)
    # A row that does not say which GPU it has can be told by their number alone.
    listed = [row.hardware or (seen[0] if seen else row.accelerator or "")] * row.accelerator_count
    if listed == seen and row.vcpus == machine.cpu.num_logical:
        return None
    return (
        f"{row.instance_type} has {_gpu_words(listed)} and {row.vcpus} logical CPUs; "
        f"seen: {_gpu_words(seen)} and {machine.cpu.num_logical} logical CPUs"
    )


def _gpu_names(table: PriceTable, machine: Machine) -> list[str]:
    """By hardware.csv's names where it knows them, else by NVML's."""
    found = [(find_hardware(table, gpu.name), gpu.name) for gpu in machine.gpus]
    return [row.name if row else name for row, name in found]


def _gpu_words(names: Sequence[str]) -> str:
    return " and ".join(f"{count} x {name}" for name, count in Counter(names).items()) or "no GPU"
