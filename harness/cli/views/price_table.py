"""Terminal view and JSON fields of `harness prices`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape

from harness.cli.console import print_facts, print_table, print_text
from harness.cli.layout import columns
from harness.pricing.price_rows import STALE_DAYS, BillingRow, HardwareRow, PriceRow, age_words, days_old
from harness.pricing.price_search import PriceQuery, hardware_of
from harness.pricing.price_table import PriceTable

_MAX_ROWS = 60


def list_prices(console: Console, rows: Sequence[PriceRow], query: PriceQuery, table: PriceTable) -> None:
    """Print one line per row with its age; old prices are highlighted.

    Args:
        console: Where to print.
        rows: Rows of the table that match the query, cheapest first.
        query: The filters and order that the user chose.
        table: The price table.
    """
    ages = [_age_days(row, table) for row in rows]
    lines = []
    for row, age in list(zip(rows, ages, strict=True))[:_MAX_ROWS]:
        spot = "" if row.usd_per_hour_spot is None else f"{row.usd_per_hour_spot:.4f}"
        old = "" if age is None else f"[yellow]{age}[/]" if age > STALE_DAYS else f"{age}"
        lines.append(
            (
                escape(row.instance_type), f"{row.usd_per_hour_on_demand:.4f}", spot, f"{row.vcpus}",
                f"{row.memory_gib:g}", old, escape(f"{row.provider} {row.region}"), escape(_gpus(row)),
            )
        )  # fmt: skip
    names = columns(["instance"], ["USD/h", "spot", "CPUs", "GiB", "days"], ["where", "GPU"])
    print_table(console, names, lines)
    num_old = sum(age is not None and age > STALE_DAYS for age in ages)
    order = "spot price" if query.spot else "on-demand price"
    cut = f" The first {_MAX_ROWS} are shown: narrow it by a filter, or --json." if len(rows) > _MAX_ROWS else ""
    print_text(console, f"\n{len(rows)} of {len(table.prices)} rows, by {order}; days: the price's age.{cut}")
    if num_old:
        print_text(
            console,
            f"[yellow]{num_old} of these prices are more than {STALE_DAYS} days old:[/] look them up anew "
            "(`harness prices refresh`, or a row in your own table).",
        )


def show_prices(console: Console, rows: Sequence[PriceRow], table: PriceTable) -> None:
    """Print everything known about one instance type, region by region."""
    for index, row in enumerate(rows):
        if index:
            print_text(console)
        print_facts(console, [(name, escape(value)) for name, value in _facts(row, table)])


def as_fields(rows: Iterable[PriceRow], table: PriceTable) -> list[dict[str, object]]:
    """Return the rows of `--json`, each with its age, its provider's billing and its GPU's facts."""
    fields = []
    for row in rows:
        billing, gpu = _billing(row, table), hardware_of(table, row)
        fields.append(
            row.model_dump()
            | {"age_days": _age_days(row, table)}
            | {"billing": None if billing is None else billing.model_dump()}
            | {"hardware_facts": None if gpu is None else gpu.model_dump()}
        )
    return fields


def _facts(row: PriceRow, table: PriceTable) -> list[tuple[str, str]]:
    age, billing, gpu = _age_days(row, table), _billing(row, table), hardware_of(table, row)
    spot = row.usd_per_hour_spot
    saving = "" if spot is None else f" ({1 - spot / row.usd_per_hour_on_demand:.0%} less)"
    facts = [
        ("instance", f"{row.instance_type}, {row.provider}, {row.region}"),
        ("on demand", f"{row.usd_per_hour_on_demand:g} USD an hour"),
        ("spot", "not known" if spot is None else f"{spot:g} USD an hour{saving}"),
        ("as of", f"{row.as_of}" + (f", {age_words(age)}" if age is not None else "")),
        ("source", row.source),
        ("machine", f"{row.vcpus} logical CPUs, {row.memory_gib:g} GiB"),
        ("GPU", (_gpus(row) + _gpu_memory(row)) or "none"),
    ]
    if gpu is not None:
        facts += _gpu_facts(gpu)
    elif row.accelerator_count:
        facts.append(("", "which board it is, or what it can do, the hardware table does not know"))
    if billing is None:
        return [*facts, ("billed", "how is not known: by the second is assumed")]
    minimum = f", at least {billing.minimum_s} s" if billing.minimum_s else ""
    unit = "by the second" if billing.granularity_s == 1 else f"in whole units of {billing.granularity_s:g} s"
    return [*facts, ("billed", f"{unit}{minimum} ({billing.source})")]


def _gpu_facts(gpu: HardwareRow) -> list[tuple[str, str]]:
    peaks = [(name, getattr(gpu, f"peak_{name}_tflops")) for name in ("fp32", "tf32", "bf16", "fp16")]
    known_peaks = ", ".join(f"{name} {peak:g}" for name, peak in peaks if peak is not None)
    facts = [
        ("", f"{gpu.name}: {gpu.memory_gib:g} GiB at {gpu.memory_bandwidth_gb_per_s:g} GB/s, {gpu.tdp_watts:g} W"),
        ("", f"dense peaks, TFLOP/s: {known_peaks}"),
        ("", f"source: {gpu.source}"),
    ]
    return [*facts, ("", f"note: {gpu.note}")] if gpu.note else facts


def _gpus(row: PriceRow) -> str:
    return f"{row.accelerator_count} x {row.accelerator}" if row.accelerator_count else ""


def _gpu_memory(row: PriceRow) -> str:
    size = row.accelerator_memory_gib
    return f", {size:g} GiB each" if size is not None and row.accelerator_count else ""


def _age_days(row: PriceRow, table: PriceTable) -> int | None:
    return None if table.today is None else days_old(row.as_of, table.today)


def _billing(row: PriceRow, table: PriceTable) -> BillingRow | None:
    return next((billing for billing in table.billing if billing.provider == row.provider), None)
