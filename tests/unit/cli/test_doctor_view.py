"""A diagnosis on the screen and for scripts, and what a calibration is ordered to measure."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from harness.cli.views.doctor import show_diagnosis
from harness.errors import Unavailable
from harness.machine.calibration import (
    CalibratedProduct,
    Calibration,
    DeviceCalibration,
    jitter_findings,
    plan_calibration,
)
from harness.machine.cpu_usage import CpuUsage
from harness.machine.describe import describe_machine
from harness.schema.finding import Finding
from harness.schema.host_record import Gpu
from harness.store.record_files import load_records, save_record
from harness.workflows import doctor
from harness.workflows.doctor import Diagnosis
from tests.make_records import make_record

LOAD = Finding(name="other load", value="1.00 of 2 cores", verdict="bad", why="shares [cores]", fix="kill " + "7 " * 60)
DISK = Finding(name="disk of results", value="72.0 GiB free", verdict="good", why="records are written")
CPU = DeviceCalibration(
    device="cpu",
    num_threads=2,
    products=(
        CalibratedProduct(precision="fp32", size=2048, gflop_per_s=207.4),
        CalibratedProduct(precision="bf16", size=4096, gflop_per_s=1433.0),
    ),
    copy_gb_per_s=48.53,
    step_s_median=0.0093,
    step_s_p95_over_median=1.04,
    num_steps=640,
)
FOUND = Calibration(torch="2.13.0", duration_s=20.1, devices=(CPU,))


def shown(found, width):
    console = Console(file=io.StringIO(), width=width)
    show_diagnosis(console, found)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 200])
def test_every_line_is_there_and_commands_can_be_copied(width):
    text = shown(Diagnosis((LOAD, DISK), FOUND), width)
    assert LOAD.fix.strip() in text
    assert "shares [cores]" in text
    assert ("records are written" in text) == (width == 200)
    assert "fp32 207 GFLOP/s (2048 square); bf16 1,433 GFLOP/s (4096 square); copy 48.5 GB/s" in text
    assert "bad: Mend what is marked `bad` first" in text


def test_without_a_calibration_or_anything_to_mend():
    text = shown(Diagnosis((DISK,), None), 80)
    assert "No calibration was asked for" in text
    assert "What to do" not in text
    assert "good: Nothing was found" in text


def test_a_calibration_that_did_not_come_about_is_a_line_and_null_for_scripts():
    missing = Unavailable("torch is not installed")
    found = Diagnosis((DISK, *jitter_findings(missing)), missing)
    assert "not measured: torch is not installed" in shown(found, 120)
    assert found.as_fields()["calibration"] is None
    assert found.verdict == "good"


def test_fields_for_scripts_are_json_and_read_back():
    fields = json.loads(json.dumps(Diagnosis((LOAD, DISK), FOUND).as_fields()))
    assert fields["verdict"] == "bad"
    assert [Finding(**row) for row in fields["findings"]] == [LOAD, DISK]
    assert Calibration(**fields["calibration"]) == FOUND


def test_a_calibration_is_kept_beside_the_records_and_taken_for_none(tmp_path):
    record = make_record()
    save_record(record, tmp_path)
    path = doctor.save_calibration(FOUND, record.machine, tmp_path)
    assert path == tmp_path / record.machine.id / "calibration.json"
    assert Calibration(**json.loads(path.read_text())["calibration"]) == FOUND
    found = load_records([tmp_path])
    assert (found.records, found.unreadable) == ((record,), ())


@pytest.mark.parametrize(("ratio", "verdict"), [(1.1, "good"), (1.11, "warn"), (1.51, "bad")])
def test_jitter_is_judged(ratio, verdict):
    device = CPU.model_copy(update={"step_s_p95_over_median": ratio})
    (found,) = jitter_findings(FOUND.model_copy(update={"devices": (device,)}))
    assert (found.name, found.verdict) == ("step jitter, CPU", verdict)
    assert found.value.endswith("times the median of 9.30 ms (640 steps)")


@pytest.mark.parametrize(
    ("flags", "capability", "cuda", "precisions"),
    [
        (("avx2",), None, None, {"cpu": ("fp32",)}),
        (("avx2", "amx_bf16"), None, "13.0", {"cpu": ("fp32", "bf16")}),
        (("avx2",), (8, 6), None, {"cpu": ("fp32",)}),
        (("avx2",), (9, 0), "13.0", {"cpu": ("fp32",), "gpu": ("fp32", "tf32", "bf16", "fp16")}),
        (("avx2",), (7, 5), "13.0", {"cpu": ("fp32",), "gpu": ("fp32", "fp16")}),
        (("avx2",), (6, 1), "12.6", {"cpu": ("fp32",), "gpu": ("fp32",)}),
    ],
)
def test_only_precisions_that_the_machine_accelerates_are_measured(flags, capability, cuda, precisions):
    here = describe_machine()
    gpus = () if capability is None else (Gpu.model_construct(name="a GPU", compute_capability=capability),)
    machine = here.model_copy(update={"gpus": gpus, "cpu": here.cpu.model_copy(update={"flags": flags})})
    order = plan_calibration(machine, cuda, 20.0)
    assert order.precisions == precisions
    assert order.num_threads == machine.cpu.num_usable


def test_a_quick_look_starts_no_process(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "measure_cpu_usage", lambda: CpuUsage((), 0.0, 0.0, 0, None))
    monkeypatch.setattr(doctor, "calibrate", lambda _: pytest.fail("it was left out"))
    found = doctor.examine(tmp_path, with_calibration=False)
    names = [finding.name for finding in found.findings]
    assert names[:12] == [
        *("other load", "steal time", "CPU quota", "clock governor", "turbo", "SMT", "free memory", "swap in use"),
        *("huge pages", "disk of results", "temporary disk", "bf16 instructions"),
    ]
    assert names[12] in ("GPU", "driver and CUDA")
    assert found.calibration is None
