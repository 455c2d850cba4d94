"""Figures in words, by the table to which the page's script is held too (tests/e2e/test_what_if.py)."""

import json
from pathlib import Path

import pytest

from harness.analysis.estimate import Estimate
from harness.report import formatting as wording

CASES = json.loads((Path(__file__).parents[2] / "fixtures" / "wording.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['say']} {case['value']}")
def test_figures_in_words(case):
    say, value = case["say"], case["value"]
    if say.startswith("interval_"):
        assert wording.interval(Estimate(*value, "by hand"), say.removeprefix("interval_")) == case["words"]
    else:
        assert getattr(wording, say)(value) == case["words"]
