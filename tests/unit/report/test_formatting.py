"""Formatted numbers, checked against the same table as the page's script (tests/e2e/test_what_if.py)."""

import json
from pathlib import Path

import pytest

from harness.analysis.estimate import Estimate
from harness.report.formatting import USD, clean, interval, memory, number, percent, seconds

CASES = json.loads((Path(__file__).parents[2] / "fixtures" / "wording.json").read_text(encoding="utf-8"))
FORMATS = {
    "usd": USD.amount,
    "usd_per_hour": USD.hourly,
    "seconds": seconds,
    "memory": memory,
    "percent": percent,
    "number": number,
    "interval_usd": lambda ends: USD.interval(Estimate(*ends, "by hand")),
    "interval_number": lambda ends: interval(Estimate(*ends, "by hand"), "number"),
    "interval_percent": lambda ends: interval(Estimate(*ends, "by hand"), "percent"),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['say']} {case['value']}")
def test_numbers_are_formatted_as_in_the_table(case):
    assert FORMATS[case["say"]](case["value"]) == case["words"]


def test_a_message_that_is_too_long_keeps_its_end():
    message = f"no data{' and more' * 60}; lower num_train"
    assert clean(message, 100).endswith("…")
    assert clean(message, 100, is_message=True).startswith("no data and more")
    assert clean(message, 100, is_message=True).endswith(" and more; lower num_train")
