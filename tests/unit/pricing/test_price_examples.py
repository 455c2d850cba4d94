"""The commented examples of prices.toml and value.toml: every key, and nothing but the defaults."""

from __future__ import annotations

import re
import tomllib
from datetime import date

import pytest

from harness.report.page_data import values
from harness.schema.assumptions import Assumptions, PriceBook, Rate, ValueModel, load_assumptions
from harness.shipped import tables_folder

PRICES, VALUE = (tables_folder() / f"{name}.example.toml" for name in ("prices", "value"))


def uncommented(path, folder):
    """Uncomment the keys without a default, which start with # and no space."""
    text = re.sub(r"^#(?=[\w\[])", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    written = folder / path.name
    written.write_text(text, encoding="utf-8")
    return written


def test_the_examples_change_nothing_as_shipped():
    found = load_assumptions(PRICES, VALUE)
    assert (found.prices, found.value) == (PriceBook(), ValueModel())


def test_no_key_is_missing_and_what_is_behind_a_comment_loads_too(tmp_path):
    prices, value = (uncommented(path, tmp_path) for path in (PRICES, VALUE))
    found = load_assumptions(prices, value, today=date(2026, 11, 2))
    assert found.set_by_user == {name for name, _ in values(Assumptions())} | {"prices.rate"}
    (rate,) = tomllib.loads(prices.read_text(encoding="utf-8"))["rate"]
    assert set(rate) == set(Rate.model_fields)


def test_every_key_with_a_default_is_written_out():
    found = load_assumptions(PRICES, VALUE)
    without = {name for name, value in values(Assumptions()) if value is None}
    assert {name for name, _ in values(Assumptions())} - found.set_by_user == without


@pytest.mark.parametrize("path", [PRICES, VALUE], ids=lambda path: path.name)
def test_they_are_packed_beside_the_studies_and_are_none(path):
    assert path.parent == tables_folder()
    assert "harness report --" in path.read_text(encoding="utf-8")
