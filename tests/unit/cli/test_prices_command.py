"""`harness prices`, and prices, contract rates and cloud detection in other commands, run in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import main as cli
from harness.errors import UserError
from harness.pricing.price_rows import days_old
from harness.pricing.price_search import burstable
from harness.pricing.price_table import load_prices

ROOT = Path(__file__).parents[3]


def invoke(*args):
    done = CliRunner().invoke(cli.app, [str(arg) for arg in args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def rates(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[[rate]]\ninstance = "x9.huge"\nusd_per_hour = 4.5\nas_of = 2026-11-01\nsource = "contract 7"\n',
        encoding="utf-8",
    )
    return path


def test_json_lists_the_filtered_and_sorted_rows():
    rows = json.loads(invoke("prices", "--gpu", "A100", "--max-usd", 3, "--spot", "--json"))
    assert [(row["instance_type"], row["region"]) for row in rows] == [
        ("a2-highgpu-1g", "us-central1"), ("a2-highgpu-1g", "europe-west4"),
        ("a2-ultragpu-1g", "europe-west4"), ("a2-ultragpu-1g", "us-central1"),
    ]  # fmt: skip
    table = load_prices()
    assert [row["age_days"] for row in rows] == [days_old(row["as_of"], table.today) for row in rows]
    rows = json.loads(invoke("prices", "--cpus", 8, "--memory-gib", 32, "--provider", "gcp", "--gpu", "none", "--json"))
    assert [row["instance_type"] for row in rows][:2] == ["e2-standard-8", "e2-standard-8"]
    assert all(row["vcpus"] >= 8 and row["memory_gib"] >= 32 and row["provider"] == "gcp" for row in rows)


def test_text_output_counts_the_rows():
    text = " ".join(invoke("prices", "--gpu", "T4", "--provider", "aws").split())
    assert "4 of 193 rows, by on-demand price; days: the price's age." in text
    age = days_old("2026-09", load_prices().today)
    assert f"g4dn.xlarge 0.5260 0.2204 4 16 {age} aws us-east-1 1 x T4" in text


def test_one_instance_is_shown_with_all_its_fields():
    text = " ".join(invoke("prices", "g5.xlarge", "--region", "us-east-1").split())
    for phrase in ("1.006 USD an hour", "0.5006 USD an hour (50% less)", "NVIDIA A10G", "bf16 70", "at least 60 s"):
        assert phrase in text
    (row,) = json.loads(invoke("prices", "g5.xlarge", "--region", "us-east-1", "--json"))
    assert (row["billing"]["granularity_s"], row["hardware_facts"]["peak_bf16_tflops"]) == (1, 70)


@pytest.mark.parametrize(
    ("region", "gpus"),
    [("eu-central-1", {"A10G", "L4", "T4"}), ("europe-west4", {"A100"}), ("westeurope", {"T4"})],
)
def test_every_large_cloud_has_a_european_region_with_and_without_gpus(region, gpus):
    rows = json.loads(invoke("prices", "--region", region, "--json"))
    assert {row["region"] for row in rows} == {region}
    assert {row["accelerator"] for row in rows} >= {None, *gpus}


@pytest.mark.parametrize("provider", ["aws", "gcp", "azure"])
def test_every_large_cloud_has_instances_of_2_4_and_8_cpus_that_are_not_burstable(provider):
    rows = [row for row in load_prices().prices if row.provider == provider and row.accelerator is None]
    assert {row.vcpus for row in rows if not burstable(row)} >= {2, 4, 8}


def test_unknown_instances_and_filters_without_a_match_are_user_errors():
    with pytest.raises(UserError, match=r"no instance 'g5\.xlrge'.*did you mean g5\.xlarge"):
        invoke("prices", "g5.xlrge")
    with pytest.raises(UserError, match="no row of the price table matches all filters"):
        invoke("prices", "g5.xlarge", "--max-usd", "0.1")


def test_help_names_the_path_of_the_users_table():
    text = " ".join(invoke("prices", "--help").replace("│", " ").split())
    assert "HARNESS_PRICES" in text
    assert "~/.config/bert-cost-harness/prices.csv" in text


def test_an_instance_in_the_users_table_is_priced(tmp_path, monkeypatch):
    own = tmp_path / "own.csv"
    header = (ROOT / "bench" / "prices.csv").read_text(encoding="utf-8").splitlines()[0]
    own.write_text(f"{header}\nhetzner,gex44,fsn1,,,0,,20,64,0.34,,2026-10,invoice\n", encoding="utf-8")
    monkeypatch.setenv("HARNESS_PRICES", str(own))
    assert "0.34 USD an hour" in invoke("prices", "gex44")
    fields = json.loads(invoke("machine", "--offline", "--instance", "gex44", "--json"))
    assert (fields["price"]["usd_per_hour"], fields["price"]["basis"]) == (0.34, "stated")


class TestRefresh:
    def run(self, path, *blocked):
        """Refresh in a child process without a network, in which `blocked` modules can't be imported."""
        code = (
            "import sys, socket\n"
            f"for name in {blocked!r}: sys.modules[name] = None\n"
            "def none(*_, **__): raise OSError('no network')\n"
            "socket.getaddrinfo = none\n"
            "from harness.cli.main import main; sys.argv = ['harness', 'prices', 'refresh']; main()"
        )
        return subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"HARNESS_PRICES": str(path)}, cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def test_without_gpuhunt_the_error_says_what_to_install(self, tmp_path):
        path = tmp_path / "own.csv"
        done = self.run(path, "gpuhunt")
        assert (done.returncode, path.exists()) == (2, False)
        assert "gpuhunt is not installed: pip install '.[prices]'" in done.stderr

    def test_without_a_network_the_existing_table_is_unchanged(self, tmp_path):
        pytest.importorskip("gpuhunt", reason="the extra `prices` is not installed")
        path = tmp_path / "own.csv"
        path.write_bytes((ROOT / "bench" / "prices.csv").read_bytes())
        before = path.read_bytes()
        done = self.run(path)
        assert done.returncode == 2
        assert "gpuhunt's catalog can't be had" in done.stderr
        assert "Traceback" not in done.stderr
        assert path.read_bytes() == before
        assert [file.name for file in tmp_path.iterdir()] == ["own.csv"]


class TestMachine:
    def test_the_price_is_shown_with_its_age(self):
        fields = json.loads(invoke("machine", "--offline", "--json", "--instance", "m7i.2xlarge"))
        table = load_prices()
        assert fields["price"]["age_days"] == days_old("2026-07", table.today)
        assert f"2026-07; {days_old('2026-07', table.today)} days old" in " ".join(
            invoke("machine", "--offline", "--instance", "m7i.2xlarge").split()
        )

    def test_a_contract_rate_prices_an_unlisted_instance(self, rates):
        price = json.loads(invoke("machine", "--offline", "--json", "--instance", "x9.huge", "--prices", rates))[
            "price"
        ]
        assert (price["usd_per_hour"], price["basis"], price["as_of"]) == (4.5, "stated", "2026-11-01")
        with pytest.raises(UserError, match=r"--instance x9\.huge: no instance 'x9\.huge'"):
            invoke("machine", "--offline", "--instance", "x9.huge")

    def test_the_plan_in_the_users_price_file_is_applied(self, tmp_path):
        path = tmp_path / "mine.toml"
        path.write_text('plan = "spot"\n', encoding="utf-8")
        price = json.loads(invoke("machine", "--offline", "--json", "--instance", "g5.xlarge", "--prices", path))[
            "price"
        ]
        assert (price["usd_per_hour"], price["plan"]) == (0.5006, "spot")

    def test_detect_and_offline_exclude_each_other(self):
        with pytest.raises(UserError, match="--detect and --offline: give only one of them"):
            invoke("machine", "--detect", "--offline")

    @pytest.mark.parametrize(
        ("options", "query"), [((), (None, False)), (("--detect",), (None, True)), (("--offline",), None)]
    )
    def test_options_decide_which_metadata_services_are_queried(self, monkeypatch, options, query):
        """Check how `detect` is called; test_cloud_metadata.py tests the queries themselves."""
        from harness.machine import cloud_metadata as cloud
        from harness.machine.describe import describe_machine

        calls = []
        monkeypatch.setattr(cloud, "detect", lambda firmware, everywhere: calls.append((firmware, everywhere)))
        invoke("machine", "--json", *options)
        firmware = describe_machine().cloud_vendor
        assert calls == ([] if query is None else [(firmware, query[1])])

    def test_a_detected_instance_is_shown_and_priced(self, monkeypatch):
        from harness.machine import cloud_metadata as cloud
        from harness.schema.host_record import DetectedInstance

        detected = DetectedInstance(vendor="aws", instance="g5.xlarge", region="us-east-1", is_spot=True)
        monkeypatch.setattr(cloud, "detect", lambda firmware, everywhere: detected)
        fields = json.loads(invoke("machine", "--json", "--detect"))
        assert fields["detected"] == detected.model_dump()
        assert (fields["price"]["basis"], fields["price"]["instance"]) == ("detected", "g5.xlarge")
        assert "aws g5.xlarge in us-east-1, spot" in " ".join(invoke("machine", "--detect").split())


def test_plan_accepts_contract_rates_and_region_requires_an_instance(tmp_path, rates):
    from harness.store.record_files import load_record, save_record

    ok = load_record(ROOT / "tests" / "fixtures" / "records" / "v2" / "ok.json")
    path = save_record(ok, tmp_path / "one")
    rows = json.loads(
        invoke("plan", path, "--results", tmp_path / "none", "--instance", "x9.huge", "--prices", rates, "--json")
    )
    assert rows[0]["expected_usd"] is None  # it was never run on this machine
    with pytest.raises(UserError, match="--region needs --instance too"):
        invoke("plan", path, "--region", "us-east-1")


def test_run_rejects_an_invalid_price_file_before_running_a_cell(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('plan = "free"\n', encoding="utf-8")
    study = tmp_path / "study.toml"
    study.write_text("baselines = false\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"mine\.toml: 1 mistake\n  plan: found 'free'"):
        invoke("run", study, "--results", tmp_path / "r", "--offline", "--instance", "x9.huge", "--prices", path)


def test_report_prices_an_unlisted_instance_by_the_contract_rate(tmp_path, rates):
    from harness.store.record_files import load_record

    records = ROOT / "tests" / "fixtures" / "records" / "v2"
    machine = load_record(records / "ok.json").machine.id
    out = tmp_path / "report"
    invoke("report", records, "--out", out, "--instance", f"{machine}=x9.huge", "--prices", rates)
    header, *lines = (out / "cells.csv").read_text(encoding="utf-8").splitlines()
    named = [dict(zip(header.split(","), line.split(","), strict=False)) for line in lines]
    assert {"price_plan", "price_age_days", "price_paid"} <= set(header.split(","))
    assert all("x9.huge" in line and "by contract 7" in line for line in lines)
    assert named
    assert "by contract 7" in (out / "summary.md").read_text(encoding="utf-8")
    assert "by contract 7" in (out / "report.html").read_text(encoding="utf-8")
