"""Mutate frozen records, and read what is accepted with every command that reads records: no record may stop one.

Run: .venv/bin/python bench/bench_records.py [RECORDS]   (5,000 records: 10 minutes); exits with status 1 at a traceback
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.mutate_records import READING, RUNNING, accepted_mutations, find_tracebacks

SEED = 20261201


def main(arguments: Sequence[str]) -> None:
    """Print each traceback, and how many records there were."""
    count = int(arguments[0]) if arguments else 5000
    contents = accepted_mutations(count, SEED)
    print(
        f"{count:,} records: {len(contents):,} different ones accepted, the others left aside or equal to one of these",
        flush=True,
    )
    num_failed = num_batches = 0
    for commands in (READING, RUNNING):
        with tempfile.TemporaryDirectory() as folder:
            for problem in find_tracebacks(Path(folder), contents, commands):
                num_batches += 1
                if problem is not None:
                    num_failed += 1
                    print(f"batch {num_batches}: {problem}", flush=True)
    print(f"{num_failed} of {num_batches} batches with a traceback")
    raise SystemExit(int(num_failed > 0))


if __name__ == "__main__":
    main(sys.argv[1:])
