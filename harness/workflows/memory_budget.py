"""Memory that a cell may use: of this machine or of an instance type, and which instance types a cell fits on."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from harness.errors import Unavailable, UserError
from harness.pricing.price_rows import PriceRow
from harness.pricing.price_search import burstable, find_instance
from harness.pricing.price_table import PriceTable, load_prices
from harness.schema.host_record import Machine

GIB = 2**30
# Assumed: memory used beside the cell, by a system without a desktop and by the harness's own parent process.
SYSTEM_BYTES = GIB // 2


@dataclass(frozen=True)
class MemoryBudget:
    """The memory that a cell may use.

    Attributes:
        description: Where the figure comes from, as text for people.
        cap: Whether trials run under a memory cap of this size; not needed for this machine's own memory.
    """

    num_bytes: int
    description: str
    cap: bool


@dataclass(frozen=True)
class InstanceFit:
    """An instance type with enough memory.

    Attributes:
        gpu: Name of its GPU if the cell would run there; GPU memory is predicted and was never checked.
    """

    instance: str
    provider: str
    region: str
    usd_per_hour: float
    memory_gib: float
    gpu: str | None
    predicted_bytes: int


def choose_budget(*, on_gpu: bool, machine: Machine, memory_gib: float | None, instance: str | None) -> MemoryBudget:
    """Choose the memory budget: as given, an instance type's, or this machine's.

    Args:
        on_gpu: Whether the cell runs on a GPU; the budget is then GPU memory.
        machine: This machine.
        memory_gib: The user's budget (`--memory-gib`); None if not given.
        instance: The user's instance type of the price table (`--instance`); None if not given.

    Raises:
        UserError: If both options are given, or if the instance type or its GPU memory is unknown.
    """
    if memory_gib is not None and instance is not None:
        raise UserError("--memory-gib and --instance: give only one of them")
    if memory_gib is not None:
        return MemoryBudget(round(memory_gib * GIB), f"{memory_gib:g} GiB", cap=True)
    reserved, note = (0, "") if on_gpu else (SYSTEM_BYTES, f" less {SYSTEM_BYTES / GIB:g} GiB for the system (assumed)")
    if instance is not None:
        table = load_prices()
        row = find_instance(table, instance)
        if isinstance(row, Unavailable):
            raise UserError(f"--instance {instance}: {row.reason}")
        size = gpu_memory_gib(table, row) if on_gpu else row.memory_gib
        if size is None:
            raise UserError(f"--instance {instance}: the price table lacks its GPU's memory; give --memory-gib")
        name = f"{row.accelerator} of {instance}" if on_gpu else instance
        return MemoryBudget(round(size * GIB) - reserved, f"{name}, {size:g} GiB{note}", cap=True)
    if on_gpu:
        size_bytes = machine.gpus[0].memory_bytes if machine.gpus else None
        if size_bytes is None:
            raise UserError("this machine has no GPU of known memory; give --memory-gib or --instance")
        return MemoryBudget(size_bytes, f"this machine's {machine.gpus[0].name}", cap=False)
    free = min(psutil.virtual_memory().available, machine.memory_limit_bytes or machine.memory_bytes)
    return MemoryBudget(free - reserved, f"this machine, {free / GIB:.1f} GiB free now{note}", cap=False)


def find_instance_fits(table: PriceTable, *, cpu_bytes: int, gpu_bytes: int) -> tuple[InstanceFit, ...]:
    """List instance types with enough memory, cheapest first, each in its cheapest region.

    Burstable instance types are left out.

    Args:
        table: The price table.
        cpu_bytes: Memory needed on a machine without GPUs.
        gpu_bytes: Memory needed on one GPU of a machine with GPUs.
    """
    fits: dict[tuple[str, str], InstanceFit] = {}
    for row in sorted(table.prices, key=lambda row: row.usd_per_hour_on_demand):
        has_gpu = row.accelerator_count > 0
        needed, size = (gpu_bytes, gpu_memory_gib(table, row)) if has_gpu else (cpu_bytes, row.memory_gib)
        reserved = 0 if has_gpu else SYSTEM_BYTES
        if burstable(row) or size is None or size * GIB - reserved < needed:
            continue
        fit = InstanceFit(
            instance=row.instance_type,
            provider=row.provider,
            region=row.region,
            usd_per_hour=row.usd_per_hour_on_demand,
            memory_gib=size,
            gpu=row.accelerator if has_gpu else None,
            predicted_bytes=needed,
        )
        fits.setdefault((row.provider, row.instance_type), fit)
    return tuple(fits.values())


def gpu_memory_gib(table: PriceTable, row: PriceRow) -> float | None:
    """Return the memory of one GPU of an instance type: the provider's figure or the driver's, which is smaller."""
    reported = next((gpu.memory_gib for gpu in table.hardware if gpu.name == row.hardware), None)
    return min((size for size in (reported, row.accelerator_memory_gib) if size is not None), default=None)
