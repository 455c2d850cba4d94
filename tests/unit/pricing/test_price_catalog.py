"""Converting gpuhunt's offers to price rows, and refreshing the user's table safely."""

from __future__ import annotations

import gc
import io
import threading
import warnings
import zipfile
from dataclasses import dataclass, replace
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import pytest

from harness.errors import UserError
from harness.pricing.price_boards import find_board
from harness.pricing.price_catalog import FetchedOffers, fetch_offers, refresh, to_rows
from harness.pricing.price_table import load_prices
from tests.make_tables import PRICE_HEADER, write_tables

TODAY = date(2026, 8, 1)


@dataclass(frozen=True)
class Offer:
    """A stand-in for gpuhunt's CatalogItem."""

    provider: str = "aws"
    instance_name: str | None = "g5.xlarge"
    location: str | None = "us-east-1"
    price: float | None = 1.01
    cpu: int | None = 4
    memory: float | None = 16.0
    gpu_count: int = 1
    gpu_name: str | None = "A10G"
    gpu_memory: float | None = 24.0
    spot: bool = False


G5 = Offer()
CPU = Offer(instance_name="m9.large", price=0.1, gpu_count=0, gpu_name=None, gpu_memory=None)


@pytest.fixture
def table(tmp_path):
    return load_prices(write_tables(tmp_path), today=TODAY)


def rows_of(table, *offers):
    rows, num_left_out = to_rows(offers, table.hardware, TODAY, "0.1.34")
    return [row.model_dump() for row in rows], num_left_out


class TestRows:
    def test_on_demand_and_spot_are_one_row_with_todays_date_and_source(self, table):
        rows, num_left_out = rows_of(table, G5, replace(G5, price=0.4, spot=True))
        assert num_left_out == 0
        assert rows == [
            {
                "provider": "aws", "instance_type": "g5.xlarge", "region": "us-east-1", "accelerator": "A10G",
                "hardware": "NVIDIA A10G", "accelerator_count": 1, "accelerator_memory_gib": 24.0, "vcpus": 4,
                "memory_gib": 16.0, "usd_per_hour_on_demand": 1.01, "usd_per_hour_spot": 0.4, "as_of": "2026-08-01",
                "source": "gpuhunt 0.1.34, aws",
            }
        ]  # fmt: skip

    def test_a_machine_without_a_gpu(self, table):
        (row,), _ = rows_of(table, CPU)
        assert (row["accelerator"], row["hardware"], row["accelerator_count"], row["accelerator_memory_gib"]) == (
            None, None, 0, None,
        )  # fmt: skip

    def test_the_cheapest_of_several_offers_counts(self, table):
        (row,), _ = rows_of(table, G5, replace(G5, price=0.99), replace(G5, price=2.0))
        assert row["usd_per_hour_on_demand"] == 0.99

    def test_each_region_is_a_row_and_they_are_sorted(self, table):
        rows, _ = rows_of(table, replace(G5, location="us-west-2"), G5, replace(CPU, location="eu-west-1"))
        assert [(row["instance_type"], row["region"]) for row in rows] == [
            ("g5.xlarge", "us-east-1"), ("g5.xlarge", "us-west-2"), ("m9.large", "eu-west-1"),
        ]  # fmt: skip

    @pytest.mark.parametrize("spot", [1.01, 1.5, 0.0, None])
    def test_spot_prices_not_below_on_demand_are_left_out(self, table, spot):
        (row,), _ = rows_of(table, G5, replace(G5, price=spot, spot=True))
        assert row["usd_per_hour_spot"] is None

    @pytest.mark.parametrize(
        "fields",
        [
            {"spot": True}, {"price": 0.0}, {"price": 999.0}, {"cpu": 0}, {"cpu": None}, {"memory": None},
            {"memory": 0.0}, {"instance_name": None}, {"location": None}, {"gpu_name": None},
        ],
    )  # fmt: skip
    def test_offers_without_a_valid_row_are_counted(self, table, fields):
        rows, num_left_out = rows_of(table, CPU, replace(G5, **fields))
        assert ([row["instance_type"] for row in rows], num_left_out) == (["m9.large"], 1)

    def test_a_type_with_several_sets_of_gpus_is_named_with_them(self, table):
        n1 = Offer("gcp", "n1-standard-4", "us-central1-a", 0.19, 4, 15.0, 0, None, None)
        with_gpu = replace(n1, price=0.54, gpu_count=1, gpu_name="T4", gpu_memory=16.0)
        rows, _ = rows_of(table, n1, with_gpu, replace(with_gpu, location="us-central1-f"))
        assert [(row["instance_type"], row["region"], row["hardware"]) for row in rows] == [
            ("n1-standard-4", "us-central1", None), ("n1-standard-4+1xT4", "us-central1", "NVIDIA Tesla T4"),
        ]  # fmt: skip

    def test_lambdas_memory_is_converted_from_gb(self, table):
        (row,), _ = rows_of(table, replace(CPU, provider="lambdalabs", memory=200 * 1.074))
        assert row["memory_gib"] == 200.0

    def test_providers_get_the_price_tables_names(self, table):
        rows, _ = rows_of(table, replace(CPU, provider="lambdalabs"), replace(CPU, provider="nebius"))
        assert [(row["provider"], row["source"]) for row in rows] == [
            ("lambda", "gpuhunt 0.1.34, lambda"), ("nebius", "gpuhunt 0.1.34, nebius"),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("gpu", "memory", "provider", "instance", "board"),
    [
        ("T4", 16, "aws", "g4dn.xlarge", "NVIDIA Tesla T4"),
        ("A10G", 24, "aws", "g5.xlarge", "NVIDIA A10G"),
        ("A10", 24, "lambda", "gpu_1x_a10", "NVIDIA A10"),
        ("A10", 4, "azure", "Standard_NV6ads_A10_v5", None),  # a sixth of one
        ("L4", 24, "gcp", "g2-standard-4", "NVIDIA L4"),
        ("L40S", 48, "aws", "g6e.xlarge", "NVIDIA L40S"),
        ("V100", 16, "aws", "p3.2xlarge", "NVIDIA Tesla V100-SXM2-16GB"),
        ("V100", 32, "aws", "p3dn.24xlarge", "NVIDIA Tesla V100-SXM2-32GB"),
        ("V100", 16, "azure", "Standard_NC6s_v3", "NVIDIA Tesla V100-PCIE"),
        ("V100", 32, "azure", "Standard_ND40rs_v2", "NVIDIA Tesla V100-SXM2-32GB"),
        ("V100", 16, "somewhere", "v1", None),
        ("A100", 80, "runpod", "NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB"),
        ("RTX4090", 24, "runpod", "NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 4090"),
        ("A100", 40, "aws", "p4d.24xlarge", "NVIDIA A100-SXM4-40GB"),
        ("A100", 80, "aws", "p4de.24xlarge", "NVIDIA A100-SXM4-80GB"),
        ("A100", 40, "gcp", "a2-highgpu-1g", "NVIDIA A100-SXM4-40GB"),
        ("A100", 80, "gcp", "a2-ultragpu-8g", "NVIDIA A100-SXM4-80GB"),
        ("A100", 80, "azure", "Standard_NC24ads_A100_v4", "NVIDIA A100 80GB PCIe"),
        ("A100", 40, "azure", "Standard_ND96asr_v4", "NVIDIA A100-SXM4-40GB"),
        ("A100", 80, "azure", "Standard_ND96amsr_A100_v4", "NVIDIA A100-SXM4-80GB"),
        ("A100", 40, "lambda", "gpu_1x_a100", "NVIDIA A100-PCIE-40GB"),
        ("A100", 40, "lambda", "gpu_8x_a100", "NVIDIA A100-SXM4-40GB"),
        ("A100", 80, "lambda", "gpu_8x_a100_80gb_sxm4", "NVIDIA A100-SXM4-80GB"),
        ("A100", 80, "runpod", "NVIDIA A100", None),
        ("H100", 80, "aws", "p5.48xlarge", "NVIDIA H100 80GB HBM3"),
        ("H100", 80, "lambda", "gpu_1x_h100_pcie", "NVIDIA H100 PCIe"),
        ("H100", 80, "lambda", "gpu_1x_h100_sxm5", "NVIDIA H100 80GB HBM3"),
        ("H100NVL", 94, "azure", "Standard_NC40ads_H100_v5", "NVIDIA H100 NVL"),
        ("H200", 141, "aws", "p5en.48xlarge", "NVIDIA H200"),
        ("B200", 180, "aws", "p6-b200.48xlarge", "NVIDIA B200"),
        ("A6000", 48, "lambda", "gpu_1x_a6000", "NVIDIA RTX A6000"),
        ("MI300X", 192, "azure", "Standard_ND96isr_MI300X_v5", None),
        ("v5litepod-8", 0, "gcp", "v5litepod-8", None),
        ("A10G", None, "aws", "g5.xlarge", None),
    ],
)
def test_gpu_family_provider_and_memory_identify_the_board(gpu, memory, provider, instance, board):
    offer = Offer(instance_name=instance, gpu_name=gpu, gpu_memory=memory)
    assert find_board(offer, provider, load_prices().hardware) == board


def test_boards_agree_with_the_shipped_price_table():
    table = load_prices()
    families = {"RTX4090": "RTX4090", "A100-80GB": "A100", "H100-NVL": "H100NVL", "H100-PCIe": "H100"}
    for row in table.prices:
        if row.hardware is not None and row.provider not in ("vast", "aws-sagemaker"):
            family = families.get(row.accelerator, row.accelerator)
            offer = Offer(
                instance_name=row.instance_type.partition("+")[0],
                gpu_name=family, gpu_memory=row.accelerator_memory_gib,
            )  # fmt: skip
            assert find_board(offer, row.provider, table.hardware) == row.hardware, row.key


class TestRefresh:
    OLD = "hetzner,gex44,fsn1,,,0,,20,64,0.34,,2026-07,invoice"

    def own(self, folder, *rows):
        path = folder / "conf" / "prices.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join([PRICE_HEADER, *rows, ""]), encoding="utf-8")
        return path

    def test_a_table_is_made_and_can_be_read(self, table, tmp_path):
        path = tmp_path / "deep" / "er" / "prices.csv"
        done = refresh(
            path, table, lambda row: True, lambda: FetchedOffers("0.1.34", [G5, CPU, replace(G5, cpu=0, location="x")])
        )
        assert (done.path, done.num_new, done.num_kept, done.num_left_out) == (path, 2, 0, 1)
        merged = load_prices(tmp_path, own=path, today=TODAY)
        (row,) = [row for row in merged.prices if row.instance_type == "g5.xlarge"]
        assert (row.usd_per_hour_on_demand, row.source, row.as_of) == (1.01, "gpuhunt 0.1.34, aws", "2026-08-01")
        assert [one.name for one in path.parent.iterdir()] == ["prices.csv"]

    def test_older_rows_stay_unless_replaced(self, table, tmp_path):
        old_g5 = "aws,g5.xlarge,us-east-1,A10G,NVIDIA A10G,1,22.35,4,16,9.9,,2026-07,invoice"
        path = self.own(tmp_path, self.OLD, old_g5)
        done = refresh(path, table, lambda row: True, lambda: FetchedOffers("0.1.34", [G5]))
        assert (done.num_new, done.num_kept) == (1, 1)
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0] == PRICE_HEADER
        assert lines[1].startswith("hetzner,gex44,fsn1,,,0,,20,64.0,0.34,,2026-07,invoice")
        assert lines[2].startswith("aws,g5.xlarge,us-east-1,A10G,NVIDIA A10G,1,24.0,4,16.0,1.01,,2026-08-01,")

    def test_only_what_is_wanted_is_taken(self, table, tmp_path):
        path = tmp_path / "own.csv"
        assert (
            refresh(
                path, table, lambda row: row.vcpus > 3 and not row.hardware, lambda: FetchedOffers("1", [G5, CPU])
            ).num_new
            == 1
        )

    @pytest.mark.parametrize("offers", [[], [replace(G5, spot=True)]])
    def test_without_a_row_the_old_table_stays_byte_for_byte(self, table, tmp_path, offers):
        path = self.own(tmp_path, self.OLD)
        before = path.read_bytes()
        with pytest.raises(
            UserError, match=rf"no price that fits \({len(offers)} offers were read\).* was not touched"
        ):
            refresh(path, table, lambda row: True, lambda: FetchedOffers("0.1.34", offers))
        assert path.read_bytes() == before
        assert [one.name for one in path.parent.iterdir()] == ["prices.csv"]

    def test_a_table_that_is_not_valid_is_not_replaced(self, table, tmp_path):
        path = self.own(tmp_path, self.OLD.replace("0.34", "free"))
        before = path.read_bytes()
        with pytest.raises(UserError, match="line 2: usd_per_hour_on_demand: found 'free'"):
            refresh(path, table, lambda row: True, lambda: FetchedOffers("0.1.34", [G5]))
        assert path.read_bytes() == before

    def test_a_folder_that_cannot_be_written_is_named(self, table, tmp_path):
        (tmp_path / "file").write_text("in the way", encoding="utf-8")
        with pytest.raises(UserError, match="can't be written"):
            refresh(tmp_path / "file" / "prices.csv", table, lambda row: True, lambda: FetchedOffers("0.1.34", [G5]))

    def test_a_write_that_fails_leaves_the_old_table(self, table, tmp_path, monkeypatch):
        path = self.own(tmp_path, self.OLD)
        before = path.read_bytes()

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("harness.files.os.fsync", full)
        with pytest.raises(UserError, match="No space left on device"):
            refresh(path, table, lambda row: True, lambda: FetchedOffers("0.1.34", [G5]))
        assert path.read_bytes() == before
        assert [one.name for one in path.parent.iterdir()] == ["prices.csv"]


class Catalogs(BaseHTTPRequestHandler):
    """Serve a folder of catalogs like gpuhunt's host."""

    def do_GET(self):
        found = self.server.files.get(self.path)
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Length", str(len(found or b"")))
        self.end_headers()
        self.wfile.write(found or b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def served(monkeypatch):
    """Path to content of the files that are served to the real gpuhunt."""
    pytest.importorskip("gpuhunt", reason="the extra `prices` is not installed")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Catalogs)
    server.files = {}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("GPUHUNT_CATALOG_URL", f"http://127.0.0.1:{server.server_port}")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield server.files
    server.shutdown()
    thread.join()
    server.server_close()
    with warnings.catch_warnings():  # gpuhunt leaves the answers open that were 404
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def catalog(provider, *rows):
    """Make a provider's zip as published."""
    header = "instance_name,location,price,cpu,memory,gpu_count,gpu_name,gpu_memory,spot,disk_size,gpu_vendor,flags,cpu_arch,provider_data"
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(f"{provider}.csv", "\n".join([header, *rows, ""]))
    return {f"/{provider}/version": b"20260801", f"/{provider}/20260801/catalog.zip": data.getvalue()}


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
class TestRealGpuhunt:
    AWS = (
        "g5.xlarge,us-east-1,1.02,4,16,1,A10G,24,False,,nvidia,,x86,{}",
        "g5.xlarge,us-east-1,0.41,4,16,1,A10G,24,True,,nvidia,,x86,{}",
        "m9.large,us-east-1,0.1,2,8,0,,,False,,,,x86,{}",
    )
    LAMBDA = ("gpu_1x_a10,us-east-1,1.3,30,214.8,1,A10,24,False,,nvidia,,x86,{}",)

    def test_a_catalog_becomes_the_own_table(self, served, table, tmp_path):
        served |= catalog("aws", *self.AWS) | catalog("lambdalabs", *self.LAMBDA)
        path = tmp_path / "own.csv"
        done = refresh(path, table, lambda row: True)
        assert (done.num_new, done.num_left_out) == (3, 0)
        rows = {row.instance_type: row for row in load_prices(tmp_path, own=path, today=TODAY).prices}
        g5 = rows["g5.xlarge"]
        assert (g5.usd_per_hour_on_demand, g5.usd_per_hour_spot, g5.hardware, g5.as_of) == (
            1.02, 0.41, "NVIDIA A10G", "2026-08-01",
        )  # fmt: skip
        assert g5.source == f"gpuhunt {version('gpuhunt')}, aws"
        assert (rows["gpu_1x_a10"].provider, rows["gpu_1x_a10"].memory_gib) == ("lambda", 200.0)
        # The other providers' catalogs were not there, which is told, without a traceback on the screen.
        assert "Failed to load azure catalog. Keeping the previously loaded catalog, if any." in done.complaints
        assert not [one for one in done.complaints if "aws" in one or "lambdalabs" in one]

    @pytest.mark.parametrize("zipped", [b"", b"no zip", b"PK\x05\x06" + bytes(18)])
    def test_an_invalid_catalog_leaves_the_old_table(self, served, table, tmp_path, capfd, zipped):
        served |= catalog("aws", *self.AWS) | {"/aws/20260801/catalog.zip": zipped}
        path = tmp_path / "own.csv"
        path.write_text(f"{PRICE_HEADER}\n{TestRefresh.OLD}\n", encoding="utf-8")
        before = path.read_bytes()
        with pytest.raises(UserError, match="gpuhunt's catalog can't be had: Failed to load catalogs of all providers"):
            refresh(path, table, lambda row: True)
        assert path.read_bytes() == before
        assert "Traceback" not in capfd.readouterr().err

    def test_a_refused_connection_is_a_user_error(self, served, monkeypatch):
        monkeypatch.setenv("GPUHUNT_CATALOG_URL", "http://127.0.0.1:1")
        with pytest.raises(UserError, match=r"can't be had: .*Connection refused.*is there a network\?"):
            fetch_offers()
