"""Run, in a process that has only what cells need, those of the GPU's checks that need no GPU, on the CPU.

Usage: python bare_parent.py RESULTS MODEL DATA TRAIN_S; prints a verdict a line, and the archive's.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

NOT_THERE = {"datasets", "huggingface_hub", "jinja2", "plotly", "rich", "scipy", "sklearn", "typer"}


class NotInstalled:
    """As if these packages were not there; processes that train are others, and have them if they are."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in NOT_THERE:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main() -> None:
    results, model, data, train_s = sys.argv[1:]
    from harness.execution.preparation import Preparations
    from harness.execution.runner import Runner
    from harness.execution.sweep import describe_environment
    from harness.workflows.gpu_check.__main__ import archive_verdict, importable_from_anywhere, run_checks
    from harness.workflows.gpu_check.checks import CHECKS, CheckRun

    importable_from_anywhere()
    base = {
        "model": {"name": model, "num_layers": 2},  # a third of the work, and every path of the whole
        "data": {"source": data, "num_train": 256, "num_val": 64, "num_test": 64},
        "matrix": {"seq_len": [24], "threads": [1]},
    }
    with tempfile.TemporaryDirectory() as folder, Runner() as runner:
        run = CheckRun(
            "cpu", Path(results), runner, Preparations(Path(folder)), describe_environment(None), base,
            shapes={"the embedded model": {}}, precisions=("fp32", "tf32"), train_s=float(train_s),
        )  # fmt: skip
        runner.wait_until_warm()
        found = run_checks(run, {name: each for name, each in CHECKS.items() if not each[1] and "compile" not in name})
    print(archive_verdict(run.files, Path(results)))
    sys.exit(any(verdict.passed is False for verdict in found))


if __name__ == "__main__":
    sys.meta_path.insert(0, NotInstalled())
    main()
