"""No record that is accepted stops `run` or `train`, which read the records of this machine before they begin."""

from __future__ import annotations

from tests.mutate_records import BATCH, RUNNING, accepted_mutations, find_tracebacks


def test_three_hundred_mutated_records_stop_neither_run_nor_train(tmp_path):
    contents = accepted_mutations(300, 20261130)
    assert len(contents) > BATCH
    assert [problem for problem in find_tracebacks(tmp_path, contents, RUNNING) if problem] == []
