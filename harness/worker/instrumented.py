"""Run one rank's worker under an external measuring tool: `python -m harness.worker.instrumented JOB PIPE LOG`.

The tool starts this process. JOB is a pickled `TrainJob`, PIPE the inherited file descriptor for messages, and LOG the file
for all output.
"""

from __future__ import annotations

import pickle
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from harness.execution.messages import FilePages
from harness.worker import main as worker


def main() -> None:
    """Run the job, then send `FilePages`: the bytes of mapped files in memory, which some tools leave out."""
    job = pickle.loads(Path(sys.argv[1]).read_bytes())  # noqa: S301 - the parent has just written this file
    pipe = Connection(int(sys.argv[2]), readable=False)
    worker.run(job, pipe, sys.argv[3])
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    file_bytes = sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssFile:", "RssShmem:")))
    pipe.send(FilePages(file_bytes))


if __name__ == "__main__":
    main()
