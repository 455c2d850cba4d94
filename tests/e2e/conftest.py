"""A headless Chromium, and a function that opens reports in it and fails on any error, warning or network request."""

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


# Opens every fold, and resolves when the page has filled their tables.
UNFOLD = """new Promise((done) => {
    document.querySelectorAll("main details").forEach((details) => { details.open = true; });
    requestAnimationFrame(() => setTimeout(done, 0));
})"""
# Resolves when the page has drawn its charts for the first time.
READY = """new Promise((done) => {
    const check = () => { if (document.documentElement.dataset.ready === "yes") done(); else requestAnimationFrame(check); };
    check();
})"""


@pytest.fixture(scope="session")
def chromium():
    with sync_playwright() as playwright:
        path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def write(tmp_path_factory):
    """Write a report into a folder; copy it if the same cells were already written with the same options."""
    written_reports = []

    def write_or_copy(cells, folder, **written):
        for written_cells, options, source in written_reports:
            if written_cells is cells and options == written:
                shutil.copytree(source, folder, dirs_exist_ok=True)
                return folder / "report.html"
        target = tmp_path_factory.mktemp("report")
        write_report(cells, target, generated_at=AT, **written)
        written_reports.append((cells, written, target))
        return write_or_copy(cells, folder, **written)

    return write_or_copy


@contextmanager
def watched(chromium, write, folder):
    """Open reports in `folder`; fail at the end on a console error, an exception, or a request outside the file.

    With `cells` None, the report that is already there is opened again. `fragment` is the state in the address, by default
    the engineer's view, in which every fold is opened.
    """
    problems: list[str] = []
    pages = []

    def open_report(cells, width=1400, scheme="light", fragment="view=engineer", **written):
        path = folder / "report.html" if cells is None else write(cells, folder, **written)
        address = path.as_uri()
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        pages.append(page)
        page.on(
            "console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request", lambda request: None if request.url.split("#")[0] == address else problems.append(request.url)
        )
        page.goto(address + (f"#{fragment}" if fragment else ""))
        page.wait_for_load_state()
        page.evaluate(READY)
        if "view=engineer" in fragment:
            page.evaluate(UNFOLD)
        return page

    yield open_report
    for page in pages:
        page.close()
    assert problems == []


@pytest.fixture
def visit(chromium, write, tmp_path):
    """Open reports in pages of this test alone."""
    with watched(chromium, write, tmp_path) as open_report:
        yield open_report


@pytest.fixture(scope="module")
def visit_for_all(chromium, write, tmp_path_factory):
    """Open reports in pages shared by all tests of a module, which must not change them."""
    with watched(chromium, write, tmp_path_factory.mktemp("visited")) as open_report:
        yield open_report


@pytest.fixture
def wait_until():
    """Wait until a JavaScript expression is true, which is checked once a frame.

    Playwright's wait_for_function compiles the expression at each check, which the page's content security policy forbids.
    Here it is compiled once, as part of the promise.
    """

    def wait(page, condition):
        page.evaluate(
            f"""new Promise((done, fail) => {{
                const check = () => {{ if ({condition}) done(); else requestAnimationFrame(check); }};
                setTimeout(() => fail(new Error("not within 30 s: " + {json.dumps(condition)})), 30000);
                check();
            }})"""
        )

    return wait
