"""Turn options that several commands share into cells, prices and priced records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from harness.cli import console
from harness.cli.options import DEFAULT_RESULTS
from harness.errors import Unavailable, UserError

if TYPE_CHECKING:
    from harness.decision.differences import Difference
    from harness.pricing.prices import Price
    from harness.schema.cells import Cell
    from harness.schema.host_record import DetectedInstance, Machine, StatedInstance
    from harness.workflows.priced_records import Priceable, PriceOptions


@dataclass(frozen=True)
class MachineOptions:
    """The options that describe and price this machine, such as `--instance` and `--offline`."""

    instance: str | None = None
    region: str | None = None
    prices: Path | None = None
    usd_per_hour: float | None = None
    detect: bool = False
    offline: bool = False

    def stated_instance(self) -> StatedInstance | None:
        """Return the instance type that the user states; None without `--instance`.

        Raises:
            UserError: If `--region` is given without `--instance`, or neither the price table nor the user's prices have
                the instance type.
        """
        from harness.pricing.price_search import find_instance
        from harness.pricing.price_table import load_prices
        from harness.schema.assumptions import load_assumptions
        from harness.schema.host_record import StatedInstance

        if self.instance is None:
            if self.region is not None:
                raise UserError("--region needs --instance too")
            return None
        row = find_instance(load_prices(), self.instance, self.region)
        own_rates = load_assumptions(self.prices).prices.rate
        if isinstance(row, Unavailable) and all(rate.instance != self.instance for rate in own_rates):
            raise UserError(f"--instance {self.instance}: {row.reason}")
        return StatedInstance(instance=self.instance, region=self.region)

    def detector(self) -> Callable[[Machine], DetectedInstance | None]:
        """Return the function that queries the metadata service of a machine's cloud.

        Raises:
            UserError: If both `--detect` and `--offline` are given.
        """
        from harness.machine import cloud_metadata

        if self.detect and self.offline:
            raise UserError("--detect and --offline: give only one of them")
        if self.offline:
            return lambda _: None
        return lambda machine: cloud_metadata.detect(machine.cloud_vendor, everywhere=self.detect)

    def price(
        self,
        machine: Machine,
        *,
        stated: StatedInstance | None = None,
        detected: DetectedInstance | None = None,
    ) -> Price | Unavailable:
        """Return the machine's hourly price under the user's plan, or the reason it is unknown."""
        from harness.pricing.price_table import load_prices
        from harness.pricing.prices import price_machine
        from harness.pricing.rates import price_under_plan
        from harness.schema.assumptions import load_assumptions

        book = load_assumptions(self.prices).prices
        price = price_machine(
            load_prices(), machine, stated=stated, detected=detected, usd_per_hour=self.usd_per_hour, book=book
        )
        return price_under_plan(price, book, machine.id)


def load_cells(path: Path, overrides: Sequence[str] | None = None) -> list[Cell]:
    """Load a study's cells, or the cell of a record."""
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
    """Keep the cells that match every `KEY=VALUE[,VALUE]`; KEY is a study key, `repeat`, or `cell` for the name.

    Raises:
        UserError: If no cell matches.
    """
    for option in only or []:
        key, _, text = option.partition("=")
        values = text.split(",")
        matching = [cell for cell in cells if _value_of(cell, key) in values]
        if not matching:
            known = sorted({value for cell in cells if (value := _value_of(cell, key)) is not None})
            hint = f"its values here: {', '.join(known)}" if known else "no cell has this key"
            raise UserError(f"--only {key}={text}: no cell matches; {hint}")
        cells = matching
    return cells


def _value_of(cell: Cell, key: str) -> str | None:
    value: Any = {"cell": cell.name, "repeat": cell.repeat}.get(key)
    if value is None:
        value = cell.config.model_dump()
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    return None if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def parse_instances(options: list[str] | None) -> dict[str, str]:
    """Parse `--price-as MACHINE=NAME` options.

    Raises:
        UserError: If an option has no `=`.
    """
    for option in options or []:
        if "=" not in option:
            raise UserError(f"--price-as {option}: expected MACHINE=NAME (`harness machine` prints the machine's name)")
    return dict(option.partition("=")[::2] for option in options or [])


def read_fraction(text: str | None, option: str) -> float | None:
    """Parse `3%` or `0.03` as a fraction; None stays None.

    Raises:
        UserError: If the text is no number or percentage, or the fraction is not in [0, 1).
    """
    if text is None:
        return None
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise UserError(f"{option} {text}: expected a fraction from 0% to below 100%, such as 3% or 0.03")
    return value


def require_positive(value: float | None, option: str) -> float | None:
    """Check that an option's value is above 0, and return it.

    Raises:
        UserError: If the value is 0 or less.
    """
    if value is not None and value <= 0:
        raise UserError(f"{option} {value:g}: expected a number above 0")
    return value


def price_records(
    paths: Sequence[Path] | None, options: PriceOptions, config_hashes: frozenset[str] | None = None
) -> Priceable:
    """Read and price records; print skipped files and differences between records on stderr."""
    from harness.workflows.priced_records import load_priced

    default = [DEFAULT_RESULTS] if DEFAULT_RESULTS.is_dir() else []
    priced = load_priced(paths or default, options, config_hashes=config_hashes)
    console.print_problems(priced.unreadable)
    console.print_detail(
        f"{len(priced.records)} records from {escape(', '.join(map(str, paths or default)) or 'nowhere')}"
    )
    print_differences(priced.differences)
    return priced


def print_differences(differences: Sequence[Difference]) -> None:
    """Print on stderr the keys in which the records differ."""
    from harness.decision.differences import describe_difference

    for difference in differences:
        console.print_note(escape(describe_difference(difference)), label="differs")
