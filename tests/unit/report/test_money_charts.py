"""Cost charts give the page each point's cell, and tooltips with the amount in a separate column."""

from __future__ import annotations

import pytest

from harness.report.charts.bars import bars
from harness.report.charts.heat_maps import heat_maps
from harness.report.formatting import MoneyFormat
from harness.schema.assumptions import Currency
from tests.make_priced import priced, study_records, two_machines

EUR = MoneyFormat(Currency(code="EUR", per_usd=0.5, as_of="2026-11-01"))


def test_a_heat_map_links_each_square_to_its_cell_and_shows_the_price_basis():
    cells = priced(study_records())
    squares, missing = next(chart for chart in heat_maps(cells, EUR) if chart.key == "chart-heat-0-usd").figure.data
    assert (squares.meta["axis"], squares.meta["figure"], squares.meta["style"]) == (
        "z", "usd_per_1000_samples", "with_basis",
    )  # fmt: skip
    num_measured = 0
    for indices, values, texts, rows in zip(
        squares.meta["cells"], squares.z, squares.text, squares.customdata, strict=True
    ):
        for index, value, text, (amount, before, after) in zip(indices, values, texts, rows, strict=True):
            if index is None:
                assert (amount, before, after) == ("not in the study", "", "")
            elif value is not None:
                usd = cells[index].usd_per_1000_samples.value
                num_measured += 1
                assert value == pytest.approx(0.5 * usd)
                assert text == EUR.amount(usd)
                assert (amount, after) == (f"{EUR.amount(usd)}, example price", "")
                assert before.startswith("batch ") and before.endswith(" tokens<br>")
    assert num_measured > 5
    assert next(iter(missing.hovertext)).startswith("batch 256, 128 tokens<br>out of memory: ")


def test_bars_link_each_bar_and_its_label_to_their_cell():
    records, prices = two_machines()
    cells = priced(records, prices=prices)
    charts, _ = bars(cells, EUR)
    traces = next(chart for chart in charts if chart.key == "chart-bars-usd").figure.data
    drawn, ends = traces[0], traces[1]
    assert drawn.meta["cells"] == ends.meta["cells"]
    assert ends.meta["end"] == "high"
    for index, value, row, text in zip(drawn.meta["cells"], drawn.x, drawn.customdata, ends.text, strict=True):
        usd = cells[index].usd_per_1000_samples
        assert value == (None if usd is None else pytest.approx(0.5 * usd.value))
        assert row[0] == text
        assert usd is None or text == EUR.amount(usd.value)
        assert row[1].count("<br>") == 1 and row[1].endswith("<br>")
