"""The row that serves as an example price: its CPUs, their instructions and vendor, its memory and GPUs."""

from __future__ import annotations

from datetime import date

import pytest

from harness.errors import Unavailable, UserError
from harness.pricing.example_row import cpu_vendor, find_example_row
from harness.pricing.price_table import load_prices
from tests.make_records import GIB, make_machine
from tests.make_tables import CPU_HEADER, CPUS, PRICE_HEADER, PRICES, change, write_tables

TODAY = date(2026, 8, 1)
AVX512_BF16 = ("avx2", "avx512f", "avx512_bf16")
AMX = (*AVX512_BF16, "amx_bf16")
XEON = "Intel(R) Xeon(R) Processor"
MILAN, GENOA, RAPIDS, GRAVITON = "c6a", "c7a", "c7i", "c7g"
FAMILIES = (
    r"aws,c6a\..+,amd,Milan,,page",
    r"aws,c7a\..+,amd,Genoa,avx512_bf16,page",
    r"aws,c7i\..+,intel,Sapphire Rapids,avx512_bf16 amx_bf16,page",
    r"aws,c7g\..+,arm,Graviton3,bf16 svebf16,page",
)


def priced(family, num_cpus, usd_per_hour):
    return f"aws,{family}.{num_cpus},us-east-1,,,0,,{num_cpus},{4 * num_cpus},{usd_per_hour},,2026-07,list"


ROWS = (
    priced(GRAVITON, 2, 0.05), priced("m5", 2, 0.06), priced(MILAN, 2, 0.07), priced(RAPIDS, 2, 0.08),
    priced(GENOA, 2, 0.09), priced(MILAN, 4, 0.02), priced(RAPIDS, 8, 0.4), "aws,t3.medium,us-east-1,,,0,,2,4,0.01,,2026-07,list",
)  # fmt: skip


@pytest.fixture
def families(tmp_path):
    return load_prices(write_tables(tmp_path, ROWS, cpu_rows=FAMILIES), today=TODAY)


@pytest.fixture
def table(tmp_path):
    return load_prices(write_tables(tmp_path), today=TODAY)


def chosen(table, machine, needed_bytes=0):
    return find_example_row(table, machine, needed_bytes).row.instance_type


class TestCpus:
    @pytest.mark.parametrize(
        ("model", "flags", "instance"),
        [
            ("AMD EPYC", ("avx2",), "c6a.2"),  # the vendor's cheapest
            ("AMD EPYC", AVX512_BF16, "c7a.2"),  # the instructions come before the price
            (XEON, ("avx2",), "c7i.2"),  # the vendor before the price; m5's CPU is not in the table
            (XEON, AMX, "c7i.2"),
            ("AMD EPYC", AMX, "c7i.2"),  # the instructions before the vendor
            ("Some CPU", ("avx2",), "m5.2"),  # a vendor that nobody knows: the cheapest that isn't Arm
            ("Neoverse-V1", ("asimd", "bf16", "svebf16"), "c7g.2"),
            ("aarch64", ("asimd",), "c7g.2"),
        ],
    )
    def test_instructions_then_vendor_then_price(self, families, model, flags, instance):
        assert chosen(families, make_machine(num_logical=2, model=model, flags=flags)) == instance

    def test_an_equal_number_of_cpus_comes_before_a_lower_price(self, families):
        assert chosen(families, make_machine(num_logical=2)) == "c6a.2"
        assert chosen(families, make_machine(num_logical=3)) == "c6a.4"

    def test_without_an_equal_number_the_nearest_above_counts_and_is_told(self, families):
        found = find_example_row(families, make_machine(num_logical=5), 0)
        assert found.row.instance_type == "c7i.8"
        assert found.note.endswith("no GPU, 5 logical CPUs (AMD); c7i.8 has 8 logical CPUs and CPUs of Intel")

    def test_the_cpus_that_were_usable_count(self, families):
        machine = make_machine(num_logical=64, num_usable=2, flags=AVX512_BF16)
        found = find_example_row(families, machine, 2 * GIB)
        assert found.row.instance_type == "c7a.2"
        assert found.note == (
            "example price: the on-demand row, not burstable, that comes nearest to what was used: no GPU, 2 logical "
            "CPUs (AMD), avx512_bf16, 2.0 GiB of memory"
        )

    def test_without_a_row_that_has_the_instructions_nothing_fits(self, families):
        found = find_example_row(families, make_machine(num_logical=9, flags=AVX512_BF16), 0)
        assert isinstance(found, Unavailable)
        assert found.reason.endswith("no row of the price table has no GPU, 9 logical CPUs (AMD), avx512_bf16")
        assert "--usd-per-hour 1.20" in found.reason and "--instance" in found.reason


@pytest.mark.parametrize(
    ("model", "flags", "vendor"),
    [
        ("AMD Ryzen 7", (), "amd"), ("Intel(R) Core(TM) i7", (), "intel"), ("Apple M2", (), "arm"),
        ("aarch64", (), "arm"), ("unknown", ("asimd",), "arm"), ("Zhaoxin", (), None),
    ],
)  # fmt: skip
def test_the_vendor_is_told_by_the_model_or_arms_flags(model, flags, vendor):
    assert cpu_vendor(make_machine(model=model, flags=flags)) == vendor


def test_a_row_has_the_needed_memory(table):
    # n2-standard-4 has 15 GiB here, m5.xlarge 16.
    assert chosen(table, make_machine(), 15 * GIB) == "n2-standard-4"
    assert chosen(table, make_machine(), 15 * GIB + 1) == "m5.xlarge"
    assert chosen(table, make_machine(), 17 * GIB) == "m5.4xlarge"


class TestGpus:
    @pytest.mark.parametrize(
        ("gpus", "instance"),
        [
            (["Tesla T4"], "g4dn.xlarge"),
            (["NVIDIA A10G"], "g5.xlarge"),
            (["NVIDIA A10G"] * 4, "g5.12xlarge"),
        ],
    )
    def test_a_row_has_the_same_gpus(self, table, gpus, instance):
        assert chosen(table, make_machine(gpus=gpus)) == instance

    def test_the_cheapest_counts_whatever_its_cpus(self, tmp_path):
        rows = [change(row, PRICE_HEADER, vcpus="64", usd_per_hour_on_demand="0.5") for row in PRICES if "g5.x" in row]
        both = [*PRICES, *(row.replace("g5.xlarge", "g5.16xlarge") for row in rows)]
        table = load_prices(write_tables(tmp_path, both), today=TODAY)
        assert chosen(table, make_machine(gpus=["NVIDIA A10G"], flags=AMX)) == "g5.16xlarge"

    @pytest.mark.parametrize(
        ("gpus", "words"),
        [
            (("NVIDIA A10G",) * 2, "2 x NVIDIA A10G, at least 4 logical CPUs"),
            (("NVIDIA A10G", "Tesla T4"), "1 x NVIDIA A10G and 1 x NVIDIA Tesla T4, at least"),
            (("Tesla V100-SXM2-16GB",), "1 x Tesla V100-SXM2-16GB, at least"),
        ],
    )
    def test_without_such_gpus_nothing_fits(self, table, gpus, words):
        found = find_example_row(table, make_machine(gpus=gpus), 0)
        assert f"no row of the price table has {words}" in found.reason


class TestShippedTable:
    @pytest.mark.parametrize(
        ("model", "flags", "num_cpus", "instance"),
        [
            ("AMD EPYC", AVX512_BF16, 2, "c7a.large"),
            (XEON, AVX512_BF16, 2, "c7i.large"),
            ("Neoverse-V1", ("asimd", "bf16", "svebf16"), 2, "c7g.large"),
        ],
    )
    def test_two_cpus_with_instructions_for_bf16(self, model, flags, num_cpus, instance):
        machine = make_machine(num_logical=num_cpus, model=model, flags=flags)
        assert chosen(load_prices(), machine, 2 * GIB) == instance

    def test_every_row_of_the_cpu_table_describes_a_priced_type(self):
        table = load_prices()
        unused = [cpu.match for cpu in table.cpus if not any(cpu.describes(row) for row in table.prices)]
        assert unused == []

    def test_no_type_has_two_cpus(self):
        table = load_prices()
        assert all(sum(cpu.describes(row) for cpu in table.cpus) <= 1 for row in table.prices)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"match": "m5("}, "a regular expression"),
        ({"vendor": "via"}, "vendor: found 'via'"),
        ({"bf16_flags": "amx_bf16 avx2"}, "empty, or of amx_bf16, avx512_bf16, bf16, svebf16; not avx2"),
        ({"source": ""}, "source: found ''"),
    ],
)
def test_mistakes_of_the_cpu_table_are_reported(tmp_path, fields, words):
    folder = write_tables(tmp_path, cpu_rows=[change(CPUS[0], CPU_HEADER, **fields)])
    with pytest.raises(UserError, match=r"cpus\.csv") as caught:
        load_prices(folder, today=TODAY)
    assert words in str(caught.value)
