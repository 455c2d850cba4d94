"""The parent of one node of a cell, in a process of its own: runs the parts that it reads from stdin, until stdin ends.

A line of stdin is the path of a pickled `PartRequest`. It prints `ready` once, for each part `progress` with the ranks' process
ids at the first progress, and `done` when its `PartResult` is in the file beside the request.
"""

from __future__ import annotations

import importlib
import pickle
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.execution.jobs import Environment, NodePart, PreparedCell
from harness.execution.messages import Progress
from harness.execution.runner import Runner, run_worker
from harness.schema.cells import Cell


@dataclass(frozen=True)
class PartRequest:
    """What one node is to run; `worker` names a function of odd_workers, empty for the real worker."""

    cell: Cell
    prepared: PreparedCell
    environment: Environment
    part: NodePart
    worker: str = ""


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Runner() as runner:
        runner.wait_until_warm()
        say("ready")
        for line in sys.stdin:
            path = Path(line.strip())
            request: PartRequest = pickle.loads(path.read_bytes())
            odd_workers = importlib.import_module("odd_workers")
            runner.worker_entry = getattr(odd_workers, request.worker) if request.worker else run_worker
            result = runner.run_part(
                request.cell, request.prepared, request.environment, request.part, OnFirstProgress(runner)
            )
            path.with_suffix(".result").write_bytes(pickle.dumps(result))
            say("done")


class OnFirstProgress:
    """Prints the process ids of the node's ranks at the first progress."""

    def __init__(self, runner: Runner) -> None:
        self._runner, self._is_told = runner, False

    def __call__(self, message: object) -> None:
        if isinstance(message, Progress) and not self._is_told:
            self._is_told = True
            say("progress", *(rank.process.pid for rank in self._runner._cell.ranks))


def say(*words: object) -> None:
    print(*words, flush=True)


if __name__ == "__main__":
    main()
