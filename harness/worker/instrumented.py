"""One cell's worker in this very process, for instruments around it: `python -m harness.worker.instrumented JOB PIPE LOG`.

JOB is a pickled TrainJob, PIPE the inherited descriptor that messages are sent to, LOG where all output goes.
"""

from __future__ import annotations

import pickle
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from harness.execution.messages import FilePages
from harness.worker import main as worker


def main() -> None:
    """Run it; after the worker's own messages comes `FilePages`: bytes of files' pages, which some instruments leave out."""
    job = pickle.loads(Path(sys.argv[1]).read_bytes())  # noqa: S301 - written by the parent, a moment ago
    pipe = Connection(int(sys.argv[2]), readable=False)
    worker.run(job, pipe, sys.argv[3])
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    of_files = sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssFile:", "RssShmem:")))
    pipe.send(FilePages(of_files))


if __name__ == "__main__":
    main()
