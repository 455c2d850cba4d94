"""Dates and ages of prices, merging the user's own table, and large tables."""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.pricing.price_rows import STALE_DAYS, age_words, days_old, last_day
from harness.pricing.price_table import load_prices, own_table_path
from tests.make_tables import PRICE_HEADER, PRICES, change, write_tables

TODAY = date(2026, 8, 1)


class TestAge:
    @pytest.mark.parametrize(
        ("as_of", "day"),
        [
            ("2026-07", date(2026, 7, 31)),
            ("2026-07-15", date(2026, 7, 15)),
            ("2026-02", date(2026, 2, 28)),
            ("2028-02", date(2028, 2, 29)),
            ("2026-12", date(2026, 12, 31)),
        ],
    )
    def test_a_month_is_dated_to_its_last_day(self, as_of, day):
        assert last_day(as_of) == day

    @pytest.mark.parametrize(
        ("as_of", "today", "age"),
        [
            ("2026-07", date(2026, 8, 1), 1),
            ("2026-07", date(2026, 10, 29), 90),
            ("2026-07-01", date(2026, 7, 31), 30),
            ("2026-11", date(2026, 11, 25), 0),  # a month that is not over is not a minus of five days old
            ("2026-11", date(2026, 11, 30), 0),
            ("2026-11", date(2026, 12, 1), 1),
        ],
    )
    def test_days_since(self, as_of, today, age):
        assert days_old(as_of, today) == age

    def test_more_than_ninety_days_are_warned_of(self):
        assert STALE_DAYS == 90
        assert [age_words(age) for age in (None, 0, 1, 90)] == ["", "0 days old", "1 day old", "90 days old"]
        assert age_words(91) == "91 days old, more than 90: look it up anew"

    @pytest.mark.parametrize(
        ("as_of", "allowed"), [("2026-08", True), ("2026-08-01", True), ("2026-08-02", False), ("2026-09", False)]
    )
    def test_a_month_that_has_begun_is_no_future_one(self, tmp_path, as_of, allowed):
        write_tables(tmp_path, [change(PRICES[1], PRICE_HEADER, as_of=as_of)])
        if allowed:
            assert load_prices(tmp_path, today=TODAY).prices[0].as_of == as_of
        else:
            with pytest.raises(UserError, match=f"as_of: found '{as_of}'; allowed: a date not after today, 2026-08-01"):
                load_prices(tmp_path, today=TODAY)

    def test_no_shipped_price_is_older_than_a_year(self):
        """Fail a year after the price lists were last updated."""
        table = load_prices()
        assert table.today is not None
        assert max(days_old(row.as_of, table.today) for row in table.prices) < 730


class TestOwnTable:
    def own(self, folder, *rows):
        path = folder / "own.csv"
        path.write_text("\n".join([PRICE_HEADER, *rows, ""]), encoding="utf-8")
        return path

    def load(self, folder, *rows):
        return load_prices(write_tables(folder), own=self.own(folder, *rows), today=TODAY)

    def test_own_rows_are_added_to_the_shipped_ones(self, tmp_path):
        table = self.load(tmp_path, "hetzner,gex44,fsn1,,,0,,20,64,0.34,,2026-07,invoice")
        assert len(table.prices) == len(PRICES) + 1
        assert table.prices[-1].key == ("hetzner", "gex44", "fsn1")

    @pytest.mark.parametrize(
        ("as_of", "usd"),
        [("2026-08-01", 0.2), ("2026-07-31", 0.2), ("2026-07-30", 0.192), ("2026-07", 0.2), ("2026-06", 0.192)],
    )
    def test_the_newer_of_two_rows_counts_and_the_users_of_one_day(self, tmp_path, as_of, usd):
        row = change(PRICES[1], PRICE_HEADER, as_of=as_of, usd_per_hour_on_demand="0.2")
        table = self.load(tmp_path, row)
        assert len(table.prices) == len(PRICES)
        assert [row.usd_per_hour_on_demand for row in table.prices if row.key == ("aws", "m5.xlarge", "us-east-1")] == [
            usd
        ]
        # Another region is another row.
        assert [row.usd_per_hour_on_demand for row in table.prices if row.region == "eu-west-1"] == [0.214]

    def test_its_mistakes_are_named_with_its_path(self, tmp_path):
        path = tmp_path / "own.csv"
        with pytest.raises(UserError, match=f"{re.escape(str(path))}: 1 mistake\n  line 2: hardware: found 'T5'"):
            self.load(tmp_path, change(PRICES[5], PRICE_HEADER, hardware="T5"))

    def test_a_missing_own_table_has_no_rows(self, tmp_path):
        table = load_prices(write_tables(tmp_path), own=tmp_path / "none.csv", today=TODAY)
        assert len(table.prices) == len(PRICES)

    def test_the_path_of_the_own_table(self, monkeypatch):
        monkeypatch.setenv("HARNESS_PRICES", "/data/mine.csv")
        assert own_table_path() == Path("/data/mine.csv")
        monkeypatch.delenv("HARNESS_PRICES")
        monkeypatch.setenv("XDG_CONFIG_HOME", "/home/x/conf")
        assert own_table_path() == Path("/home/x/conf/bert-cost-harness/prices.csv")
        monkeypatch.delenv("XDG_CONFIG_HOME")
        monkeypatch.setenv("HOME", "/home/x")
        assert own_table_path() == Path("/home/x/.config/bert-cost-harness/prices.csv")

    def test_it_is_read_with_the_shipped_tables(self, tmp_path, monkeypatch):
        monkeypatch.setenv(
            "HARNESS_PRICES", str(self.own(tmp_path, "hetzner,gex44,fsn1,,,0,,20,64,0.34,,2026-07,bill"))
        )
        assert [row.instance_type for row in load_prices().prices if row.provider == "hetzner"] == ["gex44"]


class TestTenThousandRows:
    NUM = 10_000

    def rows(self, **fields):
        return [change(PRICES[6], PRICE_HEADER, instance_type=f"g5.{i}", **fields) for i in range(self.NUM)]

    def test_all_are_read(self, tmp_path):
        table = load_prices(write_tables(tmp_path, self.rows()), today=TODAY)
        assert len(table.prices) == self.NUM
        assert sum(row.usd_per_hour_on_demand for row in table.prices) == pytest.approx(10_060)
        assert table.prices[-1].instance_type == "g5.9999"

    def test_the_mistakes_of_all_its_lines_are_named(self, tmp_path):
        rows = [
            change(row, PRICE_HEADER, hardware=f"NVIDIA A10{i}", as_of=(TODAY + timedelta(days=i + 1)).isoformat())
            for i, row in enumerate(self.rows())
        ]
        with pytest.raises(UserError) as caught:
            load_prices(write_tables(tmp_path, rows), today=TODAY)
        first, *lines = str(caught.value).splitlines()
        assert first.endswith(f"prices.csv: {2 * self.NUM} mistakes")
        assert len(lines) == 2 * self.NUM
        assert (
            lines[0]
            == "  line 2: hardware: found 'NVIDIA A100'; allowed: empty, or a name in hardware.csv (did you mean 'NVIDIA A10G'?)"
        )
        assert lines[-1].startswith(f"  line {self.NUM + 1}: as_of: found '2053-12-")
