"""Text of cells.csv, which holds every figure as data (pure)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from harness.pricing.cost import Priced
from harness.report.cell_columns import Value, csv_columns
from harness.report.formatting import clean

# Spreadsheets run a text that starts with one of these characters as a formula.
_FORMULA_START = ("=", "+", "-", "@", "\t", "\r")


def csv_text(cells: Sequence[Priced]) -> str:
    """Write a row for every cell; units are in the column names, and unmeasured values are empty."""
    columns = csv_columns(cells)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([name for column in columns for name in column.csv_names])
    writer.writerows([_format(value) for column in columns for value in column.csv_values(cell)] for cell in cells)
    return out.getvalue()


def _format(value: Value) -> str:
    """Write numbers with all digits and None as empty text; disarm text that a spreadsheet would run as a formula."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return json.dumps(value)
    text = clean(value, 2_000)
    return f"'{text}" if text.startswith(_FORMULA_START) else text
