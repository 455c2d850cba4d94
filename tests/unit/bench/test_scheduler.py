"""The simulated cluster that measures the scheduler: small worlds, and schedulers with a fault that it must find."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cluster.scheduler import Scheduler

BENCH = Path(__file__).parents[3] / "bench"


@pytest.fixture
def simulated(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("simulated_cluster")


def small(simulated, **fields):
    return replace(simulated.World(num_nodes=20, num_kinds=4, num_cells=200, deaths_per_hour=0.2), **fields)


@pytest.mark.parametrize("fields", [{}, {"replaced": False}, {"even": False}, {"deaths_per_hour": 0.0}])
def test_a_study_ends_within_the_bound(simulated, fields):
    outcome = simulated.simulate(small(simulated, **fields), seed=1)
    assert 0.95 * outcome.least_s <= outcome.makespan_s
    assert outcome.num_placements == 200 + outcome.num_lost
    assert (outcome.num_deaths > 0) == (fields.get("deaths_per_hour") != 0.0)
    if not outcome.num_deaths:
        assert outcome.makespan_s <= outcome.bound_s
        assert outcome.spread_share > 0.9  # five repeats on five hosts


def test_a_budget_for_half_of_it_gives_cells_up(simulated):
    free = simulated.simulate(small(simulated), seed=1)
    outcome = simulated.simulate(small(simulated, budget_usd=0.5 * 20 * free.makespan_s / 3600), seed=1)
    assert 0 < outcome.num_given_up < 200


def test_a_scheduler_that_loses_cells_is_found_out(simulated, monkeypatch):
    class Losing(Scheduler):
        @property
        def is_finished(self) -> bool:
            return len(self.done) > 100

    monkeypatch.setattr(simulated, "Scheduler", Losing)
    with pytest.raises(AssertionError, match="a cell was lost"):
        simulated.simulate(small(simulated), seed=1)


def test_a_scheduler_that_runs_a_cell_twice_is_found_out(simulated, monkeypatch):
    class Doubling(Scheduler):
        def end_cell(self, key: str, now: float, *, retry: bool) -> None:
            super().end_cell(key, now, retry=key == "0-0-k0" or retry)

    monkeypatch.setattr(simulated, "Scheduler", Doubling)
    with pytest.raises(AssertionError, match="0-0-k0 ended twice"):
        simulated.simulate(small(simulated), seed=1)
