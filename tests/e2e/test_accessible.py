"""What axe-core finds in both views, in both schemes, at three widths: nothing serious or critical."""

from __future__ import annotations

import functools

import pytest
from axe_playwright_python.sync_playwright import Axe

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
def test_axe_finds_nothing_serious(visit, view, scheme, width):
    page = visit(cells_of_two_machines(), width, scheme, fragment=f"view={view}&prices.plan=own&accuracy=0.78")
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    page.locator("#in-prices-own-years").fill("0")
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert [(one["id"], [node["target"] for node in one["nodes"]]) for one in found
            if one["impact"] in ("serious", "critical")] == []  # fmt: skip


@pytest.mark.parametrize("records", [[], study_records()])
def test_axe_finds_nothing_serious_in_small_studies(visit, records):
    page = visit(priced(records, None))
    found = Axe().run(page).response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
