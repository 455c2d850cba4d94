"""The one place that says which characters of other people's text may reach a screen or a page."""

from __future__ import annotations

import re

# Control characters but tab and line feed (a terminal obeys escape sequences), marks that change the direction of the
# text around them (Unicode Standard Annex 9), line separators, halves of surrogate pairs, and the byte order mark.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def printable(text: str) -> str:
    """Replace each character that a terminal or a page could obey instead of showing it."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def printable_json(text: str) -> str:
    """Write such characters within JSON as escapes, which mean the same."""
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
