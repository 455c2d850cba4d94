"""Run the GPU checks that need no GPU on the CPU, in a process without the packages that only reports need.

Usage: python bare_parent.py RESULTS MODEL DATA TRAIN_S. Prints one verdict per line, the archive's last.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

HIDDEN_PACKAGES = {"datasets", "huggingface_hub", "jinja2", "plotly", "rich", "scipy", "sklearn", "typer"}


class HidePackages:
    """Import hook that hides packages in this process; the worker processes still see them."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN_PACKAGES:
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
        "model": {"name": model, "num_layers": 2},  # a third of the work, the same code paths
        "data": {"source": data, "num_train": 256, "num_val": 64, "num_test": 64},
        "matrix": {"seq_len": [24], "threads": [1]},
    }
    with tempfile.TemporaryDirectory() as folder, Runner() as runner:
        run = CheckRun(
            "cpu", Path(results), runner, Preparations(Path(folder)), describe_environment(None), base,
            models={"the embedded model": {}}, precisions=("fp32", "tf32"), train_s=float(train_s),
        )  # fmt: skip
        runner.wait_until_warm()
        verdicts = run_checks(
            run,
            {
                name: (check, needs_gpu)
                for name, (check, needs_gpu) in CHECKS.items()
                if not needs_gpu and "compile" not in name
            },
        )
    print(archive_verdict(run.files, Path(results)))
    sys.exit(any(verdict.passed is False for verdict in verdicts))


if __name__ == "__main__":
    sys.meta_path.insert(0, HidePackages())
    main()
