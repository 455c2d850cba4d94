"""Calibrate this machine: measure its peak speed in a child process, and judge its step jitter."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import Unavailable
from harness.machine.describe import package_version
from harness.machine.variables import environment_without_thread_variables
from harness.schema.finding import Finding, Verdict
from harness.schema.host_record import BF16_FLAGS, Machine

CALIBRATION_S = 20.0
# Additional time-out for importing torch and creating a CUDA context, which took a minute on a slow disk.
_STARTUP_TIMEOUT_S = 180.0
# Major compute capability of the first GPUs with bf16 and TF32 (Ampere), and with fp16 tensor cores (Volta).
_AMPERE, _VOLTA = 8, 7
_WARN_JITTER, _BAD_JITTER = 1.1, 1.5


class CalibratedProduct(BaseModel):
    """The fastest product of two square matrices in one precision.

    Attributes:
        size: Number of rows, and of columns, of each matrix.
        gflop_per_s: GFLOP/s of the fastest single product: 2 x size³ / seconds / 10⁹.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["fp32", "tf32", "bf16", "fp16"]
    size: int
    gflop_per_s: float


class DeviceCalibration(BaseModel):
    """The calibration of one device: the CPU with all usable cores, or the first GPU.

    Attributes:
        num_threads: CPU threads; None on a GPU.
        products: The fastest product in each precision.
        copy_gb_per_s: GB/s (10⁹ bytes), read plus written, of the fastest copy of a large tensor; None when there was
            too little memory.
        step_s_median: Median seconds of a step, which is a fixed piece of work that the calibration repeats.
        step_s_p95_over_median: 95th percentile of the steps' seconds divided by their median; 1 without disturbance.
        num_steps: Number of steps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["cpu", "gpu"]
    num_threads: int | None
    products: tuple[CalibratedProduct, ...]
    copy_gb_per_s: float | None
    step_s_median: float
    step_s_p95_over_median: float
    num_steps: int


class Calibration(BaseModel):
    """The result of a calibration.

    Attributes:
        torch: Version of torch.
        duration_s: Seconds that the measurement took, without the import of torch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    torch: str
    duration_s: float
    devices: tuple[DeviceCalibration, ...]


class CalibrationPlan(BaseModel):
    """The input of the calibration process.

    Attributes:
        seconds: Duration of the measurement.
        num_threads: CPU threads.
        precisions: Precisions to measure on each device.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float
    num_threads: int
    precisions: dict[Literal["cpu", "gpu"], tuple[Literal["fp32", "tf32", "bf16", "fp16"], ...]]


def plan_calibration(machine: Machine, torch_cuda: str | None, seconds: float = CALIBRATION_S) -> CalibrationPlan:
    """Plan to measure each device in the precisions that it accelerates.

    Args:
        machine: The machine's facts.
        torch_cuda: CUDA version that the installed torch was built with; None for a CPU build, which can't use a GPU.
        seconds: Duration of the measurement.
    """
    bf16 = BF16_FLAGS & set(machine.cpu.flags)
    precisions: dict[Literal["cpu", "gpu"], tuple[Literal["fp32", "tf32", "bf16", "fp16"], ...]]
    precisions = {"cpu": ("fp32", "bf16") if bf16 else ("fp32",)}
    if machine.gpus and torch_cuda is not None:
        capability = machine.gpus[0].compute_capability or (0, 0)
        ampere = capability[0] >= _AMPERE
        precisions["gpu"] = (
            ("fp32", "tf32", "bf16", "fp16") if ampere else ("fp32", "fp16") if capability[0] >= _VOLTA else ("fp32",)
        )
    return CalibrationPlan(seconds=seconds, num_threads=machine.cpu.num_usable, precisions=precisions)


def calibrate(plan: CalibrationPlan) -> Calibration | Unavailable:
    """Run a calibration in a child process, because this process must not import torch."""
    if package_version("torch") == "not installed":
        return Unavailable("torch is not installed")
    with tempfile.TemporaryDirectory(prefix="harness-calibration-") as folder:
        out = Path(folder) / "calibration.json"
        command = [
            sys.executable,
            "-m",
            "harness.worker.diagnostics.microbenchmarks",
            plan.model_dump_json(),
            str(out),
        ]
        try:
            process = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=plan.seconds + _STARTUP_TIMEOUT_S,
                env=environment_without_thread_variables(),
                check=False,
            )
            return Calibration.model_validate_json(out.read_bytes())
        except subprocess.TimeoutExpired:
            return Unavailable(f"it did not end within {plan.seconds + _STARTUP_TIMEOUT_S:.0f} s")
        except (OSError, ValidationError):
            last = process.stderr.strip().splitlines()[-1:] or ["no word"]
            return Unavailable(f"its process ended with status {process.returncode} ({last[0]})")


def jitter_findings(calibration: Calibration | Unavailable) -> list[Finding]:
    """Judge how much the time of equal work varies on each device."""
    name, why = "step jitter", "what varies here varies in every figure"
    if isinstance(calibration, Unavailable):
        fix = "none: mend what the other lines say, then try again"
        return [Finding(name=name, value=f"not measured: {calibration.reason}", verdict="not known", why=why, fix=fix)]
    return [_jitter(device, f"{name}, {device.device.upper()}", why) for device in calibration.devices]


def _jitter(device: DeviceCalibration, name: str, why: str) -> Finding:
    ratio = device.step_s_p95_over_median
    verdict: Verdict = "bad" if ratio > _BAD_JITTER else "warn" if ratio > _WARN_JITTER else "good"
    value = f"95th percentile {ratio:.2f} times the median of {device.step_s_median * 1000:.2f} ms ({device.num_steps} steps)"
    fix = (
        None
        if verdict == "good"
        else "none: see load, steal time, quota and clock above; repeat cells (`repeats` in the study)"
    )
    return Finding(name=name, value=value, verdict=verdict, why=why, fix=fix)
