"""Age, plan and payment terms of prices throughout the report, and the metadata service's answer."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from datetime import date

from harness.report import write_report
from harness.report.csv_export import csv_text
from harness.report.formatting import USD
from harness.report.sections.details import machine_facts
from tests.make_priced import ASSUMED, AT, fine_tune, priced

YOUNG = replace(ASSUMED, priced_on=date(2026, 10, 29))  # 2026-07 counts as its last day
OLD = replace(ASSUMED, priced_on=date(2026, 10, 30))
PAID = replace(OLD, plan="spot", paid="spot, by contract 7")
WARNING = "91 days old, more than 90: look it up anew"


def summary(price, folder):
    write_report(priced([fine_tune()], price), folder, generated_at=AT)
    return (folder / "summary.md").read_text(encoding="utf-8")


def test_the_page_shows_a_prices_age_and_warns_after_90_days():
    facts = [dict(machine_facts(priced([fine_tune()], price), USD)[0].price) for price in (ASSUMED, YOUNG, OLD)]
    assert [fact["As of"] for fact in facts] == ["2026-07", "2026-07, 90 days old", f"2026-07, {WARNING}"]


def test_the_summary_shows_a_prices_age_and_warns_after_90_days(tmp_path):
    assert "2026-07, 90 days old, AWS EC2 on-demand price list" in summary(YOUNG, tmp_path)
    assert f"2026-07, {WARNING}, AWS EC2" in summary(OLD, tmp_path)


def test_page_and_summary_show_payment_terms(tmp_path):
    assert dict(machine_facts(priced([fine_tune()], PAID), USD)[0].price)["Paid"] == "spot, by contract 7"
    assert "spot, by contract 7" in summary(PAID, tmp_path)
    assert "Paid" not in dict(machine_facts(priced([fine_tune()], OLD), USD)[0].price)


def test_the_csv_has_plan_age_and_payment_terms():
    (row,) = csv.DictReader(io.StringIO(csv_text(priced([fine_tune()], PAID))))
    assert (row["price_plan"], row["price_age_days"], row["price_paid"]) == ("spot", "91", "spot, by contract 7")
    (row,) = csv.DictReader(io.StringIO(csv_text(priced([fine_tune()], None))))
    assert (row["price_plan"], row["price_age_days"], row["price_paid"]) == ("", "", "")


def test_the_metadata_services_answer_is_shown():
    detected = {"vendor": "aws", "instance": "g5.xlarge", "region": "us-east-1", "is_spot": True}
    record = fine_tune()
    detected_record = type(record).model_validate(record.model_dump() | {"detected": detected})
    assert (
        dict(machine_facts(priced([detected_record]), USD)[0].facts)["Metadata service says"]
        == "aws g5.xlarge us-east-1, spot"
    )
    assert "Metadata service says" not in dict(machine_facts(priced([record]), USD)[0].facts)
