"""`harness prices`, and what the other commands say of prices, own rates and the cloud, run in this process."""

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


def test_a_list_for_scripts_is_the_table_filtered_and_sorted():
    rows = json.loads(invoke("prices", "--gpu", "A100", "--max-usd", 3, "--spot", "--json"))
    assert [row["instance_type"] for row in rows] == ["a2-highgpu-1g", "a2-ultragpu-1g"]
    table = load_prices()
    assert [row["age_days"] for row in rows] == [days_old(row["as_of"], table.today) for row in rows]
    rows = json.loads(invoke("prices", "--cpus", 8, "--memory-gib", 32, "--provider", "gcp", "--gpu", "none", "--json"))
    assert [row["instance_type"] for row in rows][:2] == ["n2-standard-8", "c3-standard-8"]
    assert all(row["vcpus"] >= 8 and row["memory_gib"] >= 32 and row["provider"] == "gcp" for row in rows)


def test_a_list_for_a_person_counts_the_rows():
    text = " ".join(invoke("prices", "--gpu", "T4", "--provider", "aws").split())
    assert "3 of 87 rows, by on-demand price; days: the price's age." in text
    assert "0.5260 0.2204 g4dn.xlarge aws us-east-1 1 x T4" in text


def test_one_instance_is_shown_whole():
    text = " ".join(invoke("prices", "g5.xlarge").split())
    for words in ("1.006 USD an hour", "0.5006 USD an hour (50% less)", "NVIDIA A10G", "bf16 70", "at least 60 s"):
        assert words in text
    (row,) = json.loads(invoke("prices", "g5.xlarge", "--json"))
    assert (row["billing"]["granularity_s"], row["hardware_facts"]["peak_bf16_tflops"]) == (1, 70)


def test_what_the_table_lacks_is_the_users_mistake():
    with pytest.raises(UserError, match=r"no instance 'g5\.xlrge'.*did you mean g5\.xlarge"):
        invoke("prices", "g5.xlrge")
    with pytest.raises(UserError, match="no row of the price table matches all filters"):
        invoke("prices", "g5.xlarge", "--max-usd", "0.1")


def test_help_says_where_the_own_table_lies():
    text = " ".join(invoke("prices", "--help").replace("│", " ").split())
    assert "HARNESS_PRICES" in text
    assert "~/.config/bert-cost-harness/prices.csv" in text


def test_a_row_of_the_own_table_is_found(tmp_path, monkeypatch):
    own = tmp_path / "own.csv"
    header = (ROOT / "bench" / "prices.csv").read_text(encoding="utf-8").splitlines()[0]
    own.write_text(f"{header}\nhetzner,gex44,fsn1,,,0,,20,64,0.34,,2026-10,invoice\n", encoding="utf-8")
    monkeypatch.setenv("HARNESS_PRICES", str(own))
    assert "0.34 USD an hour" in invoke("prices", "gex44")
    told = json.loads(invoke("machine", "--offline", "--instance", "gex44", "--json"))
    assert (told["price"]["usd_per_hour"], told["price"]["basis"]) == (0.34, "stated")


class TestRefresh:
    def run(self, path, *blocked):
        """In a process of its own, in which `blocked` modules can't be imported and no host is reached."""
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

    def test_without_gpuhunt_it_says_what_to_install(self, tmp_path):
        path = tmp_path / "own.csv"
        done = self.run(path, "gpuhunt")
        assert (done.returncode, path.exists()) == (2, False)
        assert "gpuhunt is not installed: pip install '.[prices]'" in done.stderr

    def test_without_a_network_the_old_table_stays(self, tmp_path):
        pytest.importorskip("gpuhunt", reason="the extra `prices` is not installed")
        path = tmp_path / "own.csv"
        path.write_bytes((ROOT / "bench" / "prices.csv").read_bytes())
        before = path.read_bytes()
        done = self.run(path)
        assert done.returncode == 2
        assert "gpuhunt's catalog can't be had" in done.stderr
        assert "Traceback" not in done.stderr
        assert path.read_bytes() == before
        assert [one.name for one in tmp_path.iterdir()] == ["own.csv"]


class TestMachine:
    def test_the_price_has_its_age(self):
        told = json.loads(invoke("machine", "--offline", "--json", "--instance", "m7i.2xlarge"))
        table = load_prices()
        assert told["price"]["age_days"] == days_old("2026-07", table.today)
        assert f"2026-07; {days_old('2026-07', table.today)} days old" in " ".join(
            invoke("machine", "--offline", "--instance", "m7i.2xlarge").split()
        )

    def test_an_own_rate_for_an_instance_that_the_table_lacks(self, rates):
        told = json.loads(invoke("machine", "--offline", "--json", "--instance", "x9.huge", "--prices", rates))["price"]
        assert (told["usd_per_hour"], told["basis"], told["as_of"]) == (4.5, "stated", "2026-11-01")
        with pytest.raises(UserError, match=r"--instance x9\.huge: no instance 'x9\.huge'"):
            invoke("machine", "--offline", "--instance", "x9.huge")

    def test_a_plan_of_the_own_file_is_followed(self, tmp_path):
        path = tmp_path / "mine.toml"
        path.write_text('plan = "spot"\n', encoding="utf-8")
        told = json.loads(invoke("machine", "--offline", "--json", "--instance", "g5.xlarge", "--prices", path))[
            "price"
        ]
        assert (told["usd_per_hour"], told["plan"]) == (0.5006, "spot")

    def test_detect_and_offline_exclude_each_other(self):
        with pytest.raises(UserError, match="--detect and --offline: give only one of them"):
            invoke("machine", "--detect", "--offline")

    @pytest.mark.parametrize(
        ("options", "asked"), [((), (None, False)), (("--detect",), (None, True)), (("--offline",), None)]
    )
    def test_who_is_asked(self, monkeypatch, options, asked):
        """The service itself is tested in test_cloud.py; here, whether it is asked at all."""
        from harness.machine import cloud_metadata as cloud
        from harness.machine.describe import describe_machine

        calls = []
        monkeypatch.setattr(cloud, "detect", lambda firmware, everywhere: calls.append((firmware, everywhere)))
        invoke("machine", "--json", *options)
        firmware = describe_machine().cloud_vendor
        assert calls == ([] if asked is None else [(firmware, asked[1])])

    def test_what_was_detected_is_told_and_priced(self, monkeypatch):
        from harness.machine import cloud_metadata as cloud
        from harness.schema.host_record import DetectedInstance

        found = DetectedInstance(vendor="aws", instance="g5.xlarge", region="us-east-1", is_spot=True)
        monkeypatch.setattr(cloud, "detect", lambda firmware, everywhere: found)
        told = json.loads(invoke("machine", "--json", "--detect"))
        assert told["detected"] == found.model_dump()
        assert (told["price"]["basis"], told["price"]["instance"]) == ("detected", "g5.xlarge")
        assert "aws g5.xlarge in us-east-1, spot" in " ".join(invoke("machine", "--detect").split())


def test_plan_prices_by_the_own_rate(tmp_path, rates):
    from harness.store.record_files import load_record, save_record

    ok = load_record(ROOT / "tests" / "fixtures" / "records" / "v2" / "ok.json")
    path = save_record(ok, tmp_path / "one")
    told = json.loads(
        invoke("plan", path, "--results", tmp_path / "none", "--instance", "x9.huge", "--prices", rates, "--json")
    )
    assert told[0]["expected_usd"] is None  # never run on this machine
    with pytest.raises(UserError, match="--region needs --instance too"):
        invoke("plan", path, "--region", "us-east-1")


def test_run_refuses_a_wrong_file_of_rates_before_anything_runs(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('plan = "free"\n', encoding="utf-8")
    study = tmp_path / "study.toml"
    study.write_text("baselines = false\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"mine\.toml: 1 mistake\n  plan: found 'free'"):
        invoke("run", study, "--results", tmp_path / "r", "--offline", "--instance", "x9.huge", "--prices", path)


def test_report_prices_an_unlisted_instance_by_the_own_rate(tmp_path, rates):
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
