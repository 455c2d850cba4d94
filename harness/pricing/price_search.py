"""Rows of the price and hardware tables: by name, and by what they must have (pure)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from harness.errors import Unavailable, UserError
from harness.pricing.price_rows import HardwareRow, PriceRow
from harness.pricing.price_table import PriceTable
from harness.schema.settings import Precision

NO_GPU = "none"
# Instances whose CPUs run at full speed on credit alone: their price per hour buys no hour of training.
_BURSTABLE = re.compile(
    r"(ml\.)?t(2|3|3a|4g)\..+"  # AWS and SageMaker T family
    r"|e2-(micro|small|medium)|f1-micro|g1-small"  # Google's shared cores
    r"|(Standard|Basic)_B\d+.*"  # Azure's B series
)


@dataclass(frozen=True)
class PriceQuery:
    """What a row must have; None asks nothing.

    Attributes:
        instance: The type.
        gpu: A word of the accelerator's or the GPU's name, such as A100 (which A10 does not match); `none`: no GPU.
        max_usd_per_hour: On demand, or of spot where that is asked for.
        provider: As the table names it.
        region: As the table names it.
        num_cpus: At least.
        memory_gib: At least.
        spot: Only rows with a spot price, by which they are then limited and ordered.
    """

    instance: str | None = None
    gpu: str | None = None
    max_usd_per_hour: float | None = None
    provider: str | None = None
    region: str | None = None
    num_cpus: int | None = None
    memory_gib: float | None = None
    spot: bool = False

    def takes(self, row: PriceRow) -> bool:
        """Whether a row has all of it."""
        hourly = self.usd_per_hour(row)
        return (
            hourly is not None
            and (self.max_usd_per_hour is None or hourly <= self.max_usd_per_hour)
            and self.instance in (None, row.instance_type)
            and self.provider in (None, row.provider)
            and self.region in (None, row.region)
            and (self.num_cpus is None or row.vcpus >= self.num_cpus)
            and (self.memory_gib is None or row.memory_gib >= self.memory_gib)
            and (self.gpu is None or _has_gpu(row, self.gpu))
        )

    def usd_per_hour(self, row: PriceRow) -> float | None:
        """The price that counts; None where the row has none."""
        return row.usd_per_hour_spot if self.spot else row.usd_per_hour_on_demand


def _has_gpu(row: PriceRow, gpu: str) -> bool:
    if gpu.lower() == NO_GPU:
        return row.accelerator_count == 0
    # Whole words: A10 is neither A100 nor A10G, and L4 is not L40S. RTX 4090 and RTX4090 are one.
    word = "[ _-]?".join(re.escape(part) for part in re.findall(r"[a-z0-9.]+", gpu, re.IGNORECASE))
    pattern = re.compile(rf"(?<![a-z0-9]){word}(?![a-z0-9])", re.IGNORECASE)
    return any(pattern.search(name) is not None for name in (row.accelerator, row.hardware) if name)


def search(table: PriceTable, wanted: PriceQuery) -> list[PriceRow]:
    """The rows that have all that is wanted, cheapest first.

    Raises:
        UserError: When there is none, with what the table has.
    """
    found = [row for row in table.prices if wanted.takes(row)]
    if not found:
        raise UserError(f"no row of the price table has all of that; {_has(table, wanted)}")
    return sorted(found, key=lambda row: (wanted.usd_per_hour(row) or 0.0, row.key))


def _has(table: PriceTable, wanted: PriceQuery) -> str:
    """What could have been asked for: the values of the first filter that nothing in the table passes."""
    alone = (
        ("GPUs", PriceQuery(gpu=wanted.gpu), _words(row.accelerator for row in table.prices)),
        ("providers", PriceQuery(provider=wanted.provider), _words(row.provider for row in table.prices)),
        ("regions", PriceQuery(region=wanted.region), _words(row.region for row in table.prices)),
    )
    for name, filter_alone, words in alone:
        if not any(filter_alone.takes(row) for row in table.prices):
            return f"its {name}: {words}"
    return f"leave out one of the filters (it has {len(table.prices)} rows)"


def _words(names: Iterable[str | None]) -> str:
    return ", ".join(sorted({name for name in names if name}))


def hardware_of(table: PriceTable, row: PriceRow) -> HardwareRow | None:
    """The facts of a row's GPU; None where it has none, or the hardware table does not know it."""
    return next((one for one in table.hardware if one.name == row.hardware), None)


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


def find_instance(table: PriceTable, name: str, region: str | None = None) -> PriceRow | Unavailable:
    """Look up an instance type in a region, or its cheapest row if `region` is None."""
    rows = [row for row in table.prices if row.instance_type == name]
    if not rows:
        names = sorted({row.instance_type for row in table.prices})
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else "add its row to prices.csv"
        return Unavailable(f"no instance {name!r} in the price table: {hint} (or give --usd-per-hour)")
    if region is None:
        return min(rows, key=lambda row: row.usd_per_hour_on_demand)
    there = [row for row in rows if row.region == region]
    if not there:
        known = ", ".join(sorted({row.region for row in rows}))
        return Unavailable(f"no price of {name} in region {region!r}: the table has {known} (or give --usd-per-hour)")
    return min(there, key=lambda row: row.usd_per_hour_on_demand)
