"""The dated price table, with hardware and billing beside it, and the user's own rows: loading, all mistakes at once."""

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
from harness.files import PACKAGE_FOLDER
from harness.pricing.price_rows import BillingRow, HardwareRow, PriceRow, last_day
from harness.schema.settings import Settings
from harness.schema.study_file import format_validation_error

OWN_TABLE_VARIABLE = "HARNESS_PRICES"

Row = TypeVar("Row", HardwareRow, BillingRow, PriceRow)


@dataclass(frozen=True)
class PriceTable:
    """All tables, checked, in their files' order; `today` is the day that ages are counted to."""

    prices: tuple[PriceRow, ...]
    hardware: tuple[HardwareRow, ...]
    billing: tuple[BillingRow, ...] = ()
    today: date | None = None


def tables_folder() -> Path:
    """Folder of the shipped tables and studies: the wheel's harness/tables, else the checkout's bench/."""
    packed = PACKAGE_FOLDER / "tables"
    return packed if packed.is_dir() else PACKAGE_FOLDER.parent / "bench"


def own_table_path() -> Path:
    """The user's own price table: as HARNESS_PRICES says, else in their configuration's folder; it need not be there."""
    stated = os.environ.get(OWN_TABLE_VARIABLE)
    if stated:
        return Path(stated).expanduser()
    # Path.home() raises where nobody knows a home; the name is then one of no file.
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111
    return Path(folder) / "bert-cost-harness" / "prices.csv"


def load_prices(folder: Path | None = None, *, own: Path | None = None, today: date | None = None) -> PriceTable:
    """Read prices.csv, hardware.csv and billing.csv of a folder (default: those that are shipped, and the user's own).

    No price may be dated after `today` (default: UTC's), and each names its GPU as hardware.csv does. The user's own
    rows stand beside the shipped ones; of two for one (provider, instance type, region) the newer counts, and the
    user's where both are of one day.

    Args:
        folder: Instead of the shipped tables; the user's own table is then read only if `own` names it.
        own: The user's own table; one that is not there has no rows.
        today: Of the check, and of the ages.

    Raises:
        UserError: With every mistake of a file, each with its line number.
    """
    shipped = folder or tables_folder()
    hardware = _load(shipped / "hardware.csv", HardwareRow, ("name",), {})
    today = today or datetime.now(UTC).date()
    context = {"hardware": frozenset(row.name for row in hardware), "today": today}
    billing = _load(shipped / "billing.csv", BillingRow, ("provider",), context)
    prices = load_rows(shipped / "prices.csv", context)
    own = own or (None if folder else own_table_path())
    if own is not None and own.exists():
        prices = _beside(prices, load_rows(own, context))
    return PriceTable(prices, hardware, billing, today)


def load_rows(path: Path, context: Mapping[str, Any]) -> tuple[PriceRow, ...]:
    """The rows of one price table; `context` holds the names of `hardware`, and `today`.

    Raises:
        UserError: With every mistake of the file, each with its line number.
    """
    return _load(path, PriceRow, ("provider", "instance_type", "region"), context)


def _beside(shipped: Iterable[PriceRow], own: Iterable[PriceRow]) -> tuple[PriceRow, ...]:
    rows = {row.key: row for row in shipped}
    for row in own:
        there = rows.get(row.key)
        if there is None or last_day(row.as_of) >= last_day(there.as_of):
            rows[row.key] = row
    return tuple(rows.values())


def _load(path: Path, model: type[Row], key: tuple[str, ...], context: Mapping[str, Any]) -> tuple[Row, ...]:
    rows: list[Row] = []
    problems: list[str] = []
    first_seen: dict[tuple[str, ...], int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            problems += _check_header(reader.fieldnames or (), model)
            for fields in () if problems else reader:
                line = f"line {reader.line_num}"
                # DictReader keeps fields beyond the header under None, and fills missing ones with None.
                if None in fields or None in fields.values():
                    problems.append(f"{line}: not as many fields as the header has ({len(model.model_fields)})")
                    continue
                name = tuple(fields[column] for column in key)
                if name in first_seen:
                    problems.append(f"{line}: {' '.join(name)} stands in line {first_seen[name]} already")
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


def _check_header(found: Sequence[str], model: type[Settings]) -> list[str]:
    missing = [name for name in model.model_fields if name not in found]
    unknown = [name for name in found if name not in model.model_fields]
    problems = [f"line 1: missing columns: {', '.join(missing)}"] if missing else []
    return problems + ([f"line 1: unknown columns: {', '.join(unknown)}"] if unknown else [])
