"""Mutate frozen records, and read what is accepted with every reading command: no record may stop one.

Run: .venv/bin/python bench/bench_records.py [RECORDS]   (5,000 records: 5 minutes); exits with status 1 at a traceback
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.errors import UserError
from harness.store.record_files import decode_record, load_record, save_record
from tests.mutate_records import FROZEN, find_traceback, frozen_records, mutated_records

SEED = 20261201
BATCH = 12


def accepted_mutations(count: int) -> list[bytes]:
    """Return those of `count` mutated records that meet the schema."""
    accepted: dict[bytes, None] = {}

    @seed(SEED)
    @settings(
        max_examples=count, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck]
    )
    @given(mutated_records(frozen_records()))
    def mutate(content: bytes) -> None:
        try:
            decode_record(content)
        except UserError:
            return
        accepted[content] = None

    mutate()
    return list(accepted)


def main(arguments: Sequence[str]) -> None:
    """Print each traceback, and how many records there were."""
    count = int(arguments[0]) if arguments else 5000
    contents = accepted_mutations(count)
    print(
        f"{count:,} records: {count - len(contents):,} left aside, {len(contents):,} different ones accepted",
        flush=True,
    )
    num_failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good, study = folder / "good", folder / "mine.toml"
        for path in sorted(FROZEN.glob("v5/*.json")):
            save_record(load_record(path), good)
        study.write_text("[matrix]\nbatch_size = [8, 16]\n")
        for start in range(0, len(contents), BATCH):
            batch = contents[start : start + BATCH]
            problem = find_traceback(folder / f"{start}", batch, good, study)
            if problem is not None:
                num_failed += 1
                print(f"batch {start // BATCH}: {problem}", flush=True)
    print(f"{num_failed} of {-(-len(contents) // BATCH)} batches with a traceback")
    raise SystemExit(int(num_failed > 0))


if __name__ == "__main__":
    main(sys.argv[1:])
