"""What this machine reaches at best: the figures of a calibration, and the process in which it is measured."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.machine.describe import BF16_FLAGS, package_version
from harness.schema.finding import Finding, Verdict
from harness.schema.host_record import Machine

CALIBRATION_S = 20.0
# Torch is imported and a CUDA context made besides; on a slow disk that has taken a minute.
_PATIENCE_S = 180.0
_AMPERE, _VOLTA = 8, 7  # major compute capability with bf16 and tf32; with fp16's tensor cores
_WARN_JITTER, _BAD_JITTER = 1.1, 1.5


class CalibratedProduct(BaseModel):
    """The fastest product of two square matrices found in one precision.

    Attributes:
        size: Rows of the matrices of the fastest product.
        gflop_per_s: 2 x size³ / seconds of the fastest single product.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["fp32", "tf32", "bf16", "fp16"]
    size: int
    gflop_per_s: float


class DeviceCalibration(BaseModel):
    """One device: a CPU with all its usable cores, or the first GPU.

    Attributes:
        num_threads: Of a CPU; None on a GPU.
        copy_gb_per_s: Bytes read and written by the fastest copy of a large tensor, in 10⁹ a second; None where memory
            was too short for one.
        step_s_median: Seconds of a fixed piece of work that was repeated.
        step_s_p95_over_median: The 95th percentile of those seconds over their median; 1 where nothing disturbs.
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
    """What was measured, and by which torch.

    Attributes:
        duration_s: Of the measuring alone; importing torch comes before it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    torch: str
    duration_s: float
    devices: tuple[DeviceCalibration, ...]


class CalibrationOrder(BaseModel):
    """What the process is to measure, and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float
    num_threads: int
    precisions: dict[Literal["cpu", "gpu"], tuple[Literal["fp32", "tf32", "bf16", "fp16"], ...]]


def order_for(machine: Machine, torch_cuda: str | None, seconds: float = CALIBRATION_S) -> CalibrationOrder:
    """The precisions that this machine accelerates, by device; a GPU only where torch's build can reach it.

    Args:
        torch_cuda: The CUDA that the installed torch was built with, None without.
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
    return CalibrationOrder(seconds=seconds, num_threads=machine.cpu.num_usable, precisions=precisions)


def calibrate(order: CalibrationOrder) -> Calibration | str:
    """Measure in a process of its own, which has torch; or say why that did not come about."""
    if package_version("torch") == "not installed":
        return "torch is not installed"
    with tempfile.TemporaryDirectory(prefix="harness-calibration-") as folder:
        out = Path(folder) / "calibration.json"
        command = [
            sys.executable,
            "-m",
            "harness.worker.diagnostics.microbenchmarks",
            order.model_dump_json(),
            str(out),
        ]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=order.seconds + _PATIENCE_S,
                check=False,
            )
            return Calibration.model_validate_json(out.read_bytes())
        except subprocess.TimeoutExpired:
            return f"it did not end within {order.seconds + _PATIENCE_S:.0f} s"
        except (OSError, ValidationError):
            last = done.stderr.strip().splitlines()[-1:] or ["no word"]
            return f"its process ended with status {done.returncode} ({last[0]})"


def jitter_findings(found: Calibration | str) -> list[Finding]:
    """Whether equal work took equal time; or why that was not measured."""
    name, why = "step jitter", "what varies here varies in every figure"
    if isinstance(found, str):
        fix = "none: mend what the other lines say, then try again"
        return [Finding(name=name, value=f"not measured: {found}", verdict="not known", why=why, fix=fix)]
    return [_jitter(device, f"{name}, {device.device.upper()}", why) for device in found.devices]


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
