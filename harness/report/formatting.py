"""Formats of numbers, amounts of money and untrusted text for people (pure)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from harness.analysis.estimate import Estimate
from harness.errors import shorten
from harness.pricing import formulas
from harness.printable import printable
from harness.schema.assumptions import Currency

NOT_MEASURED = "not measured"

_MIB = 2**20
_GIB = 2**30
_MIN_AMOUNT = 1e-6
_MAX_AMOUNT = 1e12
_MIN_S = 1e-3
_TENTH_OF_A_CENT = 1e-3
# Currencies with a sign of their own; all others are written with their code, because several can share a sign.
_SIGNS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹", "KRW": "₩"}
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_MINUTE_S = 60.0
_HOUR_S = 3600.0
_MAX_TEXT = 600


def clean(text: str, longest: int = _MAX_TEXT, *, is_message: bool = False) -> str:
    """Make untrusted text safe for one line: no control or direction marks, at most `longest` characters.

    Of a message that is too long, the middle is cut out, since its end says what to do; of other texts the end.
    """
    flat = printable(" ".join(re.split(r"[ \t\r\n]+", text.strip())))
    if is_message:
        return shorten(flat, longest)
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


@dataclass(frozen=True)
class MoneyFormat:
    """The format of amounts in the report's currency; the methods take amounts in USD.

    Attributes:
        currency: The currency's three-letter code and exchange rate.
    """

    currency: Currency = field(default_factory=Currency)

    @property
    def code(self) -> str:
        """The currency's three letters."""
        return self.currency.code

    @property
    def sign(self) -> str:
        """The prefix of an amount: the currency's sign, or its code if the sign is not in `_SIGNS`."""
        return _SIGNS.get(self.code, f"{self.code}\N{NO-BREAK SPACE}")

    @property
    def noun(self) -> str:
        """The word for amounts in a sentence."""
        return "dollars" if self.code == "USD" else self.code

    @property
    def rate_sentence(self) -> str:
        """The exchange rate with its date and source; empty for USD."""
        if self.code == "USD":
            return ""
        currency = self.currency
        dated = f" of {currency.as_of}" if currency.as_of else ""
        source = clean(currency.source, 120) if currency.source else "no source given"
        rate = f"1 USD is {currency.per_usd:.10g} {self.code}"
        return f"Amounts are in {self.code}, at a stated rate{dated}: {rate} ({source})."

    def convert(self, usd: float) -> float:
        """Convert USD to the report's currency, in which charts draw amounts."""
        return formulas.converted(usd, self.currency.per_usd)

    def amount(self, usd: float | None) -> str:
        """Format an amount.

        Amounts have no decimals from 10,000 on and two from 1 on. Smaller amounts have three significant digits, or two
        below 0.001.
        """
        if usd is None:
            return NOT_MEASURED
        if usd < 0:
            return "-" + self.amount(-usd)
        value = self.convert(usd)
        if value >= _MAX_AMOUNT:
            return f">{self.sign}{_MAX_AMOUNT:,.0f}"
        for smallest, digits in ((10_000.0, 0), (1.0, 2)):
            if value >= smallest:
                return f"{self.sign}{value:,.{digits}f}"
        if 0 < value < _MIN_AMOUNT:
            return f"<{self.sign}0.000001"
        return self.sign + _digits(value, 3 if value >= _TENTH_OF_A_CENT else 2)

    def prose(self, usd: float | None) -> str:
        """Format an amount for a sentence: two significant digits."""
        if usd is None:
            return NOT_MEASURED
        value = self.convert(abs(usd))
        if not _MIN_AMOUNT <= value < _MAX_AMOUNT:
            return self.amount(usd)
        return ("-" if usd < 0 else "") + self.sign + _digits(float(f"{value:.1e}"), 2)

    def hourly(self, usd_per_hour: float) -> str:
        """Format an hourly price with two to four decimals, because price lists go to a hundredth of a cent."""
        whole, _, decimals = f"{self.convert(usd_per_hour):,.4f}".partition(".")
        return f"{self.sign}{whole}.{decimals.rstrip('0'):0<2}"

    def interval(self, estimate: Estimate | None) -> str:
        """Format an amount's interval without its value; empty without an interval."""
        return _interval(estimate, self.amount)

    def with_interval(self, estimate: Estimate) -> str:
        """Format an amount followed by its interval in brackets."""
        return with_interval(self.amount(estimate.value), self.interval(estimate))


USD = MoneyFormat()


def seconds(value: float | None) -> str:
    """Format a duration in seconds, minutes or hours, by its size."""
    if value is None:
        return NOT_MEASURED
    if 0 < value < _MIN_S:
        return f"<{_MIN_S} s"
    if value < _MINUTE_S * 1.5:
        return f"{_digits(value, 2 if value < 10 else 3)} s"  # noqa: PLR2004
    if value < _HOUR_S * 1.5:
        return f"{_digits(value / _MINUTE_S, 3)} min"
    return f"{_digits(value / _HOUR_S, 3)} h"


def memory(value: int | float | None) -> str:
    """Format bytes as MiB, or as GiB from 1 GiB on."""
    if value is None:
        return NOT_MEASURED
    return f"{value / _GIB:,.2f} GiB" if value >= _GIB else f"{value / _MIB:,.0f} MiB"


def percent(fraction: float | None) -> str:
    """Format a fraction (0..1) as percent."""
    return NOT_MEASURED if fraction is None else f"{fraction * 100:.1f}%"


def points(fraction: float) -> str:
    """Format a difference of two fractions in percentage points."""
    text = f"{fraction * 100:.1f}"
    return f"{text} point" if text == "1.0" else f"{text} points"


def number(value: float | None, digits: int = 3) -> str:
    """Format a number to `digits` significant digits; digits of the integer part are never dropped."""
    return NOT_MEASURED if value is None else _digits(value, digits)


def interval(estimate: Estimate | None, unit: Literal["percent", "number", "seconds", "bytes"]) -> str:
    """Format an estimate's interval without its value; empty without an interval."""
    if unit != "percent":
        return _interval(estimate, {"seconds": seconds, "bytes": memory}.get(unit, number))
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low * 100:.1f} to {estimate.high * 100:.1f}%"


def _interval(estimate: Estimate | None, show: Callable[[float], str]) -> str:
    """Format both ends of an interval; if they read the same, format half its width as a percentage of the value."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    low, high = show(estimate.low), show(estimate.high)
    if low != high or not estimate.value:
        return f"{low} to {high}"
    return f"±{_digits((estimate.high - estimate.low) / 2 / abs(estimate.value) * 100, 1)}%"


def with_interval(text: str, spread: str) -> str:
    """Append an interval in brackets, if there is one."""
    return f"{text} ({spread})" if spread else text


def times(ratio: float) -> str:
    """Format a ratio as "N times"."""
    return f"{_digits(ratio, 2)} times"


def date_text(as_of: str) -> str:
    """Format an ISO date or month for a sentence, such as 24 September 2026; other text is returned cleaned."""
    year, month, day = (*as_of.split("-"), "", "")[:3]
    if not (year.isdecimal() and month.isdecimal() and 1 <= int(month) <= len(_MONTHS)):
        return clean(as_of)
    return " ".join(filter(None, (day.lstrip("0"), _MONTHS[int(month) - 1], year)))


def plural(count: int, noun: str) -> str:
    """Format a count with its noun, plural unless the count is 1."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(parts: Sequence[str]) -> str:
    """Join parts with commas and a final "and"."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1] if parts else ""


def _digits(value: float, digits: int) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    rounded = float(f"{value:.{digits - 1}e}")  # 99.99 rounds to 100, which has one digit more
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{value:,.{decimals}f}"
