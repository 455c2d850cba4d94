"""A headless Chromium, and reports opened in it that fail a test on any error, warning or request."""

from __future__ import annotations

import json
import os

import pytest
from playwright.sync_api import sync_playwright

from harness.report import write_report
from tests.make_priced import AT

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="session")
def chromium():
    with sync_playwright() as playwright:
        path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, tmp_path):
    """Opens a report and fails the test on a console error, an exception, or a request that leaves the file.

    `cells` None opens again what was written before; `fragment` is the state in the address, the engineer's view by
    default, which shows everything.
    """
    troubles: list[str] = []

    def open_report(cells, width=1400, scheme="light", fragment="view=engineer", **written):
        path = tmp_path / "report.html" if cells is None else write_report(cells, tmp_path, generated_at=AT, **written)
        address = path.as_uri()
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda said: troubles.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda asked: None if asked.url.split("#")[0] == address else troubles.append(asked.url))
        page.goto(address + (f"#{fragment}" if fragment else ""))
        page.wait_for_load_state()
        return page

    yield open_report
    assert troubles == []


@pytest.fixture
def wait_until():
    """Looks frame by frame until a JavaScript expression holds.

    Playwright's wait_for_function compiles its text anew at each look, which the page's own policy forbids: it passes
    only where the first look is enough. Here the expression is compiled once, with the promise.
    """

    def wait(page, condition):
        page.evaluate(
            f"""new Promise((done, fail) => {{
                const look = () => {{ if ({condition}) done(); else requestAnimationFrame(look); }};
                setTimeout(() => fail(new Error("not within 30 s: " + {json.dumps(condition)})), 30000);
                look();
            }})"""
        )

    return wait
