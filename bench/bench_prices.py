"""Time of reading and of refusing a price table of ten thousand rows, and of cloud detection where there is no cloud.

Run: .venv/bin/pytest bench/bench_prices.py
"""

from __future__ import annotations

import socket
from datetime import date

import pytest

from harness.errors import UserError
from harness.machine.cloud_metadata import detect
from harness.pricing.price_table import load_prices
from tests.make_tables import PRICE_HEADER, PRICES, change, write_tables

TODAY = date(2026, 8, 1)
NUM_ROWS = 10_000


def lay(folder, **fields):
    rows = [change(PRICES[6], PRICE_HEADER, instance_type=f"g5.{i}", **fields) for i in range(NUM_ROWS)]
    return write_tables(folder, rows)


def test_ten_thousand_rows(benchmark, tmp_path):
    folder = lay(tmp_path)
    table = benchmark.pedantic(lambda: load_prices(folder, today=TODAY), rounds=5)
    assert len(table.prices) == NUM_ROWS


def test_ten_thousand_rows_of_two_mistakes_each(benchmark, tmp_path):
    folder = lay(tmp_path, hardware="NVIDIA A10C", source="")

    def refused():
        with pytest.raises(UserError) as caught:
            load_prices(folder, today=TODAY)
        return str(caught.value)

    assert len(benchmark.pedantic(refused, rounds=5).splitlines()) == 2 * NUM_ROWS + 1


def test_a_metadata_service_that_never_answers(benchmark):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = silent.getsockname()
        assert benchmark.pedantic(lambda: detect(None, everywhere=True, address=address), rounds=5) is None
