"""The report's sections on cost and worth, and the report in another currency."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import pytest

from harness.analysis.summarize import summarize
from harness.decision.choice import choose
from harness.decision.study_cost import study_cost
from harness.errors import Unavailable
from harness.pricing.cost import price
from harness.pricing.prices import Price
from harness.pricing.rates import apply_plan
from harness.report import write_report
from harness.report.formatting import USD, MoneyFormat
from harness.report.sections.answer import answer
from harness.report.sections.assumptions import assumptions_table, count_given, value_origin
from harness.report.sections.machines import machines_section
from harness.report.sections.money import CELL_HEADS, LINE_HEADS, money_section
from harness.report.sections.worth import HEADS, worth_section
from harness.schema.assumptions import Assumptions
from tests.make_priced import AT, study_records, two_machines
from tests.make_records import make_baseline, make_machine, make_record

HOURLY = Price(
    0.36, "m5.xlarge", "aws", "us-east-1", "stated", "2026-07", "list", None,
    usd_per_hour_listed=0.36, usd_per_hour_on_demand=0.36, usd_per_hour_spot=0.12,
)  # fmt: skip
EUR = {"code": "EUR", "per_usd": 0.5, "as_of": "2026-11-02", "source": "a bank's list"}


def assume(value=(), set_by_user=(), **prices):
    return Assumptions.model_validate({"prices": prices, "value": dict(value), "set_by_user": frozenset(set_by_user)})


def price_all(records, assumed, machine_price=HOURLY):
    return price(summarize(records), apply_plan(lambda _summary: machine_price, assumed.prices), assumed)


def section(records, assumed=None, machine_price=HOURLY, invoice_usd=None):
    assumed = assumed or assume()
    cells = price_all(records, assumed, machine_price)
    study = study_cost(cells, assumed.prices.rental)
    return money_section(cells, choose(cells), assumed, study, USD, invoice_usd=invoice_usd)


def lines_of(costs):
    return {row[0].text: row[1] for row in costs.lines.rows}


def write(folder, records, assumed, machine_price=HOURLY, **more):
    write_report(price_all(records, assumed, machine_price), folder, generated_at=AT, assumptions=assumed, **more)
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def shown_text(html):
    """Return the page without scripts and styles, and the JSON that its charts are drawn from."""
    figures = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.S)[1]
    return re.sub(r"<(script|style)[^>]*>.*?</\1>", "", html, flags=re.S), figures


class TestMoney:
    def test_the_chosen_cells_costs_match_hand_computed_ones(self):
        amounts = lines_of(section([make_baseline(accuracy=0.7), make_record(minutes=1)]))
        assert {name: field.text for name, field in amounts.items()} == {
            "A run, measured": "$0.00540",
            "A run, billed": "$0.0234",
            "The same on demand": "$0.0234",
            "The same on spot machines, expected": "$0.00783",
            "An epoch": "$0.0125",
            "To the target accuracy": "not known",
            "A point of accuracy above TF-IDF": "$0.00234",
            "A month": "$0.117",
            "A million predictions": "$1.33",
            "Energy of a run": "not measured",
        }
        assert "stated" in amounts["A run, billed"].extra

    def test_each_cost_says_what_it_includes(self):
        contents = {row[0].text: row[2].text for row in section([make_record()]).lines.rows}
        assert contents["A run, billed"] == (
            "on demand: 60.0 s to start and 2.00 min to set up come before, billed by the second"
        )
        assert "0.05 interruptions an hour, a checkpoint every 600 s" in contents["The same on spot machines, expected"]
        assert "30% of the time" in contents["A million predictions"]
        assert contents["A month"] == "models made anew: 1, runs for each: 5, hours idle: 0"

    def test_minimum_charge_and_billing_unit_are_stated(self):
        machine_price = replace(HOURLY, minimum_s=600.0, granularity_s=3600.0)
        contents = {
            row[0].text: row[2].text for row in section([make_record()], machine_price=machine_price).lines.rows
        }
        assert contents["The same on demand"].endswith("come before, 600 s at least, billed by the hour")

    def test_idle_hours_of_own_hardware_are_included_in_its_price(self):
        contents = {row[0].text: row[2].text for row in section([make_record()], assume(plan="own")).lines.rows}
        assert contents["A month"].endswith("idle hours are in the price")
        assert contents["A run, billed"] == "as an hour of a machine of one's own: each hour counts alike"

    def test_energy_is_shown_with_its_source(self):
        costs = section([make_record()], assume(energy={"watts": 1000, "watts_source": "plug meter"}))
        lines = {row[0].text: (row[1].text, row[2].text) for row in costs.lines.rows}
        # 1 kW for 54 s is 15 Wh, and 18 Wh with a PUE of 1.2.
        assert lines["Energy of a run"] == (
            "18.0 Wh", "1000 W as stated, plug meter, times seconds: an estimate; with a PUE of 1.2"
        )  # fmt: skip
        assert lines["Its electricity"] == ("$0.00270", "within the amounts above, not on top")
        assert lines["Its emissions"][0] == "7.20 gCO2e"

    def test_every_measured_cell_has_a_row_with_a_field_per_head(self):
        costs = section([make_baseline(), make_record(minutes=1), make_record(axes={"batch_size": 32}, minutes=2)])
        assert [len(row) for row in costs.cells.rows] == [len(CELL_HEADS)] * 3
        assert all(len(row) == len(LINE_HEADS) for row in costs.lines.rows)
        assert "stated" in costs.cells.rows[1][1].extra

    def test_forty_cells_are_shown_and_the_rest_are_counted(self):
        costs = section([make_record(axes={"batch_size": size}, minutes=size) for size in range(1, 46)])
        assert (len(costs.cells.rows), costs.cells.num_more) == (40, 5)

    def test_spot_is_compared_with_on_demand(self):
        (spot, hosted) = section([make_record()]).compared
        assert spot.startswith("On spot machines this run is expected to cost $0.00783")
        assert "0.33 times as much" in spot
        assert "(examples)" in spot
        assert "No price of a hosted API is stated" in hosted

    def test_runs_that_never_end_on_spot_and_missing_spot_prices_are_reported(self):
        (spot, _) = section([make_record()], assume(spot={"interruptions_per_hour": 3_600_000})).compared
        assert "would never end" in spot
        (unknown, _) = section([make_record()], machine_price=replace(HOURLY, usd_per_hour_spot=None)).compared
        assert "No spot price" in unknown

    @pytest.mark.parametrize(
        ("hosted", "phrase"),
        [
            (4.0, "the API costs 3.0 times as much"),
            (0.5, "this machine costs 2.7 times as much"),
            (100 / 75, "no significant difference"),
        ],
    )
    def test_a_hosted_api_is_compared_with_own_serving(self, hosted, phrase):
        (_, sentence) = section([make_record()], assume(serving={"hosted_usd_per_million": hosted})).compared
        assert phrase in sentence

    def test_buying_is_compared_with_renting_by_the_printed_formula(self):
        # USD per hour: fixed ((4000 - 500) / 3 + 300) / 8760 + 0.06 x 1.2 x 0.15 = 0.178228, in use another 0.0612.
        # In use 30 % of the time: 0.1782277 / 0.3 + 0.0612 = 0.655292. Break-even with renting at 0.36:
        # 0.178228 / (0.36 - 0.0612) = 59.6 % of the time.
        own, rent, commitment = section([make_record()]).buying
        assert own.startswith(
            "An hour in use of a machine of your own costs $0.6553: (((4000 - 500) / 3 + 0 + 300) / 8760"
        )
        assert own.endswith("x 0.15 = 0.655292 USD (examples).")
        assert "m5.xlarge at $0.36 on demand (stated)" in rent
        assert "buying pays from 59.6% of all hours in use on" in rent
        assert "at $0.2268 for every hour (examples) pays from 63.0% of all hours in use on" in commitment

    @pytest.mark.parametrize(
        ("own", "phrase"),
        [
            ({"purchase_usd": 40_000}, "does not pay: it would have to be in use for"),
            ({"busy_watts": 9000}, "never pays"),
        ],
    )
    def test_buying_that_does_not_pay_is_reported(self, own, phrase):
        assert phrase in section([make_record()], assume(own=own)).buying[1]

    def test_the_cost_of_measuring_is_compared_with_the_invoice(self):
        failed = make_record(minutes=1, axes={"batch_size": 999}, outcome="oom", reason="x")
        sentences = section([make_record(), failed], invoice_usd=0.06).study
        assert sentences == (
            "Measuring all this took 2 runs, 1 of which did not end well: 2.00 min from their orders to their ends, "
            "$0.0120 of seconds, $0.0300 on a bill that orders each host once.",
            "Estimate $0.0300, invoice $0.0600 as typed in: 2 times the estimate.",
        )

    def test_the_cost_of_measuring_is_listed_per_machine(self):
        records, _ = two_machines()
        sentences = section(records).study
        assert len(sentences) == 3
        assert "runs (2 failed)" in sentences[1]

    def test_an_invoice_without_a_price_is_not_compared(self):
        sentences = section([make_record()], machine_price=Unavailable("no row has this machine"), invoice_usd=3).study
        assert "can't be compared with an estimate" in sentences[-1]

    @pytest.mark.parametrize(
        ("plan", "phrase"),
        [
            ("on_demand", "at a stated $0.36 an hour, m5.xlarge"),
            ("spot", "at a stated $0.12 an hour on spot machines, m5.xlarge"),
            ("committed", "at a stated $0.4536 an hour in use of a commitment, m5.xlarge"),
            ("own", "at an example $0.6553 an hour in use, own machine"),
        ],
    )
    def test_the_answer_states_the_plan_and_its_hourly_price(self, plan, phrase):
        cells = price_all([make_record()], assume(plan=plan))
        assert phrase in answer(cells, choose(cells), USD)[0]

    def test_an_empty_study_has_an_empty_section(self):
        costs = section([])
        assert (costs.subject, costs.lines.rows, costs.cells.rows, costs.study) == ("", (), (), ())


class TestWorth:
    def section(self, records, assumed=None):
        assumed = assumed or assume()
        cells = price_all(records, assumed)
        return worth_section(cells, choose(cells), assumed, USD)

    def test_each_model_has_a_row(self):
        records = [
            make_baseline("majority", accuracy=0.5),
            make_baseline(accuracy=0.7, minutes=1),
            make_record(minutes=2),
        ]
        worth = self.section(records)
        assert [row[0].text for row in worth.models.rows] == [
            "majority class", "TF-IDF with logistic regression", "16×64",
        ]  # fmt: skip
        assert [len(row) for row in worth.models.rows] == [len(HEADS)] * 3
        majority = dict(zip(HEADS, worth.models.rows[0], strict=True))
        # 100,000 x (0.5 x 0.07 - 0.05) USD
        assert (majority["benefit a month"].text, majority["paid before"].text) == ("-$1,500.00", "$0")
        assert majority["pays back after"].text == "never"

    def test_the_best_model_is_named_with_its_break_even_points(self):
        first, *rest = self.section([make_record()], assume({"right_usd": 0.2})).sentences
        assert first.startswith("Over 12 months batch 16, 64 tokens, fp32, cpu has the highest value, $")
        assert "in today's money" in first
        assert any("pays from an accuracy of" in sentence and "items a month on" in sentence for sentence in rest)

    def test_a_study_without_a_worthwhile_model_says_so(self):
        first, *_ = self.section([make_record()], assume({"wrong_usd": 5})).sentences
        assert first.startswith("Nothing measured is worth its money over 12 months: even batch 16")

    def test_a_net_present_value_interval_that_includes_zero_is_inconclusive(self):
        (judged,) = self.section([make_record()]).models.rows
        items = float(dict(zip(HEADS, judged, strict=True))["break-even items a month"].sort)
        first, *_ = self.section([make_record()], assume({"items_per_month": items * 1.01})).sentences
        assert first.startswith("Whether it is worth its money over 12 months is not certain")

    def test_clearly_less_accurate_models_are_left_out(self):
        records = [make_record(), make_record(axes={"batch_size": 32}, minutes=1, training={"accuracy": 0.6})]
        assert len(self.section(records).models.rows) == 1

    def test_without_accuracy_no_model_is_judged(self):
        worth = self.section([make_record(training={"accuracy": None})])
        assert (worth.models.rows, worth.sentences) == (
            (),
            ("Nothing can be judged yet: no model has both a test accuracy and a price.",),
        )

    def test_a_baseline_run_on_two_machines_is_listed_once(self):
        other = make_machine(machine_id="epyc-8c-32g-000002", num_logical=8)
        records = [make_baseline(accuracy=0.7), make_baseline(accuracy=0.7, machine=other), make_record(minutes=1)]
        names = [row[0].text for row in self.section(records).models.rows]
        assert names[:1] == ["TF-IDF with logistic regression"]
        assert len(names) == 2


class TestMarks:
    def test_each_assumption_is_marked_yours_or_example(self):
        assumed = assume({"right_usd": 0.2}, set_by_user=["value.right_usd", "prices.own.purchase_usd"])
        origins = {row[0].sort: row[2].text for row in assumptions_table(assumed, "value").rows}
        assert origins["value.right_usd"] == "yours"
        assert origins["value.wrong_usd"] == "example"
        assert count_given(assumed, "value") == (1, len(origins))
        assert value_origin(assumed, "prices.spot") == "examples"
        assert value_origin(assumed, "prices.own") == "1 of 10 yours, the rest examples"

    def test_values_have_units_and_missing_ones_read_not_given(self):
        rows = {row[0].sort: row[1].text for row in assumptions_table(assume(), "prices").rows}
        assert rows["prices.own.purchase_usd"] == "4,000 USD"
        assert rows["prices.energy.watts"] == "not given"
        assert rows["prices.plan"] == "on demand"


class TestCurrency:
    def test_amounts_are_converted_at_the_stated_rate(self):
        money = MoneyFormat(assume(currency=EUR).prices.currency)
        assert [money.amount(value) for value in (3.0, -3.0, 0.003)] == ["€1.50", "-€1.50", "€0.00150"]
        assert money.hourly(0.192) == "€0.096"
        assert money.rate_sentence == (
            "Amounts are in EUR, at a stated rate of 2026-11-02: 1 USD is 0.5 EUR (a bank's list)."
        )
        assert (USD.amount(3.0), USD.rate_sentence) == ("$3.00", "")

    def test_a_currency_without_a_symbol_is_shown_by_its_code(self):
        money = MoneyFormat(assume(currency=EUR | {"code": "CHF"}).prices.currency)
        assert money.amount(3.0) == "CHF\N{NO-BREAK SPACE}1.50"

    def test_a_report_in_euros_has_no_dollar_amounts_and_states_the_rate(self, tmp_path):
        records, _ = two_machines()
        files = write(tmp_path, records, assume(currency=EUR), invoice_usd=12.34)
        text, figures = shown_text(files["report.html"])
        for shown in (text, figures, files["summary.md"]):
            assert "$" not in shown
            assert "€" in shown or "\\u20ac" in shown
        for shown in (text, files["summary.md"]):
            assert "invoice €6.17 from 12.34 USD as typed in" in shown
            assert "1 USD is 0.5 EUR" in shown
            assert "2026-11-02" in shown

    def test_charts_use_the_currency(self, tmp_path):
        def drawn(name, assumed):
            html = write(tmp_path / name, study_records(), assumed)["report.html"]
            return {chart["key"]: chart["figure"] for chart in json.loads(shown_text(html)[1])}

        dollars, euros = drawn("usd", assume()), drawn("eur", assume(currency=EUR))

        def axis(charts, key, name="x"):
            return [value for trace in charts[key]["data"][:1] for value in trace[name] if value is not None]

        assert axis(euros, "chart-cost") == pytest.approx([value / 2 for value in axis(dollars, "chart-cost")])
        assert axis(euros, "chart-curve-usd") == pytest.approx(
            [value / 2 for value in axis(dollars, "chart-curve-usd")]
        )
        assert axis(euros, "chart-curve-s") == axis(dollars, "chart-curve-s")
        heat = next(key for key in euros if key.startswith("chart-heat") and key.endswith("usd"))
        flat = [
            [value for row in charts[heat]["data"][0]["z"] for value in row if value is not None]
            for charts in (dollars, euros)
        ]
        assert flat[1] == pytest.approx([value / 2 for value in flat[0]])
        assert "EUR a training" in euros["chart-cost"]["layout"]["xaxis"]["title"]["text"]

    def test_machine_bars_use_the_currency(self):
        other = make_machine(machine_id="epyc-8c-32g-000002", num_logical=8)
        prices = {other.id: replace(HOURLY, instance="m5.2xlarge")}
        summaries, drawn = summarize([make_record(), make_record(machine=other)]), {}
        for assumed in (assume(), assume(currency=EUR)):
            cells = price(summaries, lambda summary: prices.get(summary.machine_id, HOURLY), assumed)
            money = MoneyFormat(assumed.prices.currency)
            charts = {chart.key: chart.figure for chart in machines_section(cells, assumed, money).charts}
            bars = [value for trace in charts["chart-machines-usd"].data for value in trace.x]
            drawn[assumed.prices.currency.code] = bars
        assert drawn["USD"][0] == pytest.approx(0.00625)
        assert drawn["EUR"] == pytest.approx([value / 2 for value in drawn["USD"]])

    def test_the_csv_stays_in_dollars(self, tmp_path):
        tables = [
            write(tmp_path / name, study_records(), assumed)["cells.csv"]
            for name, assumed in (("usd", assume()), ("eur", assume(currency=EUR)))
        ]
        assert tables[0] == tables[1]


class TestFiles:
    def test_page_and_summary_have_the_money_and_worth_sections(self, tmp_path):
        files = write(tmp_path, study_records(), assume())
        assert '<section id="money"' in files["report.html"]
        assert 'href="#money"' in files["report.html"]
        assert '<h3 id="worth">' in files["report.html"]
        for head in ("## What it costs", "## Is it worth it"):
            assert head in files["summary.md"]

    def test_the_csv_has_every_cost_with_its_interval(self, tmp_path):
        rows = list(
            csv.DictReader(io.StringIO(write(tmp_path, study_records(), assume(energy={"watts": 65}))["cells.csv"]))
        )
        cells = price_all(study_records(), assume(energy={"watts": 65}))
        for row, cell in zip(rows, cells, strict=True):
            for name in (
                "billed",
                "billed_on_demand",
                "billed_spot",
                "per_accuracy_point",
                "per_month",
                "per_million_predictions",
            ):
                estimate = getattr(cell, f"usd_{name}")
                for suffix, side in (("", "value"), ("_low", "low"), ("_high", "high")):
                    value = None if estimate is None else getattr(estimate, side)
                    assert row[f"usd_{name}{suffix}"] == ("" if value is None else json.dumps(value))
            if cell.energy is not None:
                assert float(row["energy_joules"]) == cell.energy.joules.value
                assert (row["energy_is_estimate"], row["price_plan"]) == ("true", "on_demand")

    def test_untrusted_text_in_the_users_files_is_escaped(self, tmp_path):
        hostile = "</script><script>alert(1)</script><img src=x onerror=alert(1)> \u202e"
        assumed = assume(
            plan="own", own={"name": hostile, "purchase_usd": 1000}, currency=EUR | {"source": hostile},
            energy={"watts": 5, "watts_source": hostile},
        )  # fmt: skip
        files = write(tmp_path, study_records(), assumed)
        for text in (files["report.html"], files["summary.md"]):
            assert "alert(1)" in text
            assert "<img src=x" not in text
            assert "alert(1)</script>" not in text
            assert "\u202e" not in text

    def test_a_study_without_prices_says_that_nothing_can_be_judged(self, tmp_path):
        files = write(
            tmp_path,
            study_records(),
            assume(),
            machine_price=Unavailable("no row has this machine; give --usd-per-hour"),
        )
        assert "Nothing can be judged yet" in files["summary.md"]
