"""The table of bench/bench_peers.py, on synthetic rounds: nothing is measured here."""

import importlib
import json
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[3] / "bench"


@pytest.fixture
def table(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("peers.table")


def evaluations(*pairs):
    return [{"train_s": seconds, "num_updates": 1, "accuracy": accuracy} for seconds, accuracy in pairs]


def test_first_steps_are_excluded_and_ratios_are_taken_per_round(table):
    def run(who, step_s):
        return {"who": who, "steps_s": [9.0, 9.0, 9.0, step_s, step_s], "train_s": 27 + 2 * step_s}

    rounds = [{"runs": [run("ours", ours), run("bare loop", bare), run("bare loop", bare + 0.2), run("ours", ours)]}
              for ours, bare in ((1.0, 0.9), (2.2, 1.9), (3.0, 2.4))]  # fmt: skip
    row, whole = table.steps_rows(rounds)
    assert row.ours == [1.0, 2.2, 3.0]
    assert row.theirs == pytest.approx([1.0, 2.0, 2.5])  # the median of a round's two runs
    assert row.ratios == pytest.approx([1.0, 1.1, 1.2])
    assert not row.met(1.02)
    assert row.met(1.01)
    assert whole.ours == [29.0, 31.4, 33.0]
    assert "| 1.100 | 1.000 to 1.200 | 3 | at most 1.01 | **no** |" in table.format_row(row)


def test_throughput_is_samples_per_second_over_a_whole_epoch(table):
    def run(who, seconds):
        return {"who": who, "num_rows": 600, "train_s": seconds}

    rounds = [
        {
            "runs": [
                run("ours, grouped", 10.0),
                run("Trainer, grouped", 13.0),
                run("Trainer, dynamic", 15.0),
                run("Trainer, max", 52.0),
            ]
        }
    ]
    rows = list(table.throughput_rows(rounds))
    assert [row.ratios for row in rows] == [[5.2], [1.5], [1.3]]
    assert rows[0].ours == [60.0]
    assert [row.met(row.ratios[0]) for row in rows] == [True, False, True]


def test_time_to_target_ends_at_the_first_evaluation_that_reaches_it(table):
    run = {"evaluations": evaluations((5.0, 0.70), (10.0, 0.75), (15.0, 0.73))}
    assert table.seconds_to(run, 0.74) == 10.0
    assert table.seconds_to(run, 0.75) == 10.0
    assert table.seconds_to(run, 0.76) is None


def test_a_seed_that_misses_the_target_counts_its_whole_training_and_fails_the_goal_if_ours(table):
    def make_round(ours, theirs):
        runs = [("ours, best recipe", ours, 20.0), ("Trainer, defaults", theirs, 100.0)]
        return {
            "settings": {"target": 0.74},
            "runs": [
                {"who": who, "evaluations": evaluations(*points), "train_s": all_s} for who, points, all_s in runs
            ],
        }

    reached, missed = ((10.0, 0.75),), ((50.0, 0.6), (100.0, 0.7))
    (row,) = table.recipe_rows([make_round(reached, ((50.0, 0.74),)), make_round(reached, missed)])
    assert row.ratios == [5.0, 10.0]
    assert row.met(7.5)
    assert row.note == "Trainer, defaults: not reached in 1 of 2"
    (row,) = table.recipe_rows([make_round(((10.0, 0.7),), missed)])
    assert not row.met(row.ratios[0])
    assert "ours, best recipe: not reached in 1 of 1" in table.format_row(row)


def test_start_and_sweep_times_are_compared_with_optimum_benchmark(table):
    def run(who, wall_s, first_step_s, step_s):
        cell = {"first_step_s": first_step_s, "steps_s": [0.5, step_s, step_s, step_s], "wall_s": wall_s - 1.0,
                "batch_size": 8, "reported_samples_per_s": 64.0, "start_s": 0.125, "load_s": 0.25}  # fmt: skip
        return {"who": who, "wall_s": wall_s, "cells": [cell]}

    rounds = [{"runs": [run("ours", 4.0, 1.0, 0.5), run("optimum-benchmark, process", 13.0, 8.0, 1.5),
                        run("optimum-benchmark, inline", 9.0, 2.0, 0.5)]}]  # fmt: skip
    begins, ends, command, slowed = table.start_rows(rounds)
    assert begins.ratios == [15.0]
    assert ends.ratios == [8.0]
    assert command.ratios == [3.25]
    assert slowed.ratios == [3.0]
    ours, theirs = table.start_notes(rounds)
    assert "0.12 to the process's first line, 0.25 to load model and rows, 0.50 in the first step" in ours
    assert "spent 58% of a cell's 12.0 s outside its steps. It reported 64 samples/s" in theirs
    assert "make 6.4" in theirs
    (row,) = table.sweep_rows(rounds)
    assert row.figure == "1 cells, the whole command, against optimum-benchmark"
    assert row.ratios == [3.25]


def test_the_report_lists_unmeasured_parts_and_omits_unsupported_precisions(table, tmp_path):
    refused = {"outcome": "unsupported", "reason": "no bf16"}
    runs = [{"who": f"{kind}, {dropout}", "steps_s": [1.0]} | (refused if kind == "bf16" else {})
            for kind in ("fp32", "bf16") for dropout in ("own dropout", "dropout 0")]  # fmt: skip
    machine = {"cpu": "a CPU", "num_usable": 2, "memory_bytes": 2**34, "python": "3.11.7"}
    text = json.dumps({"runs": runs, "settings": {"steps": 15}, "machine": machine, "started_at": "2026-11-26T02:00"})
    (tmp_path / "precision-0.json").write_text(text)
    report = table.write_report(tmp_path)
    assert "Not measured: steps, throughput, engine, recipe, start, sweep." in report
    assert "bf16" not in report
    assert "- a CPU, 2 cores used, 16 GiB, Python 3.11.7" in report
