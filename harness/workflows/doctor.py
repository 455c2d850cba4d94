"""`harness doctor`: check this machine for sources of benchmark noise, and calibrate it."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from harness.errors import Unavailable
from harness.files import atomic_write_text
from harness.machine.calibration import (
    CALIBRATION_S,
    Calibration,
    CalibrationPlan,
    calibrate,
    jitter_findings,
    plan_calibration,
)
from harness.machine.cgroups import cpu_quota
from harness.machine.cpu_usage import (
    CpuUsage,
    load_finding,
    measure_cpu_usage,
    quota_finding,
    steal_finding,
    usable_cores,
)
from harness.machine.describe import describe_machine
from harness.machine.gpu_findings import gpu_findings, torch_cuda
from harness.machine.host_findings import clock_findings, disk_findings, instructions_finding, memory_findings
from harness.machine.variables import variable_findings
from harness.schema.finding import Finding, Verdict, worst
from harness.schema.host_record import Machine
from harness.store.record_files import CALIBRATION_FILE


class Diagnosis(NamedTuple):
    """All findings, and the calibration: None when not requested, Unavailable when it failed."""

    findings: tuple[Finding, ...]
    calibration: Calibration | Unavailable | None

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all findings."""
        return worst(self.findings)

    def as_fields(self) -> dict[str, object]:
        """Return the fields of `--json`."""
        calibration = self.calibration
        return {
            "verdict": self.verdict,
            "findings": [finding.model_dump() for finding in self.findings],
            "calibration": calibration.model_dump() if isinstance(calibration, Calibration) else None,
        }


def examine(
    results: Path,
    *,
    with_calibration: bool = True,
    calibration_s: float = CALIBRATION_S,
    measure_usage: Callable[[], CpuUsage] = measure_cpu_usage,
    run_calibration: Callable[[CalibrationPlan], Calibration | Unavailable] = calibrate,
) -> Diagnosis:
    """Observe this machine for two seconds, then calibrate it and save the calibration.

    Args:
        results: Folder for records; its disk is checked.
        with_calibration: Whether to calibrate, which needs torch.
        calibration_s: Duration of the calibration in seconds; importing torch takes extra time.
        measure_usage: Measures the CPU usage; takes two seconds by default.
        run_calibration: Runs the planned calibration.
    """
    here = describe_machine()
    usage = measure_usage()
    num_cores = len(usable_cores())
    findings = [
        load_finding(usage, here.cpu.num_usable, num_cores),
        steal_finding(usage),
        quota_finding(cpu_quota(), usage, num_cores, here.cpu.num_usable),
        *clock_findings(),
        *memory_findings(usage),
        *disk_findings(results, Path(tempfile.gettempdir())),
        instructions_finding(here.cpu.flags),
        *variable_findings(here.environment, has_gpu=bool(here.gpus)),
        *gpu_findings(here.gpus, here.gpu_note),
    ]
    if not with_calibration:
        return Diagnosis(tuple(findings), None)
    calibration = run_calibration(plan_calibration(here, torch_cuda(), calibration_s))
    if isinstance(calibration, Calibration):
        with contextlib.suppress(OSError):  # no error: a full disk is already among the findings
            save_calibration(calibration, here, results)
    return Diagnosis((*findings, *jitter_findings(calibration)), calibration)


def save_calibration(calibration: Calibration, machine: Machine, results: Path) -> Path:
    """Save a machine's calibration next to its records, replacing the previous one.

    Raises:
        OSError: If the file can't be written.
    """
    path = results / machine.id / CALIBRATION_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {
        "machine": machine.model_dump(mode="json"),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "calibration": calibration.model_dump(),
    }
    atomic_write_text(path, json.dumps(fields, indent=1, sort_keys=True) + "\n")
    return path
