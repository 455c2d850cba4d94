"""No record that is accepted stops a command that reads records."""

from __future__ import annotations

from tests.mutate_records import BATCH, READING, accepted_mutations, find_tracebacks


def test_three_hundred_mutated_records_stop_no_command(tmp_path):
    """About 17 places did, e.g. a start without a zone, 0 CPUs, no predictions; bench/bench_records.py tries 5,000."""
    contents = accepted_mutations(300, 20261130)
    assert len(contents) > BATCH
    assert [problem for problem in find_tracebacks(tmp_path, contents, READING) if problem] == []
