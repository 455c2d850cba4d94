"""The page computes the same figures as Python, and its controls respond to user input."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from harness.analysis.estimate import Estimate
from harness.analysis.summarize import summarize
from harness.decision.choice import Goal, choose
from harness.decision.learning_curve import learning_curves
from harness.decision.study_cost import study_cost
from harness.decision.worth import Worth, judge_cell_worth
from harness.pricing.cost import Priced, price
from harness.pricing.price_table import load_prices
from harness.pricing.prices import choices
from harness.pricing.rates import apply_plan
from harness.report.formatting import USD, MoneyFormat, percent
from harness.report.page_data import values
from harness.report.sections.machines import machines_section
from harness.report.sections.money import money_section
from harness.report.sections.worth import worth_section
from harness.schema.assumptions import Assumptions
from tests.e2e.conftest import UNFOLD
from tests.make_learning import curve_records
from tests.make_priced import ASSUMED, GPU_MACHINE, MACHINE, baseline, fine_tune, priced, study_records, two_machines
from tests.make_records import make_device_records

pytestmark = pytest.mark.e2e

DEADLINE_S = 300.0
FIXTURES = Path(__file__).parent.parent / "fixtures"
AMOUNTS = [field.name for field in fields(Priced) if field.name.startswith("usd_")]
WORTH = [field.name for field in fields(Worth) if field.name.endswith(("_usd", "_month", "_million", "_months", "_fraction",
                                                                        "_accuracy", "_items"))]  # fmt: skip
LISTED = replace(ASSUMED, usd_per_hour_listed=0.192, usd_per_hour_spot=0.071, granularity_s=1.0, minimum_s=60.0)
GPU_PRICE = replace(LISTED, usd_per_hour=1.006, usd_per_hour_listed=1.006, usd_per_hour_on_demand=1.006,
                    usd_per_hour_spot=0.43, instance="g5.xlarge", basis="stated", note=None, granularity_s=3600.0,
                    minimum_s=0.0)  # fmt: skip
GIVEN = replace(LISTED, basis="given", instance=None, usd_per_hour=1.2, usd_per_hour_listed=1.2,
                usd_per_hour_on_demand=1.2, usd_per_hour_spot=None)  # fmt: skip
SPOT = {"plan": "spot", "spot": {"interruptions_per_hour": 0.4, "checkpoint_every_s": 30, "checkpoint_s": 2}}
KINDS = {"false_positive_usd": 0.4, "false_negative_usd": 0.02, "today": "by_hand", "by_hand_usd": 0.03}
SETS = {
    "as written": ({}, {}),
    "a discount": ({"discount_percent": 12.5}, {}),
    "spot": (SPOT, {}),
    "committed": ({"plan": "committed", "commitment": {"discount_percent": 41, "utilisation_fraction": 0.7}}, {}),
    "own": ({"plan": "own", "own": {"years": 4, "utilisation_fraction": 0.2, "busy_watts": 350}}, {}),
    "own, for one machine": ({"plan": "own", "own": {"machine": GPU_MACHINE["id"], "name": "the lab's"}}, {}),
    "a currency": ({"currency": {"code": "EUR", "per_usd": 0.92, "as_of": "2026-11-01"}}, {}),
    "rows and trials": ({"retraining": {"num_rows": 9800, "per_month": 4, "trials_per_kept": 12},
                         "rental": {"idle_hours_per_month": 30, "startup_s": 0, "setup_s": 1000}}, {}),
    "kinds of error": ({"serving": {"utilisation_fraction": 0.05}}, KINDS),
    "no items, no discount": ({}, {"items_per_month": 0, "discount_fraction_per_year": 0, "horizon_months": 0.5}),
    "watts": ({"energy": {"watts": 120}, "plan": "spot"}, {"right_usd": 0, "wrong_usd": 0}),
}  # fmt: skip


def assumed(name):
    prices, value = SETS[name]
    return stated(Assumptions.model_validate({"prices": prices, "value": value}))


def stated(assumptions):
    """Return the assumptions as stated by the user where they differ from the examples, as the page's reader does."""
    examples = dict(values(Assumptions()))
    changed = {name for name, value in values(assumptions) if value != examples[name]}
    return assumptions.model_copy(update={"set_by_user": frozenset(changed)})


def base_price(summary):
    """Return prices before any plan: stated and billed by the hour, given, or listed."""
    if summary.machine_id == GPU_MACHINE["id"]:
        return GPU_PRICE
    return GIVEN if summary.machine_id == "4x-v100-000001" else LISTED


def summaries():
    records, _ = two_machines()
    return summarize([*records, *make_device_records()])


def cells_under(assumptions):
    return price(summaries(), apply_plan(base_price, assumptions.prices), assumptions)


def state_of(assumptions, **more):
    return {"values": dict(values(assumptions)), "choices": {}, "accuracy": None, "machine": None, **more}


def figure(estimate):
    return None if estimate is None else [estimate.value, estimate.low, estimate.high]


def assert_same(computed, expected, where):
    if isinstance(expected, list):
        computed = [computed[side] for side in ("value", "low", "high")] if computed else computed
        assert isinstance(computed, list), (where, computed, expected)
        for computed_side, expected_side in zip(computed, expected, strict=True):
            assert_same(computed_side, expected_side, where)
    elif expected is None:
        assert computed is None, where
    else:
        assert computed == pytest.approx(expected, rel=1e-9, abs=1e-15), where


READ = "recompute.unpack(JSON.parse(document.getElementById('facts').textContent))"


@functools.cache
def study_cells():
    return priced(study_records())


@functools.cache
def own_cells():
    return cells_under(Assumptions())


@pytest.fixture
def own_page(visit):
    return visit(own_cells(), deadline_s=DEADLINE_S)


@pytest.fixture(scope="module")
def shared_page(visit_for_all):
    """A page that tests query but don't change, since opening one takes seconds."""
    return visit_for_all(own_cells(), deadline_s=DEADLINE_S)


@pytest.mark.parametrize("name", SETS)
def test_the_page_computes_the_same_figures_as_python(shared_page, name):
    compare_all(shared_page, assumed(name))


def compare_all(page, assumptions):
    """Compare every amount, worth and choice that the page computes with Python's."""
    expected = cells_under(assumptions)
    derived = page.evaluate(f"(state) => recompute.derive({READ}, state)", state_of(assumptions))
    num_amounts = 0
    for cell, money, worth in zip(expected, derived["money"], derived["worth"], strict=True):
        for amount in AMOUNTS:
            assert_same(money.get(amount), figure(getattr(cell, amount)), f"{amount} of {cell.summary.cell}")
            num_amounts += getattr(cell, amount) is not None
        assert_same(money["joules"], figure(cell.energy.joules if cell.energy else None), "joules")
        judged = judge_cell_worth(cell, assumptions)
        assert (judged is None) == (worth is None), cell.summary.cell
        for attribute in WORTH if judged is not None else ():
            value = getattr(judged, attribute)
            assert_same(
                worth[attribute],
                figure(value) if isinstance(value, Estimate) else value,
                f"{attribute} of {cell.summary.cell}",
            )
    assert num_amounts > 200
    chosen = page.evaluate(f"(state) => {{ const facts = {READ}; return ranking.choose(facts, recompute.derive(facts, state), state) }}",
                           state_of(assumptions))  # fmt: skip
    python = choose(expected, assumptions)
    places = {cell.key: index for index, cell in enumerate(expected)}
    assert chosen["pick"] == places[python.pick.key]
    assert chosen["best"] == places[python.best.cell.key]
    assert chosen["verdict"] == {"kind": python.verdict.kind, "reasons": [each.kind for each in python.verdict.reasons]}
    assert sorted(chosen["rivals"]) == sorted(places[way.cell.key] for way in python.admitted)
    assert sorted(chosen["level"]) == sorted(places[cell.key] for cell in python.level)


def test_the_page_applies_contract_rates(visit):
    rates = [
        {"instance": "m5.xlarge", "usd_per_hour": 0.11},
        {"instance": "m5.xlarge", "region": "us-east-1", "usd_per_hour": 0.1, "plan": "committed"},
        {"instance": "m5.xlarge", "region": "eu-west-1", "usd_per_hour": 0.01, "plan": "committed"},
        {"instance": "m5.xlarge", "usd_per_hour": 0.02, "plan": "spot"},
    ]
    written = Assumptions.model_validate({"prices": {"rate": rates}})
    page = visit(cells_under(written), assumptions=written)
    for plan in ("on_demand", "committed", "spot"):
        assumptions = Assumptions.model_validate({"prices": {"rate": rates, "plan": plan}})
        derived = page.evaluate(f"(state) => recompute.derive({READ}, state)", state_of(assumptions))
        for cell, money in zip(cells_under(assumptions), derived["money"], strict=True):
            for amount in AMOUNTS:
                assert_same(
                    money.get(amount), figure(getattr(cell, amount)), f"{plan}: {amount} of {cell.summary.cell}"
                )


def test_a_spot_machine_that_is_always_interrupted_has_no_cost(shared_page):
    state = state_of(Assumptions())
    state["values"] |= {"prices.plan": "spot", "prices.spot.interruptions_per_hour": 1e9}
    money = shared_page.evaluate(f"(state) => recompute.derive({READ}, state).money", state)
    cells = [
        (amounts, cell) for amounts, cell in zip(money, cells_under(Assumptions()), strict=True) if cell.usd_billed
    ]
    on_spot = [
        (amounts["usd_billed"], amounts["usd_billed_on_demand"]["value"])
        for amounts, cell in cells
        if cell.price is not GIVEN
    ]
    assert len(on_spot) > 20
    assert all(spot is None and on_demand > 0 for spot, on_demand in on_spot)


def test_formulas_give_the_hand_computed_costs(shared_page):
    cases = json.loads((FIXTURES / "costs.json").read_text(encoding="utf-8"))
    computed = shared_page.evaluate("(cases) => cases.map((item) => formulas[item.formula](item.inputs))", cases)
    for case, value in zip(cases, computed, strict=True):
        assert_same(value, case["expected"], case)


def test_figures_are_formatted_as_in_python(shared_page):
    cases = json.loads((FIXTURES / "wording.json").read_text(encoding="utf-8"))
    formatted = shared_page.evaluate(
        """(cases) => cases.map(({ say, value }) => {
            if (say.startsWith("interval_")) return wording.interval({ value: value[0], low: value[1], high: value[2] }, say.slice(9));
            const names = { usd: "amount", usd_per_hour: "perHour" };
            return wording[names[say] || say](value);
        })""",
        cases,
    )
    assert formatted == [case["words"] for case in cases]


@pytest.mark.parametrize("name", ["as written", "a currency", "own"])
def test_recomputed_charts_equal_those_of_python(visit, name):
    """Positions and text of every trace, and every axis of money."""
    page = visit(cells_under(assumed(name)), assumptions=assumed(name))
    assert not page.locator("#changes").is_visible()
    num_recomputed, different = recompute_charts(page)
    assert num_recomputed >= 6
    assert different == []


def recompute_charts(page):
    """Recompute the charts under the report's own assumptions; return their number, and where they differ from Python's."""
    return page.evaluate(
        f"""() => {{
            const facts = {READ};
            const state = {{ ...address.own(facts), view: "engineer" }};
            const base = recompute.derive(facts, state);
            const moneyFormat = decision.moneyFormat(state.values);
            const context = {{ facts, original: base, derived: base, originalFormat: moneyFormat, moneyFormat, values: state.values }};
            const near = (a, b) => typeof a === "number" && typeof b === "number" ? Math.abs(a - b) <= 1e-9 * Math.max(Math.abs(a), Math.abs(b))
                : Array.isArray(a) ? Array.isArray(b) && a.length === b.length && a.every((value, i) => near(value, b[i])) : (a ?? null) === (b ?? null);
            const differences = [];
            let numRecomputed = 0;
            for (const item of JSON.parse(document.getElementById("figures").textContent)) {{
                item.title = document.getElementById(item.key).previousElementSibling.textContent;
                const isCost = item.key === "chart-cost";
                if (!isCost && !item.figure.layout.meta) continue;
                numRecomputed += 1;
                const recomputed = isCost ? scatter.chart(item, context, ranking.choose(facts, base, state), state) : redraw.chart(item, context);
                if (recomputed.data.length !== item.figure.data.length) differences.push([item.key, "traces", recomputed.data.length]);
                item.figure.data.forEach((trace, place) => {{
                    if (isCost && trace.marker && !near(trace.marker.symbol, recomputed.data[place].marker.symbol)) differences.push([item.key, "symbols"]);
                    for (const key of ["x", "y", "z", "text", "hovertext", "customdata", "name", "textposition", "mode"])
                        if (!near(trace[key], recomputed.data[place][key])) differences.push([item.key, key, trace[key], recomputed.data[place][key]]);
                    for (const bars of ["error_x", "error_y"]) if (trace[bars] && !near(trace[bars].array, recomputed.data[place][bars].array)) differences.push([item.key, bars]);
                }});
                for (const axis of ["xaxis", "yaxis"]) for (const key of ["range", "ticktext", "tickprefix"])
                    if (!near(item.figure.layout[axis][key] || null, recomputed.layout[axis][key] || null)) differences.push([item.key, axis, key, item.figure.layout[axis][key], recomputed.layout[axis][key]]);
                if (recomputed.title !== item.title) differences.push([item.key, "title", recomputed.title]);
            }}
            return [numRecomputed, differences];
        }}"""
    )


def test_the_frozen_encoders_line_is_redrawn(visit):
    page = visit(priced([*study_records(), baseline("features", 0.72)]))
    assert recompute_charts(page)[1] == []
    names = page.evaluate("document.getElementById('chart-cost').data.map((trace) => trace.name)")
    assert "frozen encoder 72.0%" in names or "the model without training 72.0%" in names


def test_the_learning_section_follows_prices_and_the_label_price(visit, wait_until):
    assumptions = assumed("a currency")
    summaries_of_curve = summarize(curve_records())
    cells = price(summaries_of_curve, apply_plan(lambda _: LISTED, assumptions.prices), assumptions)
    page = visit(cells, assumptions=assumptions)
    assert recompute_charts(page)[1] == []
    curve = learning_curves(cells)[0]
    page.locator("#in-value-label-usd").evaluate("(input) => { input.closest('details.group').open = true }")
    page.locator("#in-value-label-usd").fill("0.5")
    page.select_option("#in-prices-plan", "spot")
    expected = [
        0.92 * (point.run_s * LISTED.usd_per_hour_spot / 3600 + 0.5 * point.num_train) for point in curve.points
    ]
    page.locator("#chart-learning-labels").scroll_into_view_if_needed()
    drawn = "document.getElementById('chart-learning-labels').data[0].x"
    wait_until(page, f"{drawn}.every((x, i) => Math.abs(x / {json.dumps(expected)}[i] - 1) < 1e-9)")
    assert page.locator("#learning [data-written]").inner_text().startswith("As the report was written:")


def test_reset_restores_the_report_as_written(own_page, wait_until):
    texts = "[...document.querySelectorAll('#tiles, table.cells, table.figures')].map((element) => element.innerText).join()"
    own_page.evaluate(UNFOLD)
    before = own_page.evaluate(texts)
    own_page.select_option("#in-prices-plan", "own")
    assert own_page.evaluate(texts) != before
    assert own_page.locator("#changes").is_visible()
    own_page.locator("#reset").click()
    assert own_page.evaluate(texts) == before
    assert not own_page.locator("#changes").is_visible()
    assert "#" not in own_page.url or "prices" not in own_page.url


def test_tables_tiles_and_charts_follow_a_changed_assumption(own_page, wait_until):
    own_page.select_option("#in-prices-plan", "spot")
    expected = cells_under(Assumptions.model_validate({"prices": {"plan": "spot"}}))
    heads = own_page.locator("#cell-table thead th").all_inner_texts()
    column = next(index for index, head in enumerate(heads) if head.startswith("a run"))
    for index, cell in enumerate(expected):
        square = own_page.locator(f"#cell-table tr[data-cell='{index}'] > *").nth(column)
        if cell.usd_per_run is not None:
            assert square.locator("span").first.inner_text() == USD.amount(cell.usd_per_run.value)
            assert float(square.get_attribute("data-sort")) == pytest.approx(cell.usd_per_run.value, rel=1e-9)
    pick = choose(expected).pick
    assert USD.amount(pick.usd_per_run.value) in own_page.locator("#tiles").inner_text()
    assert pick.summary.cell in own_page.locator("#cell-table tr.picked").inner_text()
    drawn = (
        "Math.max(...document.getElementById('chart-heat-0-usd').data[0].z.flat().filter((value) => value !== null))"
    )
    grid = [
        cell.usd_per_1000_samples.value
        for cell in expected
        if cell.usd_per_1000_samples
        and cell.summary.cell.endswith("fp32-cpu-longest-all")
        and cell.summary.machine_id == MACHINE["id"]
    ]
    wait_until(own_page, f"Math.abs({drawn} - {max(grid)}) < 1e-12")


def renamed(text, names):
    for name, before in names.items():
        text = text.replace(f": {name}", f": {before}")
    return text


def test_tables_of_costs_worth_and_machines_equal_those_of_python(own_page):
    """Under each set of assumptions, the page's tables have the same text as Python's."""
    own_page.evaluate(UNFOLD)
    for name in ("spot", "own", "a currency", "rows and trials", "kinds of error", "watts"):
        compare_tables(own_page, name)


def compare_tables(page, name):
    written, assumptions = Assumptions(), assumed(name)
    own, cells = cells_under(written), cells_under(assumptions)
    fragment = "&".join(
        f"{key}={'' if value is None else value}"
        for key, value in values(assumptions)
        if value != dict(values(written))[key]
    )
    # Listeners run in the order in which they were added, so the page has handled its new address when this one runs.
    page.evaluate(
        """(fragment) => new Promise((done) => {
            addEventListener("hashchange", done, { once: true });
            location.hash = "#view=engineer&" + fragment;
        }).then(() => null)""",
        fragment,
    )
    page.locator("#changes").wait_for()
    assert page.locator("#ignored").inner_text() == ""
    # The tables keep the rows of the report as written.
    places = {cell.key: index for index, cell in enumerate(own)}
    chosen = choose(own)
    same_rows = replace(
        choose(cells, assumptions),
        pick=cells[places[chosen.pick.key]],
        admitted=tuple(replace(way, cell=cells[places[way.cell.key]]) for way in chosen.admitted),
    )
    money = MoneyFormat(assumptions.prices.currency)
    machines = machines_section(cells, assumptions, money, deadline_s=DEADLINE_S)
    # Machines keep their names of the report as written.
    names = dict(
        zip(machines.recompute["names"], machines_section(own, written, money).recompute["names"], strict=True)
    )
    expected = {
        "[aria-label^='What every measured cell costs'] table": money_section(
            cells, same_rows, assumptions, study_cost(cells, assumptions.prices.rental), money
        ).cells.rows,
        "[aria-label^='What each model would bring'] table": worth_section(
            cells, same_rows, assumptions, money
        ).models.rows,
        "[aria-label^='Price and performance by machine'] table": machines.types.rows,
        "[aria-label^='The same cells side by side'] table": machines.shared.rows,
    }
    for where, rows in expected.items():
        shown = page.locator(where).first.locator("tbody tr")
        assert shown.count() == len(rows) > 3, (name, where)
        texts = shown.evaluate_all("all => all.map((row) => [...row.cells].slice(1).map((cell) => cell.innerText))")
        for shown_texts, row in zip(texts, rows, strict=True):
            lines = [[field.text, *filter(None, field.extra.split("; "))] for field in row[1:]]
            expected_lines = [[renamed(line, names) for line in square] for square in lines]
            assert [text.split("\n") for text in shown_texts] == expected_lines, (name, where, row[0].text)


def test_the_cheapest_cell_for_an_accuracy_is_reachable_by_keyboard_alone(visit):
    """With the keyboard alone: go to the first control, type the required accuracy, and read the cheapest cell."""
    cells = study_cells()
    page = visit(cells, fragment="")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "needed":
            break
    page.keyboard.type("78.5")
    # No lower end is at 78.5 %, so that the cheapest is taken of those whose middle is, and more is to be measured.
    cheapest = choose(cells, goal=Goal(target=0.785)).pick
    decision_text = page.locator("#decision").inner_text()
    assert "Whether it gets 78.5% right on other texts is not certain." in decision_text
    assert decision_text.startswith("Measure more before you decide.")
    assert USD.prose(cheapest.usd_billed.value) in decision_text
    assert percent(cheapest.summary.accuracy.value) in decision_text
    assert cheapest.summary.cell in decision_text
    assert page.url.endswith("#accuracy=0.785")
    page.keyboard.press("Control+A")
    page.keyboard.type("99")
    assert "Nothing gets 99.0% right: the best gets" in page.locator("#decision").inner_text()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "hourly"
    page.keyboard.type("0.5")
    assert f"#accuracy=0.99&hourly.{MACHINE['id']}=0.5" in page.url
    page.locator("#needed").fill("")
    assert "($0.50 an hour, your price)" in page.locator("#decision").inner_text()
    assert "Changed from the report" in page.locator("#changes").inner_text()
    page.locator("#reset").click()
    assert not page.locator("#changes").is_visible()


def test_every_assumption_has_a_control_that_explains_invalid_values(visit):
    page = visit(study_cells())
    page.evaluate("document.querySelectorAll('details.group').forEach((details) => { details.open = true })")
    names = set(dict(values(Assumptions()))) - {
        "prices.own.name",
        "prices.own.machine",
        "prices.currency.source",
        "prices.energy.watts_source",
    }
    for name in names:
        assert page.locator("#in-" + name.replace(".", "-").replace("_", "-")).is_visible(), name
    field = page.locator("#in-prices-own-years")
    field.fill("0")
    assert page.locator("#in-prices-own-years-problem").inner_text() == "more than 0"
    assert field.get_attribute("aria-invalid") == "true"
    assert not page.locator("#changes").is_visible()
    field.fill("2")
    assert page.locator("#in-prices-own-years-problem").inner_text() == ""
    page.locator("#in-prices-own-resale-usd").fill("5000")
    assert page.locator("#in-prices-own-resale-usd-problem").inner_text() == "no more than was paid for it"
    page.locator("#in-prices-own-purchase-usd").fill("6000")
    assert page.locator("#in-prices-own-resale-usd-problem").inner_text() == ""
    assert "Purchase: 6000 USD" in page.locator("#changes").inner_text()
    page.locator("#in-value-false-positive-usd").fill("0.3")
    assert "both kinds" in page.locator("#in-value-false-negative-usd-problem").inner_text()
    page.locator("#in-prices-commitment-utilisation-fraction").fill("29")
    assert page.evaluate("location.hash").count("0.29") == 0  # not while something is wrong
    page.locator("#in-value-false-negative-usd").fill("0.1")
    assert "prices.commitment.utilisation_fraction=0.29&" in page.evaluate("location.hash")


def test_a_link_opens_the_same_view(visit):
    table = load_prices()
    cells = study_cells()
    machine = cells[0].summary.records[0].machine
    page = visit(cells, choices={machine.id: choices(table, machine, ASSUMED)})
    page.evaluate(UNFOLD)
    page.select_option("#price-0", index=2)
    page.locator("#in-prices-currency-code").fill("EUR")
    assert "date of the rate" in page.locator("#in-prices-currency-as-of-problem").inner_text()
    assert "€" not in page.locator("main").inner_text()
    page.locator("#in-prices-currency-per-usd").fill("0.9")
    page.locator("#in-prices-currency-as-of").fill("2026-11-01")
    page.locator("#in-value-items-per-month").fill("5000")
    page.locator("#needed").fill("77")
    page.locator("#views button").first.click()
    page.evaluate(UNFOLD)
    fragment = page.evaluate("location.hash.slice(1)")
    assert fragment.count("&") == 5
    shown = """[...document.querySelectorAll("main :is(p, li, td, th, dd, h2)")].filter((each) => each.checkVisibility())
        .map((each) => each.innerText)"""
    assert any("€0.0" in text for text in page.evaluate(shown))
    reopened = visit(None, fragment=fragment)
    reopened.evaluate(UNFOLD)
    assert reopened.evaluate(shown) == page.evaluate(shown)
    assert reopened.locator("#ignored").inner_text() == ""
    for each in (reopened, page):
        each.locator("#views button").last.click()
        each.evaluate(UNFOLD)
    assert reopened.evaluate(shown) == page.evaluate(shown)
    assert page.evaluate("location.hash.slice(1)") == f"view=engineer&{fragment}"


def test_a_share_is_understood_as_a_fraction_or_as_percent(visit):
    page = visit(study_cells())
    needed = page.locator("#needed")
    for text in ("0.77", "77", "77%"):
        needed.fill(text)
        assert page.evaluate("location.hash") == "#view=engineer&accuracy=0.77", text
    needed.fill("1")
    assert needed.get_attribute("aria-invalid") == "true"
    assert page.evaluate("location.hash") == "#view=engineer&accuracy=0.77"
    assert "1% or 100%" in page.locator("#needed-problem").inner_text()
    needed.fill("")
    assert page.evaluate("location.hash") == "#view=engineer"


@pytest.mark.parametrize(
    ("fragment", "ignored"),
    [
        ("prices.plan=free", "prices.plan"),
        ("prices.own.years=-1&accuracy=700", "prices.own.years, accuracy"),
        ("%E0%A4%A=1&__proto__=2&constructor=3", "%E0%A4%A, __proto__, constructor"),
        ("<img src=x onerror=window.broken=1>=1", "<img src"),
        ("prices.own.resale_usd=1e9", "prices.own.resale_usd"),
        ("prices.currency.per_usd=3", "prices.currency.per_usd"),
        ("prices.currency.code=EUR&prices.currency.per_usd=0.9", "prices.currency.as_of, prices.currency.per_usd"),
        (f"hourly.{MACHINE['id']}=-1&hourly.nobody=1", f"hourly.{MACHINE['id']}, hourly.nobody"),
        ("price.nobody=aws/m5.xlarge/us-east-1&machine=x", "price.nobody, machine"),
        ("view=boss&" + "a" * 10_000 + "=1", "view, " + "a" * 40),
    ],
)
def test_invalid_parts_of_an_address_are_ignored_and_listed(visit, fragment, ignored):
    page = visit(study_cells(), fragment=fragment)
    assert ignored in page.locator("#ignored").inner_text()
    assert page.evaluate("window.broken") is None
    assert not page.locator("#changes").is_visible()


def test_a_section_in_the_address_opens_the_engineers_view_at_it(visit):
    page = visit(study_cells(), fragment="cells")
    assert page.locator("#cell-table").is_visible()
    assert page.evaluate("document.getElementById('cells').getBoundingClientRect().top") < 900
    page.locator("nav a[href='#method']").click()
    assert page.evaluate("document.activeElement.id") == "method"
    assert page.evaluate("location.hash") == "#cells"


def test_text_that_is_not_recomputed_is_marked(visit):
    page = visit(study_cells())
    assert "As the report was written" not in page.locator("main").inner_text()
    page.select_option("#in-prices-plan", "own")
    assert page.locator(".lead").locator("..").inner_text().startswith("As the report was written:")
    assert page.locator("#decision").is_visible()
    assert "your own hardware" in page.locator("#changes").inner_text()
    assert page.locator(".live-price").inner_text().startswith("Now: $")


def test_tables_can_be_filtered_and_copied(visit, wait_until):
    page = visit(own_cells())
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text }")
    page.get_by_label("Filter: Every cell").fill("bf16 g5.xlarge")
    rows = page.locator("#cell-table tbody tr:visible")
    assert rows.count() == 3
    assert page.locator("#csv-said").inner_text().startswith("3 of ")
    scaling = page.locator("#scaling")
    scaling.get_by_role("button", name="devices").click()
    scaling.get_by_role("button", name="Copy as CSV").click()
    wait_until(page, "window.copied")
    lines = page.evaluate("window.copied").splitlines()
    assert lines[0].startswith("scaling,devices,batch a device")
    devices = [float(line.split(",")[1]) for line in lines[1:]]
    assert devices == sorted(devices)
    assert len(devices) == scaling.locator("tbody tr").count()


LONG = "</script><script>window.broken=1</script>\u202e\"'`${x}&\u2028\U0001f4b8" + "x" * 10_000


def test_hostile_text_is_escaped(visit, wait_until):
    records = [
        fine_tune(text=LONG[:600], tokens=("[CLS]", LONG[:600], "[SEP]"), cell=LONG),
        fine_tune(32, cell="=HYPERLINK(1)", study=LONG),
        fine_tune(64, outcome="crashed", reason=LONG),
        baseline(),
    ]
    hostile_price = replace(LISTED, instance=LONG, source=LONG, note=LONG, basis="stated", region=LONG)
    cells = priced(records, price=hostile_price)
    machine = cells[0].summary.records[0].machine
    page = visit(cells, choices={machine.id: (hostile_price, *choices(load_prices(), machine, hostile_price)[1:])})
    page.select_option("#in-prices-plan", "spot")
    page.select_option("#price-0", index=1)
    page.locator("#views button").first.click()
    wait_until(page, "document.querySelectorAll('#chart-cost .main-svg').length > 0")
    assert page.evaluate("window.broken") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= 1400
    assert "\u202e" not in page.locator("body").inner_text()


def test_a_page_of_1000_cells_answers_and_fits_the_window(visit, wait_until):
    records = [
        fine_tune(8 + i % 40, 16 * (1 + i // 40), accuracy=0.7 + (i * 37 % 100) / 1000, cell=f"cell-{i}")
        for i in range(1000)
    ]
    page = visit(priced([*records, baseline()]), fragment="")
    assert (
        page.locator("#decision .say").inner_text().startswith("Measure more before you decide. So far the choice is")
    )
    page.locator("#needed").fill("79")
    assert "Whether it gets 79.0% right" in page.locator("#decision").inner_text()
    page.locator("#views button").last.click()
    page.evaluate("document.querySelectorAll('#assumptions details').forEach((details) => { details.open = true })")
    page.select_option("#in-prices-plan", "own")
    wait_until(page, "document.querySelectorAll('#chart-cost .main-svg').length > 0")
    assert page.locator("#cell-table tbody tr").count() == 1001
    assert page.evaluate("document.documentElement.scrollWidth") <= 1400


def test_printing_shows_the_decision_without_the_controls(visit):
    page = visit(study_cells(), fragment="accuracy=0.78&prices.plan=own")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#decision .say").is_visible()
    assert page.locator("#changes").is_visible()
    for hidden in ("#controls", "#assumptions", "#views", "#cells", "#reset"):
        assert not page.locator(hidden).is_visible(), hidden
    assert page.evaluate("document.querySelector('#chart-cost .main-svg').clientWidth") <= 688


def test_the_page_contains_the_reports_assumptions_cells_and_prices(shared_page):
    facts = shared_page.evaluate(READ)
    assert facts["values"] == dict(values(Assumptions()))
    assert len(facts["cells"]) == len(cells_under(Assumptions()))
    assert asdict(LISTED)["usd_per_hour_spot"] in {
        choice["spot"] for machine in facts["machines"] for choice in machine["choices"]
    }
