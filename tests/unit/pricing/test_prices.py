"""The price table's checks, each look-up's branch, and the shipped tables themselves."""

from __future__ import annotations

import csv
from datetime import date

import pytest

from harness.analysis.summarize import summarize
from harness.errors import UserError
from harness.pricing.price_rows import PriceRow
from harness.pricing.price_search import burstable, find_hardware, find_instance, gpu_peak_flops
from harness.pricing.price_table import load_prices
from harness.pricing.prices import Price, price_finder, price_machine
from harness.pricing.rates import price_under_plan
from harness.schema.assumptions import PriceBook, load_assumptions
from harness.schema.host_record import DetectedInstance, StatedInstance
from harness.shipped import tables_folder
from tests.make_records import GIB, make_machine, make_record
from tests.make_tables import (
    BILLING,
    BILLING_HEADER,
    HARDWARE,
    HARDWARE_HEADER,
    PRICE_HEADER,
    PRICES,
    change,
    write_tables,
)

TODAY = date(2026, 8, 1)


@pytest.fixture
def table(tmp_path):
    return load_prices(write_tables(tmp_path), today=TODAY)


class TestReading:
    def test_empty_fields_are_none_and_numbers_are_numbers(self, table):
        row = table.prices[1]
        assert (row.accelerator, row.hardware, row.accelerator_memory_gib) == (None, None, None)
        assert (row.vcpus, row.memory_gib, row.usd_per_hour_on_demand, row.usd_per_hour_spot) == (4, 16.0, 0.192, 0.08)
        assert (table.hardware[0].peak_bf16_tflops, table.hardware[1].note) == (None, "a note")

    @pytest.mark.parametrize(
        ("field", "value", "problem"),
        [
            ("usd_per_hour_on_demand", "", "usd_per_hour_on_demand: found ''; allowed: a number above 0"),
            ("usd_per_hour_on_demand", "free", "usd_per_hour_on_demand: found 'free'; allowed: a number above 0"),
            ("usd_per_hour_on_demand", "0", "usd_per_hour_on_demand: found '0'; allowed: a number above 0, and no"),
            ("usd_per_hour_on_demand", "-1", "usd_per_hour_on_demand: found '-1'; allowed: a number above 0, and no"),
            ("usd_per_hour_on_demand", "999", "found '999'; allowed: a number above 0, and no placeholder such as 999"),
            ("usd_per_hour_on_demand", "nan", "usd_per_hour_on_demand: found 'nan'; allowed: a number above 0, and no"),
            ("usd_per_hour_on_demand", "inf", "usd_per_hour_on_demand: found 'inf'; allowed: a number above 0, and no"),
            ("usd_per_hour_spot", "0.192", "usd_per_hour_spot: found '0.192'; allowed: less than on demand (0.192)"),
            ("usd_per_hour_spot", "0", "usd_per_hour_spot: found '0'; allowed: a number above 0, and no placeholder"),
            ("vcpus", "0", "vcpus: found '0'; allowed: a number above 0, and no placeholder such as 999"),
            ("vcpus", "2.5", "vcpus: found '2.5'; allowed: a whole number"),
            ("memory_gib", "9999", "memory_gib: found '9999'; allowed: a number above 0, and no placeholder"),
            ("accelerator_count", "1", "accelerator_count: found '1'; allowed: 0 without an accelerator, 1 or more"),
            ("accelerator_count", "-1", "accelerator_count: found '-1'; allowed: a whole number"),
            ("accelerator", "T4", "accelerator_count: found '0'; allowed: 0 without an accelerator, 1 or more with"),
            (
                "hardware",
                "NVIDIA T4",
                "hardware: found 'NVIDIA T4'; allowed: empty, or a name in hardware.csv (did you",
            ),
            ("hardware", "xyz", "hardware: found 'xyz'; allowed: empty, or a name in hardware.csv"),
            ("as_of", "2026", "as_of: found '2026'; allowed: a date as YYYY-MM or YYYY-MM-DD"),
            ("as_of", "2026-13", "as_of: found '2026-13'; allowed: a date as YYYY-MM or YYYY-MM-DD"),
            ("as_of", "20260701", "as_of: found '20260701'; allowed: a date as YYYY-MM or YYYY-MM-DD"),
            ("as_of", "2026-09", "as_of: found '2026-09'; allowed: a date not after today, 2026-08-01"),
            ("as_of", "2026-08-02", "as_of: found '2026-08-02'; allowed: a date not after today, 2026-08-01"),
            ("source", "", "source: found ''; allowed: text, not empty"),
            ("source", " ", "source: found ' '; allowed: text, not empty"),
            ("region", "", "region: found ''; allowed: text, not empty"),
        ],
    )
    def test_a_wrong_price_is_named_with_its_line(self, tmp_path, field, value, problem):
        bad = change(PRICES[1], PRICE_HEADER, **{field: value})
        write_tables(tmp_path, [PRICES[0], bad])
        with pytest.raises(UserError) as caught:
            load_prices(tmp_path, today=TODAY)
        first, line = str(caught.value).splitlines()
        assert first == f"{tmp_path / 'prices.csv'}: 1 mistake"
        assert line.startswith("  line 3: ")
        assert problem in line

    def test_a_price_of_today_is_no_future_price(self, tmp_path):
        write_tables(tmp_path, [change(PRICES[1], PRICE_HEADER, as_of="2026-08-01")])
        assert load_prices(tmp_path, today=TODAY).prices[0].as_of == "2026-08-01"

    @pytest.mark.parametrize(
        ("field", "value", "problem"),
        [
            ("match", "t4(", "line 2: match: found 't4('; allowed: a regular expression (missing ), unterminated"),
            ("kind", "tpu", "line 2: kind: found 'tpu'; allowed: 'gpu'"),
            ("tdp_watts", "0", "line 2: tdp_watts: found '0'; allowed: a number above 0"),
            ("peak_fp16_tflops", "none", "line 2: peak_fp16_tflops: found 'none'; allowed: a number above 0"),
            ("name", "NVIDIA A10G", "line 3: NVIDIA A10G is already in line 2"),
        ],
    )
    def test_wrong_hardware_is_named_with_its_line(self, tmp_path, field, value, problem):
        write_tables(tmp_path, (), [change(HARDWARE[0], HARDWARE_HEADER, **{field: value}), HARDWARE[1]])
        with pytest.raises(UserError) as caught:
            load_prices(tmp_path, today=TODAY)
        assert problem in str(caught.value)

    def test_all_mistakes_of_a_file_come_at_once(self, tmp_path):
        rows = [
            PRICES[1],
            change(PRICES[1], PRICE_HEADER, source="", vcpus="x"),
            "aws,short,us-east-1",
            PRICES[4] + ",one too many",
            change(PRICES[4], PRICE_HEADER, as_of="soon"),
        ]
        write_tables(tmp_path, rows)
        with pytest.raises(UserError) as caught:
            load_prices(tmp_path, today=TODAY)
        assert [line.strip() for line in str(caught.value).splitlines()] == [
            f"{tmp_path / 'prices.csv'}: 6 mistakes",
            "line 3: aws m5.xlarge us-east-1 is already in line 2",
            "line 3: vcpus: found 'x'; allowed: a number above 0",
            "line 3: source: found ''; allowed: text, not empty",
            "line 4: not as many fields as the header has (13)",
            "line 5: not as many fields as the header has (13)",
            "line 6: as_of: found 'soon'; allowed: a date as YYYY-MM or YYYY-MM-DD",
        ]

    def test_a_line_number_is_the_files_own_behind_a_quoted_line_break(self, tmp_path):
        quoted = 'aws,m5.large,us-east-1,,,0,,2,8,0.096,,2026-07,"a list\nof two lines"'
        write_tables(tmp_path, [quoted, change(PRICES[1], PRICE_HEADER, source="")])
        with pytest.raises(UserError, match="line 4: source"):
            load_prices(tmp_path, today=TODAY)

    def test_columns_that_are_missing_or_unknown(self, tmp_path):
        write_tables(tmp_path)
        (tmp_path / "prices.csv").write_text(PRICE_HEADER.replace("as_of", "date") + "\n" + PRICES[0], encoding="utf-8")
        with pytest.raises(UserError) as caught:
            load_prices(tmp_path, today=TODAY)
        assert str(caught.value).splitlines()[1:] == [
            "  line 1: missing columns: as_of",
            "  line 1: unknown columns: date",
        ]

    def test_a_file_that_is_empty_not_there_or_not_text(self, tmp_path):
        with pytest.raises(UserError, match=r"hardware\.csv: can't be read: .*No such file"):
            load_prices(tmp_path)
        write_tables(tmp_path)
        (tmp_path / "prices.csv").write_bytes(b"")
        with pytest.raises(UserError, match="missing columns: provider, instance_type"):
            load_prices(tmp_path)
        (tmp_path / "prices.csv").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UserError, match="can't be read"):
            load_prices(tmp_path)

    def test_a_byte_order_mark_is_no_part_of_the_first_column(self, tmp_path):
        write_tables(tmp_path)
        path = tmp_path / "prices.csv"
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert load_prices(tmp_path, today=TODAY).prices[0].provider == "aws"


class TestShippedTables:
    def test_the_shipped_tables_are_valid(self):
        table = load_prices()
        for name, rows in (
            ("prices", table.prices),
            ("hardware", table.hardware),
            ("cpus", table.cpus),
            ("billing", table.billing),
        ):
            with (tables_folder() / f"{name}.csv").open(newline="", encoding="utf-8") as file:
                assert len(rows) == len(list(csv.DictReader(file))), name

    @pytest.mark.parametrize(
        ("nvml_name", "name"),
        [
            ("Tesla T4", "NVIDIA Tesla T4"),
            ("NVIDIA A10", "NVIDIA A10"),
            ("NVIDIA A10G", "NVIDIA A10G"),
            ("NVIDIA L4", "NVIDIA L4"),
            ("NVIDIA L40S", "NVIDIA L40S"),
            ("Tesla V100-SXM2-16GB", "NVIDIA Tesla V100-SXM2-16GB"),
            ("Tesla V100-PCIE-32GB", "NVIDIA Tesla V100-PCIE"),
            ("NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB"),
            ("NVIDIA A100 80GB PCIe", "NVIDIA A100 80GB PCIe"),
            ("NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3"),
            ("NVIDIA H200", "NVIDIA H200"),
            ("NVIDIA H200 NVL", "NVIDIA H200 NVL"),
            ("nvidia geforce rtx 4090", "NVIDIA GeForce RTX 4090"),
        ],
    )
    def test_each_gpu_is_found_by_nvmls_name_and_by_one_row_alone(self, nvml_name, name):
        table = load_prices()
        assert find_hardware(table, nvml_name).name == name
        others = table.__class__(table.prices, tuple(row for row in table.hardware if row.name != name))
        assert find_hardware(others, nvml_name) is None

    def test_an_unknown_gpu_is_not_taken_for_another(self):
        table = load_prices()
        for name in ("NVIDIA GeForce RTX 3090 Ti", "NVIDIA GeForce RTX 4090 Laptop GPU", "Quadro K620"):
            assert find_hardware(table, name) is None

    def test_peaks_are_dense_and_in_flop_per_s(self):
        table = load_prices()
        assert gpu_peak_flops(table, "NVIDIA A100-SXM4-80GB", "bf16") == 312e12
        assert gpu_peak_flops(table, "NVIDIA A100-SXM4-80GB", "tf32") == 156e12
        assert gpu_peak_flops(table, "NVIDIA A10G", "fp16") == 70e12
        assert gpu_peak_flops(table, "Tesla T4", "fp32") == 8.1e12
        assert gpu_peak_flops(table, "Tesla T4", "bf16") is None
        assert gpu_peak_flops(table, "Tesla P100-PCIE-16GB", "fp16") is None
        assert gpu_peak_flops(table, "Quadro K620", "fp32") is None
        assert gpu_peak_flops(table, "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16") is None  # a seventh of it

    @pytest.mark.parametrize(
        ("instance", "expected"),
        [
            *((name, True) for name in ("t2.micro", "t3.medium", "t3a.large", "t4g.xlarge", "ml.t3.medium")),
            *((name, True) for name in ("e2-micro", "e2-small", "e2-medium", "Standard_B2s", "Standard_B4als_v2")),
            *(
                (name, False)
                for name in ("m5.xlarge", "trn1.2xlarge", "ml.m5.xlarge", "e2-standard-4", "g2-standard-4")
            ),
            *((name, False) for name in ("Standard_D4s_v5", "Standard_NC4as_T4_v3", "gpu_1x_a10")),
        ],
    )
    def test_instances_that_run_on_credit(self, table, instance, expected):
        row = table.prices[0].model_copy(update={"instance_type": instance})
        assert burstable(row) is expected


class TestFindInstance:
    def test_without_a_region_the_cheapest_and_with_one_that(self, table):
        assert find_instance(table, "m5.xlarge").region == "us-east-1"
        assert find_instance(table, "m5.xlarge", "eu-west-1").usd_per_hour_on_demand == 0.214

    def test_an_unknown_region_says_which_there_are(self, table):
        found = find_instance(table, "m5.xlarge", "mars-1")
        assert found.reason.startswith("no price of m5.xlarge in region 'mars-1': the table has eu-west-1, us-east-1")

    def test_an_unknown_name_gives_the_nearest(self, table):
        found = find_instance(table, "g5.xlrge")
        assert found.reason.startswith("no instance 'g5.xlrge' in the price table: did you mean g5.xlarge")
        assert "--usd-per-hour" in found.reason

    def test_an_unknown_name_without_similar_ones_points_to_prices_csv(self, table):
        assert "add its row to prices.csv" in find_instance(table, "###").reason


CPU = make_machine()


def price_of(table, machine=CPU, **options):
    return price_machine(table, machine, **options)


class TestPrecedence:
    EC2 = make_machine(vendor="Amazon EC2", product="m5.xlarge")

    def test_given_comes_before_all(self, table):
        found = price_of(table, self.EC2, stated=StatedInstance(instance="m5.4xlarge", region=None), usd_per_hour=1.2)
        assert found == Price(
            1.2,
            None,
            None,
            None,
            "given",
            None,
            "--usd-per-hour",
            None,
            usd_per_hour_listed=1.2,
            usd_per_hour_on_demand=1.2,
        )

    @pytest.mark.parametrize("usd_per_hour", [0.0, -1.0, float("nan"), float("inf")])
    def test_given_must_be_a_price(self, table, usd_per_hour):
        with pytest.raises(UserError, match=r"--usd-per-hour .*: must be a number above 0"):
            price_of(table, usd_per_hour=usd_per_hour)

    def test_stated_comes_before_detected(self, table):
        found = price_of(table, self.EC2, stated=StatedInstance(instance="n2-standard-4", region=None))
        assert found == Price(
            0.18,
            "n2-standard-4",
            "gcp",
            "us-central1",
            "stated",
            "2026-07",
            "list",
            None,
            usd_per_hour_listed=0.18,
            usd_per_hour_on_demand=0.18,
            granularity_s=10,
            minimum_s=30,
            priced_on=TODAY,
        )

    def test_stated_in_a_region(self, table):
        found = price_of(table, stated=StatedInstance(instance="m5.xlarge", region="eu-west-1"))
        assert (found.usd_per_hour, found.region, found.as_of) == (0.214, "eu-west-1", "2026-07-15")

    def test_stated_but_unknown_is_no_price_rather_than_a_guess(self, table):
        found = price_of(table, self.EC2, stated=StatedInstance(instance="m5.xlrge", region=None))
        assert found.reason.startswith("no instance 'm5.xlrge'")

    def test_detected_comes_before_assumed(self, table):
        found = price_of(table, self.EC2)
        assert (found.basis, found.instance, found.usd_per_hour, found.note) == ("detected", "m5.xlarge", 0.192, None)

    @pytest.mark.parametrize("product", ["Google Compute Engine", "m7i.large", None])
    def test_a_firmware_that_names_no_row_is_not_detected(self, table, product):
        assert price_of(table, make_machine(vendor="Google", product=product)).basis == "assumed"

    def test_a_product_without_a_clouds_vendor_is_not_detected(self, table):
        assert price_of(table, make_machine(product="m5.xlarge")).basis == "assumed"

    def test_a_machine_that_is_no_known_instance_has_an_example_price(self, table):
        found = price_of(table)
        assert (found.basis, found.instance, found.usd_per_hour) == ("assumed", "n2-standard-4", 0.18)
        assert found.is_example and found.basis_word == "example" and found.note.startswith("example price: ")
        stated = price_of(table, stated=StatedInstance(instance="m5.xlarge", region=None))
        assert not stated.is_example and stated.basis_word == "stated"

    def test_without_a_row_the_price_is_not_known(self, table):
        reason = price_of(table, make_machine(num_logical=64)).reason
        assert reason.startswith("price not known: enter yours (such as --usd-per-hour 1.20")


class TestDisagreement:
    @pytest.mark.parametrize(
        ("instance", "machine", "note"),
        [
            ("m5.xlarge", make_machine(), None),
            (
                "m5.4xlarge",
                make_machine(),
                "m5.4xlarge has no GPU and 16 logical CPUs; seen: no GPU and 4 logical CPUs",
            ),
            ("g5.xlarge", make_machine(gpus=["NVIDIA A10G"]), None),
            (
                "g5.xlarge",
                make_machine(gpus=["Tesla T4"]),
                "g5.xlarge has 1 x NVIDIA A10G and 4 logical CPUs; seen: 1 x NVIDIA Tesla T4 and 4 logical CPUs",
            ),
            (
                "g5.12xlarge",
                make_machine(gpus=["NVIDIA A10G"] * 2, num_logical=48),
                "g5.12xlarge has 4 x NVIDIA A10G and 48 logical CPUs; seen: 2 x NVIDIA A10G and 48 logical CPUs",
            ),
            (
                "g5.xlarge",
                make_machine(),
                "g5.xlarge has 1 x NVIDIA A10G and 4 logical CPUs; seen: no GPU and 4 logical CPUs",
            ),
            # The row does not say which V100: only the number can disagree.
            ("1x-V100", make_machine(gpus=["Tesla V100-PCIE-16GB"]), None),
            (
                "1x-V100",
                make_machine(),
                "1x-V100 has 1 x V100 and 4 logical CPUs; seen: no GPU and 4 logical CPUs",
            ),
        ],
    )
    def test_stated_and_seen_hardware(self, table, instance, machine, note):
        assert price_of(table, machine, stated=StatedInstance(instance=instance, region=None)).note == note

    def test_detected_and_seen_hardware(self, table):
        machine = make_machine(vendor="Amazon EC2", product="m5.xlarge", num_logical=2)
        assert price_of(table, machine).note.endswith("seen: no GPU and 2 logical CPUs")


class TestPriceFinder:
    OTHER = make_machine(machine_id="xeon-16c-64g-000002", num_logical=16)

    def find(self, table, *records, **options):
        summaries = summarize(records)
        finder = price_finder(table, summaries, **options)
        return [finder(summary) for summary in summaries]

    def test_each_machine_has_its_price(self, table):
        found = self.find(table, make_record(), make_record(machine=self.OTHER))
        assert [price.instance for price in found] == ["n2-standard-4", "m5.4xlarge"]

    def test_the_largest_cell_decides_the_assumed_row_of_its_machine(self, table):
        big = make_record(axes={"batch_size": 32}, training={"peaks": [(0, "rss", 8 * GIB), (1, "rss", 8 * GIB)]})
        assert [price.instance for price in self.find(table, make_record())] == ["n2-standard-4"]
        assert [price.instance for price in self.find(table, make_record(), big)] == ["m5.xlarge"] * 2

    def test_gpu_memory_does_not_count_as_main_memory(self, table):
        machine = make_machine(gpus=["NVIDIA A10G"])
        peaks = [(0, "rss", 2 * GIB), (0, "cuda_reserved", 20 * GIB)]
        record = make_record(axes={"device": "gpu"}, machine=machine, training={"peaks": peaks})
        (price,) = self.find(table, record)
        assert price.instance == "g5.xlarge"
        assert "2.0 GiB" in price.note

    def test_a_cell_that_failed_is_priced_too(self, table):
        (price,) = self.find(table, make_record(outcome="oom", reason="no memory"))
        assert price.instance == "n2-standard-4"

    def test_the_newest_stated_instance_holds_for_the_whole_machine(self, table):
        stated = {"instance": "m5.4xlarge", "region": None}
        first = make_record(stated=stated)
        second = make_record(axes={"batch_size": 32}, minutes=1)
        assert [price.instance for price in self.find(table, first, second)] == ["m5.4xlarge"] * 2
        newer = make_record(axes={"batch_size": 8}, minutes=2, stated={"instance": "m5.xlarge", "region": "eu-west-1"})
        found = self.find(table, newer, first, second)
        assert [(price.instance, price.region) for price in found] == [("m5.xlarge", "eu-west-1")] * 3

    def test_an_override_of_one_machine_comes_before_what_it_stated(self, table):
        stated = {"instance": "m5.4xlarge", "region": "us-east-1"}
        records = [make_record(stated=stated), make_record(machine=self.OTHER, stated=stated)]
        found = self.find(table, *records, instances={CPU.id: "n2-standard-4"})
        assert [(price.instance, price.basis) for price in found] == [
            ("n2-standard-4", "stated"),
            ("m5.4xlarge", "stated"),
        ]

    def test_prices_given_for_all_machines_or_one(self, table):
        records = [make_record(), make_record(machine=self.OTHER)]
        options = {"instances": {CPU.id: "m5.xlarge"}}
        every = self.find(table, *records, usd_per_hour=2.0, **options)
        assert [(price.usd_per_hour, price.basis) for price in every] == [(2.0, "given")] * 2
        one = self.find(table, *records, usd_per_hour={self.OTHER.id: 3.0}, **options)
        assert [(price.usd_per_hour, price.basis) for price in one] == [(0.192, "stated"), (3.0, "given")]

    def test_overrides_of_unknown_machines_are_user_errors(self, table):
        with pytest.raises(UserError, match=f"no records of a machine 'epyc'; there are records of {CPU.id}"):
            self.find(table, make_record(), instances={"epyc": "m5.xlarge"})
        with pytest.raises(UserError, match="no records of a machine 'epyc'"):
            self.find(table, make_record(), usd_per_hour={"epyc": 1.0})
        with pytest.raises(UserError, match=f"--instance {CPU.id}=m5.xlrge: no instance .* did you mean m5.xlarge"):
            self.find(table, make_record(), instances={CPU.id: "m5.xlrge"})
        with pytest.raises(UserError, match="there are records of none"):
            self.find(table, instances={"epyc": "m5.xlarge"})

    def test_without_records_there_is_nothing_to_price(self, table):
        assert self.find(table, usd_per_hour=1.0) == []

    def test_no_row_says_why(self, table):
        (found,) = self.find(table, make_record(machine=make_machine(num_logical=64)))
        assert found.reason.endswith("has no GPU, 64 logical CPUs (AMD), 0.6 GiB of memory")


class TestDetected:
    """Instances detected by the metadata service: after stated ones, before the firmware."""

    MACHINE = make_machine(vendor="Amazon EC2", product="m5.4xlarge")

    @staticmethod
    def seen(instance, region="us-east-1"):
        return DetectedInstance(vendor="aws", instance=instance, region=region, is_spot=False)

    def test_detected_comes_after_stated_and_before_firmware(self, table):
        detected = self.seen("m5.xlarge", "eu-west-1")
        found = price_of(table, self.MACHINE, detected=detected)
        assert (found.basis, found.instance, found.region, found.usd_per_hour) == (
            "detected", "m5.xlarge", "eu-west-1", 0.214,
        )  # fmt: skip
        stated = StatedInstance(instance="m5.4xlarge", region=None)
        assert price_of(table, self.MACHINE, detected=detected, stated=stated).basis == "stated"

    def test_a_region_without_a_price_takes_another_and_says_so(self, table):
        found = price_of(table, detected=self.seen("m5.xlarge", "ap-south-1"))
        assert (found.usd_per_hour, found.region, found.note) == (0.192, "us-east-1", None)
        assert found.paid == "the table has no price of it in ap-south-1, where it runs"
        paid = price_under_plan(found, PriceBook(discount_percent=50), "m")
        assert (paid.usd_per_hour, paid.paid) == (0.096, f"{found.paid}; 0.192 USD listed, less 50%")

    def test_an_unlisted_detected_instance_gets_an_assumed_row_that_names_it(self, table):
        found = price_of(table, detected=self.seen("c9.mega"))
        assert (found.basis, found.instance) == ("assumed", "n2-standard-4")
        assert found.note.startswith("c9.mega was detected, and the table lacks it; example price: the")

    def test_attached_gpus_identify_googles_row(self):
        shipped = load_prices()
        detected = DetectedInstance(vendor="gcp", instance="n1-standard-4", region="us-central1", is_spot=False)
        found = price_of(shipped, make_machine(gpus=["Tesla T4"]), detected=detected)
        assert (found.instance, found.basis, found.note) == ("n1-standard-4+1xT4", "detected", None)
        # Without the GPU it is another machine, of which the table has no price.
        assert price_of(shipped, make_machine(), detected=detected).basis == "assumed"

    def test_the_newest_detected_instance_holds_for_the_machine(self, table):
        old = make_record(detected={"vendor": "aws", "instance": "m5.4xlarge", "region": None, "is_spot": None})
        new = make_record(
            axes={"batch_size": 8}, minutes=1,
            detected={"vendor": "aws", "instance": "m5.xlarge", "region": "eu-west-1", "is_spot": True},
        )  # fmt: skip
        summaries = summarize([old, new])
        found = [price_finder(table, summaries)(summary) for summary in summaries]
        assert [(price.basis, price.region) for price in found] == [("detected", "eu-west-1")] * 2


class TestOwnRates:
    """Rates of prices.toml, for instances of the table and for those it lacks."""

    @staticmethod
    def book(tmp_path, *rates, **fields):
        lines = [f"{key} = {value!r}" for key, value in fields.items()]
        for rate in rates:
            lines += ["[[rate]]", *(f"{key} = {value!r}" for key, value in rate.items())]
        (tmp_path / "prices.toml").write_text("\n".join(lines), encoding="utf-8")
        return load_assumptions(tmp_path / "prices.toml", today=TODAY).prices

    def pay(self, table, book, instance, region=None):
        found = price_of(table, stated=StatedInstance(instance=instance, region=region), book=book)
        return price_under_plan(found, book, "m")

    def test_a_listed_instance_is_paid_by_the_rate_with_its_date_and_source(self, table, tmp_path):
        book = self.book(tmp_path, {"instance": "g5.xlarge", "usd_per_hour": 0.8, "source": "contract 7"})
        found = self.pay(table, book, "g5.xlarge")
        assert (found.usd_per_hour, found.usd_per_hour_listed, found.source, found.as_of, found.age_days) == (
            0.8, 1.006, "contract 7", None, None,
        )  # fmt: skip
        assert found.paid == "by contract 7, instead of 1.006 USD listed"
        assert (found.granularity_s, found.minimum_s) == (1, 60)  # the provider bills as before

    def test_an_unlisted_instance_is_found_where_it_is_stated(self, table, tmp_path):
        book = self.book(tmp_path, {"instance": "x9.huge", "usd_per_hour": 4.5, "source": "contract 7"})
        found = self.pay(table, book, "x9.huge")
        assert (found.usd_per_hour, found.basis, found.usd_per_hour_listed, found.paid) == (
            4.5, "stated", None, "by contract 7",
        )  # fmt: skip
        assert self.pay(table, PriceBook(), "x9.huge").reason.startswith("no instance 'x9.huge' in the price table")

    def test_an_unlisted_instance_by_each_plan(self, table, tmp_path):
        spot = {"instance": "x9.huge", "plan": "spot", "usd_per_hour": 1.5}
        committed = {"instance": "x9.huge", "plan": "committed", "usd_per_hour": 2.0, "region": "moon-1"}
        found = self.pay(table, self.book(tmp_path, spot, plan="spot"), "x9.huge")
        assert (found.usd_per_hour, found.plan, found.usd_per_hour_on_demand) == (1.5, "spot", None)
        found = self.pay(table, self.book(tmp_path, committed, plan="committed"), "x9.huge")
        assert (found.usd_per_hour, found.plan, found.region) == (4.0, "committed", "moon-1")  # half of all hours used
        # What the reader does not say is not made up.
        assert self.pay(table, self.book(tmp_path, spot), "x9.huge").reason.startswith("no instance 'x9.huge'")
        on_demand = {"instance": "x9.huge", "usd_per_hour": 3.0}
        told = self.pay(table, self.book(tmp_path, on_demand, plan="spot"), "x9.huge")
        assert told.reason == 'no spot price of x9.huge is known: add a [[rate]] with plan = "spot" to prices.toml'

    def test_a_rate_of_another_region_does_not_count(self, table, tmp_path):
        rate = {"instance": "x9.huge", "usd_per_hour": 4.5, "region": "moon-1"}
        book = self.book(tmp_path, rate)
        assert self.pay(table, book, "x9.huge", "moon-1").usd_per_hour == 4.5
        assert self.pay(table, book, "x9.huge", "mars-1").reason.startswith("no instance 'x9.huge'")
        assert self.pay(table, book, "x9.huge").region == "moon-1"

    def test_a_detected_instance_and_an_override_are_found_by_the_rate_too(self, table, tmp_path):
        book = self.book(tmp_path, {"instance": "x9.huge", "usd_per_hour": 4.5})
        detected = DetectedInstance(vendor="aws", instance="x9.huge", region="moon-1", is_spot=None)
        found = price_of(table, detected=detected, book=book)
        assert (found.basis, found.usd_per_hour) == ("detected", 4.5)
        summaries = summarize([make_record()])
        finder = price_finder(table, summaries, instances={CPU.id: "x9.huge"}, book=book)
        assert finder(summaries[0]).usd_per_hour == 4.5


class TestBilling:
    def test_each_provider_bills_in_its_own_way(self, table):
        billing = {
            name: (found.granularity_s, found.minimum_s)
            for name in ("m5.xlarge", "n2-standard-4", "1x-V100")
            if (found := price_of(table, stated=StatedInstance(instance=name, region=None)))
        }
        assert billing == {"m5.xlarge": (1, 60), "n2-standard-4": (10, 30), "1x-V100": (1, 0)}

    def test_every_shipped_provider_has_a_row_with_a_source(self):
        table = load_prices()
        assert {row.provider for row in table.prices} == {row.provider for row in table.billing}

    @pytest.mark.parametrize(
        ("field", "value", "problem"),
        [
            ("granularity_s", "0", "line 2: granularity_s: found '0'; allowed: a number above 0"),
            ("minimum_s", "-1", "line 2: minimum_s: found '-1'; allowed: a whole number"),
            ("source", "", "line 2: source: found ''; allowed: text, not empty"),
            ("as_of", "2027-01", "line 2: as_of: found '2027-01'; allowed: a date not after today"),
            ("provider", "gcp", "line 3: gcp is already in line 2"),
        ],
    )
    def test_wrong_billing_is_named_with_its_line(self, tmp_path, field, value, problem):
        write_tables(tmp_path, (), (), [change(BILLING[0], BILLING_HEADER, **{field: value}), BILLING[1]])
        with pytest.raises(UserError) as caught:
            load_prices(tmp_path, today=TODAY)
        assert problem in str(caught.value)


def test_rows_are_frozen(table):
    assert isinstance(table.prices[0], PriceRow)
    with pytest.raises(ValueError, match="frozen"):
        table.prices[0].vcpus = 8
