"""Searching the price table."""

from __future__ import annotations

import io
from datetime import date

import pytest
from rich.console import Console

from harness.cli.views.price_table import as_fields, list_prices, show_prices
from harness.errors import UserError
from harness.pricing.price_search import PriceQuery, search
from harness.pricing.price_table import load_prices
from tests.make_tables import PRICES, write_tables

TODAY = date(2026, 8, 1)
MORE = (
    "gcp,a2-highgpu-1g,us-central1,A100,,1,40,12,85,3.673385,1.92802,2026-04,list",
    "gcp,a2-ultragpu-1g,us-central1,A100-80GB,,1,80,12,170,5.07,2.76,2026-07,list",
    "lambda,gpu_1x_a10,us-east-1,A10,,1,24,30,200,1.29,,2026-07,list",
    "vast,4090,anywhere,RTX4090,,1,24,32,64,0.4,,2026-07,list",
)


@pytest.fixture
def table(tmp_path):
    return load_prices(write_tables(tmp_path, PRICES + MORE), today=TODAY)


def names(table, **wanted):
    return [row.instance_type for row in search(table, PriceQuery(**wanted))]


def test_without_filters_all_rows_come_cheapest_first(table):
    rows = search(table, PriceQuery())
    assert len(rows) == len(PRICES) + len(MORE)
    hourly = [row.usd_per_hour_on_demand for row in rows]
    assert hourly == sorted(hourly)
    assert rows[0].instance_type == "t3.xlarge"


@pytest.mark.parametrize(
    ("gpu", "found"),
    [
        ("A100", ["a2-highgpu-1g", "a2-ultragpu-1g"]),
        ("a100-80gb", ["a2-ultragpu-1g"]),
        ("A10", ["gpu_1x_a10"]),
        ("A10G", ["g5.xlarge", "g5.12xlarge"]),
        ("NVIDIA Tesla T4", ["g4dn.xlarge"]),
        ("tesla t4", ["g4dn.xlarge"]),
        ("RTX 4090", ["4090"]),
        ("rtx4090", ["4090"]),
        ("none", ["t3.xlarge", "n2-standard-4", "m5.xlarge", "m5.xlarge", "m5.4xlarge"]),
    ],
)
def test_a_gpu_is_a_whole_word_of_either_name(table, gpu, found):
    assert names(table, gpu=gpu) == found


def test_filters_hold_together(table):
    assert names(table, gpu="A100", max_usd_per_hour=4, provider="gcp") == ["a2-highgpu-1g"]
    assert names(table, num_cpus=16, memory_gib=64, max_usd_per_hour=0.768) == ["4090", "m5.4xlarge"]
    assert names(table, region="eu-west-1") == ["m5.xlarge"]
    assert [row.region for row in search(table, PriceQuery(instance="m5.xlarge"))] == ["us-east-1", "eu-west-1"]


def test_by_the_spot_price_rows_without_one_are_left_out(table):
    assert names(table, spot=True) == ["m5.xlarge", "a2-highgpu-1g", "a2-ultragpu-1g"]
    assert names(table, spot=True, max_usd_per_hour=2) == ["m5.xlarge", "a2-highgpu-1g"]
    assert names(table, gpu="A100", max_usd_per_hour=3, spot=True) == ["a2-highgpu-1g", "a2-ultragpu-1g"]


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"gpu": "H100"}, "its GPUs: A10, A100, A100-80GB, A10G, RTX4090, T4, V100"),
        ({"gpu": "!"}, "its GPUs: A10,"),
        ({"provider": "gpc"}, "its providers: aws, gcp, lambda, vast"),
        ({"region": "mars-1"}, "its regions: anywhere, eu-west-1, us-central1, us-east-1"),
        ({"gpu": "A100", "max_usd_per_hour": 3}, "leave out one of the filters (it has 13 rows)"),
    ],
)
def test_without_matches_the_error_lists_what_exists(table, wanted, told):
    with pytest.raises(UserError) as caught:
        search(table, PriceQuery(**wanted))
    assert str(caught.value).startswith("no row of the price table matches all filters; ")
    assert told in str(caught.value)


def shown(show, *args):
    console = Console(file=io.StringIO(), width=160)
    show(console, *args)
    return console.file.getvalue()


def test_a_list_shows_ages_and_warns_of_the_old(table):
    wanted = PriceQuery(gpu="A100")
    text = shown(list_prices, search(table, wanted), wanted, table)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "instance USD/h spot CPUs GiB days where GPU"
    assert lines[1] == "a2-highgpu-1g 3.6734 1.9280 12 85 93 gcp us-central1 1 x A100"  # 30 April to 1 August
    assert " 12 170 1 gcp" in lines[2]
    assert "2 of 13 rows, by on-demand price; days: the price's age." in text
    assert "1 of these prices are more than 90 days old" in text
    young = PriceQuery(gpu="T4")
    assert "90 days" not in shown(list_prices, search(table, young), young, table)


def test_a_long_list_is_cut_and_says_so(tmp_path):
    rows = [f"aws,m5.{i},us-east-1,,,0,,4,16,0.2,,2026-07,list" for i in range(61)]
    many = load_prices(write_tables(tmp_path, rows), today=TODAY)
    text = shown(list_prices, search(many, PriceQuery()), PriceQuery(), many)
    assert text.count("us-east-1") == 60
    assert "61 of 61 rows, by on-demand price; days: the price's age. The first 60 are shown" in text


def test_one_instance_is_shown_with_everything_known_of_it(table):
    text = shown(show_prices, search(table, PriceQuery(instance="g5.xlarge")), table)
    for words in (
        "g5.xlarge, aws, us-east-1",
        "1.006 USD an hour",
        "not known",
        "2026-07, 1 day old",
        "4 logical CPUs, 16 GiB",
        "NVIDIA A10G: 22.49 GiB at 600 GB/s, 300 W",
        "fp32 35, tf32 35, bf16 70, fp16 70",
        "note: a note",
        "by the second, at least 60 s (announcement)",
    ):
        assert words in text
    v100 = shown(show_prices, search(table, PriceQuery(instance="1x-V100")), table)
    assert "the hardware table does not know" in v100
    assert "how is not known" in v100
    old = shown(show_prices, search(table, PriceQuery(instance="a2-highgpu-1g")), table)
    assert "93 days old, more than 90: look it up anew" in old
    assert "1.92802 USD an hour (48% less)" in old
    assert "in whole units of 10 s, at least 30 s (page)" in old


def test_scripts_get_rows_with_age_billing_and_hardware(table):
    (row,) = as_fields(search(table, PriceQuery(instance="g5.xlarge")), table)
    assert (row["usd_per_hour_on_demand"], row["age_days"], row["billing"]["minimum_s"]) == (1.006, 1, 60)
    assert row["hardware_facts"]["peak_bf16_tflops"] == 70
    (row,) = as_fields(search(table, PriceQuery(instance="m5.4xlarge")), table)
    assert (row["hardware"], row["hardware_facts"], row["usd_per_hour_spot"]) == (None, None, None)
