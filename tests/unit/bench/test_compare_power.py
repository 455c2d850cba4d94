"""bench/bench_compare_power.py's resampling, on trials with known noise."""

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


def write_trials(out, turns, *, run_sd, num_trials=6, num_rounds=3):
    """Write trials in the bench's format, odd ones slowed by 3 %; with turns of steps, both runs of a pair share noise."""
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
        fields = {"planted": planted, "rounds": num_rounds, "verdict": "slower" if planted else "no difference"}
        (folder / "trial.json").write_text(
            json.dumps(fields | {"trial": trial, "ratio": 0.97, "low": 0.96, "high": 0.98, "seconds": 120.0})
        )


@pytest.mark.parametrize(("turns", "run_sd"), [("runs", 0.004), ("steps", 0.08)])
def test_a_planted_3_percent_is_detected_and_slowdowns_in_the_data_are_divided_out(power, tmp_path, turns, run_sd):
    write_trials(tmp_path, turns, run_sd=run_sd)
    result = power.resample(tmp_path, turns, num_trials=200, num_rounds=4, seed=1)
    assert result["found"] >= 0.9 and result["found_faster"] == 0
    assert result["false_alarms"] <= 0.11
    assert result["num_runs"] == 6 * 12


def test_verdicts_follow_from_the_confidence_intervals(power):
    verdicts = [
        power.verdict_of(power.by_pairs([shift - 0.002, shift, shift + 0.002])) for shift in (0, -0.05, 0.05, -0.02)
    ]
    assert verdicts == ["no difference", "slower", "faster", "no difference"]
    assert power.verdict_of(power.by_pairs([-0.08, 0, 0.08])) == "cannot tell"


def test_noise_between_runs_hides_3_percent_when_runs_are_interleaved(power, tmp_path):
    write_trials(tmp_path, "runs", run_sd=0.08)
    result = power.resample(tmp_path, "runs", num_trials=200, num_rounds=4, seed=1)
    assert result["found"] < 0.3 and result["false_alarms"] <= 0.11
    assert result["sd_of_runs"] == pytest.approx(0.08, rel=0.25)


def test_the_report_counts_the_verdicts(power, tmp_path):
    write_trials(tmp_path, "runs", run_sd=0.01)
    report = power.report(tmp_path, "runs")
    assert "3 planted: 3 slower" in report and "3 null: 3 no difference" in report
    first = next(line for line in report.splitlines() if line.startswith("| 1 | 3 % | 3 |"))
    assert float(first.split(" | ")[3].split()[0]) == pytest.approx(1 / 1.03, abs=0.01)  # recomputed from the records
    assert first.endswith("| slower | 120 |")
