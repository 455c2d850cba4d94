"""What the options that several commands share stand for: cells, prices, records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from harness.cli import console
from harness.cli.options import DEFAULT_RESULTS
from harness.errors import Unavailable, UserError

if TYPE_CHECKING:
    from harness.pricing.prices import Price
    from harness.schema.cells import Cell
    from harness.schema.host_record import DetectedInstance, Machine, StatedInstance
    from harness.workflows.priced_records import Priceable


def load_cells(path: Path, overrides: Sequence[str] | None = None) -> list[Cell]:
    """A study's cells; or the one cell of a record, to be run again."""
    from harness.schema.cells import Cell
    from harness.schema.expansion import expand
    from harness.schema.study_file import load_study
    from harness.store.record_files import load_record

    if path.suffix == ".json":
        record = load_record(path)
        return [
            Cell(study=record.study, name=record.cell, repeat=record.repeat, config=record.config, rung=record.rung)
        ]
    return expand(load_study(path, overrides or ()))


def choose_cells(cells: list[Cell], only: list[str] | None) -> list[Cell]:
    """Keep the cells that have every `KEY=VALUE[,VALUE]`; keys are as in a study, or `cell` for the name."""
    for key, values in ((part.partition("=")[0], part.partition("=")[2].split(",")) for part in only or []):
        kept = [cell for cell in cells if _value_of(cell, key) in values]
        if not kept:
            seen = sorted({value for cell in cells if (value := _value_of(cell, key)) is not None})
            allowed = f"its values here: {', '.join(seen)}" if seen else "no cell has this key"
            raise UserError(f"--only {key}={','.join(values)}: no cell is left; {allowed}")
        cells = kept
    return cells


def _value_of(cell: Cell, key: str) -> str | None:
    value: Any = {"cell": cell.name, "repeat": cell.repeat}.get(key)
    if value is None:
        value = cell.config.model_dump()
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    return None if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def find_price(
    machine: Machine,
    prices: Path | None = None,
    *,
    usd_per_hour: float | None = None,
    stated: StatedInstance | None = None,
    detected: DetectedInstance | None = None,
) -> Price | Unavailable:
    """What an hour of a machine costs, as it is paid for; or why that is not known."""
    from harness.pricing.price_table import load_prices
    from harness.pricing.prices import price_machine
    from harness.pricing.rates import price_under_plan
    from harness.schema.assumptions import load_assumptions

    book = load_assumptions(prices).prices
    found = price_machine(
        load_prices(), machine, stated=stated, detected=detected, usd_per_hour=usd_per_hour, book=book
    )
    return price_under_plan(found, book, machine.id)


def read_stated(instance: str | None, region: str | None, prices: Path | None) -> StatedInstance | None:
    """What the user says of the machine, refused before anything runs where neither table nor own rates know it."""
    from harness.pricing.price_search import find_instance
    from harness.pricing.price_table import load_prices
    from harness.schema.assumptions import load_assumptions
    from harness.schema.host_record import StatedInstance

    if instance is None:
        if region is not None:
            raise UserError("--region needs --instance too")
        return None
    found = find_instance(load_prices(), instance, region)
    if isinstance(found, Unavailable) and all(
        rate.instance != instance for rate in load_assumptions(prices).prices.rate
    ):
        raise UserError(f"--instance {instance}: {found.reason}")
    return StatedInstance(instance=instance, region=region)


def cloud_detector(*, detect: bool, offline: bool) -> Callable[[Machine], DetectedInstance | None]:
    """What asks the metadata service of a machine's cloud, or nobody."""
    from harness.machine import cloud_metadata as cloud

    if detect and offline:
        raise UserError("--detect and --offline: give one of them")
    return lambda machine: None if offline else cloud.detect(machine.cloud_vendor, everywhere=detect)


def parse_key_value(options: list[str]) -> dict[str, str]:
    """`MACHINE=NAME` of each option `--instance`."""
    pairs = dict(option.partition("=")[::2] for option in options)
    if wrong := [option for option in options if "=" not in option]:
        raise UserError(f"--instance {wrong[0]}: MACHINE=NAME is needed (`harness machine` prints the machine's name)")
    return pairs


def require_positive(value: float | None, option: str) -> float | None:
    """The option's value, refused unless it is above 0."""
    if value is not None and value <= 0:
        raise UserError(f"{option} {value:g}: a number above 0 is needed")
    return value


def price_records(
    paths: Sequence[Path] | None,
    prices: Path | None,
    value: Path | None,
    instance: list[str] | None,
    usd_per_hour: float | None,
    config_hashes: frozenset[str] | None = None,
) -> Priceable:
    """Read and price, and say on stderr what was left aside, and in what the records differ."""
    from harness.decision.differences import describe_difference
    from harness.workflows.priced_records import load_priced

    found = load_priced(
        paths or ([DEFAULT_RESULTS] if DEFAULT_RESULTS.is_dir() else []),
        prices=prices,
        value=value,
        instances=parse_key_value(instance or []),
        usd_per_hour=usd_per_hour,
        config_hashes=config_hashes,
    )
    console.print_problems(found.unreadable)
    for difference in found.differences:
        console.err.print(
            f"[yellow]differs:[/] {escape(describe_difference(difference))}", soft_wrap=True, highlight=False
        )
    return found
