"""Everything that one GPU can check, in minutes, without a network and without being installed: `make gpu-check`.

One verdict a line; every record in RESULTS and in RESULTS/gpu-check.tar.gz, which `harness import` unpacks elsewhere. Where no
GPU is, nothing runs, and all that was not checked is listed. Needs what a cell needs, and no more.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.dataset.sources import DATA_VARIABLE
from harness.errors import UserError
from harness.execution.preparation import Preparations
from harness.execution.runner import Runner
from harness.execution.sweep import describe_environment
from harness.files import PACKAGE_FOLDER
from harness.machine.describe import package_version
from harness.schema.host_record import Machine
from harness.schema.settings import PACKAGED_DATA, PACKAGED_MODEL
from harness.store.archive import pack_records
from harness.workflows.gpu_check.checks import CHECKS, Check, CheckRun
from harness.workflows.gpu_check.verdicts import GpuCheckVerdict

ARCHIVE = "gpu-check.tar.gz"
_BUDGET_S = 450.0  # of the eight minutes that it may take; a check begun late still has its time-out
# What one GPU can't tell, whatever it runs.
NEVER_HERE = (
    "gpu-ddp over several GPUs: NCCL between them, NVLink, scaling",
    "a GPU that MIG has divided",
    "a GPU that falls off the bus, and a driver whose library and kernel module differ",
    "GPUs of another architecture than this one's, and those that this torch has no kernels for",
)


def run_checks(
    run: CheckRun, checks: Mapping[str, tuple[Check, bool]], budget_s: float = _BUDGET_S
) -> list[GpuCheckVerdict]:
    """Do the checks in order, saying each verdict as it is found; what there is no time for is said too."""
    began, found = time.perf_counter(), []
    for name, (check, _) in checks.items():
        if time.perf_counter() - began > budget_s:
            found.append(GpuCheckVerdict(None, name, f"no time was left of {budget_s:.0f} s"))
            _say(str(found[-1]))
            continue
        try:
            for verdict in check(run):
                found.append(verdict)
                _say(str(verdict))
        except Exception as error:  # noqa: BLE001 - one check that fails must not cost the others their verdicts
            found.append(GpuCheckVerdict(False, name, f"the check itself failed: {type(error).__name__}: {error}"))
            _say(str(found[-1]))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what this machine can check; 0 unless something failed."""
    asked = _parse(arguments)
    results = asked.results.resolve()
    around = describe_environment(None)
    reason = no_gpu(around.machine)
    if reason:
        for name in CHECKS:
            _say(str(GpuCheckVerdict(None, name, reason)))
        _say_what_is_never_checked()
        _say("0 passed, 0 failed: nothing was checked")
        return 0
    importable_from_anywhere()
    with tempfile.TemporaryDirectory(prefix="harness-check-") as folder:
        base = base_tables(asked.model, asked.data, Path(folder))
        with contextlib.chdir(folder), Runner() as runner:
            run = CheckRun("gpu", results, runner, Preparations(Path(folder)), around, base)
            runner.wait_until_warm()
            found = run_checks(run, CHECKS)
    found.append(archive_verdict(run.files, results))
    _say(str(found[-1]))
    _say_what_is_never_checked()
    counts = [sum(verdict.passed is wanted for verdict in found) for wanted in (True, False, None)]
    _say(f"{counts[0]} passed, {counts[1]} failed, {counts[2]} not checked; {around.machine.gpus[0].name}")
    return 1 if counts[1] else 0


def archive_verdict(files: Sequence[Path], results: Path) -> GpuCheckVerdict:
    """Pack the records, and say where."""
    archive = results / ARCHIVE
    pack_records(files, results, archive)
    return GpuCheckVerdict(
        bool(files), f"{len(files)} records in {archive.name}", "`harness import` unpacks it elsewhere"
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m harness.workflows.gpu_check", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True, help="folder for records and archive")
    parser.add_argument("--model", type=Path, help="folder of the embedded model (default: the installed one)")
    parser.add_argument("--data", type=Path, help="the packaged data's file (default: the installed one)")
    return parser.parse_args(arguments)


def no_gpu(machine: Machine) -> str | None:
    """Say why nothing can be checked here, or None."""
    if not machine.gpus:
        return f"no NVIDIA GPU here ({machine.gpu_note or 'NVML lists none'})"
    if package_version("torch") == "not installed":
        return "torch is not installed"
    return f"torch {package_version('torch')} is a CPU build" if "+cpu" in package_version("torch") else None


def base_tables(model: Path | None, data: Path | None, folder: Path) -> dict[str, Any]:
    """Tables of every cell: 4,096 rows, so that one batch can be larger than any GPU.

    A record tells of a local model by a name in `folder`, and by nothing of where it lies on this machine.
    """
    for path, what in ((model, "--model"), (data, "--data")):
        if path is not None and not path.exists():
            raise UserError(f"{what} {path}: no such file or folder")
    if data is not None:
        os.environ[DATA_VARIABLE] = str(data.resolve())
    name = PACKAGED_MODEL
    if model is not None:
        name = f"local-{model.resolve().name}"
        (folder / name).symlink_to(model.resolve(), target_is_directory=True)
    return {
        "model": {"name": name},
        "data": {"source": PACKAGED_DATA, "num_train": 4096, "num_val": 256, "num_test": 256},
        "limits": {"timeout_s": 150},
        "matrix": {"seq_len": [128]},
    }


def importable_from_anywhere() -> None:
    """Let processes that start in another folder find this package, which nobody installed."""
    root = str(PACKAGE_FOLDER.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))


def _say_what_is_never_checked() -> None:
    for what in NEVER_HERE:
        _say(str(GpuCheckVerdict(None, what, "one GPU can't tell")))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        status = main()
    except UserError as mistake:
        sys.stderr.write(f"error: {mistake}\n")
        status = 2
    sys.exit(status)
