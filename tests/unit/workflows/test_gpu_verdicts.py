"""Verdicts on hand-made records: passed, failed, or not checked."""

from __future__ import annotations

import shutil
import sys

import pytest

from harness.schema.host_record import Gpu, GpuReading
from harness.workflows.gpu_check.verdicts import (
    GpuCheckVerdict,
    compare_losses,
    compare_smi,
    compare_with_smi,
    judge_clock,
    judge_memory,
    judge_mfu,
    judge_readings,
    judge_stopwatch,
)
from tests.make_nvml import TWO_GPUS, make_nvml
from tests.make_records import MIB, make_machine, make_record

# Written by hand after `nvidia-smi --help-query-gpu`, not recorded on a GPU.
SMI = "NVIDIA A10G, 580.95.05, 23028, 300.00, 1710, 64, 700, 287.43\n"
GPU = Gpu(
    name="NVIDIA A10G", memory_bytes=23_028 * MIB, compute_capability=(8, 6), driver="580.95.05", cuda_driver="13.0",
    power_limit_watts=300.0, max_sm_clock_mhz=1710, max_memory_clock_mhz=6251, mig=False, ecc=True, persistence=True,
)  # fmt: skip
READING = GpuReading(
    at_s=0.0, gpu=0, sm_clock_mhz=1410, memory_clock_mhz=6250, power_watts=287.431, temperature_celsius=64,
    used_bytes=1_028 * MIB, throttle_reasons=(),
)  # fmt: skip


def mark(at_s, num_steps, evaluate_s=0.0):
    return {"at_s": at_s, "num_steps": num_steps, "num_samples": num_steps * 16, "evaluate_s": evaluate_s, "loss": 0.5}


def make_run(losses, precision="fp32", **fields):
    count = len(losses)
    return make_record(
        axes={"precision": precision, "device": "gpu"},
        machine=make_machine(gpus=["NVIDIA A10G"]),
        training={"seconds": [1.0] * count, "losses": losses, "accuracy": None},
        **fields,
    )


def test_a_verdict_prints_as_one_line():
    assert str(GpuCheckVerdict(True, "a", "1 %")) == "PASS a: 1 %"
    assert str(GpuCheckVerdict(False, "a", "9 %")) == "FAIL a: 9 %"
    assert str(GpuCheckVerdict(None, "a", "no GPU")) == "NOT CHECKED a: no GPU"


def test_the_stopwatch_counts_steps_between_marks_without_evaluations():
    # 20 steps of 1 s between the marks, which are 26 s apart with 5 s of evaluation: 21 s.
    record = make_record(marks=[mark(10.0, 5), mark(36.0, 25, evaluate_s=5.0)])
    assert str(judge_stopwatch(record)) == ("PASS throughput agrees with an independent stopwatch: 4.8 % (over 21.0 s)")
    assert not judge_stopwatch(make_record(marks=[mark(10.0, 5), mark(32.0, 25)])).passed  # 9 % off
    assert not judge_stopwatch(make_record(marks=[mark(10.0, 5)])).passed


def test_steps_must_fill_the_training_clock():
    assert judge_clock(make_record(phases={"train_s": 41.0})).passed  # 40 steps of 1 s
    assert str(judge_clock(make_record(phases={"train_s": 50.0}))) == (
        "FAIL the steps' events fill the wall clock of training (perf_counter): 20.0 % (40.00 s of 50.00 s)"
    )
    assert not judge_clock(make_record(phases={"train_s": None})).passed


@pytest.mark.parametrize(
    ("allocated", "reserved", "used", "passed"),
    [
        (100, 200, 300, True),
        (200, 200, 200, True),
        (201, 200, 300, False),
        (100, 200, 199, False),
        (0, 200, 300, False),
    ],
)
def test_allocated_is_within_reserved_within_used(allocated, reserved, used, passed):
    peaks = [(0, "cuda_allocated", allocated * MIB), (0, "cuda_reserved", reserved * MIB)]
    record = make_record(
        training={"peaks": peaks}, gpu_readings=[READING.model_copy(update={"used_bytes": used * MIB})]
    )
    assert judge_memory(record).passed is passed


def test_on_a_cpu_the_peak_is_the_resident_set():
    assert str(judge_memory(make_record())) == "PASS peak memory: rss 600 MiB"


def test_readings_must_come_about_once_a_second():
    readings = [
        READING.model_copy(update={"at_s": float(at), "throttle_reasons": ("sw_power_cap",)}) for at in range(55)
    ]
    assert str(judge_readings(make_record(gpu_readings=readings))) == (
        "PASS NVML readings at about 1 Hz: 55 in 60.0 s; SM clock up to 1410 MHz, power up to 287 W, "
        "held back by: sw_power_cap"
    )
    assert not judge_readings(make_record(gpu_readings=readings[:20])).passed
    assert not judge_readings(make_record()).passed


def test_losses_must_match_the_reference_within_the_precisions_rounding():
    reference = make_run([0.7, 0.6, 0.5])
    same, off = make_run([0.7, 0.60005, 0.5]), make_run([0.7, 0.61, 0.5])
    assert str(compare_losses("x", same, reference)) == "PASS x: 3 losses differ by at most 5e-05 (limit 0.0001)"
    assert not compare_losses("x", off, reference).passed
    assert compare_losses("x", off, reference, first_only=True).passed
    rounded = make_run([0.73, 9.0], "bf16")
    assert compare_losses("x", rounded, reference, first_only=True).passed
    assert not compare_losses("x", make_run([0.76, 0.6], "bf16"), reference, first_only=True).passed
    assert "0 of 2 updates skipped" in str(
        compare_losses("x", make_run([0.7, 0.6], "fp16"), reference, first_only=True)
    )
    for wrong in (make_run([0.7]), make_run([0.7, None, 0.5])):
        assert not compare_losses("x", wrong, reference).passed


def test_an_unsupported_cell_is_not_checked_and_any_other_failure_fails():
    unsupported = make_record(outcome="unsupported", reason="bf16 needs compute capability 8.0")
    assert str(compare_losses("x", unsupported, make_run([0.7]))) == (
        "NOT CHECKED x: unsupported: bf16 needs compute capability 8.0"
    )
    assert compare_losses("x", make_run([0.7]), make_record(outcome="crashed", reason="dead")).passed is False
    assert judge_mfu("x", make_record(outcome="oom", reason="full"), lambda *_: 1e12).passed is False


@pytest.mark.parametrize(("peak_times", "passed"), [(1 / 0.35, True), (1 / 0.05, False), (1 / 0.7, False)])
def test_mfu_must_be_plausible(peak_times, passed):
    # 6 layers, hidden 384, intermediate 1536, 16 samples of 64 tokens per 1 s step.
    flops = 3 * 6 * 1024 * (8 * 384**2 + 4 * 384 * 1536 + 4 * 384 * 64) + 3 * 16 * (2 * 384**2 + 2 * 384 * 2)
    record = make_run([0.7] * 40, "bf16")
    verdict = judge_mfu("MFU", record, lambda *_: flops * peak_times)
    assert verdict.passed is passed
    assert verdict.detail.startswith(f"{1 / peak_times:.3f} ")
    assert judge_mfu("MFU", record, lambda *_: None).passed is None


class TestSmi:
    def test_equal_fields_pass(self):
        assert str(compare_with_smi(SMI, GPU, READING)) == "PASS NVML agrees with nvidia-smi: 8 fields"
        assert compare_with_smi(SMI, GPU, None).detail == "5 fields"

    def test_a_field_unknown_to_both_agrees(self):
        line = SMI.replace("287.43", "[N/A]").replace("300.00", "[Not Supported]")
        gpu, reading = (
            GPU.model_copy(update={"power_limit_watts": None}),
            READING.model_copy(update={"power_watts": None}),
        )
        assert compare_with_smi(line, gpu, reading).passed
        assert not compare_with_smi(line, GPU, reading).passed

    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [("NVIDIA A10G", "NVIDIA A10"), ("580.95.05", "575.1"), ("23028", "22000"), (" 1710", " 1700"), (" 64", " 80")],
    )
    def test_each_differing_field_is_named(self, theirs, ours):
        verdict = compare_with_smi(SMI.replace(theirs, ours), GPU, READING)
        assert verdict.passed is False
        assert ours.strip() in verdict.detail

    def test_nvidia_smi_is_asked_for_the_visible_gpu_by_uuid(self, monkeypatch, tmp_path):
        program = tmp_path / "nvidia-smi"
        program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nprintf "{SMI.strip()}\\n"\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        monkeypatch.setitem(sys.modules, "pynvml", make_nvml(TWO_GPUS))
        (verdict,) = compare_smi(make_machine(gpus=["x"]).model_copy(update={"gpus": (GPU,)}))
        assert verdict.passed, verdict
        assert (tmp_path / "asked").read_text().startswith("-i GPU-bbbb-2 --query-gpu=name,driver_version,memory.total")
        program.write_text("#!/bin/sh\nexit 9\n")
        (verdict,) = compare_smi(make_machine(gpus=["x"]))
        assert verdict.passed is False and "did not answer" in verdict.detail

    def test_without_nvidia_smi_it_is_not_checked(self, monkeypatch):
        monkeypatch.setattr(shutil, "which", lambda _: None)
        (verdict,) = compare_smi(make_machine())
        assert verdict.passed is None
