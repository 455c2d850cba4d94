"""The commands `machine`, `doctor` and `prices`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from harness.cli import console
from harness.cli.command import MACHINE, command
from harness.cli.console import EXIT_BAD_MACHINE
from harness.cli.lookups import MachineOptions
from harness.cli.options import DEFAULT_RESULTS, AsJson, Detect, Instance, Offline, OwnPrices, Region, ResultsPath
from harness.errors import Unavailable, UserError

if TYPE_CHECKING:
    from harness.pricing.prices import Price
    from harness.schema.host_record import DetectedInstance, Gpu

app = typer.Typer()


@command(app, MACHINE, epilog="Example: harness machine --json")
def machine(
    *,
    instance: Instance = None,
    region: Region = None,
    prices: OwnPrices = None,
    detect: Detect = False,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Describe this machine and its hourly price.

    Of the clouds' metadata services only the one that the firmware names is asked, unless --detect asks all.
    """
    from harness.machine.describe import describe_machine, package_version

    options = MachineOptions(instance, region, prices, detect=detect, offline=offline)
    stated, detector = options.stated_instance(), options.detector()
    here = describe_machine()
    detected = detector(here)
    price = options.price(here, stated=stated, detected=detected)
    versions = {name: package_version(name) for name in ("torch", "transformers")}
    if as_json:
        fields = here.model_dump(mode="json") | {
            "price": price.reason if isinstance(price, Unavailable) else vars(price) | {"age_days": price.age_days},
            "detected": None if detected is None else detected.model_dump(),
            "versions": versions,
        }
        console.print_json(fields)
        return
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
        "priced as": _price_line(price),
    }
    console.print_facts(console.out, [(name, escape(value)) for name, value in rows.items()])


@command(app, MACHINE, epilog="Example: harness doctor --quick || exit 1")
def doctor(
    *,
    results: ResultsPath = DEFAULT_RESULTS,
    quick: Annotated[bool, typer.Option("--quick", help="Skip the 20-second calibration.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find what would disturb a benchmark here, and how to fix it. Exit status 1 if anything is `bad`."""
    from harness.cli.views.doctor import show_diagnosis
    from harness.workflows.doctor import examine

    diagnosis = examine(results, with_calibration=not quick)
    if as_json:
        console.print_json(diagnosis.as_fields())
    else:
        show_diagnosis(console.out, diagnosis)
    if diagnosis.verdict == "bad":
        raise typer.Exit(EXIT_BAD_MACHINE)


@command(
    app,
    MACHINE,
    epilog="Examples: harness prices --gpu A100 --max-usd-per-hour 3; harness prices g5.xlarge; harness prices refresh",
)
def prices(
    instance: Annotated[
        str | None,
        typer.Argument(
            metavar="INSTANCE|refresh",
            help="One instance type, with all that is known of it; or `refresh`: fetch today's prices that match the "
            "filters into your own table (needs the extra `prices` and a network).",
            show_default=False,
        ),
    ] = None,
    *,
    gpu: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only with this GPU, such as A100; `none`: without a GPU.")
    ] = None,
    max_usd: Annotated[
        float | None,
        typer.Option("--max-usd-per-hour", "--max-usd", metavar="USD", min=0, help="Highest hourly price."),
    ] = None,
    provider: Annotated[str | None, typer.Option(metavar="NAME", help="Only of aws, gcp, azure, ...")] = None,
    region: Annotated[str | None, typer.Option(metavar="NAME", help="Only in this region.")] = None,
    cpus: Annotated[
        int | None, typer.Option("--min-cpus", "--cpus", metavar="N", min=1, help="Fewest logical CPUs.")
    ] = None,
    memory_gib: Annotated[
        float | None, typer.Option("--min-memory-gib", "--memory-gib", metavar="GIB", min=0, help="Least main memory.")
    ] = None,
    spot: Annotated[bool, typer.Option("--spot", help="Sort and filter by spot price.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the price table, cheapest first.

    Your own table (same columns as bench/prices.csv) extends the shipped one; of two rows for the same instance, the newer
    counts. It is the file named by HARNESS_PRICES, else ~/.config/bert-cost-harness/prices.csv.
    """
    from harness.cli.views import price_table as view
    from harness.pricing.price_search import PriceQuery, find_instance, search
    from harness.pricing.price_table import load_prices, own_table_path

    table = load_prices()
    named = None if instance == "refresh" else instance
    query = PriceQuery(named, gpu, max_usd, provider, region, cpus, memory_gib, spot)
    if instance == "refresh":
        from harness.pricing.price_catalog import refresh

        refreshed = refresh(own_table_path(), table, query.matches)
        for complaint in refreshed.complaints:
            console.print_note(escape(complaint), label="gpuhunt")
        console.print_result(
            f"{refreshed.num_new} prices of today in {refreshed.path}; {refreshed.num_kept} older rows kept, "
            f"{refreshed.num_left_out} instance types without an on-demand price or a size left out.",
            {
                "path": str(refreshed.path), "num_new": refreshed.num_new, "num_kept": refreshed.num_kept,
                "num_left_out": refreshed.num_left_out,
            },
            as_json=as_json,
        )  # fmt: skip
        return
    if instance is not None and isinstance(row := find_instance(table, instance), Unavailable):
        raise UserError(row.reason)
    rows = search(table, query)
    if as_json:
        console.print_json(view.as_fields(rows, table))
    elif instance is None:
        view.list_prices(console.out, rows, query, table)
    else:
        view.show_prices(console.out, rows, table)


def _gpu_line(gpu: Gpu) -> str:
    memory = f", {gpu.memory_bytes / 2**30:.1f} GiB" if gpu.memory_bytes else ""
    return f"{gpu.name}{memory}, driver {gpu.driver or 'not known'}"


def _price_line(price: Price | Unavailable) -> str:
    from harness.pricing.price_rows import age_words

    if isinstance(price, Unavailable):
        return price.reason
    place = " ".join(part for part in (price.provider, price.instance) if part)
    region = f" in {price.region}" if price.region else ""
    where = f"{place}{region}, " if price.instance else ""
    dated = "; ".join(part for part in (price.as_of or "now", age_words(price.age_days), price.source) if part)
    more = "".join(f"\n{line}" for line in (price.paid, price.note) if line)
    return f"{where}{price.usd_per_hour:g} USD an hour, {price.basis_word} price ({dated}){more}"


def _detected_line(detected: DetectedInstance | None) -> str:
    if detected is None:
        return "nothing told (--detect asks the services of EC2, GCE and Azure)"
    kind = {True: ", spot", False: ", on demand", None: ""}[detected.is_spot]
    return f"{detected.vendor} {detected.instance}" + (f" in {detected.region}" if detected.region else "") + kind
