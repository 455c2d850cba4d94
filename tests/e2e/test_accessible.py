"""axe-core finds nothing in both views, in both colour schemes, at three widths."""

from __future__ import annotations

import functools

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.e2e.conftest import UNFOLD
from tests.make_priced import priced, study_records, two_machines

pytestmark = pytest.mark.e2e


@functools.cache
def cells_of_two_machines():
    records, prices = two_machines()
    return priced(records, prices=prices)


@pytest.mark.parametrize(
    ("width", "view", "scheme"),
    [
        (1400, "decide", "light"), (1400, "engineer", "dark"), (820, "decide", "dark"),
        (820, "engineer", "light"), (390, "decide", "light"), (390, "engineer", "dark"),
    ],
)  # fmt: skip
def test_axe_finds_nothing(visit, view, scheme, width):
    page = visit(cells_of_two_machines(), width, scheme, fragment=f"view={view}&prices.plan=own&accuracy=0.78")
    page.evaluate(UNFOLD)
    page.locator("#in-prices-own-years").fill("0")
    violations = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert [(violation["id"], [node["target"] for node in violation["nodes"]]) for violation in violations] == []


@pytest.mark.parametrize("records", [[], study_records()])
def test_axe_finds_nothing_in_small_studies(visit, records):
    page = visit(priced(records, None))
    violations = Axe().run(page).response["violations"]
    assert [(violation["id"], [node["target"] for node in violation["nodes"]]) for violation in violations] == []
