"""The commands about machines: this one, what of it would spoil a benchmark, and what others cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from harness.cli import console
from harness.cli.console import EXIT_SPOILT
from harness.cli.lookups import cloud_detector, find_price, read_stated
from harness.cli.options import DEFAULT_RESULTS, AsJson, Detect, Instance, Offline, OwnPrices, Region, ResultsPath
from harness.errors import Unavailable, UserError

if TYPE_CHECKING:
    from harness.pricing.prices import Price
    from harness.schema.host_record import DetectedInstance, Gpu

app = typer.Typer()


@app.command(epilog="Example: harness machine --json")
def machine(
    *,
    instance: Instance = None,
    region: Region = None,
    prices: OwnPrices = None,
    detect: Detect = False,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Say what this computer is, what it would be priced as, and why."""
    from harness.machine.describe import describe_machine, package_version

    stated, ask = read_stated(instance, region, prices), cloud_detector(detect=detect, offline=offline)
    here = describe_machine()
    detected = ask(here)
    found = find_price(here, prices, stated=stated, detected=detected)
    versions = {name: package_version(name) for name in ("torch", "transformers")}
    if as_json:
        price = found.reason if isinstance(found, Unavailable) else vars(found) | {"age_days": found.age_days}
        told = None if detected is None else detected.model_dump()
        console.print_json(here.model_dump(mode="json") | {"price": price, "detected": told, "versions": versions})
        return
    table = Table.grid(padding=(0, 2))
    gib = 2**30
    limit = f", limited to {here.memory_limit_bytes / gib:.1f} GiB" if here.memory_limit_bytes else ""
    rows = {
        "machine": here.id,
        "CPU": f"{here.cpu.model}: {here.cpu.num_usable} of {here.cpu.num_logical} logical CPUs usable",
        "instructions": " ".join(here.cpu.flags) or "not known",
        "memory": f"{here.memory_bytes / gib:.1f} GiB{limit}",
        "GPUs": "\n".join(_gpu_line(gpu) for gpu in here.gpus) or f"none ({here.gpu_note})",
        "cloud": f"{here.cloud_vendor} {here.cloud_product}" if here.cloud_vendor else "not detected",
        "metadata": _detected_line(detected),
        "system": f"{here.system} {here.kernel}, Python {here.python}, {here.allocator}",
        "packages": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "priced as": _price_line(found),
    }
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", escape(value))
    console.out.print(table, highlight=False)


@app.command(epilog="Example: harness doctor --quick || exit 1")
def doctor(
    *,
    results: ResultsPath = DEFAULT_RESULTS,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the calibration of 20 seconds.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what of this machine would spoil a benchmark, and how to mend it. Exit status 1 if anything is `bad`."""
    from harness.cli.views import doctor as doctor_screen
    from harness.workflows.doctor import examine

    found = examine(results, calibrated=not quick)
    if as_json:
        console.print_json(found.as_fields())
    else:
        doctor_screen.show_diagnosis(console.out, found)
    if found.verdict == "bad":
        raise typer.Exit(EXIT_SPOILT)


@app.command(epilog="Examples: harness prices --gpu A100 --max-usd 3; harness prices g5.xlarge; harness prices refresh")
def prices(
    instance: Annotated[
        str | None,
        typer.Argument(
            metavar="[INSTANCE|refresh]",
            help="All that is known of one instance type; or `refresh`: put the live prices that the filters let through "
            "into your own table, by gpuhunt (extra `prices`; needs a network, and no key).",
            show_default=False,
        ),
    ] = None,
    *,
    gpu: Annotated[str | None, typer.Option(help="A GPU, such as A100; `none`: machines without.")] = None,
    max_usd: Annotated[float | None, typer.Option(min=0, help="At most so many USD an hour.")] = None,
    provider: Annotated[str | None, typer.Option(help="aws, gcp, azure, ...")] = None,
    region: Annotated[str | None, typer.Option(help="One region alone.")] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="At least so many logical CPUs.")] = None,
    memory_gib: Annotated[float | None, typer.Option(min=0, help="At least so much main memory.")] = None,
    spot: Annotated[bool, typer.Option("--spot", help="By the spot price, where one is known.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the price table, cheapest first.

    Your own table (same columns as bench/prices.csv) stands beside the shipped one; the newer of two rows counts. It is
    the file that HARNESS_PRICES names, else ~/.config/bert-cost-harness/prices.csv.
    """
    from harness.cli.views import price_table as price_screen
    from harness.pricing.price_search import PriceQuery, find_instance, search
    from harness.pricing.price_table import load_prices, own_table_path

    table = load_prices()
    named = None if instance == "refresh" else instance
    wanted = PriceQuery(named, gpu, max_usd, provider, region, cpus, memory_gib, spot)
    if instance == "refresh":
        from harness.pricing.price_catalog import refresh

        done = refresh(own_table_path(), table, wanted.matches)
        for complaint in done.complaints:
            console.err.print(f"[yellow]gpuhunt:[/] {escape(complaint)}", soft_wrap=True, highlight=False)
        console.out.print(
            f"{done.num_new} prices of today in {done.path}; {done.num_kept} older rows kept, "
            f"{done.num_left_out} instance types without an on-demand price or a size left out.",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        return
    if instance is not None and isinstance(row := find_instance(table, instance), Unavailable):
        raise UserError(row.reason)
    rows = search(table, wanted)
    if as_json:
        console.print_json(price_screen.as_fields(rows, table))
    elif instance is None:
        price_screen.list_prices(console.out, rows, wanted, table)
    else:
        price_screen.show_prices(console.out, rows, table)


def _gpu_line(gpu: Gpu) -> str:
    memory = f", {gpu.memory_bytes / 2**30:.1f} GiB" if gpu.memory_bytes else ""
    return f"{gpu.name}{memory}, driver {gpu.driver or 'not known'}"


def _price_line(found: Price | Unavailable) -> str:
    from harness.pricing.price_rows import age_words

    if isinstance(found, Unavailable):
        return f"no price: {found.reason}"
    place = " ".join(part for part in (found.provider, found.instance) if part)
    region = f" in {found.region}" if found.region else ""
    where = f"{place}{region}, " if found.instance else ""
    dated = "; ".join(part for part in (found.as_of or "now", age_words(found.age_days), found.source) if part)
    more = "".join(f"\n{line}" for line in (found.paid, found.note) if line)
    return f"{where}{found.usd_per_hour:g} USD an hour, {found.basis} ({dated}){more}"


def _detected_line(detected: DetectedInstance | None) -> str:
    if detected is None:
        return "nothing told (--detect asks the services of EC2, GCE and Azure)"
    kind = {True: ", spot", False: ", on demand", None: ""}[detected.is_spot]
    return f"{detected.vendor} {detected.instance}" + (f" in {detected.region}" if detected.region else "") + kind
