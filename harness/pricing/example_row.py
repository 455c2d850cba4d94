"""Choice of the price table's row that serves as an example price of a machine which is not known to be in the table.

A row is an example only if the measured work could have run on it: the same GPUs; or, without GPUs, the same
architecture, the CPU instructions for bf16 that the machine has, and the nearest number of logical CPUs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import Unavailable
from harness.pricing.price_rows import CpuRow, CpuVendor, PriceRow
from harness.pricing.price_search import burstable, find_hardware
from harness.pricing.price_table import PriceTable
from harness.schema.host_record import BF16_FLAGS, Machine

_GIB = 2**30
_VENDOR_NAMES: dict[CpuVendor, str] = {"amd": "AMD", "intel": "Intel", "arm": "Arm"}
_ENTER_YOURS = "enter yours (such as --usd-per-hour 1.20, or --instance with the name of a row)"


@dataclass(frozen=True)
class ExampleRow:
    """A row of the price table and, as `note`, why it was chosen and how its CPUs differ from the machine's."""

    row: PriceRow
    note: str


def find_example_row(table: PriceTable, machine: Machine, needed_bytes: int) -> ExampleRow | Unavailable:
    """Return the row that comes nearest to the hardware that was used.

    With GPUs it is the cheapest row that has them. Without, it is the row with the fewest logical CPUs that suffice; of
    several, one of the machine's CPU vendor if the table has it, and then the cheapest.

    Args:
        table: The price table.
        machine: The machine to find a row for.
        needed_bytes: Least main memory of the row.
    """
    num_cpus = machine.cpu.num_usable
    fitting = [
        row
        for row in rows_with_gpus_of(table, machine)
        if row.vcpus >= num_cpus and row.memory_gib * _GIB >= needed_bytes and _has_such_cpus(table, row, machine)
    ]
    needs = _needs(table, machine, needed_bytes)
    if not fitting:
        return Unavailable(f"price not known: {_ENTER_YOURS}; no row of the price table has {needs}")
    if machine.gpus:
        nearest = min(fitting, key=lambda row: row.usd_per_hour_on_demand)
        return ExampleRow(nearest, f"example price: the cheapest on-demand row, not burstable, with {needs}")
    vendor = cpu_vendor(machine)
    nearest = min(fitting, key=lambda row: (row.vcpus, _vendor_of(table, row) != vendor, row.usd_per_hour_on_demand))
    note = f"example price: the on-demand row, not burstable, that comes nearest to what was used: {needs}"
    return ExampleRow(nearest, note + _differences(table, nearest, machine))


def cpu_vendor(machine: Machine) -> CpuVendor | None:
    """Return the vendor of a machine's CPU; None if its model doesn't tell."""
    model = machine.cpu.model.lower()
    if "asimd" in machine.cpu.flags or re.search(r"\bapple\b|\barm|aarch64|neoverse", model):
        return "arm"
    return next((vendor for vendor in ("amd", "intel") if vendor in model), None)


def rows_with_gpus_of(table: PriceTable, machine: Machine) -> list[PriceRow]:
    """Return the rows with a machine's GPUs (without GPUs if it has none), except burstable instances."""
    gpus = gpu_names(table, machine)
    kinds: set[str | None] = {*gpus} or {None}
    return [
        row
        for row in table.prices
        if not burstable(row) and row.accelerator_count == len(gpus) and {row.hardware} == kinds
    ]


def gpu_names(table: PriceTable, machine: Machine) -> list[str]:
    """Return the names of the machine's GPUs in hardware.csv, or NVML's names of GPUs that are not in that table."""
    return [row.name if (row := find_hardware(table, gpu.name)) else gpu.name for gpu in machine.gpus]


def count_gpus(names: Sequence[str]) -> str:
    """Format names of GPUs as counts: `2 x NVIDIA A10G`, or `no GPU`."""
    return " and ".join(f"{count} x {name}" for name, count in Counter(names).items()) or "no GPU"


def _has_such_cpus(table: PriceTable, row: PriceRow, machine: Machine) -> bool:
    """Return True if a row without GPUs has the machine's architecture and its instructions for bf16."""
    if machine.gpus:
        return True
    cpu = _cpu_of(table, row)
    is_arm = cpu is not None and cpu.vendor == "arm"
    flags = frozenset[str]() if cpu is None else cpu.bf16_flags
    return is_arm == (cpu_vendor(machine) == "arm") and _bf16_flags(machine) <= flags


def _bf16_flags(machine: Machine) -> frozenset[str]:
    return BF16_FLAGS & frozenset(machine.cpu.flags)


def _cpu_of(table: PriceTable, row: PriceRow) -> CpuRow | None:
    """Return the CPU of an instance type; None if cpus.csv lacks the type."""
    return next((cpu for cpu in table.cpus if cpu.describes(row)), None)


def _vendor_of(table: PriceTable, row: PriceRow) -> CpuVendor | None:
    return None if (cpu := _cpu_of(table, row)) is None else cpu.vendor


def _needs(table: PriceTable, machine: Machine, needed_bytes: int) -> str:
    """Describe the hardware that an example has to have."""
    gpus = count_gpus(gpu_names(table, machine))
    cpus = f"{machine.cpu.num_usable} logical CPU{'s' if machine.cpu.num_usable > 1 else ''}"
    memory = [f"{needed_bytes / _GIB:.1f} GiB of memory"] if needed_bytes else []
    if machine.gpus:
        return ", ".join([gpus, f"at least {cpus}", *memory])
    vendor = cpu_vendor(machine)
    maker = f" ({_VENDOR_NAMES[vendor]})" if vendor else ""
    return ", ".join([gpus, cpus + maker, *sorted(_bf16_flags(machine)), *memory])


def _differences(table: PriceTable, row: PriceRow, machine: Machine) -> str:
    """Describe how an example's CPUs differ from those that were used; empty if they don't."""
    vendor, own = _vendor_of(table, row), cpu_vendor(machine)
    count = [f"{row.vcpus} logical CPUs"] if row.vcpus != machine.cpu.num_usable else []
    other = [f"CPUs of {_VENDOR_NAMES[vendor]}"] if vendor and own and vendor != own else []
    differences = " and ".join(count + other)
    return f"; {row.instance_type} has {differences}" if differences else ""
