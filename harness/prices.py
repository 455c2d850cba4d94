"""The dated price table, overrides, and look-up by machine."""

from __future__ import annotations

import csv
import difflib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ValidationError, ValidationInfo, field_validator

from harness.assumptions import Plan
from harness.errors import UserError, mistakes
from harness.record import Machine, Stated
from harness.settings import Precision, Settings
from harness.study import describe

if TYPE_CHECKING:
    from harness.statistics import Summary

Basis = Literal["given", "stated", "detected", "assumed"]

_GIB = 2**30
# What tables hold where nobody knew: such a price or size would pass for a measured one.
_PLACEHOLDERS = frozenset({999.0, 9999.0, 99999.0})
_MOST_CHOICES = 60  # a longer list helps nobody choose
# Instances whose CPUs run at full speed on credit alone: their price per hour buys no hour of training.
_BURSTABLE = re.compile(
    r"(ml\.)?t(2|3|3a|4g)\..+"  # AWS and SageMaker T family
    r"|e2-(micro|small|medium)|f1-micro|g1-small"  # Google's shared cores
    r"|(Standard|Basic)_B\d+.*"  # Azure's B series
)


def _text(value: object) -> object:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("text, not empty")
    return value


def _optional(value: object) -> object:
    return None if value == "" else value


def _positive(value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        raise ValueError("a number above 0") from None
    if not (0 < number < math.inf) or number in _PLACEHOLDERS:
        raise ValueError("a number above 0, and no placeholder such as 999")
    return number


def _count(value: object) -> int:
    if not re.fullmatch(r"\d+", str(value)):
        raise ValueError("a whole number")
    return int(str(value))


def _positive_count(value: object) -> int:
    number = _positive(value)
    if not number.is_integer():
        raise ValueError("a whole number")
    return int(number)


def _positive_or_empty(value: object) -> float | None:
    return None if value == "" else _positive(value)


Text = Annotated[str, BeforeValidator(_text)]
OptionalText = Annotated[str | None, BeforeValidator(_optional)]
Positive = Annotated[float, BeforeValidator(_positive)]
OptionalPositive = Annotated[float | None, BeforeValidator(_positive_or_empty)]
Whole = Annotated[int, BeforeValidator(_count)]


class HardwareRow(Settings):
    """One GPU model; peaks are dense, without sparsity, and None where it has no such units.

    Attributes:
        match: Regular expression, searched in NVML's name without regard to case.
    """

    name: Text
    match: Text
    kind: Literal["gpu"]
    memory_gib: Positive
    memory_bandwidth_gb_per_s: Positive
    peak_fp32_tflops: Positive
    peak_tf32_tflops: OptionalPositive
    peak_bf16_tflops: OptionalPositive
    peak_fp16_tflops: OptionalPositive
    tdp_watts: Positive
    source: Text
    note: OptionalText

    @field_validator("match", mode="after")
    @classmethod
    def _compiles(cls, match: str) -> str:
        try:
            re.compile(match)
        except re.error as error:
            raise ValueError(f"a regular expression ({error})") from None
        return match


class PriceRow(Settings):
    """One instance type in one region.

    Attributes:
        accelerator: The provider's word for its GPU; None without one.
        hardware: The GPU's name in hardware.csv; None without a GPU, or where the provider names none.
        as_of: Month or day of the price.
    """

    provider: Text
    instance_type: Text
    region: Text
    accelerator: OptionalText
    hardware: OptionalText
    accelerator_count: Whole
    accelerator_memory_gib: OptionalPositive
    vcpus: Annotated[int, BeforeValidator(_positive_count)]
    memory_gib: Positive
    usd_per_hour_on_demand: Positive
    usd_per_hour_spot: OptionalPositive
    as_of: Text
    source: Text

    @field_validator("hardware", mode="after")
    @classmethod
    def _known(cls, hardware: str | None, info: ValidationInfo) -> str | None:
        names = (info.context or {})["hardware"]
        if hardware is not None and hardware not in names:
            near = difflib.get_close_matches(hardware, names, n=1)
            raise ValueError("empty, or a name in hardware.csv" + (f" (did you mean {near[0]!r}?)" if near else ""))
        return hardware

    @field_validator("accelerator_count", mode="after")
    @classmethod
    def _counted(cls, count: int, info: ValidationInfo) -> int:
        if (count > 0) != (info.data.get("accelerator") is not None):
            raise ValueError("0 without an accelerator, 1 or more with one")
        return count

    @field_validator("usd_per_hour_spot", mode="after")
    @classmethod
    def _below_on_demand(cls, spot: float | None, info: ValidationInfo) -> float | None:
        on_demand = info.data.get("usd_per_hour_on_demand")
        if spot is not None and on_demand is not None and spot >= on_demand:
            raise ValueError(f"less than on demand ({on_demand:g})")
        return spot

    @field_validator("as_of", mode="after")
    @classmethod
    def _dated(cls, as_of: str, info: ValidationInfo) -> str:
        today = (info.context or {})["today"]
        try:
            day = date.fromisoformat(as_of if len(as_of) > len("2026-07") else f"{as_of}-01")
        except ValueError:
            raise ValueError("a date as YYYY-MM or YYYY-MM-DD") from None
        if not re.fullmatch(r"\d{4}-\d\d(-\d\d)?", as_of):
            raise ValueError("a date as YYYY-MM or YYYY-MM-DD")
        if day > today:
            raise ValueError(f"a date not after today, {today}")
        return as_of


Row = TypeVar("Row", HardwareRow, PriceRow)


@dataclass(frozen=True)
class PriceTable:
    """Both tables, checked, in their files' order."""

    prices: tuple[PriceRow, ...]
    hardware: tuple[HardwareRow, ...]


@dataclass(frozen=True)
class Price:
    """What an hour of a machine costs, and how we know.

    Attributes:
        usd_per_hour: Of a useful hour, under the plan.
        basis: `given`: --usd-per-hour; `stated`: the user named the instance; `detected`: the firmware did;
            `assumed`: a stand-in, the cheapest row that covers the machine.
        note: Where stated and seen hardware disagree, or why the stand-in was chosen; None if nothing to say.
        usd_per_hour_listed: On demand, as the table has it.
        usd_per_hour_on_demand, usd_per_hour_spot: After discounts and contracts; None where not known.
        granularity_s, minimum_s: The provider bills whole units of this many seconds, and so many at least.
        paid: How `usd_per_hour` follows from the table's price, in words; None where it is that price.
    """

    usd_per_hour: float
    instance: str | None
    provider: str | None
    region: str | None
    basis: Basis
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


def tables_folder() -> Path:
    """Folder of the shipped tables and studies: the wheel's harness/tables, else the checkout's bench/."""
    packed = Path(__file__).parent / "tables"
    return packed if packed.is_dir() else Path(__file__).resolve().parent.parent / "bench"


def load_prices(folder: Path | None = None, *, today: date | None = None) -> PriceTable:
    """Read prices.csv and hardware.csv of a folder (default: those that are shipped).

    No price may be dated after `today` (default: UTC's), and each names its GPU as hardware.csv does.

    Raises:
        UserError: With every mistake of a file, each with its line number.
    """
    folder = folder or tables_folder()
    hardware = _load(folder / "hardware.csv", HardwareRow, ("name",), {})
    context = {
        "hardware": frozenset(row.name for row in hardware),
        "today": today or datetime.now(UTC).date(),
    }
    return PriceTable(
        _load(folder / "prices.csv", PriceRow, ("provider", "instance_type", "region"), context), hardware
    )


def _load(path: Path, model: type[Row], key: tuple[str, ...], context: Mapping[str, Any]) -> tuple[Row, ...]:
    rows: list[Row] = []
    problems: list[str] = []
    first_seen: dict[tuple[str, ...], int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            problems += _check_header(reader.fieldnames or (), model)
            for fields in () if problems else reader:
                line = f"line {reader.line_num}"
                # DictReader keeps fields beyond the header under None, and fills missing ones with None.
                if None in fields or None in fields.values():
                    problems.append(f"{line}: not as many fields as the header has ({len(model.model_fields)})")
                    continue
                name = tuple(fields[column] for column in key)
                if name in first_seen:
                    problems.append(f"{line}: {' '.join(name)} stands in line {first_seen[name]} already")
                first_seen.setdefault(name, reader.line_num)
                try:
                    rows.append(model.model_validate(fields, context=dict(context)))
                except ValidationError as error:
                    problems += [f"{line}: {problem}" for problem in describe(error, model)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: can't be read: {error}") from None
    if problems:
        raise mistakes(path, problems)
    return tuple(rows)


def _check_header(found: Sequence[str], model: type[Settings]) -> list[str]:
    missing = [name for name in model.model_fields if name not in found]
    unknown = [name for name in found if name not in model.model_fields]
    problems = [f"line 1: missing columns: {', '.join(missing)}"] if missing else []
    return problems + ([f"line 1: unknown columns: {', '.join(unknown)}"] if unknown else [])


def burstable(row: PriceRow) -> bool:
    """Whether it runs at full speed on credit alone, so that its price stands for no steady hour."""
    return _BURSTABLE.fullmatch(row.instance_type) is not None


def find_hardware(table: PriceTable, gpu_name: str) -> HardwareRow | None:
    """Look up a GPU by the name that NVML gives it."""
    return next((row for row in table.hardware if re.search(row.match, gpu_name, re.IGNORECASE)), None)


def gpu_peak_flops(table: PriceTable, gpu_name: str, precision: Precision) -> float | None:
    """Dense peak of one GPU in FLOP/s at a precision; None where the GPU or its peak is not in the table."""
    # An instance of a GPU that MIG has divided is named after the whole, and has a part of its peak.
    found = None if " MIG " in gpu_name else find_hardware(table, gpu_name)
    tflops: float | None = getattr(found, f"peak_{precision}_tflops", None)
    return None if tflops is None else tflops * 1e12


def find_instance(table: PriceTable, name: str, region: str | None = None) -> PriceRow | str:
    """Look up an instance type; without a region the cheapest of its rows.

    Returns:
        The row, or what is wrong and what is allowed.
    """
    rows = [row for row in table.prices if row.instance_type == name]
    if not rows:
        names = sorted({row.instance_type for row in table.prices})
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else "add its row to prices.csv"
        return f"no instance {name!r} in the price table: {hint} (or give --usd-per-hour)"
    if region is None:
        return min(rows, key=lambda row: row.usd_per_hour_on_demand)
    there = [row for row in rows if row.region == region]
    if not there:
        known = ", ".join(sorted({row.region for row in rows}))
        return f"no price of {name} in region {region!r}: the table has {known} (or give --usd-per-hour)"
    return min(there, key=lambda row: row.usd_per_hour_on_demand)


def price_machine(
    table: PriceTable,
    machine: Machine,
    *,
    stated: Stated | None = None,
    usd_per_hour: float | None = None,
    needed_bytes: int = 0,
) -> Price | str:
    """Price an hour of a machine: as given, else stated, else detected by its firmware, else a stand-in's.

    A stand-in has at least `needed_bytes` of main memory.

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
        if isinstance(found, str):
            return found
        return _as_price(found, "stated", _disagreement(table, found, machine))
    if machine.cloud_vendor is not None and machine.cloud_product is not None:
        detected = find_instance(table, machine.cloud_product)
        if isinstance(detected, PriceRow):
            return _as_price(detected, "detected", _disagreement(table, detected, machine))
    return _stand_in(table, machine, needed_bytes)


def price_finder(
    table: PriceTable,
    summaries: Iterable[Summary],
    *,
    instances: Mapping[str, str] | None = None,
    usd_per_hour: float | Mapping[str, float] | None = None,
) -> Callable[[Summary], Price | str]:
    """Price every machine of `summaries` once, so that all its cells have one price.

    What the newest record with a stated instance says holds for the machine, and a stand-in has the main
    memory that the largest of its cells needed. `instances` (machine id to instance type) overrides what
    records state; `usd_per_hour` (of every machine, or by machine id) overrides all else.

    Returns:
        What gives a summary's price, or says why it has none and what to give.

    Raises:
        UserError: When an override names no machine of `summaries` or no row of `table`.
    """
    from harness.statistics import peak_memory  # scipy's second is not paid by what only looks up a row

    machines: dict[str, list[Summary]] = {}
    for summary in summaries:
        machines.setdefault(summary.machine_id, []).append(summary)
    named = dict(instances or {})
    hourly = usd_per_hour if isinstance(usd_per_hour, Mapping) else dict.fromkeys(machines, usd_per_hour)
    _check_overrides(table, machines, named, hourly)
    found: dict[str, Price | str] = {}
    for machine_id, group in machines.items():
        records = sorted((record for one in group for record in one.records), key=lambda one: one.started_at)
        stated = next((record.stated for record in reversed(records) if record.stated is not None), None)
        if machine_id in named:
            stated = Stated(instance=named[machine_id], region=None)
        found[machine_id] = price_machine(
            table,
            records[-1].machine,
            stated=stated,
            usd_per_hour=hourly.get(machine_id),
            needed_bytes=max(peak_memory(record, "rss") or 0 for record in records),
        )
    return lambda summary: found[summary.machine_id]


def _check_overrides(
    table: PriceTable,
    machines: Iterable[str],
    instances: Mapping[str, str],
    hourly: Mapping[str, float | None],
) -> None:
    known = sorted(machines)
    for machine_id in [*instances, *hourly]:
        if machine_id not in known:
            near = difflib.get_close_matches(machine_id, known, n=3, cutoff=0) or ["none"]
            raise UserError(f"no records of a machine {machine_id!r}; there are those of {', '.join(near)}")
    for machine_id, name in instances.items():
        row = find_instance(table, name)
        if isinstance(row, str):
            raise UserError(f"--instance {machine_id}={name}: {row}")


def choices(table: PriceTable, machine: Machine, own: Price | str) -> tuple[Price | None, ...]:
    """Prices that a reader may put on what a machine measured: its own first, None where it has none.

    Of a machine with GPUs, rows with the same card and number of them, at which the measured seconds are taken to
    hold. Of a CPU machine no other kind of CPU may stand in: a row that covers its CPUs and memory is what its reader
    says that it is. At most the cheapest few, no burstable one.
    """
    gpus = _gpu_names(table, machine)
    kinds: set[str | None] = {*gpus} or {None}
    memory_bytes = machine.memory_limit_bytes or machine.memory_bytes
    fitting = [
        row
        for row in table.prices
        if not burstable(row)
        and row.accelerator_count == len(gpus)
        and {row.hardware} == kinds
        and (gpus or (row.vcpus >= machine.cpu.num_logical and row.memory_gib * _GIB >= memory_bytes))
    ]
    cheapest = sorted(fitting, key=lambda row: row.usd_per_hour_on_demand)[:_MOST_CHOICES]
    others = (_as_price(row, "stated", _disagreement(table, row, machine)) for row in cheapest)
    first = own if isinstance(own, Price) else None
    return first, *(price for price in others if first is None or _place(price) != _place(first))


def _place(price: Price) -> tuple[str | None, ...]:
    return price.provider, price.instance, price.region


def _stand_in(table: PriceTable, machine: Machine, needed_bytes: int) -> Price | str:
    gpus = _gpu_names(table, machine)
    kinds: set[str | None] = {*gpus} or {None}
    fitting = [
        row
        for row in table.prices
        if not burstable(row)
        and row.accelerator_count == len(gpus)
        and {row.hardware} == kinds
        and row.vcpus >= machine.cpu.num_logical
        and row.memory_gib * _GIB >= needed_bytes
    ]
    needs = f"{_gpu_words(gpus)}, at least {machine.cpu.num_logical} logical CPUs" + (
        f" and {needed_bytes / _GIB:.1f} GiB of memory" if needed_bytes else ""
    )
    if not fitting:
        give = "give --usd-per-hour (such as --usd-per-hour 1.20), or --instance with the name of a row"
        return f"no row of the price table has {needs}: {give}"
    cheapest = min(fitting, key=lambda row: row.usd_per_hour_on_demand)
    return _as_price(cheapest, "assumed", f"stand-in: the cheapest on-demand row, not burstable, with {needs}")


def _as_price(row: PriceRow, basis: Basis, note: str | None) -> Price:
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
