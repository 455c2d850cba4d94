"""Live prices out of gpuhunt's catalog, into the user's own price table."""

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

from harness.errors import UserError
from harness.files import atomic_write_text
from harness.pricing.price_boards import Offer, find_board
from harness.pricing.price_rows import HardwareRow, PriceRow
from harness.pricing.price_table import PriceTable, load_rows

NETWORK_TIMEOUT_S = 30.0

# gpuhunt's name of a provider, where ours is another.
_PROVIDERS = {"lambdalabs": "lambda", "vastai": "vast"}
# gpuhunt tells this provider's memory in GB, 1.074 of them to a GiB; that of the others as they tell it, in GiB.
_GB_PER_GIB = {"lambdalabs": 1.074}


@dataclass(frozen=True)
class FetchedOffers:
    """What gpuhunt gave.

    Attributes:
        complaints: What it could not have, such as one provider's prices.
    """

    version: str
    offers: Sequence[Offer]
    complaints: tuple[str, ...] = ()


@dataclass(frozen=True)
class RefreshedTable:
    """What a refresh did.

    Attributes:
        path: The user's own table.
        num_new: Rows of today's catalog.
        num_kept: Rows of before that today's have no news of.
        num_left_out: Instance types in a region whose offers make no row: no on-demand price, no size, no valid figure.
        complaints: Of gpuhunt: what is missing from today's rows.
    """

    path: Path
    num_new: int
    num_kept: int
    num_left_out: int
    complaints: tuple[str, ...] = ()


def refresh(
    path: Path,
    table: PriceTable,
    takes: Callable[[PriceRow], bool],
    fetch: Callable[[], FetchedOffers] | None = None,
) -> RefreshedTable:
    """Put today's prices into the user's own table; the table that was there is replaced whole, or not touched.

    Args:
        path: The user's own table; made if missing.
        table: The hardware that rows may name, and today.
        takes: Which rows are wanted.
        fetch: What gives gpuhunt's offers (default: over the network).

    Raises:
        UserError: Without gpuhunt, network, or a wanted row; or when the old table is not valid.
    """
    today = table.today or datetime.now(UTC).date()
    context = {"hardware": frozenset(row.name for row in table.hardware), "today": today}
    before = load_rows(path, context) if path.exists() else ()
    found = (fetch or fetch_offers)()
    rows, num_left_out = to_rows(found.offers, table.hardware, today, found.version)
    new = {row.key: row for row in rows if takes(row)}
    if not new:
        raise UserError(
            f"gpuhunt's catalog has no price that fits ({len(found.offers)} offers were read); {path} was not touched"
        )
    kept = [row for row in before if row.key not in new]
    _write(path, [*kept, *new.values()])
    return RefreshedTable(path, len(new), len(kept), num_left_out, found.complaints)


def fetch_offers() -> FetchedOffers:
    """Every offer of the providers that gpuhunt's catalog holds; no key is needed.

    Raises:
        UserError: Where gpuhunt is not installed, or none of its catalog can be had.
    """
    try:
        import gpuhunt
    except ImportError:
        raise UserError("gpuhunt is not installed: pip install '.[prices]' (or pip install gpuhunt)") from None
    catalog = gpuhunt.Catalog(balance_resources=False, auto_reload=False)
    try:
        with _network_timeout(), _complaints() as complaints:
            catalog.load()
            told = tuple(complaints)
            offers = catalog.query()
    except (
        gpuhunt.GPUHuntError,
        OSError,
        http.client.HTTPException,
        zipfile.BadZipFile,
        KeyError,
        ValueError,
    ) as error:
        reasons = [str(one) or type(one).__name__ for one in (error, error.__cause__) if one is not None]
        raise UserError(
            f"gpuhunt's catalog can't be had: {': '.join(reasons)}. The price tables stay as they were; is there a network?"
        ) from None
    return FetchedOffers(version("gpuhunt"), offers, told)


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What gpuhunt logs as an error, without its tracebacks: a provider that can't be had is no error of the others."""
    told: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                told.append(record.getMessage())

    logger, handler = logging.getLogger("gpuhunt"), Listening()
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield told
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


@contextmanager
def _network_timeout() -> Iterator[None]:
    """Gpuhunt asks without a time-out: a network that swallows packets would hold it for good."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def to_rows(
    offers: Iterable[Offer], hardware: Sequence[HardwareRow], today: date, gpuhunt_version: str
) -> tuple[list[PriceRow], int]:
    """Offers as rows of the price table, on-demand and spot of one instance type in one region together.

    Of several offers for one (with other disks, in other zones) the cheapest counts. A spot price that is none,
    because it is not below the on-demand one, is left out. A type that comes with several sets of GPUs is named with
    them, as n1-standard-4+1xT4.

    Returns:
        The rows, by provider, instance type and region; and how many instance types in a region make none.
    """
    priced = sorted((offer for offer in offers if offer.price is not None), key=lambda offer: offer.price or 0.0)
    sets: dict[tuple[str, str | None], set[tuple[int, str | None]]] = {}
    for offer in priced:
        sets.setdefault((offer.provider, offer.instance_name), set()).add((offer.gpu_count, offer.gpu_name))
    cheapest: dict[tuple[str, str, str], dict[bool, Offer]] = {}
    for offer in priced:
        name, region = offer.instance_name or "", offer.location or ""
        if offer.gpu_count and len(sets[offer.provider, offer.instance_name]) > 1:
            name += f"+{offer.gpu_count}x{offer.gpu_name}"
        if offer.provider == "gcp":
            region = re.sub(r"-[a-z]$", "", region)  # a zone, of which a region's all have its prices
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
        "usd_per_hour_spot": _below(spot, offer),
        "as_of": context["today"].isoformat(), "source": source,
    }  # fmt: skip
    try:
        return PriceRow.model_validate(fields, context=context)
    except ValidationError:
        return None


def _memory_gib(offer: Offer) -> float | None:
    per_gib = _GB_PER_GIB.get(offer.provider)
    return offer.memory if per_gib is None or offer.memory is None else round(offer.memory / per_gib, 2)


def _below(spot: Offer | None, offer: Offer) -> float | None:
    if spot is None or spot.price is None or offer.price is None or not 0 < spot.price < offer.price:
        return None
    return spot.price


def _write(path: Path, rows: Iterable[PriceRow]) -> None:
    """Replace the table in one step: whoever reads it meanwhile has the old one or the new one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(PriceRow.model_fields)
    for row in rows:
        writer.writerow(["" if value is None else value for value in row.model_dump().values()])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, text.getvalue())
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error}") from None
