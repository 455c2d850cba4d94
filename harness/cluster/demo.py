"""Command of `make cluster-demo`: three nodes of different sizes on this computer, a study on each, and the page of all.

Nodes of one computer take turns, so that none disturbs another. A computer with fewer than three CPUs gives two sizes by its
CPUs, and a third by a control group that limits memory, if this user may make one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.cluster.local_cluster import LocalNode, local_cluster
from harness.errors import UserError
from harness.execution.memory_cgroup import make_cgroup

_NUM_NODES = 3
_CAP_BYTES = 4 * 2**30


@contextlib.contextmanager
def sizes(cpus: Sequence[int], num_nodes: int = _NUM_NODES) -> Iterator[list[LocalNode]]:
    """Provide nodes of different sizes, as many of them as this computer can give.

    Args:
        cpus: CPUs that this process may use.
        num_nodes: Number of sizes that are wanted.
    """
    counts = sorted({1, len(cpus), *(max(1, len(cpus) // 2**power) for power in range(1, num_nodes))}, reverse=True)
    nodes = [LocalNode(frozenset(cpus[:count])) for count in counts[:num_nodes]]
    group = None
    if len(nodes) < num_nodes and (group := make_cgroup(_CAP_BYTES, secrets.token_hex(4))) is not None:
        nodes.append(LocalNode(frozenset(cpus[:1]), groups=(str(group.path),)))
    try:
        yield nodes
    finally:
        if group is not None:
            with contextlib.suppress(OSError):
                group.path.rmdir()


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the nodes, run the study on each, and write the page; return the exit status.

    Args:
        arguments: Command line; None: `sys.argv`.
    """
    parser = argparse.ArgumentParser(prog="make cluster-demo", description="Three local Ray nodes, one study on each.")
    parser.add_argument("--study", default="smoke", help="name or file of the study")
    parser.add_argument("--out", type=Path, default=Path("build/cluster-demo"), help="folder of records and page")
    asked = parser.parse_args(arguments)
    began, results = time.perf_counter(), asked.out / "results"
    try:
        with sizes(sorted(os.sched_getaffinity(0))) as nodes, local_cluster(nodes) as cluster:
            _say(f"{len(nodes)} nodes and their head after {time.perf_counter() - began:.0f} s")
            status = _harness(
                ["run", asked.study, "--cluster", cluster.address, "--results", str(results), "--force"],
                cluster.variables,
            )
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if status == 0:
        status = _harness(
            ["report", "--study", asked.study, "--results", str(results), "--out", str(asked.out / "report")], {}
        )
    _say(f"{time.perf_counter() - began:.0f} s in all; no process and no file of Ray is left")
    return status


def _harness(command: list[str], variables: dict[str, str]) -> int:
    _say(f"harness {' '.join(command)}")
    return subprocess.run(
        [sys.executable, "-m", "harness", *command], env=os.environ | variables, check=False
    ).returncode


def _say(text: str) -> None:
    sys.stdout.write(f"cluster-demo: {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
