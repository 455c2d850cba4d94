"""A headless Chromium, and reports opened in it that fail a test on any error, warning or request."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager

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


@pytest.fixture(scope="session")
def write(tmp_path_factory):
    """Writes a report into a folder, by copy where the very same cells were written in the same way before."""
    kept = []

    def write_or_copy(cells, folder, **written):
        for known, ways, at in kept:
            if known is cells and ways == written:
                shutil.copytree(at, folder, dirs_exist_ok=True)
                return folder / "report.html"
        at = tmp_path_factory.mktemp("report")
        write_report(cells, at, generated_at=AT, **written)
        kept.append((cells, written, at))
        return write_or_copy(cells, folder, **written)

    return write_or_copy


@contextmanager
def watched(chromium, write, folder):
    """Opens reports in `folder`; fails at the end on a console error, an exception, or a request that left the file.

    `cells` None opens again what was written before; `fragment` is the state in the address, the engineer's view by
    default, which shows everything.
    """
    troubles: list[str] = []
    pages = []

    def open_report(cells, width=1400, scheme="light", fragment="view=engineer", **written):
        path = folder / "report.html" if cells is None else write(cells, folder, **written)
        address = path.as_uri()
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        pages.append(page)
        page.on("console", lambda said: troubles.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda asked: None if asked.url.split("#")[0] == address else troubles.append(asked.url))
        page.goto(address + (f"#{fragment}" if fragment else ""))
        page.wait_for_load_state()
        return page

    yield open_report
    for page in pages:
        page.close()
    assert troubles == []


@pytest.fixture
def visit(chromium, write, tmp_path):
    """Opens reports in pages of the test's own."""
    with watched(chromium, write, tmp_path) as open_report:
        yield open_report


@pytest.fixture(scope="module")
def visit_for_all(chromium, write, tmp_path_factory):
    """Opens reports in pages for all tests of a module that leave them as they are."""
    with watched(chromium, write, tmp_path_factory.mktemp("visited")) as open_report:
        yield open_report


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
