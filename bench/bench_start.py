"""Time from a cell's order to its first training step, and idle time between two cells.

Run: .venv/bin/pytest bench/bench_start.py
Both figures come from the records: `phases.first_step_s`, and the gap between the end of one record and the start of the
next.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from replay_clock import ReplayClock, replay

from harness.execution.sweep import NullListener, describe_environment, run_cells
from harness.schema.expansion import expand
from harness.schema.study_file import parse_study

NUM_CELLS = 10
STUDY = {
    "name": "bench-start",
    "baselines": False,
    "repeats": NUM_CELLS,
    "data": {"num_train": 64, "num_val": 16, "num_test": 16},
    "training": {"max_steps": 2},
    "matrix": {"batch_size": [16], "seq_len": [32]},
}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    cells = expand(parse_study(STUDY, "bench_start"))
    found = run_cells(cells, tmp_path_factory.mktemp("results"), describe_environment(None), NullListener())
    assert [record.outcome for record in found] == ["ok"] * NUM_CELLS
    return found


CLOCK = ReplayClock()


@pytest.mark.benchmark(timer=CLOCK)
def test_order_to_first_step(benchmark, records):
    replay(benchmark, CLOCK, [record.phases.first_step_s for record in records])


@pytest.mark.benchmark(timer=CLOCK)
def test_idle_between_cells(benchmark, records):
    ends = [record.started_at + timedelta(seconds=record.duration_s) for record in records]
    replay(
        benchmark,
        CLOCK,
        [(later.started_at - end).total_seconds() for end, later in zip(ends, records[1:], strict=False)],
    )
