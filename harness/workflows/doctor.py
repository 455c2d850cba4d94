"""What of this machine would spoil a benchmark, looked at before anything is spent on one."""

from __future__ import annotations

import contextlib
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import Unavailable
from harness.files import atomic_write_text
from harness.machine.calibration import CALIBRATION_S, Calibration, calibrate, jitter_findings, plan_calibration
from harness.machine.cgroups import cpu_quota
from harness.machine.cpu_usage import load_finding, measure_cpu_usage, quota_finding, steal_finding, usable_cores
from harness.machine.describe import describe_machine
from harness.machine.gpu_findings import gpu_findings, torch_cuda
from harness.machine.host_findings import clock_findings, disk_findings, instructions_finding, memory_findings
from harness.schema.finding import Finding, Verdict, worst
from harness.schema.host_record import Machine
from harness.store.record_files import CALIBRATION_FILE


class Diagnosis(NamedTuple):
    """All findings; `calibration` is None when not requested, and Unavailable when it failed."""

    findings: tuple[Finding, ...]
    calibration: Calibration | Unavailable | None

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        return worst(self.findings)

    def as_fields(self) -> dict[str, Any]:
        """For scripts."""
        found = self.calibration
        return {
            "verdict": self.verdict,
            "findings": [finding.model_dump() for finding in self.findings],
            "calibration": found.model_dump() if isinstance(found, Calibration) else None,
        }


def examine(results: Path, *, calibrated: bool = True, calibration_s: float = CALIBRATION_S) -> Diagnosis:
    """Look at this machine for two seconds, then measure what it reaches.

    Args:
        results: The folder in which records will be.
        calibrated: Whether to measure; nothing that needs torch is done without.
        calibration_s: Seconds for that, importing torch left out.
    """
    here = describe_machine()
    seen = measure_cpu_usage()
    num_cores = len(usable_cores())
    findings = [
        load_finding(seen, here.cpu.num_usable, num_cores),
        steal_finding(seen),
        quota_finding(cpu_quota(), seen, num_cores, here.cpu.num_usable),
        *clock_findings(),
        *memory_findings(seen),
        *disk_findings(results, Path(tempfile.gettempdir())),
        instructions_finding(here.cpu.flags),
        *gpu_findings(here.gpus, here.gpu_note),
    ]
    if not calibrated:
        return Diagnosis(tuple(findings), None)
    found = measure_peaks(here, calibration_s)
    if isinstance(found, Calibration):
        with contextlib.suppress(OSError):  # a full disk is a finding already
            keep_calibration(found, here, results)
    return Diagnosis((*findings, *jitter_findings(found)), found)


def keep_calibration(found: Calibration, machine: Machine, results: Path) -> Path:
    """Put what a machine reached beside its records, in place of what it reached before.

    Raises:
        OSError: When it can't be written.
    """
    path = results / machine.id / CALIBRATION_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"machine": machine.model_dump(mode="json"), "measured_at": datetime.now(UTC).isoformat(timespec="seconds")}
    atomic_write_text(path, json.dumps(told | {"calibration": found.model_dump()}, indent=1, sort_keys=True) + "\n")
    return path


def measure_peaks(machine: Machine, seconds: float = CALIBRATION_S) -> Calibration | Unavailable:
    """Calibrate the devices of this machine."""
    return calibrate(plan_calibration(machine, torch_cuda(), seconds))
