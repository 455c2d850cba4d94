"""Loader of the price, hardware, CPU and billing tables and the user's prices; reports all mistakes of a file at once."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from harness.errors import UserError, invalid_file
from harness.files import expand_user
from harness.pricing.price_rows import BillingRow, CpuRow, HardwareRow, PriceRow, last_day
from harness.schema.settings import Settings
from harness.schema.study_file import format_validation_error
from harness.shipped import tables_folder

OWN_TABLE_VARIABLE = "HARNESS_PRICES"

Row = TypeVar("Row", bound=Settings)


@dataclass(frozen=True)
class PriceTable:
    """The validated tables in file order; `today` is the date at which ages of prices are computed."""

    prices: tuple[PriceRow, ...]
    hardware: tuple[HardwareRow, ...]
    billing: tuple[BillingRow, ...] = ()
    today: date | None = None
    cpus: tuple[CpuRow, ...] = ()


def own_table_path() -> Path:
    """Return the path of the user's price table: $HARNESS_PRICES, else in the config folder; it need not exist."""
    configured = os.environ.get(OWN_TABLE_VARIABLE)
    if configured:
        return expand_user(configured)
    # Use expanduser, because Path.home() raises if there is no home folder; expanduser's path then doesn't exist.
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111
    return Path(folder) / "bert-cost-harness" / "prices.csv"


def load_prices(folder: Path | None = None, *, own: Path | None = None, today: date | None = None) -> PriceTable:
    """Read prices.csv, hardware.csv, cpus.csv and billing.csv, and merge the user's own prices.

    No price may be dated after `today`. Of two rows for one (provider, instance type, region) the newer row counts; if
    both have the same date, the user's row.

    Args:
        folder: Folder of the tables; None for the shipped tables.
        own: The user's price table, which need not exist; `own_table_path()` if `own` and `folder` are None.
        today: Date at which prices are checked and their ages computed; None for the current UTC date.

    Raises:
        UserError: If a file has mistakes; the message lists all of them with line numbers.
    """
    shipped = folder or tables_folder()
    hardware = load_table(shipped / "hardware.csv", HardwareRow, ("name",), {})
    today = today or datetime.now(UTC).date()
    context = {"hardware": frozenset(row.name for row in hardware), "today": today}
    billing = load_table(shipped / "billing.csv", BillingRow, ("provider",), context)
    cpus = load_table(shipped / "cpus.csv", CpuRow, ("provider", "match"), {})
    prices = load_rows(shipped / "prices.csv", context)
    own = own or (None if folder else own_table_path())
    if own is not None and own.exists():
        prices = _merge(prices, load_rows(own, context))
    return PriceTable(prices, hardware, billing, today, cpus)


def load_rows(path: Path, context: Mapping[str, Any]) -> tuple[PriceRow, ...]:
    """Read the rows of one price table; `context` holds the GPU names as `hardware`, and `today`.

    Raises:
        UserError: If the file has mistakes; the message lists all of them with line numbers.
    """
    return load_table(path, PriceRow, ("provider", "instance_type", "region"), context)


def _merge(shipped: Iterable[PriceRow], own: Iterable[PriceRow]) -> tuple[PriceRow, ...]:
    rows = {row.key: row for row in shipped}
    for row in own:
        existing = rows.get(row.key)
        if existing is None or last_day(row.as_of) >= last_day(existing.as_of):
            rows[row.key] = row
    return tuple(rows.values())


def load_table(path: Path, model: type[Row], key: tuple[str, ...], context: Mapping[str, Any]) -> tuple[Row, ...]:
    """Read and validate a CSV file.

    Args:
        path: The file.
        model: Model of a row.
        key: Columns whose values together must be unique.
        context: Pydantic context for the model's validators.

    Raises:
        UserError: If the file has mistakes; the message lists all of them with line numbers.
    """
    rows: list[Row] = []
    problems: list[str] = []
    first_seen: dict[tuple[str, ...], int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            problems += _check_header(reader.fieldnames or (), model)
            for fields in () if problems else reader:
                line = f"line {reader.line_num}"
                # DictReader stores surplus fields under the key None, and sets missing fields to None.
                if None in fields or None in fields.values():
                    problems.append(f"{line}: not as many fields as the header has ({len(model.model_fields)})")
                    continue
                name = tuple(fields[column] for column in key)
                if name in first_seen:
                    problems.append(f"{line}: {' '.join(name)} is already in line {first_seen[name]}")
                first_seen.setdefault(name, reader.line_num)
                try:
                    rows.append(model.model_validate(fields, context=context))
                except ValidationError as error:
                    problems += [f"{line}: {problem}" for problem in format_validation_error(error, model)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: can't be read: {error}") from None
    if problems:
        raise invalid_file(path, problems)
    return tuple(rows)


def _check_header(header: Sequence[str], model: type[Settings]) -> list[str]:
    missing = [name for name in model.model_fields if name not in header]
    unknown = [name for name in header if name not in model.model_fields]
    problems = [f"line 1: missing columns: {', '.join(missing)}"] if missing else []
    return problems + ([f"line 1: unknown columns: {', '.join(unknown)}"] if unknown else [])
