"""Time until the report page follows a changed assumption, with 1,000 cells, in headless Chromium.

Run: .venv/bin/pytest bench/bench_page.py (needs what `make e2e` installs)
Goals: figures and tables follow within 100 ms, layout included, and charts within 1 s. Both times are taken inside the page
by its own clock: from the change to the end of a forced layout, and to the frame after which every chart is drawn.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright
from replay_clock import ReplayClock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.report import write_report
from tests.e2e.conftest import READY
from tests.make_priced import AT, baseline, fine_tune, priced

NUM_CELLS = 1000
ROUNDS = 20
CHANGE = """(view) => new Promise((done) => {
    const control = document.getElementById("in-prices-discount-percent");
    control.value = String((Number(control.value) + 7) % 50);
    const began = performance.now();
    control.dispatchEvent(new Event("input", { bubbles: true }));
    document.body.offsetHeight;
    const figures = performance.now() - began;
    // The page draws in the next frame; what is asked for after it runs when that is over.
    requestAnimationFrame(() => setTimeout(() => done([figures / 1000, (performance.now() - began) / 1000]), 0));
})"""


CLOCK = ReplayClock()


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """Return the seconds until the figures and until the charts had followed a change, for each round, by view."""
    records = [
        fine_tune(8 + i % 40, 16 * (1 + i // 40), accuracy=0.7 + (i * 37 % 100) / 1000, cell=f"cell-{i}")
        for i in range(NUM_CELLS)
    ]
    path = write_report(priced([*records, baseline()]), tmp_path_factory.mktemp("report"), generated_at=AT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        found = {}
        for view in ("decide", "engineer"):
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            page.goto(f"{path.as_uri()}#view={view}")
            page.wait_for_load_state()
            page.evaluate(READY)
            found[view] = [page.evaluate(CHANGE, view) for _ in range(ROUNDS)]
        browser.close()
    return found


@pytest.mark.benchmark(timer=CLOCK, warmup=False)
@pytest.mark.parametrize("view", ["decide", "engineer"])
@pytest.mark.parametrize("part", ["figures", "charts"])
def test_the_page_follows(followed, benchmark, view, part):
    CLOCK.load(seconds[part == "charts"] for seconds in followed[view])
    benchmark.pedantic(lambda: None, rounds=ROUNDS, iterations=1)
