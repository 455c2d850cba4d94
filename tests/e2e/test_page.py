"""The report opened from disk in headless Chromium."""

from __future__ import annotations

import functools

import pytest

from harness.analysis.estimate import value_of
from harness.analysis.summarize import summarize
from harness.decision.memory_savings import PARTS, memory_savings
from harness.decision.scaling import scaling_series
from harness.pricing.cost import price
from harness.report.formatting import USD, interval, memory, number, percent
from harness.report.sections.scaling import ratio_text, verdict
from tests.make_priced import ASSUMED, baseline, fine_tune, priced, study_records, two_machines, with_arithmetic
from tests.make_records import make_device_records

pytestmark = pytest.mark.e2e

HOSTILE = "</script><script>window.broken=1</script><img src=x onerror='window.broken=1'>\u202e\"'& \U0001f4b8"


@functools.cache
def device_cells():
    return price(summarize(make_device_records(HOSTILE)), lambda _summary: ASSUMED)


@functools.cache
def study_cells():
    return priced(study_records())


def test_the_page_shows_the_computed_figures(visit):
    cells = study_cells()
    page = visit(cells)
    shown = page.locator("#cell-table").inner_text()
    for cell in cells:
        assert cell.summary.cell in shown
    answer = page.locator("#answer").inner_text()
    picked = [cell for cell in cells if USD.amount(value_of(cell.usd_billed)) in page.locator(".lead").inner_text()]
    assert picked, answer
    assert percent(picked[0].summary.accuracy.value) in answer
    assert "example" in page.locator(".lead").inner_text()


def test_every_chart_is_drawn(visit, wait_until):
    page = visit(study_cells())
    charts = page.locator(".plot")
    wait_until(
        page,
        "[...document.querySelectorAll('.plot')].every((box) => box.offsetParent === null || box.querySelector('.main-svg'))",
    )
    assert charts.count() >= 4


def test_each_machine_has_a_roofline_chart_with_its_cells(visit, wait_until):
    records, prices = two_machines()
    page = visit(priced(with_arithmetic(records), prices=prices))
    wait_until(page, "document.querySelectorAll('#arithmetic .plot .main-svg:first-child').length === 2")
    assert page.locator("#chart-roofline-1 .scatterlayer .point").count() == 12
    assert page.locator("#chart-roofline-2 .scatterlayer .point").count() == 5
    assert page.locator("#arithmetic tbody tr").count() == 17
    assert page.evaluate("document.documentElement.scrollWidth") <= 1400


def test_failed_cells_are_listed_with_their_reason(visit):
    cells = study_cells()
    failed = [cell.summary for cell in cells if cell.summary.outcome != "ok"]
    text = visit(cells).locator("#failed").inner_text()
    assert len(failed) == 2
    for summary in failed:
        assert summary.cell in text
        assert summary.reason[:40] in text


def test_the_table_sorts_by_keyboard(visit):
    page = visit(study_cells())
    head = page.locator("#cell-table th[scope=col]", has_text="samples/s")
    column = head.evaluate("head => head.cellIndex")

    def values():
        cells = page.locator(f"#cell-table tbody tr > :nth-child({column + 1})")
        return [float(value) for value in cells.evaluate_all("all => all.map(cell => cell.dataset.sort)") if value]

    head.locator("button").focus()
    page.keyboard.press("Enter")
    once, direction = values(), head.get_attribute("aria-sort")
    page.keyboard.press("Enter")
    assert {direction, head.get_attribute("aria-sort")} == {"ascending", "descending"}
    assert len(once) == 12
    assert sorted(once, reverse=direction == "descending") == once
    assert values() == once[::-1]


def test_missing_figures_are_last_in_both_directions(visit):
    page = visit(study_cells())
    head = page.locator("#cell-table th[scope=col]", has_text="cost to target")
    column = head.evaluate("head => head.cellIndex")
    for _ in range(2):
        head.locator("button").click()
        fields = page.locator(f"#cell-table tbody tr > :nth-child({column + 1})")
        known = fields.evaluate_all("all => all.map(cell => cell.dataset.sort !== undefined)")
        assert known == sorted(known, reverse=True)
        assert 0 < sum(known) < len(known)


def test_the_downloaded_and_the_copied_csv_equal_cells_csv(visit, wait_until, tmp_path):
    page = visit(study_cells())
    with page.expect_download() as download:
        page.locator("#download-csv").click()
    assert download.value.path().read_bytes() == (tmp_path / "cells.csv").read_bytes()
    assert page.locator("#csv-said").inner_text() == "Saved."
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text }")
    page.locator("#copy-csv").click()
    wait_until(page, "window.copied")
    assert page.evaluate("window.copied") == (tmp_path / "cells.csv").read_text(encoding="utf-8")


def test_another_group_of_heat_maps_is_selected_by_keyboard(visit, wait_until):
    records, prices = two_machines()
    page = visit(priced(records, prices=prices))
    page.locator("#map-group").focus()
    page.keyboard.press("End")
    wait_until(page, "document.querySelectorAll('.map-group:not([hidden]) .main-svg').length > 0")
    assert page.locator(".map-group:not([hidden])").count() == 1
    assert page.locator(".map-group").last.is_visible()


def test_charts_follow_the_colour_scheme_and_are_light_in_print(visit, wait_until):
    page = visit(study_cells())
    ink = "getComputedStyle(document.querySelector('#chart-cost .xtick text')).fill"
    light = page.evaluate(ink)
    page.emulate_media(color_scheme="dark")
    wait_until(page, f"{ink} !== '{light}'")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(ink) == light
    assert page.evaluate("document.querySelector('#chart-cost .main-svg').clientWidth") <= 688  # A4 less its margins
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(ink) != light


def test_a_page_of_300_cells_lists_them_all(visit, wait_until):
    page = visit(priced([fine_tune(16 + i % 20, 32 + i // 20, cell=f"cell-{i}") for i in range(300)]))
    wait_until(page, "document.documentElement.dataset.ready === 'yes'")
    assert page.locator("#cell-table tbody tr").count() == 300


def test_the_scaling_section_shows_the_computed_figures(visit, wait_until):
    cells = device_cells()
    all_series = scaling_series(cells)
    page = visit(cells)
    section = page.locator("#scaling")
    rows = section.locator("tbody tr")
    points = [point for series in all_series for point in series.points]
    assert [(series.kind, series.device) for series in all_series] == [
        ("strong", "gpu"),
        ("strong", "cpu"),
        ("weak", "cpu"),
    ]
    assert rows.count() == len(points) == 7
    for index, point in enumerate(points):
        text = rows.nth(index).inner_text()
        for figure in (
            number(point.samples_per_s.value),
            interval(point.samples_per_s, "number"),
            ratio_text(point.speed_up.value),
            percent(point.efficiency.value),
            USD.amount(point.cell.usd_per_1000_samples.value),
            memory(point.cell.summary.peak_memory_bytes),
            str(point.device_batch_size),
            str(point.global_batch_size),
        ):
            assert figure in text, figure
    assert (
        f"{USD.amount(points[0].cell.usd_per_1000_samples_of_share.value)} for 1 of 4 GPUs" in rows.first.inner_text()
    )
    section_text = section.inner_text()
    for series in all_series:
        assert verdict(series)[1:] in section_text
    assert verdict(all_series[0]) in page.locator("#answer").inner_text()
    wait_until(page, "document.querySelectorAll('#scaling .plot .main-svg:first-child').length === 6")


def test_the_memory_section_shows_breakdown_other_users_and_fixes(visit, wait_until):
    cells = device_cells()
    page = visit(cells)
    section = page.locator("#memory")
    text = section.inner_text()
    assert "(python3) held 6.00 GiB of GPU 0" in text
    assert "<img src=x" in text
    assert page.evaluate("window.broken") is None
    assert "ran out of memory; the same with activation checkpointing on ran in" in text
    assert section.locator("table").last.locator("tbody tr").count() == len(memory_savings(cells))
    wait_until(page, "document.querySelectorAll('#chart-memory .main-svg').length > 0")
    # The breakdowns total 580 of 600 MiB, so the unexplained rest is drawn too: every part of eight cells.
    assert page.locator("#chart-memory .barlayer .point").count() == len(PARTS) * 8


@pytest.mark.parametrize(("width", "scheme", "other"), [(1400, "light", "dark"), (390, "dark", "light")])
@pytest.mark.parametrize("cells", [study_cells, device_cells])
def test_nothing_is_wider_than_the_window(visit, width, scheme, other, cells):
    page = visit(cells(), width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.emulate_media(color_scheme=other)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_hostile_text_is_shown_and_not_executed(visit):
    records = [
        fine_tune(text=HOSTILE, tokens=("[CLS]", HOSTILE, "[SEP]"), cell=HOSTILE),
        fine_tune(32, outcome="crashed", reason=HOSTILE),
        baseline(),
    ]
    page = visit(priced(records))
    assert page.evaluate("window.broken") is None
    assert "<img src=x" in page.locator("#example").inner_text()
    assert "<img src=x" in page.locator("#failed").inner_text()


@pytest.mark.parametrize(
    "records", [[], [fine_tune()], [fine_tune(texts=False)], [fine_tune(outcome="oom", reason="out")]]
)
def test_pages_of_small_studies_have_an_answer_without_none_or_nan(visit, records):
    page = visit(priced(records))
    assert page.locator(".lead").inner_text().endswith(".")
    assert "None" not in page.locator("main").inner_text().replace("None failed", "")
    assert "nan" not in page.locator("main").inner_text().lower().split()
