"""bench/bench_compare_accuracy.py's simulations, a small part of them: false alarms and power of accuracy's verdict."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[3] / "bench"


@pytest.fixture
def simulation(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("bench_compare_accuracy")


def test_renumbered_seeds_of_one_recipe_are_seldom_better_or_worse(simulation):
    # 2.0 % of the bench's 2,000 trials; 6.5 % is the limit.
    verdicts = simulation.draw_trials(120, seed=1)
    assert simulation.share(verdicts, simulation.FALSE_ALARMS) <= 6.5


def test_seeds_that_differ_by_2_points_cause_few_false_alarms(simulation):
    # McNemar's test per seed, with Holm, gave a verdict in more than half of such trials.
    verdicts = simulation.count_row(150, (2, 3), 1000, 0.02)
    assert simulation.share(verdicts, simulation.FALSE_ALARMS) <= 6.5


def test_a_difference_of_3_points_is_found_with_five_seeds(simulation):
    verdicts = simulation.count_row(60, (5, 5), 1000, 0.01, 0.03)
    assert simulation.share(verdicts, ["better"]) >= 65
    assert verdicts["worse"] == 0
