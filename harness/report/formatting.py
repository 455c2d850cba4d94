"""Figures and foreign text as a person reads them (pure)."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

from harness.analysis.estimate import Estimate
from harness.pricing import formulas
from harness.schema.assumptions import Currency

NOT_MEASURED = "not measured"

_MIB = 2**20
_GIB = 2**30
_LEAST_AMOUNT = 1e-6
_MOST_AMOUNT = 1e12
_LEAST_S = 1e-3
_TENTH_OF_A_CENT = 1e-3
# Of currencies whose sign no other shares; the rest goes by its code.
_SIGNS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹", "KRW": "₩"}
_CURRENCY: ContextVar[Currency] = ContextVar("currency", default=Currency())  # noqa: B039 - it is frozen
_MINUTE_S = 60.0
_HOUR_S = 3600.0
_LONGEST_TEXT = 600
# Control characters, and the marks that turn the direction of the text around them.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def clean(text: str, longest: int = _LONGEST_TEXT) -> str:
    """Make foreign text safe to show on one line: no control or direction marks, cut at `longest` characters."""
    flat = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", " ".join(re.split(r"[ \t\r\n]+", text.strip())))
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


@contextlib.contextmanager
def shown_in(currency: Currency) -> Iterator[None]:
    """Show every amount in a currency; amounts themselves stay in USD."""
    token = _CURRENCY.set(currency)
    try:
        yield
    finally:
        _CURRENCY.reset(token)


def in_currency(usd: float) -> float:
    """An amount as a chart draws it."""
    return formulas.converted(usd, _CURRENCY.get().per_usd)


def currency_code() -> str:
    """The currency's three letters."""
    return _CURRENCY.get().code


def currency_sign() -> str:
    """What stands before an amount."""
    code = currency_code()
    return _SIGNS.get(code, f"{code}\N{NO-BREAK SPACE}")


def money_word() -> str:
    """What amounts are called in a sentence."""
    return "dollars" if currency_code() == "USD" else currency_code()


def rate_words() -> str:
    """The rate between USD and the currency shown, with its date and source; empty where there is none."""
    currency = _CURRENCY.get()
    if currency.code == "USD":
        return ""
    dated = f" of {currency.as_of}" if currency.as_of else ""
    source = clean(currency.source, 120) if currency.source else "no source given"
    return f"Amounts are in {currency.code}, at a stated rate{dated}: 1 USD is {currency.per_usd:.10g} {currency.code} ({source})."


def usd(value: float | None) -> str:
    """An amount in USD as the report's currency: cents from one on, three digits below, two below a tenth of a cent."""
    if value is None:
        return NOT_MEASURED
    if value < 0:
        return "-" + usd(-value)
    amount, sign = in_currency(value), currency_sign()
    if amount >= _MOST_AMOUNT:
        return f">{sign}{_MOST_AMOUNT:,.0f}"
    for smallest, digits in ((10_000.0, 0), (1.0, 2)):
        if amount >= smallest:
            return f"{sign}{amount:,.{digits}f}"
    if 0 < amount < _LEAST_AMOUNT:
        return f"<{sign}0.000001"
    return sign + _digits(amount, 3 if amount >= _TENTH_OF_A_CENT else 2)


def seconds(value: float | None) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if value is None:
        return NOT_MEASURED
    if 0 < value < _LEAST_S:
        return f"<{_LEAST_S} s"
    if value < _MINUTE_S * 1.5:
        return f"{_digits(value, 2 if value < 10 else 3)} s"  # noqa: PLR2004
    if value < _HOUR_S * 1.5:
        return f"{_digits(value / _MINUTE_S, 3)} min"
    return f"{_digits(value / _HOUR_S, 3)} h"


def memory(value: int | float | None) -> str:
    """Bytes as MiB, or GiB from one on."""
    if value is None:
        return NOT_MEASURED
    return f"{value / _GIB:,.2f} GiB" if value >= _GIB else f"{value / _MIB:,.0f} MiB"


def percent(fraction: float | None) -> str:
    """A fraction (0..1) as percent."""
    return NOT_MEASURED if fraction is None else f"{fraction * 100:.1f}%"


def number(value: float | None, digits: int = 3) -> str:
    """A figure without unit to `digits` significant digits; whole parts are never rounded away."""
    return NOT_MEASURED if value is None else _digits(value, digits)


def interval(estimate: Estimate | None, unit: str) -> str:
    """The interval alone, in `unit` (`percent`, `usd` or `number`), or an empty string where there is none.

    Where both ends read the same, the interval is narrower than the digits shown: then as a share of the value.
    """
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    if unit == "percent":
        return f"{estimate.low * 100:.1f} to {estimate.high * 100:.1f}%"
    show = usd if unit == "usd" else number
    low, high = show(estimate.low), show(estimate.high)
    if low != high or not estimate.value:
        return f"{low} to {high}"
    return f"±{_digits((estimate.high - estimate.low) / 2 / abs(estimate.value) * 100, 1)}%"


def amount(estimate: Estimate) -> str:
    """An amount with its interval, as in a sentence."""
    spread = interval(estimate, "usd")
    return usd(estimate.value) + (f" ({spread})" if spread else "")


def usd_per_hour(value: float) -> str:
    """An hourly price in full, in the report's currency: price lists go to a hundredth of a cent."""
    whole, _, decimals = f"{in_currency(value):,.4f}".partition(".")
    return f"{currency_sign()}{whole}.{decimals.rstrip('0'):0<2}"


def times(ratio: float) -> str:
    """How many times as much."""
    return f"{_digits(ratio, 2)} times"


def plural(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(parts: Sequence[str]) -> str:
    """Words joined as in a sentence."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1] if parts else ""


def _digits(value: float, digits: int) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    rounded = float(f"{value:.{digits - 1}e}")  # 99.99 becomes 100, and is then shown as 100
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{value:,.{decimals}f}"
