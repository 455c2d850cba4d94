"""The hand-computed costs that the formulas are tested with, in Python and JavaScript."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

COSTS = Path(__file__).parent / "fixtures" / "costs.json"
CLOSE = 1e-9
# Evaluates every case where formulas.js is loaded. NaN and infinities become text, because JSON would turn them into null.
IN_JAVASCRIPT = """(cases) => cases.map(({ formula, inputs }) => {
  const value = formulas[formula](inputs);
  return value === null || Number.isFinite(value) ? value : String(value);
})"""


def load_costs() -> list[dict[str, Any]]:
    """Load the cases: formula, inputs, expected value (None if undefined), and by_hand, its derivation."""
    cases: list[dict[str, Any]] = json.loads(COSTS.read_text(encoding="utf-8"))
    return cases


def agrees(value: object, expected: float | None) -> bool:
    """Return True if a value equals the expected one to 1e-9, relative or absolute."""
    if expected is None or not isinstance(value, int | float):
        return value is None and expected is None
    return math.isclose(value, expected, rel_tol=CLOSE, abs_tol=CLOSE)
