"""The table of costs worked out by hand, and how both languages are held against it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

COSTS = Path(__file__).parent / "fixtures" / "costs.json"
CLOSE = 1e-9
# Run where report/formulas.js is loaded, on the whole table; what is no number and not null comes as text, since JSON would hide it.
IN_JAVASCRIPT = """(cases) => cases.map(({ formula, inputs }) => {
  const found = formulas[formula](inputs);
  return found === null || Number.isFinite(found) ? found : String(found);
})"""


def load_costs() -> list[dict[str, Any]]:
    """Every case: formula, inputs, expected (None: there is no such figure), by_hand."""
    cases: list[dict[str, Any]] = json.loads(COSTS.read_text(encoding="utf-8"))
    return cases


def agrees(found: object, expected: float | None) -> bool:
    """Whether a figure is the one worked out by hand, to 1e-9 of it or to 1e-9 in all."""
    if expected is None or not isinstance(found, int | float):
        return found is None and expected is None
    return math.isclose(found, expected, rel_tol=CLOSE, abs_tol=CLOSE)
