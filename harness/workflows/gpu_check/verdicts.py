"""Verdicts on the records of a GPU check: each compares a record with an independent instrument or reference."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from harness.analysis.mfu import LOW_MFU, MAX_PLAUSIBLE_MFU, PeakFlops, measure_mfu
from harness.analysis.summarize import peak_memory
from harness.machine.gpu_monitor import GpuMonitor
from harness.machine.nvml import open_nvml, visible_gpus
from harness.schema.cells import FineTuneConfig
from harness.schema.host_record import Gpu, GpuReading, Machine
from harness.schema.record import Outcome, Record

MAX_CLOCK_ERROR = 0.05
# Allowed difference of the first loss from fp32's, same weights and batch: tf32, bf16 and fp16 round to 11, 8 and 11
# significant bits in some 150 matrix products.
LOSS_TOLERANCE = {"fp32": 1e-4, "tf32": 0.01, "bf16": 0.05, "fp16": 0.01}
MFU_RANGE = (LOW_MFU, MAX_PLAUSIBLE_MFU)
_MIB = 2**20
_SMI_FIELDS = (
    "name",
    "driver_version",
    "memory.total",
    "power.limit",
    "clocks.max.sm",
    "temperature.gpu",
    "memory.used",
    "power.draw",
)


@dataclass(frozen=True)
class GpuCheckVerdict:
    """The outcome of one check: passed, failed, or (None) not checked."""

    passed: bool | None
    name: str
    detail: str

    def __str__(self) -> str:
        """Return the printed line."""
        word = "NOT CHECKED" if self.passed is None else "PASS" if self.passed else "FAIL"
        return f"{word} {self.name}: {self.detail}"

    @classmethod
    def of_ending(cls, name: str, record: Record, wanted: Outcome = "ok") -> GpuCheckVerdict:
        """Judge a cell's outcome; a configuration that this machine doesn't support counts as not checked."""
        passed = None if record.outcome == "unsupported" else record.outcome == wanted
        return cls(passed, name, f"{record.outcome}: {record.reason}" if record.reason else record.outcome)


def compare_losses(name: str, record: Record, reference: Record, *, first_only: bool = False) -> GpuCheckVerdict:
    """Compare losses with those of a reference run on the same batches.

    Args:
        name: The check's name.
        record: The run to judge.
        reference: The run to compare with.
        first_only: Compare only the first loss, for a reference of another precision: later losses diverge.
    """
    for run in (record, reference):
        if run.outcome != "ok" or run.training is None:
            return GpuCheckVerdict.of_ending(name, run)
    assert record.training is not None and reference.training is not None  # noqa: S101 - checked above
    assert isinstance(record.config, FineTuneConfig)  # noqa: S101 - a record with `training`
    losses, expected = record.training.steps.loss, reference.training.steps.loss
    if first_only:
        losses, expected = losses[:1], expected[:1]
    if len(losses) != len(expected) or None in losses or None in expected:
        return GpuCheckVerdict(False, name, f"losses {losses} and {expected}")
    largest = max(abs((loss or 0.0) - (wanted or 0.0)) for loss, wanted in zip(losses, expected, strict=True))
    limit = LOSS_TOLERANCE[record.config.precision]
    which = "first loss differs" if first_only else f"{len(losses)} losses differ"
    detail = f"{which} by at most {largest:.1g} (limit {limit:g})"
    if record.config.precision == "fp16":
        detail += f", {record.training.steps.num_skipped} of {record.training.num_updates_planned} updates skipped"
    return GpuCheckVerdict(largest <= limit, name, detail)


def judge_stopwatch(record: Record) -> GpuCheckVerdict:
    """Compare the worker's step times with the parent's clock at the progress marks, both without evaluations."""
    name = "throughput agrees with an independent stopwatch"
    if record.training is None or len(record.marks) < 2:  # noqa: PLR2004 - a first and a last one
        return GpuCheckVerdict(False, name, f"{len(record.marks)} marks came")
    first, last = record.marks[0], record.marks[-1]
    parent_s = (last.at_s - last.evaluate_s) - (first.at_s - first.evaluate_s)
    worker_s = sum(record.training.steps.seconds[0][first.num_steps : last.num_steps])
    return _within(name, worker_s, parent_s, f"over {parent_s:.1f} s")


def judge_clock(record: Record) -> GpuCheckVerdict:
    """Compare the sum of the step times with the training clock (perf_counter, device synchronized at both ends)."""
    name = "the steps' events fill the wall clock of training"
    if record.training is None or not record.phases.train_s:
        return GpuCheckVerdict(False, name, "no training clock")
    steps_s, train_s = sum(record.training.steps.seconds[0]), record.phases.train_s
    return _within(f"{name} ({record.training.steps.clock})", steps_s, train_s, f"{steps_s:.2f} s of {train_s:.2f} s")


def judge_memory(record: Record) -> GpuCheckVerdict:
    """Check that allocated <= reserved <= used by NVML's reading; on a CPU, that the peak RSS is recorded."""
    reserved, allocated = peak_memory(record, "cuda_reserved"), peak_memory(record, "cuda_allocated")
    if reserved is None or allocated is None:
        rss = peak_memory(record, "rss")
        return GpuCheckVerdict(rss is not None and rss > 0, "peak memory", f"rss {(rss or 0) / _MIB:,.0f} MiB")
    used = max((reading.used_bytes or 0 for reading in record.gpu_readings), default=0)
    detail = f"allocated {allocated / _MIB:,.0f}, reserved {reserved / _MIB:,.0f}, NVML used {used / _MIB:,.0f} MiB"
    return GpuCheckVerdict(
        0 < allocated <= reserved <= (used or reserved), "peaks of memory lie within each other", detail
    )


def judge_readings(record: Record) -> GpuCheckVerdict:
    """Check that NVML was read about once a second while the cell ran."""
    readings = record.gpu_readings
    clocks = [reading.sm_clock_mhz for reading in readings if reading.sm_clock_mhz is not None]
    watts = [reading.power_watts for reading in readings if reading.power_watts is not None]
    reasons = sorted({reason for reading in readings for reason in reading.throttle_reasons or ()})
    detail = (
        f"{len(readings)} in {record.duration_s:.1f} s; SM clock up to {max(clocks, default=0)} MHz, "
        f"power up to {max(watts, default=0):.0f} W, held back by: {', '.join(reasons) or 'nothing'}"
    )
    return GpuCheckVerdict(len(readings) >= 0.5 * record.duration_s, "NVML readings at about 1 Hz", detail)


def judge_mfu(name: str, record: Record, peak_flops: PeakFlops) -> GpuCheckVerdict:
    """Check that the MFU lies in the plausible range."""
    if record.outcome != "ok" or record.training is None:
        return GpuCheckVerdict.of_ending(name, record)
    mfu = measure_mfu(record, peak_flops)
    if mfu is None:
        return GpuCheckVerdict(None, name, "this GPU's peak is not in bench/hardware.csv")
    low, high = MFU_RANGE
    return GpuCheckVerdict(low <= mfu <= high, name, f"{mfu:.3f} (believed from {low:g} to {high:g})")


def compare_smi(machine: Machine) -> Iterator[GpuCheckVerdict]:
    """Compare the first GPU's NVML facts and one reading with the output of nvidia-smi."""
    name = "NVML agrees with nvidia-smi"
    if shutil.which("nvidia-smi") is None:
        yield GpuCheckVerdict(None, name, "nvidia-smi is not on PATH")
        return
    monitor = GpuMonitor(1)
    with open_nvml() as nvml:
        uuid = nvml.nvmlDeviceGetUUID(visible_gpus(nvml).handles[0])
    command = ["nvidia-smi", "-i", uuid.decode() if isinstance(uuid, bytes) else uuid]
    command += [f"--query-gpu={','.join(_SMI_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        monitor.poll(0.0)
        completed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        yield GpuCheckVerdict(False, name, f"nvidia-smi did not answer: {error}")
        return
    finally:
        monitor.close()
    yield compare_with_smi(completed.stdout, machine.gpus[0], monitor.readings[0] if monitor.readings else None)


def compare_with_smi(line: str, gpu: Gpu, reading: GpuReading | None) -> GpuCheckVerdict:
    """Compare field by field: constants exactly, changing readings within a tolerance; `[N/A]` is None."""
    fields = dict(zip(_SMI_FIELDS, (part.strip() for part in line.split(",")), strict=False))
    mismatches = [
        f"{field} {fields.get(field)} and {ours}"
        for field, ours in (("name", gpu.name), ("driver_version", gpu.driver))
        if fields.get(field) != ours
    ]
    numbers = [
        ("memory.total", None if gpu.memory_bytes is None else gpu.memory_bytes / _MIB, 1),
        ("power.limit", gpu.power_limit_watts, 1),
        ("clocks.max.sm", gpu.max_sm_clock_mhz, 0),
    ]
    if reading is not None:
        used = None if reading.used_bytes is None else reading.used_bytes / _MIB
        # NVML counts memory reserved by the driver as used; nvidia-smi doesn't.
        numbers += [
            ("temperature.gpu", reading.temperature_celsius, 5),
            ("memory.used", used, 1024),
            ("power.draw", reading.power_watts, 50),
        ]
    for field, ours, tolerance in numbers:
        theirs = _number(fields.get(field))
        if (theirs is None) != (ours is None) or (
            theirs is not None and ours is not None and abs(theirs - ours) > tolerance
        ):
            mismatches.append(f"{field} {fields.get(field)} and {ours}")
    return GpuCheckVerdict(
        not mismatches, "NVML agrees with nvidia-smi", "; ".join(mismatches) or f"{len(numbers) + 2} fields"
    )


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _within(name: str, measured: float, expected: float, detail: str) -> GpuCheckVerdict:
    error = abs(measured - expected) / expected if expected > 0 else float("inf")
    return GpuCheckVerdict(error <= MAX_CLOCK_ERROR, name, f"{100 * error:.1f} % ({detail})")
