"""No text of the page is cut, overlaps other text, or lies on a mark that it does not name: measured in the browser."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from harness.store.archive import read_records
from harness.workflows.priced_records import PriceOptions, price_records
from tests.e2e.conftest import UNFOLD

pytestmark = pytest.mark.e2e

REFERENCE = Path(__file__).parents[2] / "results/reference"
WIDTHS = (1400, 1024, 820, 390)
A4_WIDTH, A4_HEIGHT = 688, 1016  # pixels between the margins

# Returns sentences about texts that are cut, that overlap, or that lie on a mark.
MEASURE = """() => {
    const problems = [];
    const page = document.documentElement.clientWidth;
    const isShown = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
    const meets = (a, b, slack) => a.left + slack < b.right && b.left + slack < a.right && a.top + slack < b.bottom && b.top + slack < a.bottom;
    const named = (text, box) => `"${text.slice(0, 60)}" at ${Math.round(box.left)},${Math.round(box.top)}`;
    for (const plot of document.querySelectorAll(".plot")) {
        if (!isShown(plot) || !plot.querySelector(".main-svg")) continue;
        const frame = plot.getBoundingClientRect();
        const overlay = plot.nextElementSibling && plot.nextElementSibling.classList.contains("labels") ? [...plot.nextElementSibling.children] : [];
        const texts = [...plot.querySelectorAll(".main-svg text"), ...overlay].filter((text) => text.textContent.trim() && isShown(text))
            .map((text) => ({ text: text.textContent, box: text.getBoundingClientRect(), isInSquare: text.closest(".hm, .heatmaplayer, .heatmap-label") !== null })).filter(({ box }) => box.width > 0);
        const lines = [];
        const marks = [];
        for (const path of plot.querySelectorAll(".cartesianlayer .trace path, .cartesianlayer .point path, .errorbar path, .errorbars path, .barlayer .point path")) {
            const style = getComputedStyle(path);
            const isFilled = style.fill !== "none" && Number(style.fillOpacity) > 0 && !/, 0\\)$/.test(style.fill);
            const isDrawn = style.stroke !== "none" && Number(style.strokeOpacity) > 0 && parseFloat(style.strokeWidth) > 0;
            if (!isShown(path) || (!isFilled && !isDrawn)) continue;
            if (isFilled) { marks.push(path.getBoundingClientRect()); continue; }
            const matrix = path.getScreenCTM();
            const length = path.getTotalLength();
            for (let at = 0; at <= length; at += 3) {
                const point = path.getPointAtLength(at).matrixTransform(matrix);
                lines.push(point);
            }
        }
        texts.forEach(({ text, box, isInSquare }, index) => {
            if (box.left < frame.left - 1.5 || box.right > frame.right + 1.5 || box.top < frame.top - 1.5 || box.bottom > frame.bottom + 1.5)
                problems.push(`${plot.id}: cut: ${named(text, box)}, right ${Math.round(box.right)} of ${Math.round(frame.right)}, bottom ${Math.round(box.bottom)} of ${Math.round(frame.bottom)}`);
            for (const other of texts.slice(index + 1)) if (meets(box, other.box, 1.5)) problems.push(`${plot.id}: overlap: ${named(text, box)} and ${named(other.text, other.box)}`);
            if (isInSquare) return;
            if (marks.some((mark) => meets(box, mark, 2))) problems.push(`${plot.id}: on a mark: ${named(text, box)}`);
            else if (lines.some(({ x, y }) => x > box.left + 2 && x < box.right - 2 && y > box.top + 3 && y < box.bottom - 3)) problems.push(`${plot.id}: on a line: ${named(text, box)}`);
        });
    }
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const blocks = [];
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const parent = node.parentElement;
        if (!node.textContent.trim() || parent.closest("script, style, noscript, svg, .labels, option, .skip") || !isShown(parent) || parent.clientWidth === 1) continue; // 1: for screen readers alone
        const range = document.createRange();
        range.selectNodeContents(node);
        const scrolls = parent.closest(".box, nav") !== null;
        for (const box of range.getClientRects()) {
            if (box.width < 1) continue;
            if (!scrolls && (box.left < -1 || box.right > page + 1)) problems.push(`cut at the window: ${named(node.textContent.trim(), box)}`);
            if (!scrolls && !parent.closest("summary")) blocks.push({ text: node.textContent.trim(), box, parent });
        }
        const clipped = parent.closest("button, h1, h2, h3, p, li, dd, dt, label, figcaption");
        if (!scrolls && clipped && clipped.scrollWidth > clipped.clientWidth + 1 && getComputedStyle(clipped).overflowX !== "visible" && clipped.clientWidth > 1)
            problems.push(`clipped: ${named(node.textContent.trim(), clipped.getBoundingClientRect())}`);
    }
    blocks.sort((a, b) => a.box.top - b.box.top);
    blocks.forEach((one, index) => {
        for (let next = index + 1; next < blocks.length && blocks[next].box.top < one.box.bottom - 3; next += 1) {
            const other = blocks[next];
            if (meets(one.box, other.box, 3)) problems.push(`overlap: ${named(one.text, one.box)} and ${named(other.text, other.box)}`);
        }
    });
    return [...new Set(problems)];
}"""


@functools.cache
def report_of(study):
    """Price the reference records of a study on all machines; return the cells and how `write_report` takes them."""
    folders = sorted(REFERENCE.glob(f"*/{study}"))
    records = read_records(folders).records
    written = price_records(records, PriceOptions())
    return written.cells, {"assumptions": written.assumed, "records": records}


def problems_at(page, wait_until, width):
    """Return what is wrong with the visible text at a width of the window, or on A4."""
    if width == "A4":
        page.set_viewport_size({"width": A4_WIDTH, "height": 1000})
        wait_until(page, f"document.documentElement.dataset.drawn === '{A4_WIDTH}'")
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        wait_until(page, "document.documentElement.dataset.drawn === 'print'")
        found = page.evaluate(f"({MEASURE})()")
        height = page.evaluate("document.documentElement.scrollHeight")
        if page.evaluate("document.documentElement.dataset.view") == "decide" and height > A4_HEIGHT:
            found.append(f"the decider's view takes {height} pixels of the {A4_HEIGHT} of a page")
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        page.emulate_media(media="screen")
        return found
    page.set_viewport_size({"width": width, "height": 900})
    wait_until(page, f"document.documentElement.dataset.drawn === '{width}'")
    return page.evaluate(f"({MEASURE})()")


@pytest.mark.parametrize("study", ["default", "ladder", "data", "ddp", "coverage"])
def test_no_text_is_cut_overlaps_or_lies_on_a_mark(visit, wait_until, study):
    cells, options = report_of(study)
    page = visit(cells, WIDTHS[0], **options)
    found = {}
    for view in ("engineer", "decide"):
        page.locator(f"#views button[data-to={view}]").click()
        page.evaluate(UNFOLD)
        page.evaluate("delete document.documentElement.dataset.drawn")
        page.set_viewport_size({"width": WIDTHS[0] - 1, "height": 900})
        for width in (*WIDTHS, "A4"):
            if problems := problems_at(page, wait_until, width):
                found[view, width] = problems
    assert found == {}
