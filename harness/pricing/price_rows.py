"""Validated row models of the price, hardware, CPU and billing tables, and the age of a price."""

from __future__ import annotations

import calendar
import difflib
import functools
import math
import re
from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ValidationInfo, field_validator

from harness.schema.host_record import BF16_FLAGS
from harness.schema.settings import Settings

CpuVendor = Literal["amd", "intel", "arm"]

STALE_DAYS = 90  # older prices get a warning

# Placeholders for unknown values; they are rejected, since they would otherwise pass as prices or sizes.
_PLACEHOLDERS = frozenset({999.0, 9999.0, 99999.0})
_DAY = re.compile(r"(\d{4})-(\d\d)(?:-(\d\d))?")


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
    return None if value in ("", None) else _positive(value)


def _past(as_of: str, info: ValidationInfo) -> str:
    """Check that a day or month is not in the future; a month counts from its first day."""
    today = (info.context or {})["today"]
    if _DAY.fullmatch(as_of) is None:
        raise ValueError("a date as YYYY-MM or YYYY-MM-DD")
    try:
        first = date.fromisoformat(as_of if len(as_of) > len("2026-07") else f"{as_of}-01")
    except ValueError:
        raise ValueError("a date as YYYY-MM or YYYY-MM-DD") from None
    if first > today:
        raise ValueError(f"a date not after today, {today}")
    return as_of


def _known(hardware: str | None, info: ValidationInfo) -> str | None:
    names = (info.context or {})["hardware"]
    if hardware is not None and hardware not in names:
        near = _nearest(hardware, names)
        raise ValueError("empty, or a name in hardware.csv" + (f" (did you mean {near!r}?)" if near else ""))
    return hardware


def _expression(match: str) -> str:
    try:
        re.compile(match)
    except re.error as error:
        raise ValueError(f"a regular expression ({error})") from None
    return match


def _flags(value: object) -> frozenset[str]:
    flags = frozenset(str(value).split())
    if unknown := sorted(flags - BF16_FLAGS):
        raise ValueError(f"empty, or of {', '.join(sorted(BF16_FLAGS))}; not {', '.join(unknown)}")
    return flags


Text = Annotated[str, BeforeValidator(_text)]
AsOf = Annotated[str, BeforeValidator(_text), AfterValidator(_past)]
Expression = Annotated[str, BeforeValidator(_text), AfterValidator(_expression)]
OptionalText = Annotated[str | None, BeforeValidator(_optional)]
Hardware = Annotated[str, BeforeValidator(_text), AfterValidator(_known)]
OptionalHardware = Annotated[str | None, BeforeValidator(_optional), AfterValidator(_known)]
Positive = Annotated[float, BeforeValidator(_positive)]
OptionalPositive = Annotated[float | None, BeforeValidator(_positive_or_empty)]
Whole = Annotated[int, BeforeValidator(_count)]
PositiveCount = Annotated[int, BeforeValidator(_positive_count)]


class HardwareRow(Settings):
    """One GPU model; peaks are dense (without sparsity), and None if the GPU lacks the precision.

    Attributes:
        match: Regular expression to search for in an NVML name, ignoring case.
    """

    name: Text
    match: Expression
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


class BillingRow(Settings):
    """A provider's billing rule: whole units of `granularity_s`, at least `minimum_s` per order."""

    provider: Text
    granularity_s: Positive
    minimum_s: Whole
    as_of: AsOf
    source: Text


class CpuRow(Settings):
    """The CPU of a provider's instance family.

    Attributes:
        match: Regular expression that the family's instance types match in full.
        cpu: Generation, such as Sapphire Rapids.
        bf16_flags: Its instructions for bf16, as /proc/cpuinfo names them; empty if it has none, or they are not known.
    """

    provider: Text
    match: Expression
    vendor: CpuVendor
    cpu: Text
    bf16_flags: Annotated[frozenset[str], BeforeValidator(_flags)]
    source: Text

    def describes(self, row: PriceRow) -> bool:
        """Return True if a price row's instance type is of this family."""
        return self.provider == row.provider and re.fullmatch(self.match, row.instance_type) is not None


class PriceRow(Settings):
    """One instance type in one region.

    Attributes:
        accelerator: The provider's name of the GPU; None without a GPU.
        hardware: The GPU's name in hardware.csv; None without a GPU, or if the provider doesn't name the model.
        as_of: Month or day of the price.
    """

    provider: Text
    instance_type: Text
    region: Text
    accelerator: OptionalText
    hardware: OptionalHardware
    accelerator_count: Whole
    accelerator_memory_gib: OptionalPositive
    vcpus: PositiveCount
    memory_gib: Positive
    usd_per_hour_on_demand: Positive
    usd_per_hour_spot: OptionalPositive
    as_of: AsOf
    source: Text

    @property
    def key(self) -> tuple[str, str, str]:
        """Unique key of the row in a table."""
        return self.provider, self.instance_type, self.region

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


# Cached because a table with the same wrong name in every row would search for its nearest name thousands of times.
@functools.lru_cache(maxsize=1024)
def _nearest(name: str, names: frozenset[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, sorted(names), n=1)), None)


def last_day(as_of: str) -> date:
    """Return the date of a price; for a month, its last day."""
    year, month, *day = (int(part) for part in as_of.split("-"))
    return date(year, month, day[0] if day else calendar.monthrange(year, month)[1])


def days_old(as_of: str, today: date) -> int:
    """Return the whole days since a price's date; 0 during its month."""
    return max(0, (today - last_day(as_of)).days)


def age_words(age_days: int | None) -> str:
    """Format a price's age, with a warning after STALE_DAYS; empty if unknown."""
    if age_days is None:
        return ""
    old = f"{age_days} day{'' if age_days == 1 else 's'} old"
    return f"{old}, more than {STALE_DAYS}: look it up anew" if age_days > STALE_DAYS else old
