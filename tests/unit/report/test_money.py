"""What it costs and whether it is worth it, in the report's words; and the report in another currency."""

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


def price_all(records, assumed, found=HOURLY):
    return price(summarize(records), apply_plan(lambda _summary: found, assumed.prices), assumed)


def section(records, assumed=None, found=HOURLY, invoice_usd=None):
    assumed = assumed or assume()
    cells = price_all(records, assumed, found)
    study = study_cost(cells, assumed.prices.rental)
    return money_section(cells, choose(cells), assumed, study, USD, invoice_usd=invoice_usd)


def lines_of(spent):
    return {row[0].text: row[1] for row in spent.lines.rows}


def write(folder, records, assumed, found=HOURLY, **more):
    write_report(price_all(records, assumed, found), folder, generated_at=AT, assumptions=assumed, **more)
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def shown_text(html):
    """What a reader sees, and what charts are drawn from."""
    figures = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.S)[1]
    return re.sub(r"<(script|style)[^>]*>.*?</\1>", "", html, flags=re.S), figures


class TestMoney:
    def test_the_chosen_cells_amounts_by_hand(self):
        found = lines_of(section([make_baseline(accuracy=0.7), make_record(minutes=1)]))
        assert {name: field.text for name, field in found.items()} == {
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
        assert "stated" in found["A run, billed"].extra

    def test_each_amount_says_what_is_in_it(self):
        told = {row[0].text: row[2].text for row in section([make_record()]).lines.rows}
        assert (
            told["A run, billed"]
            == (
                "on demand: 1.00 min to start and 2.00 min to set up come before, in whole units of 1 s and 0 s at least"
            )
            or "to start and" in told["A run, billed"]
        )
        assert "0.05 interruptions an hour, a checkpoint every 600 s" in told["The same on spot machines, expected"]
        assert "30% of the time" in told["A million predictions"]
        assert told["A month"] == "models made anew: 1, runs for each: 5, hours idle: 0"

    def test_a_minimum_and_begun_hours_are_told(self):
        found = replace(HOURLY, minimum_s=600.0, granularity_s=3600.0)
        told = {row[0].text: row[2].text for row in section([make_record()], found=found).lines.rows}
        assert told["The same on demand"].endswith("come before, 600 s at least, billed by the hour")

    def test_idle_hours_of_what_is_owned_are_in_its_price(self):
        told = {row[0].text: row[2].text for row in section([make_record()], assume(plan="own")).lines.rows}
        assert told["A month"].endswith("idle hours are in the price")
        assert told["A run, billed"] == "as an hour of a machine of one's own: each hour counts alike"

    def test_energy_is_told_with_its_instrument(self):
        spent = section([make_record()], assume(energy={"watts": 1000, "watts_source": "plug meter"}))
        lines = {row[0].text: (row[1].text, row[2].text) for row in spent.lines.rows}
        # 1 kW for 54 s are 15 Wh, 18 with PUE.
        assert lines["Energy of a run"] == (
            "18.0 Wh", "1000 W as stated, plug meter, times seconds: an estimate; with a PUE of 1.2"
        )  # fmt: skip
        assert lines["Its electricity"] == ("$0.00270", "within the amounts above, not on top")
        assert lines["Its emissions"][0] == "7.20 gCO2e"

    def test_every_measured_cell_has_its_row_and_heads_fit(self):
        spent = section([make_baseline(), make_record(minutes=1), make_record(axes={"batch_size": 32}, minutes=2)])
        assert [len(row) for row in spent.cells.rows] == [len(CELL_HEADS)] * 3
        assert all(len(row) == len(LINE_HEADS) for row in spent.lines.rows)
        assert "stated" in spent.cells.rows[1][1].extra

    def test_many_cells_are_counted_and_not_all_shown(self):
        spent = section([make_record(axes={"batch_size": size}, minutes=size) for size in range(1, 46)])
        assert (len(spent.cells.rows), spent.cells.num_more) == (40, 5)

    def test_spot_is_held_against_on_demand(self):
        (spot, hosted) = section([make_record()]).compared
        assert spot.startswith("On spot machines this run is expected to cost $0.00783")
        assert "0.33 times as much" in spot
        assert "(examples)" in spot
        assert "No price of a hosted API is stated" in hosted

    def test_two_ways_whose_intervals_overlap_are_not_ranked(self):
        noisy = make_record(training={"seconds": [0.2, 1.8, 1.0, 1.0] * 3})
        near = replace(HOURLY, usd_per_hour_spot=0.35)
        (spot, _) = section([noisy], found=near).compared
        assert "which can't be told apart" in spot

    def test_a_run_that_never_ends_on_spot_machines_is_told(self):
        (spot, _) = section([make_record()], assume(spot={"interruptions_per_hour": 3_600_000})).compared
        assert "would never end" in spot
        (unknown, _) = section([make_record()], found=replace(HOURLY, usd_per_hour_spot=None)).compared
        assert "No spot price" in unknown

    @pytest.mark.parametrize(
        ("hosted", "words"),
        [
            (4.0, "the API costs 3.0 times as much"),
            (0.5, "this machine costs 2.7 times as much"),
            (100 / 75, "can't be told apart"),
        ],
    )
    def test_a_hosted_api_is_held_against_ones_own_serving(self, hosted, words):
        (_, said) = section([make_record()], assume(serving={"hosted_usd_per_million": hosted})).compared
        assert words in said

    def test_buying_is_held_against_renting_with_the_formula(self):
        # Fixed ((4000 - 500) / 3 + 300) / 8760 + 0.06 x 1.2 x 0.15 = 0.178228, running 0.0612:
        # an hour 0.1782277 / 0.3 + 0.0612 = 0.655292; against 0.36 it pays from 0.178228 / 0.2988 = 59.6 %.
        own, rent, commitment = section([make_record()]).buying
        assert own.startswith(
            "An hour in use of a machine of your own costs $0.6553: (((4000 - 500) / 3 + 0 + 300) / 8760"
        )
        assert own.endswith("x 0.15 = 0.655292 USD (examples).")
        assert "m5.xlarge at $0.36 on demand (stated)" in rent
        assert "buying pays from 59.6% of all hours in use on" in rent
        assert "at $0.2268 for every hour (examples) pays from 63.0% of all hours in use on" in commitment

    @pytest.mark.parametrize(
        ("own", "words"),
        [
            ({"purchase_usd": 40_000}, "does not pay: it would have to be in use for"),
            ({"busy_watts": 9000}, "never pays"),
        ],
    )
    def test_buying_may_not_pay(self, own, words):
        assert words in section([make_record()], assume(own=own)).buying[1]

    def test_measuring_itself_and_its_invoice(self):
        lost = make_record(minutes=1, axes={"batch_size": 999}, outcome="oom", reason="x")
        said = section([make_record(), lost], invoice_usd=0.06).study
        assert said == (
            "Measuring all this took 2 runs, 1 of which did not end well: 2.00 min from their orders to their ends, "
            "$0.0120 of seconds, $0.0300 on a bill that orders each host once.",
            "Estimate $0.0300, invoice $0.0600 as typed in: 2 times the estimate.",
        )

    def test_several_machines_are_told_apart(self):
        records, _ = two_machines()
        said = section(records).study
        assert len(said) == 3
        assert "runs (2 failed)" in said[1]

    def test_an_invoice_without_a_price_stands_alone(self):
        said = section([make_record()], found=Unavailable("no row has this machine"), invoice_usd=3).study
        assert "can't be held against an estimate" in said[-1]

    @pytest.mark.parametrize(
        ("plan", "words"),
        [
            ("on_demand", "at a stated $0.36 an hour, m5.xlarge"),
            ("spot", "at a stated $0.12 an hour on spot machines, m5.xlarge"),
            ("committed", "at a stated $0.4536 an hour in use of a commitment, m5.xlarge"),
            ("own", "at an assumed $0.6553 an hour in use, own machine"),
        ],
    )
    def test_the_answer_says_how_its_hour_is_paid(self, plan, words):
        cells = price_all([make_record()], assume(plan=plan))
        assert words in answer(cells, choose(cells), USD)[0]

    def test_nothing_measured_still_has_a_section(self):
        spent = section([])
        assert (spent.subject, spent.lines.rows, spent.cells.rows, spent.study) == ("", (), (), ())


class TestWorth:
    def words(self, records, assumed=None):
        assumed = assumed or assume()
        cells = price_all(records, assumed)
        return worth_section(cells, choose(cells), assumed, USD)

    def test_each_model_has_its_row(self):
        records = [
            make_baseline("majority", accuracy=0.5),
            make_baseline(accuracy=0.7, minutes=1),
            make_record(minutes=2),
        ]
        found = self.words(records)
        assert [row[0].text for row in found.models.rows] == [
            "majority class", "TF-IDF with logistic regression", "16×64",
        ]  # fmt: skip
        assert [len(row) for row in found.models.rows] == [len(HEADS)] * 3
        majority = dict(zip(HEADS, found.models.rows[0], strict=True))
        # 100,000 x (0.5 x 0.07 - 0.05)
        assert (majority["benefit a month"].text, majority["paid before"].text) == ("-$1,500.00", "$0")
        assert majority["pays back after"].text == "never"

    def test_the_best_is_named_with_its_limits(self):
        first, *rest = self.words([make_record()], assume({"right_usd": 0.2})).sentences
        assert first.startswith("Over 12 months batch 16, 64 tokens, fp32, cpu brings most, $")
        assert "in today's money" in first
        assert any("pays from an accuracy of" in sentence and "items a month on" in sentence for sentence in rest)

    def test_models_whose_worth_overlaps_are_not_ranked(self):
        records = [make_record(), make_record(axes={"batch_size": 32}, minutes=1)]
        found = self.words(records, assume({"right_usd": 0.2}))
        assert "has the highest figure" in found.sentences[0]
        assert any(sentence.startswith("It can't be told apart from: 32×64.") for sentence in found.sentences)

    def test_nothing_may_be_worth_its_money(self):
        first, *_ = self.words([make_record()], assume({"wrong_usd": 5})).sentences
        assert first.startswith("Nothing measured is worth its money over 12 months: even batch 16")

    def test_both_sides_of_nothing_is_not_a_yes(self):
        (judged,) = self.words([make_record()]).models.rows
        items = float(dict(zip(HEADS, judged, strict=True))["break-even items a month"].sort)
        first, *_ = self.words([make_record()], assume({"items_per_month": items * 1.01})).sentences
        assert first.startswith("Whether it is worth its money over 12 months can't be told")

    def test_what_is_clearly_worse_is_left_out(self):
        records = [make_record(), make_record(axes={"batch_size": 32}, minutes=1, training={"accuracy": 0.6})]
        assert len(self.words(records).models.rows) == 1

    def test_without_accuracy_nothing_is_judged(self):
        found = self.words([make_record(training={"accuracy": None})])
        assert (found.models.rows, found.sentences) == (
            (),
            ("Nothing can be judged yet: no model has both a test accuracy and a price.",),
        )

    def test_a_baseline_of_two_machines_is_judged_once(self):
        other = make_machine(machine_id="epyc-8c-32g-000002", num_logical=8)
        records = [make_baseline(accuracy=0.7), make_baseline(accuracy=0.7, machine=other), make_record(minutes=1)]
        names = [row[0].text for row in self.words(records).models.rows]
        assert names[:1] == ["TF-IDF with logistic regression"]
        assert len(names) == 2


class TestMarks:
    def test_each_input_is_yours_or_an_example(self):
        assumed = assume({"right_usd": 0.2}, set_by_user=["value.right_usd", "prices.own.purchase_usd"])
        whose_of = {row[0].sort: row[2].text for row in assumptions_table(assumed, "value").rows}
        assert whose_of["value.right_usd"] == "yours"
        assert whose_of["value.wrong_usd"] == "example"
        assert count_given(assumed, "value") == (1, len(whose_of))
        assert value_origin(assumed, "prices.spot") == "examples"
        assert value_origin(assumed, "prices.own") == "1 of 10 yours, the rest examples"

    def test_values_have_their_units_and_what_is_not_given_says_so(self):
        rows = {row[0].sort: row[1].text for row in assumptions_table(assume(), "prices").rows}
        assert rows["prices.own.purchase_usd"] == "4,000 USD"
        assert rows["prices.energy.watts"] == "not given"
        assert rows["prices.plan"] == "on demand"


class TestCurrency:
    def test_amounts_are_shown_at_the_stated_rate(self):
        money = MoneyFormat(assume(currency=EUR).prices.currency)
        assert [money.amount(value) for value in (3.0, -3.0, 0.003)] == ["€1.50", "-€1.50", "€0.00150"]
        assert money.hourly(0.192) == "€0.096"
        assert money.rate_sentence == (
            "Amounts are in EUR, at a stated rate of 2026-11-02: 1 USD is 0.5 EUR (a bank's list)."
        )
        assert (USD.amount(3.0), USD.rate_sentence) == ("$3.00", "")

    def test_a_currency_without_a_sign_of_its_own_has_its_code(self):
        money = MoneyFormat(assume(currency=EUR | {"code": "CHF"}).prices.currency)
        assert money.amount(3.0) == "CHF\N{NO-BREAK SPACE}1.50"

    def test_a_report_in_euros_has_no_figure_in_dollars_and_says_the_rate(self, tmp_path):
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

    def test_charts_are_drawn_in_the_currency(self, tmp_path):
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
        assert "EUR a run" in euros["chart-cost"]["layout"]["xaxis"]["title"]["text"]

    def test_bars_of_machines_are_drawn_in_the_currency(self):
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

    def test_the_table_stays_in_dollars(self, tmp_path):
        tables = [
            write(tmp_path / name, study_records(), assumed)["cells.csv"]
            for name, assumed in (("usd", assume()), ("eur", assume(currency=EUR)))
        ]
        assert tables[0] == tables[1]


class TestFiles:
    def test_the_page_and_the_summary_have_both_sections(self, tmp_path):
        files = write(tmp_path, study_records(), assume())
        for anchor in ("money", "worth"):
            assert f'<section id="{anchor}"' in files["report.html"]
            assert f'href="#{anchor}"' in files["report.html"]
        for head in ("## What it costs", "## Is it worth it"):
            assert head in files["summary.md"]

    def test_the_table_has_every_amount_with_its_ends(self, tmp_path):
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
                found = getattr(cell, f"usd_{name}")
                for suffix, side in (("", "value"), ("_low", "low"), ("_high", "high")):
                    value = None if found is None else getattr(found, side)
                    assert row[f"usd_{name}{suffix}"] == ("" if value is None else json.dumps(value))
            if cell.energy is not None:
                assert float(row["energy_joules"]) == cell.energy.joules.value
                assert (row["energy_is_estimate"], row["price_plan"]) == ("true", "on_demand")

    def test_foreign_words_in_the_readers_files_are_escaped(self, tmp_path):
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

    def test_without_prices_it_says_so_and_nothing_breaks(self, tmp_path):
        files = write(
            tmp_path, study_records(), assume(), found=Unavailable("no row has this machine; give --usd-per-hour")
        )
        assert "Nothing can be judged yet" in files["summary.md"]
