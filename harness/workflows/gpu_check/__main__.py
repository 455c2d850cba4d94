"""Command of `make gpu-check`: check everything that one GPU can verify, in minutes, offline and without installation.

Prints one verdict per line. Saves every record in RESULTS and in RESULTS/gpu-check.tar.gz, which `harness import` unpacks
elsewhere. Without a GPU nothing runs, and every check is listed as not checked. Needs only the packages that a cell needs.
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

from harness.dataset.sources import DATA_VARIABLE
from harness.errors import UserError
from harness.execution.jobs import Environment
from harness.execution.preparation import Preparations
from harness.execution.runner import Runner
from harness.execution.sweep import describe_environment
from harness.files import PACKAGE_FOLDER
from harness.machine.describe import package_version
from harness.schema.host_record import Machine
from harness.schema.settings import PACKAGED_DATA, PACKAGED_MODEL
from harness.store.archive import pack_records
from harness.workflows.gpu_check.checks import CHECKS, Check, CheckRun, Table
from harness.workflows.gpu_check.verdicts import GpuCheckVerdict

ARCHIVE = "gpu-check.tar.gz"
_BUDGET_S = 450.0  # of an eight-minute limit; a check that starts late still has its own time-out
# Not verifiable on a single GPU.
NEVER_CHECKED = (
    "gpu-ddp over several GPUs: NCCL between them, NVLink, scaling",
    "a GPU that MIG has divided",
    "a GPU that falls off the bus, and a driver whose library and kernel module differ",
    "GPUs of another architecture than this one's, and those that this torch has no kernels for",
)


def run_checks(
    run: CheckRun, checks: Mapping[str, tuple[Check, bool]], budget_s: float = _BUDGET_S
) -> list[GpuCheckVerdict]:
    """Run the checks in order, print each verdict at once, and report checks that the time budget left out."""
    began, verdicts = time.perf_counter(), []

    def report(verdict: GpuCheckVerdict) -> None:
        verdicts.append(verdict)
        _print_line(str(verdict))

    for name, (check, _) in checks.items():
        if time.perf_counter() - began > budget_s:
            report(GpuCheckVerdict(None, name, f"no time was left of {budget_s:.0f} s"))
            continue
        try:
            for verdict in check(run):
                report(verdict)
        except Exception as error:  # noqa: BLE001 - a bug in one check must not cost the others their verdicts
            report(GpuCheckVerdict(False, name, f"the check itself failed: {type(error).__name__}: {error}"))
    return verdicts


def main(
    arguments: Sequence[str] | None = None,
    *,
    environment: Environment | None = None,
    torch_version: str | None = None,
) -> int:
    """Run every check that this machine supports; return 0 unless one failed.

    Args:
        arguments: Command line; None: `sys.argv`.
        environment: Machine and versions; None: this machine's.
        torch_version: Installed version of torch; None: looked up.
    """
    options = _parse(arguments)
    results = options.results.resolve()
    environment = environment or describe_environment(None)
    reason = no_gpu(environment.machine, torch_version)
    if reason:
        for name in CHECKS:
            _print_line(str(GpuCheckVerdict(None, name, reason)))
        _print_never_checked()
        _print_line("0 passed, 0 failed: nothing was checked")
        return 0
    importable_from_anywhere()
    with tempfile.TemporaryDirectory(prefix="harness-check-") as folder:
        base = base_tables(options.model, options.data, Path(folder))
        with contextlib.chdir(folder), Runner() as runner:
            run = CheckRun("gpu", results, runner, Preparations(Path(folder)), environment, base)
            runner.wait_until_warm()
            verdicts = run_checks(run, CHECKS)
    verdicts.append(archive_verdict(run.files, results))
    _print_line(str(verdicts[-1]))
    _print_never_checked()
    passed, failed, skipped = (sum(verdict.passed is value for verdict in verdicts) for value in (True, False, None))
    _print_line(f"{passed} passed, {failed} failed, {skipped} not checked; {environment.machine.gpus[0].name}")
    return 1 if failed else 0


def archive_verdict(files: Sequence[Path], results: Path) -> GpuCheckVerdict:
    """Pack the records into one archive and report its name."""
    archive = results / ARCHIVE
    pack_records(files, results, archive)
    return GpuCheckVerdict(
        bool(files), f"{len(files)} records in {archive.name}", "`harness import` unpacks it elsewhere"
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m harness.workflows.gpu_check",
        description="Check everything that one GPU can verify, in minutes, offline and without installation.",
    )
    parser.add_argument("--results", type=Path, required=True, help="folder for records and the archive")
    parser.add_argument("--model", type=Path, help="folder of the embedded model (default: the installed one)")
    parser.add_argument("--data", type=Path, help="file of the packaged data (default: the installed one)")
    return parser.parse_args(arguments)


def no_gpu(machine: Machine, torch_version: str | None = None) -> str | None:
    """Return why no GPU can be used here, or None; `torch_version` defaults to the installed one."""
    if not machine.gpus:
        return f"no NVIDIA GPU here ({machine.gpu_note or 'NVML lists none'})"
    version = torch_version or package_version("torch")
    if version == "not installed":
        return "torch is not installed"
    return f"torch {version} is a CPU build" if "+cpu" in version else None


def base_tables(model: Path | None, data: Path | None, folder: Path) -> dict[str, Table]:
    """Return the tables that every cell's study starts from: 4,096 rows, so that one batch can exceed any GPU.

    A local model is linked into `folder` under a short name, so that records don't contain its path on this machine.
    """
    for path, option in ((model, "--model"), (data, "--data")):
        if path is not None and not path.exists():
            raise UserError(f"{option} {path}: no such file or folder")
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
    """Put this package on PYTHONPATH, so that child processes find it from any folder without installation."""
    root = str(PACKAGE_FOLDER.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))


def _print_never_checked() -> None:
    for name in NEVER_CHECKED:
        _print_line(str(GpuCheckVerdict(None, name, "one GPU can't tell")))


def _print_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        status = main()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        status = 2
    sys.exit(status)
