"""Download of current prices from gpuhunt's catalog into the user's own price table."""

from __future__ import annotations

import csv
import http.client
import io
import logging
import re
import socket
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.errors import UnwritableError, UserError
from harness.files import atomic_write_text
from harness.pricing.price_boards import Offer, find_board
from harness.pricing.price_rows import HardwareRow, PriceRow
from harness.pricing.price_table import PriceTable, load_rows
from harness.shipped import how_to_install

NETWORK_TIMEOUT_S = 30.0

# Maps gpuhunt's provider names to the price table's, where they differ.
_PROVIDERS = {"lambdalabs": "lambda", "vastai": "vast"}
# gpuhunt lists this provider's memory in GB (1 GiB = 1.074 GB), and all others' in GiB.
_GB_PER_GIB = {"lambdalabs": 1.074}


@dataclass(frozen=True)
class FetchedOffers:
    """A downloaded catalog.

    Attributes:
        version: gpuhunt's version.
        complaints: Errors that gpuhunt logged, such as a provider whose prices could not be loaded.
    """

    version: str
    offers: Sequence[Offer]
    complaints: tuple[str, ...] = ()


@dataclass(frozen=True)
class RefreshedTable:
    """The result of a refresh.

    Attributes:
        path: The user's price table.
        num_new: Number of rows from today's catalog.
        num_kept: Number of older rows that today's catalog doesn't replace.
        num_left_out: Number of (instance type, region) pairs without a valid row (for example, no on-demand price).
        complaints: See `FetchedOffers.complaints`.
    """

    path: Path
    num_new: int
    num_kept: int
    num_left_out: int
    complaints: tuple[str, ...] = ()


def refresh(
    path: Path,
    table: PriceTable,
    is_wanted: Callable[[PriceRow], bool],
    fetch: Callable[[], FetchedOffers] | None = None,
) -> RefreshedTable:
    """Merge today's prices into the user's price table, which is replaced atomically or left unchanged.

    Args:
        path: The user's price table; created if missing.
        table: Source of the GPU names that rows may have, and of today's date.
        is_wanted: Returns True for a row to merge.
        fetch: Returns gpuhunt's offers; None to download them.

    Raises:
        UserError: If gpuhunt or the network is missing, no row is wanted, or the existing table is invalid.
    """
    today = table.today or datetime.now(UTC).date()
    context = {"hardware": frozenset(row.name for row in table.hardware), "today": today}
    before = load_rows(path, context) if path.exists() else ()
    fetched = (fetch or fetch_offers)()
    rows, num_left_out = to_rows(fetched.offers, table.hardware, today, fetched.version)
    new = {row.key: row for row in rows if is_wanted(row)}
    if not new:
        raise UserError(
            f"gpuhunt's catalog has no price that fits ({len(fetched.offers)} offers were read); {path} was not touched"
        )
    kept = [row for row in before if row.key not in new]
    _write(path, [*kept, *new.values()])
    return RefreshedTable(path, len(new), len(kept), num_left_out, fetched.complaints)


def fetch_offers() -> FetchedOffers:
    """Download gpuhunt's catalog; no API key is needed.

    Raises:
        UserError: If gpuhunt is not installed, or its catalog can't be downloaded.
    """
    try:
        import gpuhunt
    except ImportError:
        raise UserError(f"gpuhunt is not installed: {how_to_install('prices')} (or pip install gpuhunt)") from None
    catalog = gpuhunt.Catalog(balance_resources=False, auto_reload=False)
    try:
        with _network_timeout(), _capture_errors() as errors:
            catalog.load()
            complaints = tuple(errors)
            offers = catalog.query()
    except (
        gpuhunt.GPUHuntError,
        OSError,
        http.client.HTTPException,
        zipfile.BadZipFile,
        KeyError,
        ValueError,
    ) as error:
        reasons = [str(cause) or type(cause).__name__ for cause in (error, error.__cause__) if cause is not None]
        raise UserError(
            f"gpuhunt's catalog can't be had: {': '.join(reasons)}. The price tables stay as they were; is there a network?"
        ) from None
    return FetchedOffers(version("gpuhunt"), offers, complaints)


@contextmanager
def _capture_errors() -> Iterator[list[str]]:
    """Collect gpuhunt's error messages instead of printing tracebacks.

    gpuhunt logs an error for each provider whose prices can't be loaded, and still loads the others.
    """
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                messages.append(record.getMessage())

    logger, handler = logging.getLogger("gpuhunt"), Collector()
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


@contextmanager
def _network_timeout() -> Iterator[None]:
    """Set a socket time-out, because gpuhunt sets none and could wait forever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def to_rows(
    offers: Iterable[Offer], hardware: Sequence[HardwareRow], today: date, gpuhunt_version: str
) -> tuple[list[PriceRow], int]:
    """Convert offers to rows of the price table, one per instance type and region.

    Of several offers (with different disks or zones) the cheapest counts. Spot prices that are not below the on-demand
    price are left out. Instance types with several GPU options get the GPUs in their name, such as n1-standard-4+1xT4.

    Args:
        offers: gpuhunt's offers.
        hardware: GPUs that rows may name.
        today: Date of the prices.
        gpuhunt_version: gpuhunt's version, which the rows state as their source.

    Returns:
        The rows, sorted by provider, instance type and region, and the number of those keys without a valid row.
    """
    priced = sorted((offer for offer in offers if offer.price is not None), key=lambda offer: offer.price or 0.0)
    gpu_options: dict[tuple[str, str | None], set[tuple[int, str | None]]] = {}
    for offer in priced:
        gpu_options.setdefault((offer.provider, offer.instance_name), set()).add((offer.gpu_count, offer.gpu_name))
    cheapest: dict[tuple[str, str, str], dict[bool, Offer]] = {}
    for offer in priced:
        name, region = offer.instance_name or "", offer.location or ""
        if offer.gpu_count and len(gpu_options[offer.provider, offer.instance_name]) > 1:
            name += f"+{offer.gpu_count}x{offer.gpu_name}"
        if offer.provider == "gcp":
            region = re.sub(r"-[a-z]$", "", region)  # gpuhunt lists zones; prices are by region
        key = (_PROVIDERS.get(offer.provider, offer.provider), name, region)
        cheapest.setdefault(key, {}).setdefault(bool(offer.spot), offer)
    context = {"hardware": frozenset(row.name for row in hardware), "today": today}
    rows = []
    for key in sorted(cheapest):
        row = _to_row(key, cheapest[key], hardware, f"gpuhunt {gpuhunt_version}, {key[0]}", context)
        rows += [row] if row is not None else []
    return rows, len(cheapest) - len(rows)


def _to_row(
    key: tuple[str, str, str],
    offers: dict[bool, Offer],
    hardware: Sequence[HardwareRow],
    source: str,
    context: dict[str, Any],
) -> PriceRow | None:
    """Build a row from an on-demand and a spot offer; None without a valid on-demand offer.

    Args:
        key: Provider, instance type, region.
        offers: The cheapest offer on demand (key False) and spot (key True).
        hardware: GPUs that the row may name.
        source: Source of the price.
        context: Pydantic context for the row's validators: the GPU names as `hardware`, and `today`.
    """
    offer, spot = offers.get(False), offers.get(True)
    if offer is None:
        return None
    provider, instance, region = key
    has_gpu = offer.gpu_count > 0
    fields = {
        "provider": provider, "instance_type": instance, "region": region,
        "accelerator": offer.gpu_name if has_gpu else None,
        "hardware": find_board(offer, provider, hardware) if has_gpu else None,
        "accelerator_count": offer.gpu_count,
        "accelerator_memory_gib": (offer.gpu_memory or None) if has_gpu else None,
        "vcpus": offer.cpu, "memory_gib": _memory_gib(offer),
        "usd_per_hour_on_demand": offer.price,
        "usd_per_hour_spot": _valid_spot_price(spot, offer),
        "as_of": context["today"].isoformat(), "source": source,
    }  # fmt: skip
    try:
        return PriceRow.model_validate(fields, context=context)
    except ValidationError:
        return None


def _memory_gib(offer: Offer) -> float | None:
    per_gib = _GB_PER_GIB.get(offer.provider)
    return offer.memory if per_gib is None or offer.memory is None else round(offer.memory / per_gib, 2)


def _valid_spot_price(spot: Offer | None, offer: Offer) -> float | None:
    if spot is None or spot.price is None or offer.price is None or not 0 < spot.price < offer.price:
        return None
    return spot.price


def _write(path: Path, rows: Iterable[PriceRow]) -> None:
    """Replace the table atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(PriceRow.model_fields)
    for row in rows:
        writer.writerow(["" if value is None else value for value in row.model_dump().values()])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, text.getvalue())
    except OSError as error:
        raise UnwritableError(f"{path}: can't be written: {error.strerror or error}") from None
