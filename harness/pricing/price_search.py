"""Search of the price and hardware tables by name and by filters (pure)."""

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
# Burstable instances run at full speed only while credits last, so their hourly price doesn't cover steady training.
_BURSTABLE = re.compile(
    r"(ml\.)?t(2|3|3a|4g)\..+"  # AWS and SageMaker T family
    r"|e2-(micro|small|medium)|f1-micro|g1-small"  # Google's shared cores
    r"|(Standard|Basic)_B\d+.*"  # Azure's B series
)


@dataclass(frozen=True)
class PriceQuery:
    """Filters on rows of the price table; a filter of None keeps all rows.

    Attributes:
        instance: Instance type.
        gpu: Words of the GPU's name, as the provider or hardware.csv has it, such as A100; `none` for no GPU.
        max_usd_per_hour: Highest price: the spot price if `spot`, else the on-demand price.
        provider: Provider's name in the table.
        region: Region's name in the table.
        num_cpus: Lowest number of CPUs.
        memory_gib: Lowest main memory.
        spot: Keep only rows with a spot price; filter and sort by the spot price.
    """

    instance: str | None = None
    gpu: str | None = None
    max_usd_per_hour: float | None = None
    provider: str | None = None
    region: str | None = None
    num_cpus: int | None = None
    memory_gib: float | None = None
    spot: bool = False

    def matches(self, row: PriceRow) -> bool:
        """Return True if a row passes all filters."""
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
        """Return the price to filter and sort by: spot if `spot`, else on demand; None if the row lacks this price."""
        return row.usd_per_hour_spot if self.spot else row.usd_per_hour_on_demand


def _has_gpu(row: PriceRow, gpu: str) -> bool:
    if gpu.lower() == NO_GPU:
        return row.accelerator_count == 0
    return any(_has_words(name, gpu) for name in (row.accelerator, row.hardware) if name)


def _has_words(name: str, gpu: str) -> bool:
    # Match whole words, so that A10 matches neither A100 nor A10G. A space is optional: RTX 4090 matches RTX4090.
    word = "[ _-]?".join(re.escape(part) for part in re.findall(r"[a-z0-9.]+", gpu, re.IGNORECASE))
    return re.search(rf"(?<![a-z0-9]){word}(?![a-z0-9])", name, re.IGNORECASE) is not None


def search(table: PriceTable, query: PriceQuery) -> list[PriceRow]:
    """Return the rows that match, cheapest first.

    Raises:
        UserError: If no row matches; the message lists values that the table has.
    """
    rows = [row for row in table.prices if query.matches(row)]
    if not rows:
        raise UserError(f"no row of the price table matches all filters; {_suggest(table, query)}")
    return sorted(rows, key=lambda row: (query.usd_per_hour(row) or 0.0, row.key))


def _suggest(table: PriceTable, query: PriceQuery) -> str:
    """Find the first filter that alone matches no row, and list the table's values for it; else advise to drop one."""
    filters = (
        ("GPUs", PriceQuery(gpu=query.gpu), _join(row.accelerator for row in table.prices)),
        ("providers", PriceQuery(provider=query.provider), _join(row.provider for row in table.prices)),
        ("regions", PriceQuery(region=query.region), _join(row.region for row in table.prices)),
    )
    for name, single, values in filters:
        if not any(single.matches(row) for row in table.prices):
            return f"its {name}: {values}"
    return f"leave out one of the filters (it has {len(table.prices)} rows)"


def _join(names: Iterable[str | None]) -> str:
    return ", ".join(sorted({name for name in names if name}))


def hardware_of(table: PriceTable, row: PriceRow) -> HardwareRow | None:
    """Return the hardware row of a price row's GPU; None without a GPU, or if the table lacks the GPU."""
    return None if row.hardware is None else hardware_named(table, row.hardware)


def boards_called(table: PriceTable, row: PriceRow) -> list[HardwareRow]:
    """Return the boards that a provider's word for a GPU may mean, with at least the memory that the row states."""
    size = row.accelerator_memory_gib or 0.0
    named = [board for board in table.hardware if row.accelerator and _has_words(board.name, row.accelerator)]
    return [board for board in named if board.memory_gib >= size]


def hardware_named(table: PriceTable, name: str) -> HardwareRow | None:
    """Return the hardware row of a name that the price table uses; None if the table lacks it."""
    return next((hardware for hardware in table.hardware if hardware.name == name), None)


def burstable(row: PriceRow) -> bool:
    """Return True for instances that run at full speed only while CPU credits last."""
    return _BURSTABLE.fullmatch(row.instance_type) is not None


def find_hardware(table: PriceTable, gpu_name: str) -> HardwareRow | None:
    """Look up a GPU's hardware row by its NVML name; None if the table lacks the GPU."""
    return next((row for row in table.hardware if re.search(row.match, gpu_name, re.IGNORECASE)), None)


def gpu_peak_flops(table: PriceTable, gpu_name: str, precision: Precision) -> float | None:
    """Return the dense peak of one GPU in FLOP/s at a precision; None if the table lacks the peak."""
    # The peak of a MIG instance is unknown: the instance is named after the whole GPU, but has only a part of its peak.
    row = None if " MIG " in gpu_name else find_hardware(table, gpu_name)
    tflops: float | None = getattr(row, f"peak_{precision}_tflops", None)
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
