"""The page's section on machines of the price table that are worth measuring next."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import pytest

from harness.pricing.price_search import PriceQuery
from harness.report.formatting import USD, MoneyFormat
from harness.report.sections.shortlist import shortlist_section
from harness.schema.assumptions import Currency
from harness.schema.expansion import expand
from harness.schema.study_file import load_study
from harness.workflows.shortlist import ShortlistOptions, make_shortlist

STUDY = Path(__file__).parents[3] / "bench" / "gpu.toml"


@functools.cache
def found():
    options = ShortlistOptions(PriceQuery(provider="aws", region="us-east-1"), num_samples=1_000_000)
    return make_shortlist(expand(load_study(STUDY)), options, ())


def test_the_table_has_the_ten_lowest_bills_and_the_list_the_three_to_measure():
    section = shortlist_section(found(), USD)
    bills = [row[1].sort for row in section.table.rows]
    assert bills == sorted(bills) and len(bills) == 10
    assert bills == [row.usd.value for row in found().rows[:10]]
    names = [pick.row.price.instance_type for pick in found().measure_first]
    assert [line.partition(" ")[0] for line in section.picks[:3]] == names
    assert section.finding == f"{names[0]}, {names[1]} and {names[2]}"
    assert section.picks[3] == "A figure from a datasheet says what to measure, and never which machine is best."


def test_the_chart_draws_the_bills_in_the_readers_currency():
    euros = MoneyFormat(Currency(code="EUR", per_usd=0.5, as_of="2026-11-30", source="a bank"))
    section = shortlist_section(found(), euros)
    bars = [
        trace for trace in section.chart.figure.data if trace.meta and "colour" in trace.meta and trace.type == "bar"
    ]
    drawn = sorted(value for trace in bars for value in trace.x)
    assert drawn == pytest.approx([row.usd.value / 2 for row in found().rows[:10]])
    assert section.table.rows[0][1].text == euros.amount(found().rows[0].usd.value)


def test_without_a_known_time_there_is_no_section():
    assert shortlist_section(None, USD) is None
    assert shortlist_section(replace(found(), probability=None), USD) is None
