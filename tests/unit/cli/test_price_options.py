"""`harness report` with the user's prices, values and invoice."""

from __future__ import annotations

import csv
import io
import json

import pytest
from typer.testing import CliRunner

from harness.cli import main as cli
from harness.errors import UserError
from harness.store.record_files import save_record
from tests.make_records import make_baseline, make_record

PRICES = """
discount_percent = 10

[currency]
code = "CHF"
per_usd = 0.8
as_of = 2026-11-02
source = "a bank's list"

[energy]
watts = 65
watts_source = "plug meter"
"""
VALUE = "right_usd = 0.2\nitems_per_month = 5000\n"


@pytest.fixture
def report(tmp_path):
    for record in (make_baseline(), make_record(minutes=1), make_record(minutes=9)):
        save_record(record, tmp_path / "results")

    def write(*options):
        (tmp_path / "prices.toml").write_text(PRICES, encoding="utf-8")
        (tmp_path / "value.toml").write_text(VALUE, encoding="utf-8")
        args = ["report", tmp_path / "results", "--out", tmp_path / "report", *options]
        done = CliRunner().invoke(cli.app, [str(arg) for arg in args], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "report").iterdir()}

    return write


def test_the_users_prices_and_values_are_in_summary_and_csv(report, tmp_path):
    here = ["--instance", "epyc-4c-16g-000001=m5.xlarge"]
    files = report("--prices", tmp_path / "prices.toml", "--value", tmp_path / "value.toml", "--invoice", "0.5", *here)
    summary = files["summary.md"]
    assert "1 USD is 0.8 CHF" in summary
    assert "2 of 15 values are yours; the other 13 are examples and no facts." in summary
    assert "65 W as stated, plug meter, times seconds: an estimate" in summary
    # All three runs were paid for, including the one that a newer run replaced; the invoice is 0.5 USD.
    assert "Measuring all this took 3 runs" in summary
    assert "invoice CHF 0.400 from 0.5 USD as typed in" in summary.replace("\N{NO-BREAK SPACE}", " ")
    assert "$" not in summary
    rows = list(csv.DictReader(io.StringIO(files["cells.csv"])))
    assert {row["usd_per_hour"] for row in rows} == {json.dumps(0.192 * 0.9)}
    assert {row["price_paid"] for row in rows} == {"0.192 USD listed, less 10%"}


def test_without_files_every_value_is_an_example(report):
    summary = report("--usd-per-hour", "3.6")["summary.md"]
    assert "All 15 values are examples and no facts" in summary
    assert "invoice" not in summary


def test_an_infinite_invoice_is_rejected(report):
    with pytest.raises(UserError, match="--invoice inf: expected an amount in USD, 0 or more"):
        report("--invoice", "inf")


def test_a_stated_spread_between_runs_is_the_interval_of_single_runs(report):
    def basis(*options):
        rows = csv.DictReader(io.StringIO(report(*options)["cells.csv"]))
        return {row["samples_per_s_basis"] for row in rows} - {""}

    assert basis() == {"one run, with 10 % between runs assumed"}
    assert basis("--run-spread", "3%") == {"one run, with 3 % between runs stated"}
    with pytest.raises(UserError, match="--run-spread 120%: expected a fraction"):
        report("--run-spread", "120%")
