"""The line that says how many times as fast the fastest cell is: "16×64 in bf16 is 1.5 ± 0.1 times as fast as in fp32"."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from harness.analysis.estimate import Estimate
from harness.cli.console import print_text
from harness.decision.speed_ratio import SIZES, SpeedRatio, speed_ratios
from harness.pricing.cost import Priced
from harness.report.formatting import listed, with_interval
from harness.report.labels import axis_word, cell_labels, config_fields, spread_label

_MAX_DECIMALS = 2
_MAX_ASYMMETRY = 0.15  # of the longer side of an interval


def print_speed_line(console: Console, cells: Sequence[Priced], cell: Priced | None = None) -> None:
    """Print the line, or that the speeds can't be ranked; nothing if no two cells differ in one setting alone.

    Args:
        console: Where to print.
        cells: Every cell.
        cell: The cell to compare with the others; None for the fastest.
    """
    if line := speed_line(speed_ratios(cells, cell), cells):
        print_text(console, Text(line))


def speed_line(ratios: Sequence[SpeedRatio], cells: Sequence[Priced]) -> str:
    """Write the line; empty without ratios."""
    if not ratios:
        return ""
    lead, key = ratios[0].cell, ratios[0].key
    compared = [lead, *(each.other for each in ratios)]
    labels = cell_labels(cells, hidden=(key,))
    if key in SIZES:
        names, subject = [labels[cell.key] for cell in compared], labels[lead.key]
    else:
        names = [_setting(cell, key) for cell in compared]
        subject = f"{labels[lead.key]} {names[0]}"
    basis = with_interval("", spread_label(compared))
    clear = [(each, name) for each, name in zip(ratios, names[1:], strict=True) if each.is_clear]
    if not clear:
        what = listed(names) if key in SIZES else f"{labels[lead.key]} {listed(names)}"
        return f"No ranking by speed: {what} do not differ clearly{basis}."
    parts = listed([f"{ratio_text(each.ratio)} times as fast as {name}" for each, name in clear])
    rest = len(ratios) - len(clear)
    return f"{subject} is {parts}{f'; {rest} more do not differ clearly' if rest else ''}{basis}."


def _setting(cell: Priced, key: str) -> str:
    """Name the value of a setting with its preposition: `in bf16`."""
    preposition = {"precision": "in", "device": "on"}.get(key, "with")
    return f"{preposition} {axis_word(key, config_fields(cell)[key])}"


def ratio_text(ratio: Estimate) -> str:
    """Format a ratio as `1.5 ± 0.1`; with both ends of its interval if these are not about equally far away."""
    if ratio.low is None or ratio.high is None or ratio.low == ratio.high:
        return f"{ratio.value:.2g}"
    below, above = ratio.value - ratio.low, ratio.high - ratio.value
    decimals = min(_MAX_DECIMALS, max(0, -math.floor(math.log10((above + below) / 2))))
    if abs(above - below) <= _MAX_ASYMMETRY * max(above, below):
        return f"{ratio.value:.{decimals}f} ± {max(above, below):.{decimals}f}"
    value, low, high = (f"{each:.{decimals}f}" for each in (ratio.value, ratio.low, ratio.high))
    return f"{value} ({low} to {high})"
