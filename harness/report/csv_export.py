"""Write cells.csv: every figure as data (pure: text out)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from harness.pricing.cost import Priced
from harness.report.cell_columns import Value, csv_columns
from harness.report.formatting import clean

# Spreadsheets run a text that starts with one of these as a formula.
_FORMULA_START = ("=", "+", "-", "@", "\t", "\r")


def csv_text(cells: Sequence[Priced]) -> str:
    """Write a row for every cell, units in the column names, empty where not measured."""
    columns = csv_columns(cells)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([name for column in columns for name in column.csv_names])
    writer.writerows([_format(value) for column in columns for value in column.csv_values(cell)] for cell in cells)
    return out.getvalue()


def _format(value: Value) -> str:
    """Write numbers with all digits and None as nothing; disarm text that a spreadsheet would run as a formula."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return json.dumps(value)
    text = clean(value, 2_000)
    return f"'{text}" if text.startswith(_FORMULA_START) else text
