"""bench/bench_compare_power.py's resampling, on trials whose noise is known."""

from __future__ import annotations

import importlib
import json
import math
import random
from pathlib import Path

import pytest

from harness.store.record_files import save_record
from tests.make_records import make_record

BENCH = Path(__file__).parents[3] / "bench"


@pytest.fixture
def power(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("bench_compare_power")


def lay_trials(out, turns, *, run_sd, num_trials=6, num_rounds=3):
    """Trials as the bench writes them; odd ones slowed by 3 %. By steps, both runs of a pair share their noise."""
    rng = random.Random(5)
    for trial in range(1, num_trials + 1):
        folder, planted = out / turns / f"trial-{trial:02d}", trial % 2 == 1
        order = "ABBA" * num_rounds if turns == "runs" else "AB" * 2 * num_rounds
        repeats, level = {"A": 0, "B": 0}, 0.0
        for index, side in enumerate(order):
            if turns == "runs" or side == "A":
                level = rng.gauss(0, run_sd)
            slow = 1.03 if planted and side == "B" else 1.0
            seconds = [slow * math.exp(level + rng.gauss(0, 0.005)) * (1 + 0.1 * (step % 2)) for step in range(40)]
            record = make_record(minutes=100 * trial + index, repeat=repeats[side], training={"seconds": seconds})
            save_record(record, folder / side)
            repeats[side] += 1
        told = {"planted": planted, "rounds": num_rounds, "verdict": "slower" if planted else "no difference"}
        (folder / "trial.json").write_text(
            json.dumps(told | {"trial": trial, "ratio": 0.97, "low": 0.96, "high": 0.98, "seconds": 120.0})
        )


@pytest.mark.parametrize(("turns", "run_sd"), [("runs", 0.004), ("steps", 0.08)])
def test_three_percent_is_found_and_what_was_planted_before_is_divided_out(power, tmp_path, turns, run_sd):
    lay_trials(tmp_path, turns, run_sd=run_sd)
    found = power.resample(tmp_path, turns, num_trials=200, num_rounds=4, seed=1)
    assert found["found"] >= 0.9 and found["found_faster"] == 0
    assert found["false_alarms"] <= 0.11
    assert found["num_runs"] == 6 * 12


def test_a_verdict_is_that_of_a_comparison(power):
    said = [
        power.verdict_of(power.by_pairs([shift - 0.002, shift, shift + 0.002])) for shift in (0, -0.05, 0.05, -0.02)
    ]
    assert said == ["no difference", "slower", "faster", "no difference"]
    assert power.verdict_of(power.by_pairs([-0.08, 0, 0.08])) == "cannot tell"


def test_noise_between_runs_hides_it_where_runs_take_turns(power, tmp_path):
    lay_trials(tmp_path, "runs", run_sd=0.08)
    found = power.resample(tmp_path, "runs", num_trials=200, num_rounds=4, seed=1)
    assert found["found"] < 0.3 and found["false_alarms"] <= 0.11
    assert found["sd_of_runs"] == pytest.approx(0.08, rel=0.25)


def test_the_report_counts(power, tmp_path):
    lay_trials(tmp_path, "runs", run_sd=0.01)
    said = power.report(tmp_path, "runs")
    assert "3 planted: 3 slower" in said and "3 null: 3 no difference" in said
    first = next(line for line in said.splitlines() if line.startswith("| 1 | 3 % | 3 |"))
    assert float(first.split(" | ")[3].split()[0]) == pytest.approx(1 / 1.03, abs=0.01)  # from the records, judged anew
    assert first.endswith("| slower | 120 |")
