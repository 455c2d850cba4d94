"""The diagnosis as text and as JSON, and what a calibration is planned to measure."""

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
from harness.workflows.doctor import Diagnosis, examine, save_calibration
from tests.make_records import make_record

LOAD = Finding(
    name="other load",
    value="1.00 of 2 cores\n1.00 python loop.py (pid 7, of [me])",
    verdict="bad",
    why="shares [cores]",
    fix="kill " + "7 " * 60,
)
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
CALIBRATION = Calibration(torch="2.13.0", duration_s=20.1, devices=(CPU,))


def shown(diagnosis, width):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    show_diagnosis(console, diagnosis)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 200])
def test_all_findings_are_shown_and_no_line_is_longer_than_the_terminal(width):
    text = shown(Diagnosis((LOAD, DISK), CALIBRATION), width)
    assert " ".join(LOAD.fix.split()) in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= width
    assert "shares [cores]" in text
    assert "\n    1.00 python loop.py (pid 7, of [me])\n" in text
    assert ("records are written" in text) == (width == 200)
    assert "fp32 207 GFLOP/s (2048 square); bf16 1,433 GFLOP/s (4096 square); copy 48.5 GB/s" in " ".join(text.split())
    assert "bad: Fix what is marked `bad` first" in text


def test_a_good_diagnosis_without_calibration_has_nothing_to_fix():
    text = shown(Diagnosis((DISK,), None), 80)
    assert "No calibration was asked for" in text
    assert "What to do" not in text
    assert "good: Nothing was found" in text


def test_a_failed_calibration_shows_its_reason_and_is_null_in_json():
    missing = Unavailable("torch is not installed")
    diagnosis = Diagnosis((DISK, *jitter_findings(missing)), missing)
    assert "not measured: torch is not installed" in shown(diagnosis, 120)
    assert diagnosis.as_fields()["calibration"] is None
    assert diagnosis.verdict == "good"


def test_json_fields_can_be_read_back():
    fields = json.loads(json.dumps(Diagnosis((LOAD, DISK), CALIBRATION).as_fields()))
    assert fields["verdict"] == "bad"
    assert [Finding(**row) for row in fields["findings"]] == [LOAD, DISK]
    assert Calibration(**fields["calibration"]) == CALIBRATION


def test_a_saved_calibration_is_not_read_as_a_record(tmp_path):
    record = make_record()
    save_record(record, tmp_path)
    path = save_calibration(CALIBRATION, record.machine, tmp_path)
    assert path == tmp_path / record.machine.id / "calibration.json"
    assert Calibration(**json.loads(path.read_text())["calibration"]) == CALIBRATION
    loaded = load_records([tmp_path])
    assert (loaded.records, loaded.unreadable) == ((record,), ())


@pytest.mark.parametrize(("ratio", "verdict"), [(1.1, "good"), (1.11, "warn"), (1.51, "bad")])
def test_step_jitter_has_a_verdict(ratio, verdict):
    device = CPU.model_copy(update={"step_s_p95_over_median": ratio})
    (finding,) = jitter_findings(CALIBRATION.model_copy(update={"devices": (device,)}))
    assert (finding.name, finding.verdict) == ("step jitter, CPU", verdict)
    assert finding.value.endswith("times the median of 9.30 ms (640 steps)")


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
    plan = plan_calibration(machine, cuda, 20.0)
    assert plan.precisions == precisions
    assert plan.num_threads == machine.cpu.num_usable


def test_a_quick_diagnosis_runs_no_calibration(tmp_path):
    diagnosis = examine(
        tmp_path,
        with_calibration=False,
        measure_usage=lambda: CpuUsage((), 0.0, 0.0, 0, None),
        run_calibration=lambda _: pytest.fail("a calibration was run"),
    )
    names = [finding.name for finding in diagnosis.findings]
    assert names[:12] == [
        *("other load", "steal time", "CPU quota", "clock governor", "turbo", "SMT", "free memory", "swap in use"),
        *("huge pages", "disk of results", "temporary disk", "bf16 instructions"),
    ]
    assert names[12].startswith("variable")
    assert {"GPU", "driver and CUDA"} & set(names[13:])
    assert diagnosis.calibration is None
